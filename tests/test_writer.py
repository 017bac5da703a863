"""Lines are means over their steps, whoever took them, and a lost line is taken again."""

import json
import math

import jax.numpy as jnp
import pytest
from etils import epath

from contextssl_jax.run.metric_writer import MetricWindow, MetricWriter, NonFiniteError


def metrics(loss: float, r2: float = 0.5) -> dict:
    return {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1), "r2": jnp.float32(r2)}


def writer(folder, start: int, resumed: bool = False, enabled: bool = True) -> MetricWriter:
    return MetricWriter(
        epath.Path(folder),
        start=start,
        resumed=resumed,
        total=10,
        views=8,
        tensorboard=not enabled,
        enabled=enabled,
    )


def test_a_line_is_the_mean_over_the_steps_that_tell():
    window = MetricWindow([])
    for step, (loss, r2) in enumerate([(1, 0.2), (2, math.nan), (6, 0.4)], start=1):
        window.add(step, metrics(loss, r2), began=math.nan, wait=0.5)
    means = window.close()
    assert means["loss"] == 3 and means["r2"] == pytest.approx(0.3) and means["data_wait"] == 0.5
    assert "step_seconds" not in means  # no step's time was to count
    window.add(4, metrics(7), began=0.0, wait=0)
    assert window.close()["loss"] == 7


def test_a_window_goes_on_after_a_resume():
    whole, first = MetricWindow([]), MetricWindow([])
    for step in range(1, 6):
        whole.add(step, metrics(0.1 * step), began=math.nan, wait=0)
    for step in range(1, 4):
        first.add(step, metrics(0.1 * step), began=math.nan, wait=0)
    saved = first.host()
    first.add(4, metrics(99), began=math.nan, wait=0)  # while the save is being written
    first.host()
    second = MetricWindow(json.loads(json.dumps(saved)))
    for step in range(4, 6):
        second.add(step, metrics(0.1 * step), began=math.nan, wait=0)
    assert second.close() == whole.close()


@pytest.mark.parametrize("name, value", [("loss", math.nan), ("gradient_norm", math.inf)])
def test_the_first_step_that_is_not_finite_is_named(name, value):
    window = MetricWindow([])
    window.add(7, metrics(1.0), began=0.0, wait=0)
    window.add(8, metrics(1.0) | {name: jnp.float32(value)}, began=0.0, wait=0)
    window.add(9, metrics(math.nan), began=0.0, wait=0)
    with pytest.raises(NonFiniteError, match=f"step 8: {name} is {value}"):
        window.close()


def test_lines_of_lost_steps_are_taken_out(tmp_path):
    with writer(tmp_path, 0) as first:
        for step in (2, 4, 6):
            first.metrics(step, {"loss": float(step), "alignment_accuracy": 0.5})
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 8, "lo')  # cut short by a kill
    with writer(tmp_path, 4, resumed=True) as second:
        second.metrics(6, {"loss": 6.5, "alignment_accuracy": 0.5})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 2.0), (4, 4.0), (6, 6.5)]
    with writer(tmp_path, 2, resumed=True):
        assert json.loads(file.read_text())["step"] == 2
    with writer(tmp_path, 0):  # nothing was saved: all steps are taken again
        assert file.read_text() == ""


def test_rates_follow_from_the_steps_time(tmp_path):
    with writer(tmp_path, 0) as one:
        one.metrics(5, {"loss": 1.0, "alignment_accuracy": 0.5, "step_seconds": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["views_per_second"] == 16


def test_a_look_is_told_by_environment_where_contexts_are_read(tmp_path, caplog):
    def told(lengths):
        caplog.clear()
        folder = epath.Path(tmp_path / str(len(lengths)))
        folder.mkdir()
        values = {
            f"r2/{e}/{g}/{c}": 0.25
            for e in ("crop", "blur")
            for g in ("crop", "blur")
            for c in lengths
        }
        with caplog.at_level("INFO"), writer(folder, 0) as one:
            one.look(5, values | {"knn": 0.5})
        return [" ".join(record.getMessage().split()) for record in caplog.records]

    assert told((0, 6)) == [
        "held out, step 5: R² after 0 -> 6 tokens; kNN accuracy 0.500",
        "crop context crop 0.25 -> 0.25 blur 0.25 -> 0.25",
        "blur context crop 0.25 -> 0.25 blur 0.25 -> 0.25",
    ]
    assert told((0,))[1:] == ["crop 0.25 blur 0.25"]  # without a context all are the same


def test_what_a_line_shows_follows_from_the_metrics(tmp_path, caplog):
    with caplog.at_level("INFO"), writer(tmp_path, 0) as one:
        one.metrics(1, {"loss": 2.0, "label_accuracy": 0.5})
        one.metrics(2, {"loss": 3.0, "loss_variance": 0.5})
    shown = [record.getMessage().split(maxsplit=2)[2] for record in caplog.records]
    assert shown == ["loss 2.000  accuracy 0.50", "loss 3.000"]


def test_other_processes_write_nothing(tmp_path):
    with writer(tmp_path, 0, enabled=False) as quiet:
        quiet.metrics(1, {"loss": 1.0, "alignment_accuracy": 0.5})
        quiet.look(1, {"r2/crop/crop/0": 0.5})
    assert not list(tmp_path.iterdir())
