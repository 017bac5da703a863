"""Whole runs of methods beside ContextSSL: exact resume, and what a report of them says."""

import contextlib
import itertools
import json

import jax
import numpy as np
import pytest
from etils import epath
from tiny import QUICK, run

from contextssl_jax import train
from contextssl_jax.config import parse_command_line
from contextssl_jax.experiment import build_experiment
from contextssl_jax.run.checkpoint import load_checkpoint

SMALL = (*QUICK, "--config.data.pairs=4",
         "--config.eval.probe.hidden=(4,)",
         "--config.eval.batch=32", "--config.eval.images=10")  # fmt: skip
SIE = (*SMALL, "--config.method=sie", "--config.model.projector.widths=(8,8,6)",
       "--config.model.projector.predictor=hypernetwork")  # fmt: skip
REPORTED = "--config.eval.every=4"
PICTURES = {"adaptation.png", "neighbours.png", "curves.png"}


def state_of(workdir, step):
    """All that was saved, by name."""
    config = parse_command_line(["main", *SIE], ("train",)).config
    template = build_experiment(config).template()
    names = ("params", "batch_stats", "opt_state")
    parts = {name: getattr(template, name) for name in names}
    state = load_checkpoint(epath.Path(workdir), parts, step).state
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def report_of(workdir):
    folder = workdir / "eval" / "4"
    assert PICTURES < {path.name for path in folder.iterdir()}
    page = (folder / "report.md").read_text()
    return json.loads((folder / "report.json").read_text()), page


@pytest.fixture(scope="module")
def sie(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sie")
    looks = ("--config.monitor.every=4", "--config.monitor.fit_views=20",
             "--config.monitor.test_views=10")  # fmt: skip
    assert run(*SIE, REPORTED, *looks, f"--workdir={workdir}") == 0
    return workdir


def test_two_steps_and_two_more_are_four(sie, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def stopped_at_2(action):  # as by a signal
        calls = itertools.count()  # before each step
        yield lambda: next(calls) >= 2

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_signals", stopped_at_2)
        assert run(*SIE, f"--workdir={tmp_path}") == 0
    first = state_of(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert run(*SIE, f"--workdir={tmp_path}") == 0
    expected, found = state_of(sie, 4), state_of(tmp_path, 4)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    statistics = [name for name in expected if name.startswith("['batch_stats']")]
    for head in ("invariant", "equivariant"):
        assert sum(f"['{head}']" in name for name in statistics) == 4  # mean, var of two layers
    for name in statistics:
        assert (first[name] != found[name]).any() and len(np.unique(found[name])) > 1


def test_a_report_without_contexts_has_length_0_only(sie):
    report, page = report_of(sie)
    result = report["provenance"]
    assert result["lengths"] == [0] and result["environments"] == ["crop", "blur"]
    assert report["adaptivity"] == {} and "predictor_r2" not in report
    assert "accuracy_told" not in report and "accuracy_embeddings" in report
    for environment in ("crop", "blur"):
        assert list(report["r2"][environment]["crop"]["linear"]["single"]) == ["0"]
        assert list(report["retrieval"][environment]["mrr"]) == ["0"]
    # Views alone are embedded the same in all environments; with an action, by what is shown.
    assert report["r2"]["crop"] == report["r2"]["blur"]
    assert "no context" in page and "sie on synthetic" in page
    for title in ("R² of probes", "Classes from embeddings", "Retrieval", "Time"):
        assert title in page
    for title in ("Adaptivity", "own predictor", "Classes predicted by the model"):
        assert title not in page
    looks = [json.loads(line) for line in (sie / "metrics.jsonl").read_text().splitlines()]
    monitored = [name for name in looks[-1] if "r2/" in name]
    assert monitored and all(name.endswith("/0") for name in monitored)


def test_a_report_of_supervised_has_predicted_classes(tmp_path):
    options = ("--config.method=supervised", "--config.supervised.group=crop")
    assert run(*SMALL, *options, REPORTED, f"--workdir={tmp_path}") == 0
    report, page = report_of(tmp_path)
    result = report["accuracy_told"]
    assert {e: list(by) for e, by in result.items()} == dict.fromkeys(("crop", "blur"), ["0", "4"])
    assert all(0 <= value <= 1 for by in result.values() for value in by.values())
    # Without a context one prediction cannot be right in both, whose classes are 10 apart.
    assert result["crop"]["0"] + result["blur"]["0"] <= 1
    assert "predictor_r2" in report and report["adaptivity"]
    assert "Classes predicted by the model" in page and "own predictor" in page
