"""The benchmark for a machine with an accelerator: all parts, failures, and the end of its time."""

import json
import math

import pytest
from etils import epath
from tiny import QUICK

from contextssl_jax.benchmarks import accelerator


def fail(*arguments) -> None:
    raise ValueError("no such thing")


@pytest.fixture
def quick(monkeypatch):
    """Replace the parts that take long, one by a failure."""
    monkeypatch.setattr(accelerator, "measure_pipeline", lambda *_: {"pairs_per_second": 1})
    monkeypatch.setattr(accelerator, "measure_saving", lambda *_: {"pause_seconds": 1})
    monkeypatch.setattr(accelerator, "measure_evaluation", fail)
    monkeypatch.setattr(accelerator, "_LEAST_TRAINING", -math.inf)
    monkeypatch.setattr(accelerator, "_SIGTERM_INTERVAL", 0.01)


def test_parts_are_written_a_failure_is_recorded_and_training_ends_in_time(quick, tmp_path, capsys):
    estimate, out = tmp_path / "estimate.json", tmp_path / "out.json"
    estimate.write_text('{"milliseconds": 45.0}')
    options = ("--config.train.steps=1000000", "--minutes=0")
    files = (f"--estimate={estimate}", f"--out={out}", f"--workdir={tmp_path / 'run'}")
    assert accelerator.main(["accelerator", *QUICK, *options, *files]) == 1
    results = json.loads(out.read_text())
    assert results["estimate"] == {"milliseconds": 45.0}
    assert list(results["parts"]) == ["step", "pipeline", "saving", "evaluation", "training"]
    assert results["parts"]["evaluation"]["error"] == "ValueError: no such thing"
    step = results["parts"]["step"]
    assert step["flops"] > 0 and step["seconds_per_step"] > 0
    assert "error" not in results["parts"]["training"]
    assert (tmp_path / "run" / "checkpoints").exists()  # it has saved, and can resume
    error = capsys.readouterr().err
    assert "SIGTERM: saving, then stopping" in error and "stopped at step" in error


def test_training_is_summarized_by_its_log_lines(tmp_path):
    lines = [{"step": i, "loss": 1.0, "views_per_second": i, "step_seconds": 1.0, "data_wait": 0.0}
             for i in (1, 2, 9)]  # fmt: skip
    monitored = {"step": 9, "monitor/knn": 0.5}
    text = "".join(json.dumps(line) + "\n" for line in (*lines, monitored))
    (tmp_path / "metrics.jsonl").write_text(text)
    found = accelerator._summarize(epath.Path(tmp_path))
    assert found["last_line"]["step"] == 9 and found["median_views_per_second"] == 2


def test_an_unreadable_estimate_is_one_line(tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert accelerator.main(["accelerator", *QUICK, f"--estimate={missing}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --estimate: cannot read") and error.count("\n") == 1
