"""Comparing runs: whatever they have in common, side by side, and one line for a mistake."""

import json

import pytest

from contextssl_jax.reports.comparison import main


def report(groups, lengths, value, std=None):
    """A report whose figures are the value plus a hundredth of the length."""
    environments = [*groups, "none"]

    def tree(*levels):
        if levels:
            return {key: tree(*levels[1:]) for key in levels[0]}
        return {str(c): value + c / 100 for c in lengths}

    probes = ("ridge_weak", "ridge_strong", "linear", "mlp")
    targets = ("single", "pair")
    made = {
        "provenance": {
            **dict(method="contextssl", data="synthetic", config="abc", seed=0, step=5, draws=1),
            **dict(context_split="train", lengths=list(lengths), environments=environments),
            "groups": list(groups),
            "views": {"test": {"split": "test", "records": 4, "views": 8}},
        },
        "r2": tree(environments, groups, probes, targets),
        "r2_features": {g: {p: dict.fromkeys(targets, value) for p in probes} for g in groups},
        "adaptivity": tree(groups, probes, targets),
        "retrieval": tree(environments, ("mrr",)),
        "accuracy_features": {"linear": {"1.0": value}, "knn": {"1.0": value}},
    }
    if std is not None:
        for name in ("r2", "adaptivity", "retrieval"):
            made[f"{name}_std"] = json.loads(json.dumps(made[name]), parse_float=lambda _: std)
    return made


def write(folder, made, step=None):
    folder = folder if step is None else folder / "eval" / str(step)
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(made))


@pytest.fixture
def runs(tmp_path):
    """Two runs of different groups, lengths and spread; the first has two reports."""
    write(tmp_path / "first", report(("crop", "blur"), (0, 2), 0.111), 5)
    write(tmp_path / "first", report(("crop", "blur"), (0, 2), 0.222), 40)
    write(tmp_path / "second", report(("crop",), (0, 14), 0.333, std=0.044))
    return tmp_path


def test_runs_stand_side_by_side(runs, capsys):
    out = runs / "out"
    assert main(["", str(runs / "first"), str(runs / "second"), f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    adaptivity = lines[lines.index(["group", "run", "0", "2", "14"]) :]
    # The newest report of a working directory; lengths that a run lacks are dashes.
    assert adaptivity[1] == ["crop", "first", "0.222", "0.242", "–"]
    assert adaptivity[2] == ["crop", "second", *"0.333 ± 0.044 – 0.473 ± 0.044".split()]
    assert adaptivity[3] == ["blur", "first", "0.222", "0.242", "–"]
    assert "0.111" not in printed
    assert {p.name for p in out.iterdir()} == {f"comparison.{k}" for k in ("md", "html", "png")}
    assert "0.473 ± 0.044" in (out / "comparison.md").read_text()


def test_steps_of_one_run_have_different_labels(runs, capsys):
    steps = [str(runs / "first" / "eval" / step) for step in ("5", "40")]
    assert main(["", *steps, f"--out={runs / 'out'}", "--probe=mlp", "--target=pair"]) == 0
    printed = capsys.readouterr().out
    assert (
        "0.111" in printed
        and "0.222" in printed
        and "MLP probe, action between two views" in printed
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "RUN"),
        (("{}/nowhere",), "nowhere: has no report. Make one with --mode=eval"),
        (("{0}/first", "{0}/first/eval/40"), "a report is named twice"),
        (("{}/first", "--probe=knn"), "--probe"),
        (("{}/first", "--out=/dev/null/x"), "--out: cannot write"),
        (("{}/cut",), "cannot be read"),
        (("{}/other",), "is no report"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, runs, capsys):
    for name, text in (("cut", "{"), ("other", "[]")):
        (runs / name).mkdir()
        (runs / name / "report.json").write_text(text)
    assert main(["", *(argument.format(runs) for argument in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
