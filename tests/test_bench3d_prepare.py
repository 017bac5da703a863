"""Preparing 3DIEBench: what it writes, what it leaves out, and where it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniature3d
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from contextssl_jax.data import prepare as command
from contextssl_jax.data.bench3d import prepare as preparing
from contextssl_jax.data.bench3d import writing
from contextssl_jax.data.bench3d.prepare import prepare
from contextssl_jax.errors import UserError

SIDE = 16

# Prepares with small shards, and dies before its k-th file gets its name.
KILLED = """
import os, signal, sys
from contextssl_jax.data.bench3d import prepare
prepare.OBJECTS_PER_SHARD = 4
source, out, k = sys.argv[1:]
before, left = os.replace, iter(range(int(k)))
def replace(*paths):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    before(*paths)
os.replace = replace
prepare.prepare(source, None, out, 16, 1)
"""


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "OBJECTS_PER_SHARD", 4)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_shards):
    """A miniature without a flaw, and the folder that it was prepared in."""
    return miniature3d.prepared(tmp_path_factory.mktemp("miniature"), SIDE)


@pytest.fixture
def source(tmp_path):
    return miniature3d.write(tmp_path / "source")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index_of(folder: Path) -> dict:
    return json.loads((folder / "3diebench.json").read_text())


def run(*arguments: object) -> int:
    return command.main(["--dataset=3diebench", *map(str, arguments)])


def test_shards_hold_every_view_as_pil_resizes_it(whole):
    for split, names in (("train", whole.train), ("test", whole.test)):
        images, scenes, listed = [], [], []
        for shard in index_of(whole.out)["splits"][split]:
            reader = array_record_module.ArrayRecordReader(
                str(whole.out / f"{shard['name']}.array_record")
            )
            assert reader.num_records() == shard["records"]
            images += [np.frombuffer(record, np.uint8) for record in reader.read_all()]
            with np.load(whole.out / f"{shard['name']}.npz") as table:
                scenes.append(table["scenes"])
                listed += table["names"].tolist()
                assert table["numbers"].tolist() == [*range(miniature3d.VIEWS)] * shard["objects"]
        assert listed == names
        files = [whole.root / name / str(v) for name in names for v in range(miniature3d.VIEWS)]
        for i, file in enumerate(files):
            with Image.open(file.with_name(f"image_{file.name}.jpg")) as image:
                expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(images[i].reshape(SIDE, SIDE, 3), expected)
        expected = [np.load(file.with_name(f"latent_{file.name}.npy")) for file in files]
        np.testing.assert_array_equal(np.concatenate(scenes), np.array(expected, np.float32))


def test_the_folder_holds_shards_tables_and_an_index_alone(whole):
    names = [f"train-{i:05d}-of-00003" for i in range(3)]
    names += [f"test-{i:05d}-of-00002" for i in range(2)]
    files = {f"{name}.{kind}" for name in names for kind in ("array_record", "npz")}
    assert set(contents(whole.out)) == files | {"3diebench.json"}
    index = index_of(whole.out)
    assert (index["side"], index["views"]) == (SIDE, miniature3d.VIEWS)
    assert [shard["name"] for split in index["splits"].values() for shard in split] == names
    assert [shard["objects"] for shard in index["splits"]["test"]] == [4, 2]


def test_processes_and_the_place_change_nothing(whole, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(whole.root)  # the data's folder itself may be a link
    lists = tmp_path / "lists"
    miniature3d.write_lists(tmp_path, {"train": whole.train, "test": whole.test})
    lists.mkdir()
    for file in tmp_path.glob("*.npy"):
        file.rename(lists / file.name)
    options = f"--source={moved}", f"--lists={lists}", f"--side={SIDE}", "--processes=2"
    assert run(*options, f"--out={tmp_path / 'new' / 'out'}") == 0
    assert contents(tmp_path / "new" / "out") == contents(whole.out)
    output = capsys.readouterr().out
    assert "train 12 objects with 96 views, test 6 objects with 48 views, of 16 pixels" in output
    assert f"3diebench is ready in {tmp_path / 'new' / 'out'}" in output


def test_preparing_again_does_nothing(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.out.iterdir()}
    assert run("--source=/nowhere", f"--side={SIDE}", f"--out={whole.out}") == 0
    assert f"{whole.out} was prepared before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.out.iterdir()} == before


@pytest.mark.parametrize("k", [1, 2, 11])
def test_a_run_that_is_killed_is_gone_on_with(whole, tmp_path, k):
    """Before the first shard, its table or the index gets its name."""
    arguments = [sys.executable, "-c", KILLED, str(whole.root), str(tmp_path), str(k)]
    assert subprocess.run(arguments, cwd=Path.cwd()).returncode == -signal.SIGKILL
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    named = {name for name in files if not name.endswith(".new")} - {"3diebench.plan.json"}
    done = contents(whole.out)
    assert len(named) == k - 1 and len(files) > k  # what is not named yet lies there too
    assert all((tmp_path / name).read_bytes() == done[name] for name in named)
    prepare(str(whole.root), None, str(tmp_path), SIDE, 1)
    assert contents(tmp_path) == done
    unchanged = [name for name in named if (tmp_path / name).stat().st_mtime_ns == files[name]]
    assert len(unchanged) == 2 * ((k - 1) // 2)  # shards that had their tables were not made again


def test_workers_end_with_a_killed_run(whole, source, tmp_path):
    out, pipe = tmp_path / "out", source.root / source.train[-1] / "image_3.jpg"
    image = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)  # on which the worker waits in the middle of a shard
    code = KILLED.replace("16, 1)", "16, 2)")
    code = code.replace("prepare.prepare(", "if __name__ == '__main__': prepare.prepare(")
    script = tmp_path / "killed.py"
    script.write_text(code)
    arguments = [sys.executable, str(script), str(source.root), str(out), "99"]
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    try:
        halves = wait_for(lambda: [*out.glob("*.new")] if len([*out.glob("*.npz")]) == 4 else [])
        with pytest.raises(UserError, match="another process is preparing"):
            prepare(str(whole.root), None, str(out), SIDE, 1)
    finally:
        process.kill()
        process.wait()
    workers = {int(half.name.split(".")[-2]) for half in halves}
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    pipe.unlink()
    pipe.write_bytes(image)
    prepare(str(source.root), None, str(out), SIDE, 1)
    assert contents(out) == contents(whole.out)


def wait_for(found):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_a_worker_that_dies_is_reported(source, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, sys\n"
        "from contextssl_jax.data.bench3d import prepare, writing\n"
        "prepare.OBJECTS_PER_SHARD = 4\n"
        "if __name__ != '__main__':\n"
        "    writing.load_view = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "else:\n"
        "    prepare.prepare(*sys.argv[1:2], None, *sys.argv[2:], 16, 2)\n"
    )
    arguments = [sys.executable, str(script), str(source.root), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    output = subprocess.run(arguments, env=environment, capture_output=True, text=True).stderr
    assert "UserError: --processes: a process has died" in output.splitlines()[-1]


FLAWS = {
    "image_1.jpg": ("is missing", lambda file: file.unlink()),
    "image_2.jpg": ("truncated", lambda file: file.write_bytes(file.read_bytes()[:-40])),
    "image_3.jpg": ("cannot identify", lambda file: file.write_bytes(b"no picture")),
    "image_4.jpg": ("is not square", lambda file: Image.new("RGB", (24, 20)).save(file)),
    "image_5.jpg": ("cannot identify", lambda file: Image.new("RGB", (9, 9)).save(file, "PNG")),
    "latent_1.npy": ("has 6 float64", lambda file: np.save(file, np.zeros(6))),
    "latent_2.npy": ("not finite", lambda file: np.save(file, np.full(7, np.nan))),
    "latent_3.npy": ("not finite", lambda file: np.save(file, [0, 0, 0, 0, 0, 0, np.inf])),
    "latent_4.npy": ("not finite", lambda file: np.save(file, np.full(7, 1e300))),
    "latent_5.npy": ("allow_pickle", lambda file: np.save(file, np.array([{}] * 7, object))),
    "latent_6.npy": ("is damaged", lambda file: file.write_bytes(file.read_bytes()[:-1])),
    "latent_7.npy": ("has 7 int64", lambda file: np.save(file, np.zeros(7, int))),
}


def test_unusable_views_are_skipped_and_listed(source, tmp_path, capsys):
    flawed = dict(zip(FLAWS, source.train[:12], strict=True))
    for file, (_, damage) in FLAWS.items():
        damage(source.root / flawed[file] / file)
    gone, poor = source.test[0], source.test[1]
    (source.root / gone).rename(tmp_path / "gone")
    for view in range(1, miniature3d.VIEWS):
        (source.root / poor / f"image_{view}.jpg").unlink()
    out = tmp_path / "out"
    assert run(f"--source={source.root}", f"--out={out}", f"--side={SIDE}", "--processes=1") == 0
    output = capsys.readouterr().out
    index = index_of(out)
    left_out = {
        split: [line for shard in shards for line in shard["left_out"]]
        for split, shards in index["splits"].items()
    }
    assert len(left_out["train"]) == len(FLAWS)
    for line, (file, (reason, _)) in zip(left_out["train"], FLAWS.items(), strict=True):
        assert line.startswith(f"{flawed[file]}/{file}: ") and reason in line and "\n" not in line
        assert line in output
    assert left_out["test"][0] == f"{gone}: is missing"
    assert left_out["test"][-1] == f"{poor}: has fewer than 2 usable views"
    assert "missing (21):" in output and "and 6 more: see left_out in" in output
    assert "train 12 objects with 84 views, test 4 objects with 32 views" in output
    assert output.count("\n") < 24
    assert not [file for file in out.iterdir() if file.suffix in (".new", ".plan")]
    # Everything else is what it would have been.
    assert sum(shard["records"] for shard in index["splits"]["train"]) == 84
    with np.load(out / "train-00000-of-00003.npz") as table:
        assert table["numbers"].tolist()[:9] == [0, 2, 3, 4, 5, 6, 7, 0, 1]
        np.testing.assert_array_equal(table["counts"], 7)


def test_links_that_lead_out_stop_it(source, tmp_path):
    secret = tmp_path / "secret"
    folder = source.root / source.train[3]
    folder.rename(secret)
    for link, target in (
        (folder, secret),
        (folder / "image_0.jpg", secret / "image_0.jpg"),
        (folder / "latent_0.npy", secret / "latent_0.npy"),
    ):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
        with pytest.raises(UserError, match=f"{link}: is a link that leads out of {source.root}"):
            prepare(str(source.root), None, str(tmp_path / "out"), SIDE, 1)
        link.unlink()
        if link.name == "image_0.jpg":
            link.write_bytes((secret / "image_0.jpg").read_bytes())
    synset = source.root / source.train[0].split("/")[0]
    synset.rename(tmp_path / "synset")
    synset.symlink_to(tmp_path / "synset")
    with pytest.raises(UserError, match=f"{synset}: is a link that leads out"):
        prepare(str(source.root), None, str(tmp_path / "out"), SIDE, 1)


def test_links_that_stay_inside_are_followed(source, whole, tmp_path):
    image = source.root / source.train[0] / "image_0.jpg"
    image.rename(source.root / "stored.jpg")
    image.symlink_to(source.root / "stored.jpg")
    prepare(str(source.root), None, str(tmp_path / "out"), SIDE, 1)
    assert contents(tmp_path / "out") == contents(whole.out)


@pytest.mark.parametrize(
    "options, message",
    [
        ((), "--source: is required to prepare 3diebench"),
        (("--source={whole}", "--side=0"), "--side: must be at least 1, not 0"),
        (("--source={whole}", "--processes=0"), "--processes: must be at least 1"),
        (("--source=/nowhere",), "found neither in /nowhere nor in /nowhere/data"),
        (("--source=/nowhere", "--lists={whole}"), "/nowhere: has none of the 18 listed objects"),
        (("--source={whole}", "--lists=/nowhere"), "found neither in /nowhere"),
        (("--source={whole}", "--side=16", "--layout=npy", "--out={out}"), "with layout array_rec"),
        (("--source={whole}", "--side=32", "--out={out}"), "with side 16, not 32. Use another"),
        (("--source={whole}", "--out=/dev/null/x"), "--out: cannot write /dev/null/x"),
        (("--dataset=cifar10", "--source={whole}"), "--source: is not an option of cifar10"),
        (("--dataset=cifar10", "--layout=npy"), "--layout: is not an option of cifar10"),
    ],
)
def test_a_user_error_is_one_line(options, message, whole, tmp_path, capsys):
    filled = [option.format(whole=whole.root, out=whole.out) for option in options]
    before = contents(whole.out)
    assert run(f"--out={tmp_path / 'out'}", *filled) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert contents(whole.out) == before


def test_a_stopped_preparation_resumes(whole, tmp_path, monkeypatch, capsys):
    calls = iter(range(5 * miniature3d.VIEWS))  # one shard and a part of the next
    load = writing.load_view

    def stopped(*view):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return load(*view)

    options = f"--source={whole.root}", f"--out={tmp_path}", f"--side={SIDE}", "--processes=1"
    with monkeypatch.context() as patch:
        patch.setattr(writing, "load_view", stopped)
        assert run(*options) == 130
    assert capsys.readouterr().err == "stopped; run the same command again to resume\n"
    assert len([*tmp_path.glob("*.npz")]) == 1
    assert run(*options) == 0
    assert contents(tmp_path) == contents(whole.out)


def test_another_preparation_is_not_mixed_with(source, tmp_path):
    out = tmp_path / "out"
    prepare(str(source.root), None, str(out), SIDE, 1)
    (out / "test-00000-of-00002.npz").unlink()
    (out / "3diebench.json").rename(out / "3diebench.plan.json")  # as if it had been killed
    with pytest.raises(UserError, match="is prepared with side 16, not 8"):
        prepare(str(source.root), None, str(out), 8, 1)
    splits = {"train": source.train[::-1], "test": source.test}
    miniature3d.write_lists(source.root, splits)
    with pytest.raises(UserError, match="is prepared with other lists. Use another folder"):
        prepare(str(source.root), None, str(out), SIDE, 1)


def test_what_got_lost_is_made_again(whole, source, tmp_path):
    out = tmp_path / "out"
    prepare(str(source.root), None, str(out), SIDE, 1)
    (out / "train-00001-of-00003.array_record").unlink()
    (out / "train-00002-of-00003.npz").write_bytes(b"damaged")
    shard = out / "test-00000-of-00002.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    prepare(str(source.root), None, str(out), SIDE, 1)
    assert contents(out) == contents(whole.out)


def test_a_damaged_shard_does_not_pass_the_check(source, tmp_path):
    out = tmp_path / "out"
    prepare(str(source.root), None, str(out), SIDE, 1)
    (out / "3diebench.json").unlink()
    shard = out / "test-00000-of-00002.array_record"
    flipped = bytearray(shard.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    shard.write_bytes(flipped)
    with pytest.raises(UserError, match=f"{shard}: is damaged .*SHA-256.*Delete it and prepare"):
        prepare(str(source.root), None, str(out), SIDE, 1)
    assert not (out / "3diebench.json").exists()


def test_a_split_of_which_nothing_is_left_is_refused(source, tmp_path):
    for name in source.test:
        for file in (source.root / name).iterdir():
            file.unlink()
    with pytest.raises(UserError, match="--source: .* has no usable object of the test split"):
        prepare(str(source.root), None, str(tmp_path / "out"), SIDE, 1)
    assert not (tmp_path / "out" / "3diebench.json").exists()


def test_a_disk_that_is_full_is_one_line(source, tmp_path, monkeypatch):
    class Full:
        def __init__(self, *options):
            pass

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device;\n writing x")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Full)
    with pytest.raises(UserError, match="--out: cannot write .*array_record .*No space") as caught:
        prepare(str(source.root), None, str(tmp_path / "out"), SIDE, 1)
    assert "\n" not in str(caught.value)
