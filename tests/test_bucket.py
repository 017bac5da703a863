"""Runs and data in a bucket, of which tests/bucket.py is a likeness."""

import json
import os
import threading
import time

import pytest
from bucket import Files, Store, serving
from etils import epath
from etils.epath import backend
from test_compare import report
from tiny import QUICK, run

from contextssl_jax.data.folder import find_images
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.errors import UserError
from contextssl_jax.reports import comparison
from contextssl_jax.run import lock
from contextssl_jax.run.checkpoint import _steps
from contextssl_jax.run.lock import Lock
from contextssl_jax.storage.files import append_text
from contextssl_jax.storage.paths import list_folder, move_folder, resolve_path


@pytest.fixture(scope="module")
def served():
    """A bucket that tensorstore reads and writes as if it were Google's."""
    store = Store()
    with serving(store) as address:
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = address
        yield store
        del os.environ["TENSORSTORE_GCS_HTTP_URL"]


@pytest.fixture
def store(served, monkeypatch, tmp_path):
    """The same, empty, as epath and fsspec see it too."""
    served.objects.clear()
    files, local = Files(served), backend.fsspec_backend.fs
    told = monkeypatch.setattr
    told(backend.fsspec_backend, "fs", lambda p: files if "gs://" in str(p) else local(p))
    told("contextssl_jax.data.staging.fsspec.core.url_to_fs", lambda p: (files, p[5:]))
    told("contextssl_jax.storage.paths._PACKAGES", ("json",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return served


def test_a_run_lives_in_a_bucket(store, capsys, tmp_path):
    assert run(*QUICK, "--workdir=gs://bucket/run") == 0
    assert "lock.json" not in store.objects
    lines = [json.loads(line) for line in store.objects["run/metrics.jsonl"][0].splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert json.loads(store.objects["run/checkpoints.json"][0]) == {"steps": [2, 4]}
    assert store.objects["run/curves.png"][0].startswith(b"\x89PNG")
    assert store.objects["run/checkpoints/4/commit_success.txt"]
    assert not list(tmp_path.iterdir())


def test_reports_in_a_bucket_are_compared(store, capsys):
    for name in ("one", "two"):
        made = json.dumps(report(("crop", "blur"), (0, 2), 0.5))
        store.put(f"{name}/eval/4/report.json", made.encode())
    assert comparison.main(["", "gs://bucket/one", "gs://bucket/two", "--out=gs://bucket/out"]) == 0
    names = {name for name in store.objects if name.startswith("out/")}
    assert names == {f"out/comparison.{kind}" for kind in ("md", "html", "png")}


def test_damaged_and_unfinished_checkpoints_of_a_bucket(store):
    for step in (2, 3, 4):
        store.put(f"run/checkpoints/{step}/host/metadata", b"{")
    for step in (2, 4):
        store.put(f"run/checkpoints/{step}/commit_success.txt", b"")
    run = epath.Path("gs://bucket/run")
    assert _steps(run / "checkpoints") == [2, 4]  # the save of 3 was cut short
    move_folder(run / "checkpoints" / "4", run / "damaged" / "4")
    assert _steps(run / "checkpoints") == [2]
    assert "run/damaged/4/host/metadata" in store.objects


def test_another_config_is_refused(store, capsys):
    store.put("run/config.json", b'{"seed": 5}')
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    assert "error: gs://bucket/run: belongs to a run with other options" in capsys.readouterr().err


def test_a_bucket_that_cannot_be_read_is_one_line(store, capsys, monkeypatch):
    def forbidden(*arguments, **options):
        raise OSError("Forbidden: bucket/run\nand more")

    monkeypatch.setattr(Files, "info", forbidden)
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    error = capsys.readouterr().err.strip()
    assert error == "error: --workdir: cannot use gs://bucket/run (Forbidden: bucket/run and more)"


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr("contextssl_jax.storage.paths._PACKAGES", ("json", "no_such.package"))
    assert run(*QUICK, "--workdir=gs://bucket/run") == 2
    told = "error: --workdir: gs://bucket/run needs pip install 'contextssl-jax[gcs]'\n"
    assert capsys.readouterr().err == told
    with pytest.raises(UserError, match="--out: http://b/run is neither a folder nor"):
        resolve_path("http://b/run", "--out")


def test_the_lock_of_a_live_run_holds_and_that_of_a_dead_one_does_not(store, monkeypatch):
    monkeypatch.setattr(lock, "_WATCH", 3)
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


def test_listings_are_never_kept(store):
    """They would hide what another process has written, such as a lock."""
    assert Files(store).options == {"use_listings_cache": False}


def test_folders_of_a_bucket(store):
    folder = epath.Path("gs://bucket/run")
    assert list_folder(folder) == []
    append_text(folder / "lines", "a\n")
    append_text(folder / "lines", "b\n")
    (folder / "5" / "x" / "y").write_text("in a folder")
    move_folder(folder / "5", folder / "damaged" / "5")
    assert sorted(store.objects) == ["run/damaged/5/x/y", "run/lines"]
    assert store.objects["run/lines"][0] == b"a\nb\n"


def test_data_are_copied_once(store, monkeypatch):
    store.put("data/a/1.png", b"one")
    store.put("data/a/2.png", b"two")
    store.put("data/", b"")  # stands for a folder
    store.put("other/3.png", b"three")
    root, names = find_images("gs://bucket/data/")
    assert names == ["a/1.png", "a/2.png"] and (root / "a" / "1.png").read_bytes() == b"one"
    copied = []
    get = Files.get_file
    monkeypatch.setattr(Files, "get_file", lambda *a, **o: (copied.append(a[1]), get(*a, **o)))
    assert stage_folder("gs://bucket/data", "--x") == str(root) and copied == []
    store.put("data/a/2.png", b"longer")
    del store.objects["data/a/1.png"]
    assert stage_folder("gs://bucket/data", "--x") == str(root) and copied == [
        "bucket/data/a/2.png"
    ]
    assert [path.name for path in (root / "a").iterdir()] == ["2.png"]
    assert stage_folder("gs://bucket/other", "--x") != str(root)
    assert sorted(path.name for path in root.parent.iterdir() if path.suffix == ".new") == []


def test_a_part_of_a_folder_is_copied(store):
    store.put("tfds/cifar10/x", b"1")
    store.put("tfds/cifar100/x", b"2")
    root = epath.Path(stage_folder("gs://bucket/tfds", "--config.data.dir", "cifar10"))
    assert [path.name for path in root.iterdir()] == ["cifar10"]
    assert (root / "cifar10" / "x").read_text() == "1"


def test_a_copy_that_was_cut_short_goes_on(store, monkeypatch):
    for i in range(20):
        store.put(f"data/{i}", b"x" * i)
    get, done, most = Files.get_file, [], [5]

    def cut(self, name, new, **options):
        if len(done) >= most[0]:
            raise OSError("connection lost")
        done.append(name)
        get(self, name, new, **options)

    monkeypatch.setattr(Files, "get_file", cut)
    monkeypatch.setattr("contextssl_jax.data.staging._AT_ONCE", 1)
    with pytest.raises(UserError, match="--x: cannot copy gs://bucket/data to .*connection lost"):
        stage_folder("gs://bucket/data", "--x")
    most[0] = 99
    root = epath.Path(stage_folder("gs://bucket/data", "--x"))
    assert len(done) < 25  # not all of them again
    assert {p.name: p.stat().length for p in root.iterdir()} == {str(i): i for i in range(20)}


def test_several_at_once_copy_each_file_once(store, monkeypatch):
    for i in range(10):
        store.put(f"data/{i}", b"x")
    copied, get = [], Files.get_file

    def slow(self, name, new, **options):
        copied.append(name)
        time.sleep(0.02)
        get(self, name, new, **options)

    monkeypatch.setattr(Files, "get_file", slow)
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
def test_a_folder_that_cannot_be_copied_is_told(objects, message, store, tmp_path):
    for name, content in objects.items():
        store.put(name, content)
    with pytest.raises(UserError) as told:
        stage_folder("gs://bucket/data", "--x")
    assert message in str(told.value)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_told_before_anything_is_copied(store, monkeypatch):
    store.put("data/x", b"1")
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr("contextssl_jax.data.staging.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="--x: its copy needs .* Set XDG_CACHE_HOME"):
        stage_folder("gs://bucket/data", "--x")


def test_what_is_on_this_machine_stays_there(tmp_path):
    assert stage_folder(str(tmp_path), "--x") == str(tmp_path)
    assert stage_folder("~/data", "--x") == "~/data"
