"""The introduction of a sweep's page: states of runs, options, and the data behind values."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.sweeps.definition import Sweep, as_text
from contextssl_jax.sweeps.pooled import Report, Result
from contextssl_jax.sweeps.runs import OF_CONTEXTS, Run, State
from contextssl_jax.sweeps.stored import ALIKE


def introduction(
    sweep: Sweep, runs: Sequence[Run], states: Sequence[State], settings: Sequence[str]
) -> list[str]:
    """Return paragraphs on the runs, common options, missing runs and differing evaluations."""
    done = sum(state.kind == "done" for state in states)
    common = [f"{name}={as_text(value)}" for name, value in sweep.overrides.items()]
    common += settings
    lines = [
        f"{done} of {len(runs)} runs are done: {_count(len(sweep.points), 'variant')},"
        f" {_count(len({run.seed for run in runs}), 'seed')}"
        + (
            f"; options of all variants that do not override them: {', '.join(common)}."
            if common
            else "."
        )
    ]
    left: dict[tuple[str, str], list[str]] = defaultdict(list)  # seeds by variant and reason
    for run, state in zip(runs, states, strict=True):
        if state.kind != "done":
            reason = f"{state.kind}{': ' if state.said else ''}{state.said}"
            left[run.point.label, reason].append(str(run.seed))
    if left:
        listed = [
            f"{label}, {'seeds' if seeds[1:] else 'seed'} {', '.join(seeds)} ({reason})"
            for (label, reason), seeds in left.items()
        ]
        lines.append(f"Not in the tables: {'; '.join(listed)}.")
    lines += _differences([state.report for state in states if state.report is not None])
    return lines


def _differences(reports: Sequence[Report]) -> list[str]:
    """Return a warning if reports differ in the settings of their evaluation."""
    differences = []
    for name in ALIKE:
        some = _with_contexts(reports) if name in OF_CONTEXTS else reports
        values = {json.dumps(r["provenance"].get(name), sort_keys=True) for r in some}
        if len(values) > 1:
            differences.append(f"{name} ({truncate(' or '.join(sorted(values)))})")
    views = {r["provenance"]["views"]["test"]["views"] for r in reports}
    if len(views) > 1:
        differences.append(f"test views ({' or '.join(map(str, sorted(views)))})")
    if not differences:
        return []
    return [f"Warning: the evaluations of these reports differ in {', '.join(differences)}."]


def count_seeds(results: Sequence[Result]) -> str:
    """Return the number of seeds, or its range over variants."""
    counts = sorted({len(result.reports) for result in results})
    least, most = counts[0], counts[-1]
    return _count(most, "seed") if least == most else f"{least} to {most} seeds"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def describe_data(results: Sequence[Result]) -> str:
    """Return the data, step, contexts and views behind a seed's values."""
    reports = [report for result in results for report in result.reports.values()]

    def all_of(
        value_of: Callable[[Mapping[str, Any]], Any], some: Sequence[Report] = reports
    ) -> str:
        return " or ".join(dict.fromkeys(str(value_of(r["provenance"])) for r in some))

    contexts = ""
    if with_contexts := _with_contexts(reports):
        number, split = (
            all_of(itemgetter(name), with_contexts) for name in ("draws", "context_split")
        )
        contexts = (
            f"each seed the mean over {number} {split} context{'' if number == '1' else 's'}, "
        )
    return (
        f"{all_of(itemgetter('data'))}, step {all_of(itemgetter('step'))}; {contexts}"
        f"{all_of(lambda p: format(p['views']['test']['views'], ','))}"
        f" {all_of(lambda p: p['views']['test']['split'])} views"
    )


def _with_contexts(reports: Sequence[Report]) -> list[Report]:
    """Return the reports of methods with contexts."""
    return [report for report in reports if report_uses_context(report["provenance"])]
