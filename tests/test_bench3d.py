"""3DIEBench as a data set: which views are drawn, from shards and from files, up to the command."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import miniature3d
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import debug
from contextssl_jax.data import DATASETS
from contextssl_jax.data.bench3d import prepare as preparing
from contextssl_jax.data.bench3d.dataset import MEAN, STD
from contextssl_jax.data.bench3d.prepare import prepare
from contextssl_jax.data.bench3d.raw import RawViews
from contextssl_jax.data.contexts import context_batches, parse_environments
from contextssl_jax.errors import UserError
from contextssl_jax.main import main
from contextssl_jax.transforms import build_space

SIDE = 16
TRAINING = ("--config=configs/3diebench_rotation_color.py", f"--config.bench3d.side={SIDE}",
            "--config.data.contexts=2", "--config.data.pairs=4", "--config.model.dtype=float32",
            "--config.model.encoder=patch", "--config.model.patch.widths=(8,16)",
            "--config.model.patch.features=32", "--config.model.transformer.width=32",
            "--config.model.transformer.blocks=1", "--config.model.transformer.heads=2",
            "--config.model.transformer.outputs=32", "--config.model.predictor.hidden=(16,)",
            "--config.train.steps=4", "--config.train.warmup_steps=1", "--config.log.every=1",
            "--config.log.tensorboard=False", "--config.checkpoint.every=1",
            "--config.monitor.every=0", "--config.train.parallel=jit")  # fmt: skip
EVALUATION = ("--mode=eval", "--config.eval.lengths=(0,2)", "--config.eval.fit_records=8",
              "--config.eval.test_records=4", "--config.eval.batch=16",
              "--config.eval.probe.steps=3", "--config.eval.probe.hidden=(8,)",
              "--config.eval.retrieval.records=2", "--config.eval.retrieval.views=8",
              "--config.eval.environments=('rotation','color')")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "OBJECTS_PER_SHARD", 5)
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory, small_shards):
    """A miniature, and the folders of its shards."""
    return miniature3d.prepared(tmp_path_factory.mktemp("miniature"), SIDE)


@pytest.fixture
def copied(stored, tmp_path):
    """The same, to be damaged."""
    folders = {name: tmp_path / name for name in ("root", "out", "npy")}
    for name, folder in folders.items():
        shutil.copytree(getattr(stored, name), folder)
    return stored.__class__(**vars(stored) | folders)


def options(path: object, **changes: object) -> ConfigDict:
    config = debug.get_config()
    config.groups = config.environments = ("rotation", "color")
    config.data.name = "3diebench"
    config.bench3d.update(path=None if path is None else str(path), side=SIDE)
    config.bench3d.update(**changes)
    return config


def build(path: object, **changes: object):
    return DATASETS["3diebench"].build(options(path, **changes))


def run(path: object, workdir: Path, *arguments: str) -> int:
    flags = f"--config.bench3d.path={path}", f"--workdir={workdir}"
    return main(["main", *TRAINING, *flags, *arguments])


def test_views_are_different_ones_of_each_object(stored):
    split = build(stored.out).splits["train"]
    assert split.size == 12 and split.labels.dtype == np.int32
    assert split.labels.tolist() == [int(name[:8]) % 3 for name in stored.train]
    indices = np.array([7, 0, 11, 7])
    for views in (1, 2, miniature3d.VIEWS):
        images, transform_params = split.draw(np.random.default_rng(0), indices, views)
        assert images.shape == (4, views, SIDE, SIDE, 3) and images.dtype == np.uint8
        assert transform_params.shape[:2] == (4, views) and transform_params.dtype == np.float32
        for index, some, t in zip(indices, images, transform_params, strict=True):
            numbers = [number_of(stored.root / stored.train[index], image) for image in some]
            assert len(set(numbers)) == views
            files = [stored.root / stored.train[index] / f"latent_{n}.npy" for n in numbers]
            scenes = np.array([np.load(file) for file in files], np.float32)
            space = build_space(options(None), SIDE, scenes=True)
            np.testing.assert_array_equal(t, space.from_scenes(np.random.default_rng(0), scenes))


def number_of(folder: Path, image: np.ndarray) -> int:
    found = []
    for file in folder.glob("*.jpg"):
        with Image.open(file) as opened:
            small = np.asarray(opened.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        found += [int(file.stem.removeprefix("image_"))] * np.array_equal(small, image)
    (one,) = found
    return one


def test_all_views_are_drawn_alike(stored):
    split = build(stored.out).splits["train"]
    images, _ = split.draw(np.random.default_rng(0), np.zeros(1600, int), 2)
    firsts, counts = np.unique(images[:, 0].reshape(1600, -1), axis=0, return_counts=True)
    assert len(firsts) == miniature3d.VIEWS and counts.min() > 140
    pairs = np.unique(images.reshape(1600, -1), axis=0)
    assert len(pairs) == miniature3d.VIEWS * (miniature3d.VIEWS - 1)


@pytest.mark.parametrize("layout", ["out", "npy"])
def test_shards_and_files_give_the_same_views_in_any_thread(stored, layout):
    shards, files = (build(path).splits for path in (getattr(stored, layout), stored.root))
    with ThreadPoolExecutor(8) as threads:
        for split in ("train", "test"):
            assert shards[split].source.names == files[split].source.names
            np.testing.assert_array_equal(shards[split].labels, files[split].labels)

            def draw(seed, splits, split=split):
                rng = np.random.default_rng(seed)
                return splits[split].draw(rng, rng.permutation(6), 3)

            for seed, (images, transform_params) in enumerate(
                threads.map(draw, range(40), [shards] * 40)
            ):
                expected = draw(seed, files)
                np.testing.assert_array_equal(images, expected[0])
                np.testing.assert_array_equal(transform_params, expected[1])


def test_render_normalizes_and_pixels_undoes_it(stored):
    dataset = build(stored.out)
    images, transform_params = dataset.splits["test"].draw(
        np.random.default_rng(0), np.arange(3), 1
    )
    rendered = dataset.render(images[:, 0], transform_params[:, 0])
    expected = (images[:, 0] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(rendered, expected, atol=1e-5)
    np.testing.assert_allclose(dataset.pixels(rendered), images[:, 0] / 255, atol=1e-6)


def test_objects_may_have_fewer_views(copied):
    poor = copied.root / copied.train[4]
    (poor / "image_2.jpg").unlink()
    shutil.rmtree(copied.out)
    prepare(str(copied.root), None, str(copied.out), SIDE, 1)
    split = build(copied.out).splits["train"]
    assert split.source.counts.tolist() == [8] * 4 + [7] + [8] * 7
    images, _ = split.draw(np.random.default_rng(0), np.array([4]), 7)
    assert {number_of(poor, image) for image in images[0]} == {0, 1, 3, 4, 5, 6, 7}
    drawn = [
        some.draw(np.random.default_rng(1), np.arange(5, 12), 3)
        for some in (split, build(copied.root).splits["train"])
    ]
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])  # objects after it are still found
    with pytest.raises(
        UserError, match=f"eval.retrieval.views: {copied.train[4]} has 7 views, but 8"
    ):
        split.draw(np.random.default_rng(0), np.arange(12), 8)


@pytest.mark.parametrize(
    "path, changes, message",
    [
        (None, {}, "--config.bench3d.path: not set. .*prepare --dataset=3diebench"),
        ("/nowhere", {}, "--config.bench3d.path: /nowhere is not a folder"),
        ("{tmp}", {}, "found neither in {tmp} nor in {tmp}/data"),
        ("{root}", {"lists": "/nowhere"}, "found neither in /nowhere"),
        ("{tmp}", {"lists": "{root}"}, "{tmp}: has none of the 18 listed objects"),
        ("{out}", {"side": 32}, "--config.bench3d.side: 32, but the views in {out} have 16"),
    ],
)
def test_a_wrong_option_is_one_line(path, changes, message, stored, tmp_path):
    names = {"root": stored.root, "out": stored.out, "tmp": tmp_path}

    def filled(value):
        return value.format(**names) if isinstance(value, str) else value

    with pytest.raises(UserError, match=filled(message)) as caught:
        build(filled(path), **{key: filled(value) for key, value in changes.items()})
    assert "\n" not in str(caught.value)


def test_lists_may_lie_elsewhere(copied, tmp_path):
    expected = build(copied.root).splits["test"].source.names
    (copied.root / "data").mkdir()
    for file in copied.root.glob("*.npy"):
        file.rename(copied.root / "data" / file.name)
    assert build(copied.root).splits["test"].source.names == expected
    (copied.root / "data").rename(tmp_path / "lists")
    lists = build(copied.root, lists=str(tmp_path / "lists"))
    assert lists.splits["test"].source.names == expected


def test_an_incomplete_folder_is_one_line(copied):
    shard = copied.out / "train-00001-of-00003.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{shard}: is missing or incomplete. Prepare again"):
        build(copied.out)
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard}: is missing or incomplete. Prepare again"):
        build(copied.out)
    prepare(str(copied.root), None, str(copied.out), SIDE, 1)
    table = copied.out / "test-00000-of-00002.npz"
    flip(table, 200)
    with pytest.raises(UserError, match=f"{table}: is damaged .*SHA-256"):
        build(copied.out)
    (copied.out / "3diebench.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="3diebench.json: is damaged .it is not of format 1"):
        build(copied.out)
    (copied.out / "3diebench.json").write_text("{")
    with pytest.raises(UserError, match="3diebench.json: is damaged"):
        build(copied.out)
    (copied.out / "3diebench.json").rename(copied.out / "3diebench.plan.json")
    with pytest.raises(UserError, match=f"{copied.out}: its preparation is unfinished"):
        build(copied.out)
    shutil.rmtree(copied.root / copied.test[2])
    with pytest.raises(UserError, match=f"1 of 18 objects are missing, such as {copied.test[2]}"):
        build(copied.root)


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_damaged_record_names_its_shard(copied):
    shard = copied.out / "train-00001-of-00003.array_record"
    flip(shard, shard.stat().st_size // 4)
    with pytest.raises(UserError, match=f"{shard}: is damaged .*Delete it and prepare") as caught:
        build(copied.out).splits["train"].draw(np.random.default_rng(0), np.arange(12), 8)
    assert "\n" not in str(caught.value)
    shard.write_bytes(bytes(shard.stat().st_size))
    source = build(copied.out).splits["train"].source
    with pytest.raises(UserError, match=f"{shard}: is damaged"):
        source.read(np.array([5]), np.array([0]))  # the first of its records


def test_npy_shards_are_plain_arrays_and_their_damage_is_one_line(copied):
    shard = copied.npy / "train-00001-of-00003.npy"
    views = np.load(shard, mmap_mode="r")
    assert views.shape == (5 * miniature3d.VIEWS, SIDE, SIDE, 3) and views.dtype == np.uint8
    source = build(copied.npy).splits["train"].source
    images, _ = source.read(np.array([5, 9]), np.array([0, 7]))  # its first and its last
    np.testing.assert_array_equal(images, views[[0, -1]])
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"{shard}: is damaged .it ends early.*prepare") as caught:
        source.read(np.array([9]), np.array([7]))  # truncated after it was opened
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"{shard}: is missing or incomplete. Prepare again"):
        build(copied.npy)
    prepare(str(copied.root), None, str(copied.npy), SIDE, 1, "npy")
    assert shard.read_bytes() == whole
    index = copied.npy / "3diebench.json"
    index.write_text(index.read_text().replace('"npy"', '"zip"'))
    with pytest.raises(UserError, match=f"{index}: is damaged .its structure is wrong"):
        build(copied.npy)


def test_an_index_without_a_layout_is_of_array_records(copied):
    path = copied.out / "3diebench.json"
    index = json.loads(path.read_text())
    assert index.pop("layout") == "array_record"  # as earlier versions wrote it
    path.write_text(json.dumps(index))
    assert build(copied.out).splits["train"].size == 12
    assert "was prepared before" in prepare("/nowhere", None, str(copied.out), SIDE, 1)[0]
    with pytest.raises(UserError, match="is prepared with layout array_record, not npy. Use ano"):
        prepare(str(copied.root), None, str(copied.out), SIDE, 1, "npy")


def losses(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("data_wait", "views_per_second", "step_seconds")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def test_training_and_its_report_from_shards_and_from_files(stored, tmp_path):
    for kind, path in (("shards", stored.out), ("files", stored.root)):
        assert run(path, tmp_path / kind) == 0
    assert losses(tmp_path / "shards") == losses(tmp_path / "files")
    assert len(losses(tmp_path / "shards")) == 4
    assert run(stored.out, tmp_path / "shards", *EVALUATION) == 0
    report = json.loads((tmp_path / "shards" / "eval" / "4" / "report.json").read_text())
    assert set(report["adaptivity"]) == {"rotation", "color"}
    assert report["provenance"]["views"]["fit_images"]["records"] == 12
    text = (tmp_path / "shards" / "eval" / "4" / "report.md").read_text()
    assert "Beside the paper's Table 1" in text and "Beside the paper's Table 2" in text


def test_a_file_that_breaks_during_training_is_one_line(copied, tmp_path, capsys, monkeypatch):
    """The previous checkpoint stays, and with the file restored the run resumes to its end."""
    read: list[tuple[str, int]] = []

    def recorded(self, objects, views, before=RawViews.read):
        read.extend((self.names[o], v) for o, v in zip(objects, views, strict=True))
        return before(self, objects, views)

    with monkeypatch.context() as patch:
        patch.setattr(RawViews, "read", recorded)
        config = options(copied.root)
        split = build(copied.root).splits["train"]
        batches = context_batches(
            split, parse_environments(config.environments, config.groups), seed=0, contexts=2,
            pairs=4, environment_per="batch",
        )  # fmt: skip
        each = []
        for i in range(4):
            read.clear()
            batches[i]
            each.append(set(read))
    name, view = min(each[2] - each[0] - each[1])
    image = copied.root / name / f"image_{view}.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:-40])
    assert run(copied.root, tmp_path / "run") == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith(f"error: {image}: is damaged (image file is truncated")
    assert "prepare the data" in last and "Traceback" not in error
    assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == 2
    image.write_bytes(content)
    assert run(copied.root, tmp_path / "run") == 0
    assert [line["step"] for line in losses(tmp_path / "run")] == [1, 2, 3, 4]


def test_too_many_views_of_a_report_is_one_line(stored, tmp_path, capsys):
    too_many = "--config.eval.every=4", "--config.eval.retrieval.views=9"
    assert run(stored.out, tmp_path, *EVALUATION[1:], *too_many) == 2
    error = capsys.readouterr().err
    assert "error: --config.eval.retrieval.views: " in error
    assert "has 8 views, but 9 are needed. Lower it." in error and error.count("\n") == 1
