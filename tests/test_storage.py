"""Runs and data in Google Cloud Storage, which tests/fake_bucket.py emulates."""

import json
import os
import threading
import time

import pytest
from etils import epath
from etils.epath import backend
from fake_bucket import FakeFileSystem, Store, serve
from test_compare import report
from tiny import QUICK, run

from contextssl_jax.data.folder import find_images
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.errors import UserError
from contextssl_jax.reports import comparison
from contextssl_jax.run import lock
from contextssl_jax.run.checkpoint import _list_steps, load_checkpoint
from contextssl_jax.run.lock import Lock
from contextssl_jax.storage.files import append_text
from contextssl_jax.storage.paths import list_folder, move_folder, resolve_path


@pytest.fixture(scope="module")
def served():
    """Serve an emulated bucket that TensorStore uses instead of Google's."""
    store = Store()
    with serve(store) as address:
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = address
        yield store
        del os.environ["TENSORSTORE_GCS_HTTP_URL"]


@pytest.fixture
def store(served, monkeypatch, tmp_path):
    """Empty the bucket, and let epath and fsspec use it as well."""
    served.objects.clear()
    files, local = FakeFileSystem(served), backend.fsspec_backend.fs
    patch = monkeypatch.setattr
    patch(backend.fsspec_backend, "fs", lambda p: files if "gs://" in str(p) else local(p))
    patch("contextssl_jax.data.staging.fsspec.core.url_to_fs", lambda p: (files, p[5:]))
    patch("contextssl_jax.storage.paths._PACKAGES", ("json",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return served


def test_run_with_a_remote_workdir(store, capsys, tmp_path):
    assert run(*QUICK, "--workdir=gs://bucket/run") == 0
    assert "lock.json" not in store.objects
    lines = [json.loads(line) for line in store.objects["run/metrics.jsonl"][0].splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert json.loads(store.objects["run/checkpoints.json"][0]) == {"steps": [2, 4]}
    assert store.objects["run/curves.png"][0].startswith(b"\x89PNG")
    assert store.objects["run/checkpoints/4/commit_success.txt"]
    assert not list(tmp_path.iterdir())


def test_local_run_that_is_copied_to_a_bucket_is_read_and_resumed(
    store, tmp_path, capsys, monkeypatch
):
    # Orbax asks Google's client for the kind of the bucket; None has no folders.
    bucket = "orbax.checkpoint._src.path.gcs_utils.get_bucket"
    monkeypatch.setattr(bucket, lambda name: None, raising=False)
    assert run(*QUICK, f"--workdir={tmp_path / 'run'}") == 0
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(tmp_path)), path.read_bytes())
    loaded = load_checkpoint(epath.Path("gs://bucket/run"), None, None)
    assert loaded.step == 4 and "encoder" in loaded.state["params"]
    assert run(*QUICK, "--config.train.steps=6", "--workdir=gs://bucket/run") == 0
    assert "from step 4 of 6" in capsys.readouterr().err
    assert json.loads(store.objects["run/checkpoints.json"][0]) == {"steps": [4, 6]}


def test_remote_reports_are_compared(store, capsys):
    for name in ("one", "two"):
        made = json.dumps(report(("crop", "blur"), (0, 2), 0.5))
        store.put(f"{name}/eval/4/report.json", made.encode())
    assert comparison.main(["", "gs://bucket/one", "gs://bucket/two", "--out=gs://bucket/out"]) == 0
    names = {name for name in store.objects if name.startswith("out/")}
    assert names == {f"out/comparison.{kind}" for kind in ("md", "html", "png")}


def test_damaged_and_incomplete_remote_checkpoints(store):
    for step in (2, 3, 4):
        store.put(f"run/checkpoints/{step}/host/metadata", b"{")
    for step in (2, 4):
        store.put(f"run/checkpoints/{step}/commit_success.txt", b"")
    run = epath.Path("gs://bucket/run")
    assert _list_steps(run / "checkpoints") == [2, 4]  # the save of 3 is incomplete
    move_folder(run / "checkpoints" / "4", run / "damaged" / "4")
    assert _list_steps(run / "checkpoints") == [2]
    assert "run/damaged/4/host/metadata" in store.objects


def test_remote_workdir_of_another_config_is_rejected(store, capsys):
    store.put("run/config.json", b'{"seed": 5}')
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    error = capsys.readouterr().err
    assert "error: --workdir: gs://bucket/run belongs to a run with different options" in error


def test_unreadable_bucket_is_a_one_line_error(store, capsys, monkeypatch):
    def forbidden(*arguments, **options):
        raise OSError("Forbidden: bucket/run\nand more")

    monkeypatch.setattr(FakeFileSystem, "info", forbidden)
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    error = capsys.readouterr().err.strip()
    reason = "--workdir: cannot use gs://bucket/run (Forbidden: bucket/run and more). "
    assert error.startswith(f"error: {reason}") and "\n" not in error


def test_missing_packages_and_unknown_schemes_are_named(monkeypatch, capsys):
    monkeypatch.setattr("contextssl_jax.storage.paths._PACKAGES", ("json", "no_such.package"))
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --workdir: gs://bucket/run requires packages")
    assert error.endswith("pip install 'contextssl-jax[gcs]'\n")
    with pytest.raises(UserError, match="--out: http://b/run is not a supported location"):
        resolve_path("http://b/run", "--out")


def test_remote_lock_is_held_by_a_live_run_and_taken_over_from_a_dead_one(store, monkeypatch):
    monkeypatch.setattr(lock, "_HEARTBEAT_TIMEOUT", 3)
    with (
        Lock(epath.Path("gs://bucket/run")),
        pytest.raises(UserError, match="is in use by process"),
    ):
        Lock(epath.Path("gs://bucket/run")).__enter__()
    assert not store.objects
    dead = {"host": "h", "process": 1, "since": "s", "machine": "another", "token": "x"}
    store.put("run/lock.json", json.dumps(dead).encode())
    with Lock(epath.Path("gs://bucket/run")) as own:
        own.check()


def test_listings_are_not_cached(store):
    """A cached listing hides the writes of other processes, such as a lock."""
    assert FakeFileSystem(store).options == {"use_listings_cache": False}


def test_list_append_and_move_in_a_bucket(store):
    folder = epath.Path("gs://bucket/run")
    assert list_folder(folder) == []
    append_text(folder / "lines", "a\n")
    append_text(folder / "lines", "b\n")
    (folder / "5" / "x" / "y").write_text("in a folder")
    move_folder(folder / "5", folder / "damaged" / "5")
    assert sorted(store.objects) == ["run/damaged/5/x/y", "run/lines"]
    assert store.objects["run/lines"][0] == b"a\nb\n"


def test_remote_data_are_copied_once(store, monkeypatch):
    store.put("data/a/1.png", b"one")
    store.put("data/a/2.png", b"two")
    store.put("data/", b"")  # a placeholder object for the folder
    store.put("other/3.png", b"three")
    root, (names, _) = find_images("gs://bucket/data/")
    assert names == ["a/1.png", "a/2.png"] and (root / "a" / "1.png").read_bytes() == b"one"
    copied = []
    get = FakeFileSystem.get_file
    monkeypatch.setattr(
        FakeFileSystem, "get_file", lambda *a, **o: (copied.append(a[1]), get(*a, **o))
    )
    assert stage_folder("gs://bucket/data", "--x") == str(root) and copied == []
    store.put("data/a/2.png", b"longer")
    del store.objects["data/a/1.png"]
    assert stage_folder("gs://bucket/data", "--x") == str(root) and copied == [
        "bucket/data/a/2.png"
    ]
    assert [path.name for path in (root / "a").iterdir()] == ["2.png"]
    assert stage_folder("gs://bucket/other", "--x") != str(root)
    assert sorted(path.name for path in root.parent.iterdir() if path.suffix == ".new") == []


def test_subfolder_is_copied(store):
    store.put("tfds/cifar10/x", b"1")
    store.put("tfds/cifar100/x", b"2")
    root = epath.Path(stage_folder("gs://bucket/tfds", "--config.data.dir", "cifar10"))
    assert [path.name for path in root.iterdir()] == ["cifar10"]
    assert (root / "cifar10" / "x").read_text() == "1"


def test_interrupted_copy_is_resumed(store, monkeypatch):
    for i in range(20):
        store.put(f"data/{i}", b"x" * i)
    get, copied, limit = FakeFileSystem.get_file, [], [5]

    def get_limited(self, name, new, **options):
        if len(copied) >= limit[0]:
            raise OSError("connection lost")
        copied.append(name)
        get(self, name, new, **options)

    monkeypatch.setattr(FakeFileSystem, "get_file", get_limited)
    monkeypatch.setattr("contextssl_jax.data.staging._AT_ONCE", 1)
    with pytest.raises(UserError, match="--x: cannot copy gs://bucket/data to .*connection lost"):
        stage_folder("gs://bucket/data", "--x")
    limit[0] = 99
    root = epath.Path(stage_folder("gs://bucket/data", "--x"))
    assert len(copied) < 25  # copied files are not copied again
    assert {p.name: p.stat().length for p in root.iterdir()} == {str(i): i for i in range(20)}


def test_concurrent_copies_copy_each_file_once(store, monkeypatch):
    for i in range(10):
        store.put(f"data/{i}", b"x")
    copied, get = [], FakeFileSystem.get_file

    def slow(self, name, new, **options):
        copied.append(name)
        time.sleep(0.02)
        get(self, name, new, **options)

    monkeypatch.setattr(FakeFileSystem, "get_file", slow)
    threads = [
        threading.Thread(target=stage_folder, args=("gs://bucket/data", "--x")) for _ in range(4)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(copied) == 10


@pytest.mark.parametrize(
    "objects, message",
    [
        ({}, "--x: there is no folder gs://bucket/data, or it is empty"),
        ({"data/../../x": b"1"}, "'../../x'"),
        ({"data//x": b"1"}, "'/x'"),
        ({"data/a/./x": b"1"}, "'a/./x'"),
    ],
)
def test_invalid_remote_folder_is_rejected(objects, message, store, tmp_path):
    for name, content in objects.items():
        store.put(name, content)
    with pytest.raises(UserError) as caught:
        stage_folder("gs://bucket/data", "--x")
    assert message in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_free_disk_space_is_checked_before_the_copy(store, monkeypatch):
    store.put("data/x", b"1")
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr("contextssl_jax.data.staging.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="--x: its copy needs .* Set XDG_CACHE_HOME"):
        stage_folder("gs://bucket/data", "--x")


def test_local_folder_is_not_copied(tmp_path):
    assert stage_folder(str(tmp_path), "--x") == str(tmp_path)
    assert stage_folder("~/data", "--x") == os.path.expanduser("~/data")
