"""Data sets of TFDS by name: from prepared files to a report, and what goes wrong."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from test_tfds_source import png, store
from tiny import TINY, run

from contextssl_jax.data.tfds_images import build

CONFIG = ("--config=configs/tfds_images.py", *TINY, "--config.tfds.name=small")
IMAGE = {"image": tfds.features.Image()}
LABELLED = {**IMAGE, "label": tfds.features.ClassLabel(num_classes=3)}


def examples(n: int, seed: int = 0, shape: tuple[int, ...] = (16, 16, 3)) -> list[dict]:
    drawn = np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
    return [{"image": png(image)} for image in drawn]


def labelled(n: int, labels: tuple[int, ...], **options) -> list[dict]:
    return [{**e, "label": labels[i % len(labels)]} for i, e in enumerate(examples(n, **options))]


def test_a_data_set_with_classes_in_one_split_trains_and_evaluates(tmp_path):
    store(tmp_path, LABELLED, labelled(40, (0, 1, 2), shape=(16, 20, 3)), labelled(20, (-1,)))
    workdir = tmp_path / "run"
    arguments = (f"--config.data.dir={tmp_path}", "--config.tfds.side=16", f"--workdir={workdir}")
    assert run(*CONFIG, *arguments) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    monitored = {name for line in lines for name in line if name.startswith("monitor/")}
    assert "monitor/r2/crop/blur/6" in monitored and "monitor/knn" not in monitored
    report = json.loads((workdir / "eval" / "2" / "report.json").read_text())
    assert set(report["r2"]["crop"]) == {"crop", "blur"}
    assert not any(name.startswith("accuracy") for name in report)
    assert "Classes" not in (workdir / "eval" / "2" / "report.html").read_text()


def test_splits_are_those_that_the_options_name(tmp_path, config):
    """So a data set of one split is cut in two."""
    store(tmp_path, LABELLED, labelled(10, (0, 1, 2)))
    config.data.dir = str(tmp_path)
    config.tfds.update(name="small", train="train[:70%]", test="train[70%:]", side=None)
    dataset = build(config)
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert dataset.name == "small" and (train.size, test.size) == (7, 3)
    assert train.labels.tolist() == [0, 1, 2] * 2 + [0] and test.labels.tolist() == [1, 2, 0]
    original = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), original)
    untouched = dataset.render(train.images[:2], np.tile(dataset.space.identity, (2, 1)))
    expected = (train.images[:2] - train.images.mean((0, 1, 2))) / train.images.std((0, 1, 2))
    np.testing.assert_allclose(untouched, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "arguments", "message"),
    [
        ([(16, 16)], ("name=no_such_data",), "--config.tfds: TFDS has no data set 'no_such_data'"),
        ([(16, 16)], ("name=cifar100",), "data set cifar100 is not in {}/cifar100/"),
        ([(16, 16)], ("train=valid",), "--config.tfds: cannot read small valid: Unknown split"),
        ([(16, 16)], ("train=train[:",), "small train[:: Error parsing split 'train[:'"),
        ([(16, 16)], ("test=train[:0]",), "--config.tfds: cannot read small train[:0]: "),
        ([(16, 20)], (), "small train has images that are not square, such as (16, 20). Set --con"),
        ([(16, 16), (18, 18)], (), "several sizes, such as (16, 16) and (18, 18). Set --config.tf"),
        ([(16, 16), (18, 18)], ("train=train[:1]", "test=train[1:]"),
         "--config.tfds.side: images have 16 pixels in the train split and 18 in the test split."),
        ([(16, 16)], ("side=0",), "--config.tfds.side: must be an integer from 1"),
    ],
)  # fmt: skip
def test_a_user_error_is_one_line(shapes, arguments, message, tmp_path, capsys):
    drawn = [example for shape in shapes for example in examples(1, shape=(*shape, 3))]
    store(tmp_path, IMAGE, drawn)
    capsys.readouterr()
    workdir = tmp_path / "run"
    places = (f"--config.data.dir={tmp_path}", f"--workdir={workdir}")
    flags = ("--config.tfds.name=small", *(f"--config.tfds.{a}" for a in arguments))
    # configs/tfds_images.py sets a side.
    assert run("--config=configs/debug.py", "--config.data.name=tfds", *flags, *places) == 2
    error = capsys.readouterr().err.strip()
    assert message.format(tmp_path) in error and error.startswith("error: ") and "\n" not in error
    assert not workdir.exists()
