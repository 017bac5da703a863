"""Runs of sweeps that are done without being run: their folders, with reports made by hand."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from contextssl_jax.config import to_json
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.run.workdir import fingerprint
from contextssl_jax.sweeps.runs import Run

LENGTHS = (0, 2, 14, 30, 126)
Figure = Callable[..., float]  # of the figure's path


def report(
    run: Run,
    figure: Figure,
    *,
    lengths: Sequence[int] = LENGTHS,
    groups: Sequence[str] | None = None,
    predicted: bool = False,
    **provenance: Any,
) -> dict[str, Any]:
    """A report of the run with figure(name, key, key, ...) at each place."""
    groups = groups or run.config.groups
    environments = [*groups, *(["+".join(groups)] if len(groups) > 1 else []), "none"]

    def tree(path: tuple[str, ...], *levels: Sequence[Any]) -> Any:
        if not levels:
            return figure(*path)
        return {str(key): tree((*path, str(key)), *levels[1:]) for key in levels[0]}

    options = run.config.eval
    made: dict[str, Any] = {
        "provenance": {
            **dict(
                method=run.config.method,
                data="synthetic",
                config=fingerprint(run.config),
            ),
            **dict(seed=run.seed, step=run.config.train.steps, evaluation_seed=options.seed),
            **{name: options[name] for name in ("draws", "context_split", "sparse")},
            "probe": options.probe.to_dict(),
            "lengths": list(lengths),
            "retrieval_chance": {"mrr": 0.09, "hit@1": 0.02, "hit@5": 0.1},
            "views": {"test": {"split": "test", "records": 450, "views": 900}},
            **{"draws_of": "contexts", "context_mask": "causal", "rounding": 0.0},
            **provenance,
        }
    }
    for kind in ("", "_global"):
        by_probe = (groups, PROBES, TARGETS)
        made[f"r2{kind}"] = tree((f"r2{kind}",), environments, *by_probe, lengths)
        made[f"r2_features{kind}"] = tree((f"r2_features{kind}",), *by_probe)
        some = by_probe if list(lengths) != [0] else ((), (), ())
        made[f"adaptivity{kind}"] = tree((f"adaptivity{kind}",), *some, lengths)
    measures = ("mrr", "hit@1", "hit@5")
    made["retrieval"] = tree(("retrieval",), environments, measures, lengths)
    made["accuracy_features"] = tree(("accuracy_features",), ("linear", "knn"), ("1.0", "0.1"))
    if predicted:
        made["accuracy_told"] = tree(("accuracy_told",), environments, lengths)
    return made


def finish(run: Run, made: dict[str, Any]) -> None:
    """Writes what a run that is done leaves behind, as far as sweeps look at it."""
    run.report.parent.mkdir(parents=True)
    (run.workdir / "config.json").write_text(to_json(run.config))
    (run.workdir / "checkpoints" / str(run.config.train.steps)).mkdir(parents=True)
    run.report.write_text(json.dumps(made))
