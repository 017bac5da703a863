"""Compiled programs are the same for all seeds, and kept in a safe folder of the user."""

import os
import stat
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from running import lines, state_at
from small_methods import small_config
from tiny import QUICK, run

from contextssl_jax.experiment import build_experiment
from contextssl_jax.run import compilation_cache
from contextssl_jax.run.compilation_cache import enable_compilation_cache


@pytest.fixture
def settings(monkeypatch) -> dict:
    """Settings of JAX that a test makes, which have no effect."""
    made: dict = {}
    monkeypatch.setattr(
        type(jax.config), "update", lambda self, name, value: made.update({name: value})
    )
    return made


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_programs_are_the_same_for_all_seeds(mode):
    programs = set()
    for seed in (0, 1):
        config = small_config("contextssl")
        config.seed, config.train.parallel, config.model.encoder = seed, mode, "patch"
        experiment = build_experiment(config)
        place = experiment.parallel
        state, key_data = place.replicate((experiment.template(), experiment.key_data))
        batch = place.shard(experiment.batches[0])
        programs.add(experiment.step.lower(state, batch, key_data).as_text())
        assert (np.asarray(experiment.key_data) != 0).any()
    assert len(programs) == 1


def test_further_seeds_compile_nothing(tmp_path):
    events: Counter = Counter()
    jax.monitoring.register_event_listener(lambda name, **kwargs: events.update([name]))
    missed = []
    for seed in (101, 102):
        jax.clear_caches()
        before = events["/jax/compilation_cache/cache_misses"]
        options = ("--config.data.pairs=5", "--config.monitor.every=4", "--config.eval.every=4")
        assert (
            run(*QUICK, *options, f"--config.seed={seed}", f"--workdir={tmp_path / str(seed)}") == 0
        )
        missed.append(events["/jax/compilation_cache/cache_misses"] - before)
    assert missed[0] > 2 and missed[1] == 0
    one, other = (state_of(tmp_path / str(seed)) for seed in (101, 102))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def state_of(workdir: Path) -> list[np.ndarray]:
    return list(state_at(workdir, 4).values())


def private(folder: Path) -> bool:
    return stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_folder_is_private_and_named_by_version_and_processor(tmp_path, settings):
    enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path)})
    folder = Path(settings["jax_compilation_cache_dir"])
    root = tmp_path / "contextssl_jax" / "xla"
    assert folder.parent == root and folder.name.startswith(jax.lib.__version__)
    assert private(root) and private(root.parent) and private(folder)


def test_processors_have_different_folders(tmp_path, settings, monkeypatch):
    names = set()
    for flags in ("sse avx", "sse avx avx512f"):
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        monkeypatch.setattr(compilation_cache, "_CPU_INFO", info)
        enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path)})
        names.add(settings["jax_compilation_cache_dir"])
    assert len(names) == 2


def writable_by_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "make, reason",
    [
        (writable_by_others, "writable by other users"),
        (link, "not a folder"),
        (Path.touch, "not a folder"),
    ],
)
def test_unsafe_folder_is_one_warning(make, reason, tmp_path, settings, caplog):
    make(tmp_path / "contextssl_jax")
    enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path)})
    assert len(caplog.messages) == 1 and reason in caplog.messages[0] and not settings


def test_folder_of_another_user_is_one_warning(tmp_path, settings, caplog, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path)})
    assert len(caplog.messages) == 1 and "another user" in caplog.messages[0] and not settings


def test_no_usable_home_is_one_warning(tmp_path, settings, caplog, monkeypatch):
    (tmp_path / "file").touch()
    enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path / "file")})
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])  # a user without a name
    enable_compilation_cache(True, {"XDG_CACHE_HOME": "relative"})
    assert len(caplog.messages) == 2 and not settings
    assert all("--nocompilation_cache" in message for message in caplog.messages)


def test_own_settings_of_jax_and_the_flag_take_precedence(tmp_path, settings):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        enable_compilation_cache(True, {"XDG_CACHE_HOME": str(tmp_path), name: "x"})
    assert not settings and not list(tmp_path.iterdir())
    enable_compilation_cache(False, {"JAX_COMPILATION_CACHE_DIR": "x"})
    assert settings == {"jax_enable_compilation_cache": False}


def test_partly_written_and_oldest_entries_are_removed(tmp_path, settings, monkeypatch):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    enable_compilation_cache(True, environ)
    folder = Path(settings["jax_compilation_cache_dir"])
    content = zlib.compress(os.urandom(1000))
    for number, name in enumerate("abc"):
        (folder / f"{name}-cache").write_bytes(content)
        os.utime(folder / f"{name}-cache", (number, number))
    (folder / "torn-cache").write_bytes(content[:-10])
    (folder / "empty-cache").touch()
    monkeypatch.setattr(compilation_cache, "_MAX_BYTES", 2 * len(content))
    enable_compilation_cache(True, environ)
    assert sorted(path.name for path in folder.glob("*-cache")) == ["b-cache", "c-cache"]


def test_second_start_reads_what_the_first_has_compiled(tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environ |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)}
    environ |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    entries, logs = [], []
    for name in ("cold", "warm"):
        command = [
            sys.executable,
            "-m",
            "contextssl_jax.main",
            *QUICK,
            f"--workdir={tmp_path / name}",
        ]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        entries.append(sorted(tmp_path.glob("contextssl_jax/xla/*/*-cache")))
        logs.append(done.stderr)
    assert entries[0] == entries[1] and len(entries[0]) > 2
    assert len(logs[0].splitlines()) == len(logs[1].splitlines())
    assert not any("XLA" in log or "arning" in log for log in logs)
    assert lines(tmp_path / "cold") == lines(tmp_path / "warm")
    for cold, warm in zip(*(state_of(tmp_path / name) for name in ("cold", "warm")), strict=True):
        np.testing.assert_array_equal(cold, warm)
