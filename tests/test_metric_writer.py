"""Log lines are means over their steps, across resumes; lines of repeated steps are removed."""

import io
import json
import math

import jax.numpy as jnp
import pytest
from etils import epath
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from contextssl_jax.run.dashboard import ReportSummary
from contextssl_jax.run.finite import NonFiniteError
from contextssl_jax.run.metric_writer import MetricWindow, MetricWriter
from contextssl_jax.run.tensorboard import TensorBoardWriter


def metrics(loss: float, r2: float = 0.5) -> dict:
    return {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1), "r2": jnp.float32(r2)}


def writer(folder, start: int, resumed: bool = False, enabled: bool = True) -> MetricWriter:
    return MetricWriter(
        epath.Path(folder),
        start=start,
        monitored_step=start,
        resumed=resumed,
        total_steps=10,
        views_per_step=8,
        dashboards=(),
        enabled=enabled,
    )


def test_window_returns_means_over_valid_steps():
    window = MetricWindow([])
    for step, (loss, r2) in enumerate([(1, 0.2), (2, math.nan), (6, 0.4)], start=1):
        window.add(step, metrics(loss, r2), start=math.nan, data_wait=0.5)
    means = window.pop_means()
    assert means["loss"] == 3 and means["r2"] == pytest.approx(0.3) and means["data_wait"] == 0.5
    assert "step_seconds" not in means  # the times of all steps are excluded
    window.add(4, metrics(7), start=0.0, data_wait=0)
    assert window.pop_means()["loss"] == 7


def test_earlier_steps_are_averaged_without_the_newest():
    window = MetricWindow([])
    for step, loss in enumerate((1, 3, 50), start=1):
        window.add(step, metrics(loss), start=math.nan, data_wait=0)
    assert window.pop_means(2)["loss"] == 2
    assert [step["loss"] for step in window.fetch()] == [50]


def test_resumed_window_has_the_same_means():
    whole, first = MetricWindow([]), MetricWindow([])
    for step in range(1, 6):
        whole.add(step, metrics(0.1 * step), start=math.nan, data_wait=0)
    for step in range(1, 4):
        first.add(step, metrics(0.1 * step), start=math.nan, data_wait=0)
    saved = first.fetch()
    first.add(4, metrics(99), start=math.nan, data_wait=0)  # during the asynchronous save
    first.fetch()
    second = MetricWindow(json.loads(json.dumps(saved)))
    for step in range(4, 6):
        second.add(step, metrics(0.1 * step), start=math.nan, data_wait=0)
    assert second.pop_means() == whole.pop_means()


@pytest.mark.parametrize("name, value", [("loss", math.nan), ("gradient_norm", math.inf)])
def test_error_names_the_first_non_finite_step(name, value):
    window = MetricWindow([])
    window.add(7, metrics(1.0), start=0.0, data_wait=0)
    window.add(8, metrics(1.0) | {name: jnp.float32(value)}, start=0.0, data_wait=0)
    window.add(9, metrics(math.nan), start=0.0, data_wait=0)
    with pytest.raises(NonFiniteError, match=f"step 8: {name} is {value}"):
        window.pop_means()


def test_lines_of_repeated_steps_are_removed(tmp_path):
    with writer(tmp_path, 0) as first:
        for step in (2, 4, 6):
            first.write_metrics(step, {"loss": float(step), "alignment_accuracy": 0.5})
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 8, "lo')  # an incomplete line
    with writer(tmp_path, 4, resumed=True) as second:
        second.write_metrics(6, {"loss": 6.5, "alignment_accuracy": 0.5})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 2.0), (4, 4.0), (6, 6.5)]
    with writer(tmp_path, 2, resumed=True):
        assert json.loads(file.read_text())["step"] == 2
    with writer(tmp_path, 0):  # no checkpoint: all steps are repeated
        assert file.read_text() == ""


def test_views_per_second_follow_from_step_seconds(tmp_path):
    with writer(tmp_path, 0) as one:
        one.write_metrics(5, {"loss": 1.0, "alignment_accuracy": 0.5, "step_seconds": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["views_per_second"] == 16


def test_monitor_is_logged_by_environment_if_contexts_are_used(tmp_path, caplog):
    def logged(lengths):
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
            one.write_monitor(5, values | {"knn": 0.5})
        return [" ".join(record.getMessage().split()) for record in caplog.records]

    assert logged((0, 6)) == [
        "step 5, held-out data: R² after contexts of 0 -> 6 tokens; kNN accuracy 0.500",
        "crop context crop 0.25 -> 0.25 blur 0.25 -> 0.25",
        "blur context crop 0.25 -> 0.25 blur 0.25 -> 0.25",
    ]
    assert logged((0,)) == [  # without a context, all environments have the same values
        "step 5, held-out data: R²; kNN accuracy 0.500",
        "crop 0.25 blur 0.25",
    ]


def test_log_line_shows_loss_and_accuracy(tmp_path, caplog):
    with caplog.at_level("INFO"), writer(tmp_path, 0) as one:
        one.write_metrics(1, {"loss": 2.0, "label_accuracy": 0.5})
        one.write_metrics(2, {"loss": 3.0, "loss_variance": 0.5})
    shown = [record.getMessage().split(maxsplit=2)[2] for record in caplog.records]
    assert shown == ["loss 2.000  accuracy 0.50", "loss 3.000"]


def test_disabled_writer_writes_nothing(tmp_path):
    with writer(tmp_path, 0, enabled=False) as disabled:
        disabled.write_metrics(1, {"loss": 1.0, "alignment_accuracy": 0.5})
        disabled.write_monitor(1, {"r2/crop/crop/0": 0.5})
    assert not list(tmp_path.iterdir())


def test_the_remaining_time_is_shown_once_enough_steps_are_measured(tmp_path, caplog):
    caplog.set_level("INFO", "contextssl_jax")
    arguments = dict(start=20, monitored_step=-1, resumed=True, total_steps=50, views_per_step=8)
    with MetricWriter(epath.Path(tmp_path), **arguments, dashboards=(), enabled=True) as writer:
        for step in (25, 30):
            writer.write_metrics(step, {"loss": 1.0, "step_seconds": 0.01})
    early, later = caplog.messages
    assert "remaining" not in early
    assert later.endswith("remaining 0:00:01")  # 20 steps of 0.01 s, rounded up


def test_tensorboard_has_the_values_and_pictures_of_a_report(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (8, 4)).save(picture, "PNG")
    board = TensorBoardWriter(epath.Path(tmp_path), 0)
    summary = ReportSummary({"r2/crop": 0.25}, {"adaptation": picture.getvalue()})
    summary.write(board, 5)
    board.close(failed=False)
    (file,) = tmp_path.iterdir()
    content, events = file.read_bytes(), []
    while content:  # records: size, checksum of it, event, checksum
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    values = [(event.step, value) for event in events for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [
        (5, "report/r2/crop"),
        (5, "report/adaptation"),
    ]
    assert values[0][1].simple_value == 0.25
    image = values[1][1].image
    assert (image.width, image.height) == (8, 4)
    assert image.encoded_image_string == picture.getvalue()
