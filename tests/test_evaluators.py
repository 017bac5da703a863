"""A new evaluator reaches report, tables, comparison and sweeps by one entry in the dict."""

import json

import pytest
from etils import epath
from handmade import finish, report

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.evaluate import build_evaluation
from contextssl_jax.evaluation.evaluators import EVALUATORS, all_metrics
from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    LENGTH,
    Comparison,
    Evaluator,
    Level,
    Metric,
    TableLayout,
    nest,
)
from contextssl_jax.evaluation.stored import read_report
from contextssl_jax.experiment import build_experiment
from contextssl_jax.reports.comparison import main as compare
from contextssl_jax.reports.tables import tables
from contextssl_jax.sweeps import Sweep, Variant
from contextssl_jax.sweeps.page import write_page
from contextssl_jax.sweeps.runs import list_runs

NAMES = {"p": "entries of an embedding", "n": "records"}
CAPTION = 260  # characters that fit two lines of a page
METRIC = Metric(
    "sizes",
    (CONTEXT, Level("metric", NAMES), LENGTH),
    "whole numbers",
    TableLayout("Sizes", "Numbers of embeddings.", lambda report: "Of test views."),
    Comparison(),
)


def evaluate(inputs, embeddings):
    _, n, _, p = embeddings.test.shape
    conditions = inputs.conditions
    value = {"p": float(p), "n": float(n)}
    return {
        "sizes": nest(
            lambda e, name: dict.fromkeys(map(str, conditions.lengths), value[name]),
            conditions.environments,
            NAMES,
        )
    }


@pytest.fixture(autouse=True)
def entry(monkeypatch):
    terms = {"entries": "Numbers of a vector."}
    monkeypatch.setitem(EVALUATORS, "sizes", Evaluator((METRIC,), evaluate, terms=terms))


def test_the_report_and_its_tables_have_it(config):
    config.eval.update(draws=2, lengths=(0, 2))
    config.eval.probe.steps = 1
    experiment = build_experiment(config)
    made = build_evaluation(config, experiment)(experiment.init().variables, 1).report
    assert made["sizes"]["none"] == {"p": {"0": 16.0, "2": 16.0}, "n": {"0": 48.0, "2": 48.0}}
    assert made["sizes_std"]["crop"]["n"] == {"0": 0.0, "2": 0.0}
    assert "sizes" in made["provenance"]["seconds"]
    found = tables(made)
    table = found["sizes"]
    assert table.title == "Sizes" and table.header == ("context", "metric", "0", "2")
    assert table.rows[0] == ["crop", "entries of an embedding", *["16.000 ± 0.000"] * 2]
    assert table.caption == "Numbers of embeddings. Values: whole numbers."
    assert ["Sizes", "Of test views."] in found["methods"].rows
    assert ["entries", "Numbers of a vector."] in found["glossary"].rows


def runs_with(tmp_path, values):
    """Finished runs of one variant, one for each value; None leaves the metric out."""
    sweep = Sweep("A sweep", (Variant("one", "configs/debug.py", {"eval.lengths": (0, 2)}),))
    runs = list_runs(sweep, epath.Path(tmp_path), tuple(range(len(values))))
    for run, value in zip(runs, values, strict=True):
        made = report(run, lambda *path: 0.5, lengths=(0, 2))
        if value is not None:
            made["sizes"] = nest(lambda *_, value=value: value, made["r2"], NAMES, ("0", "2"))
        finish(run, made)
    return sweep, runs


def test_comparison_and_sweeps_have_it_also_beside_older_reports(tmp_path, capsys):
    sweep, runs = runs_with(tmp_path, (4.0, 8.0, None))
    folders = [str(run.workdir) for run in runs]
    assert compare(["", *folders, f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out.partition("Sizes\n")[2].splitlines()
    rows = [line.split() for line in printed if line.startswith("crop  ")]
    assert rows[0] == ["crop", *"entries of an embedding".split(), "seed_0", "4.000", "4.000"]
    assert [row[-3:] for row in rows[:2]] == [
        ["seed_0", *["4.000"] * 2],
        ["seed_1", *["8.000"] * 2],
    ]
    assert not any("seed_2" in row for row in rows)
    made = {table.title: table for table in write_page(epath.Path(tmp_path), sweep, runs)}
    table = made["Sizes"]
    assert table.header == ("method", "context", "seeds", "metric", "0", "2")
    assert list(table.rows[0]) == ["one", "crop", 3, NAMES["p"], *["6.000 ± 2.828"] * 2]
    pooled = json.loads((tmp_path / "sweep.json").read_text())["figures"]["one"]["sizes"]
    assert pooled["none"]["n"]["2"]["seeds"] == {"0": 4.0, "1": 8.0}


@pytest.mark.parametrize(
    "sizes", [4.0, {"crop": {"p": 4.0}}, {"crop": {"p": {"0": "4", "2": 4.0}}}]
)
def test_stored_values_are_validated_by_its_levels(sizes, tmp_path):
    _, (run,) = runs_with(tmp_path, (4.0,))
    assert read_report(run.report)["sizes"]
    made = json.loads(run.report.read_text())
    run.report.write_text(json.dumps(made | {"sizes": sizes}))
    with pytest.raises(UserError, match="is no report of an evaluation"):
        read_report(run.report)


def test_captions_have_two_lines_at_most():
    for metric in all_metrics():
        if metric.table is not None:
            assert len(f"{metric.table.note} Values: {metric.unit}.") < CAPTION, metric.key


def test_keys_of_metrics_are_unique():
    keys = [metric.key for metric in all_metrics()]
    assert len(keys) == len(set(keys)) and not any(key.endswith("_std") for key in keys)
