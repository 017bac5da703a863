"""Faults end a run with one line, or not at all; what was saved stays, and the run goes on."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from running import STEPS, assert_same_run, end, finish, start, steps, wait_for

from contextssl_jax.config import parse_command_line, to_json
from contextssl_jax.data import DATASETS
from contextssl_jax.data.dataset import DatasetSpec
from contextssl_jax.data.synthetic import build as build_synthetic
from contextssl_jax.errors import UserError, reraise_out_of_memory
from contextssl_jax.main import main

# Room for a mount that ends with the process, where the system grants it.
MOUNT = ("unshare", "--map-root-user", "--mount", "sh", "-c")
SMALL_DISK = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'

QUIET = ("--config.monitor.every=0", "--config.log.tensorboard=False")
QUICK = ("main", "--config=configs/debug.py", *QUIET, "--config.train.parallel=jit")
BRIEF = ("--config.train.warmup_steps=0", "--config.train.steps=2")


def can_mount(folder: Path) -> bool:
    try:
        done = subprocess.run([*MOUNT, SMALL_DISK, "1m", folder, "true"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def run(*options: str) -> int:
    return main([*QUICK, *options])


def test_a_second_run_on_a_folder_is_refused_and_the_first_goes_on(tmp_path):
    options = (*QUIET, "--config.train.steps=1000000")
    first = start(tmp_path, *options)
    wait_for(lambda: bool(steps(tmp_path)), first)
    second = start(tmp_path, *options)
    (told,) = end(second)
    assert second[0].returncode == 2
    (line,) = [line for line in told.splitlines() if line.startswith("error")]
    assert f"is in use by process {first[0].pid} on" in line
    first[0].terminate()
    (told,) = end(first)
    assert first[0].returncode == 0, told
    assert not (tmp_path / "lock.json").exists()


def test_a_full_disk_ends_the_run_with_its_reason(tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("the system grants no mounts")
    # Some saves fit, not all; what is on the disk is copied out before it goes.
    script = (
        'mount -t tmpfs -o size=2500k tmpfs "$0" && out=$1 && shift && { "$@"; code=$?;'
        ' cp -r "$0/run" "$out"; exit $code; }'
    )
    options = ("--config.checkpoint.keep=100", *QUIET)
    limits = (*MOUNT, script, str(disk), str(kept))
    process = start(disk / "run", *options, limits=limits)
    (told,) = end(process)
    assert process[0].returncode == 2, told
    (line,) = [line for line in told.splitlines() if line.startswith("error")]
    assert "could not be saved" in line and "No space left" in line and "Traceback" not in told
    last = steps(kept)[-1]
    assert f"the last checkpoint is step {last}" in line and last < STEPS
    assert f"from step {last} of" in finish(kept, *options)
    whole = tmp_path / "whole"
    finish(whole, *options)
    assert_same_run(kept, whole)


class Spoilt:
    """The synthetic train split, whose latents turn infinite after some draws."""

    def __init__(self, split, good: int) -> None:
        self.size, self.labels, self._split, self._good = split.size, split.labels, split, good

    def draw(self, rng, indices, views):
        record, transform_params = self._split.draw(rng, indices, views)
        if rng.bit_generator.seed_seq.entropy[-1] >= self._good:  # contexts are keyed by number
            transform_params = transform_params.copy()
            transform_params[0, 0, 0] = np.inf
        return record, transform_params


def test_a_batch_that_is_not_finite_is_named(tmp_path, monkeypatch, capsys):
    def build(config):
        dataset = build_synthetic(config)
        spoilt = Spoilt(dataset.splits["train"], 30 * 4)
        return replace(dataset, splits={**dataset.splits, "train": spoilt})

    monkeypatch.setitem(DATASETS, "synthetic", DatasetSpec(build))
    options = ("--config.checkpoint.every=10", "--config.data.contexts=4")
    assert run(*options, f"--workdir={tmp_path}", "--config.train.steps=40") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: step 31: ") and "the last good checkpoint is step 30" in line
    assert "Its batch is not finite either: latents of context 0" in line
    assert steps(tmp_path)[-1] == 30


def test_a_loss_that_diverges_by_itself_is_told_apart(tmp_path, capsys):
    assert run("--config.train.learning_rate=1e30", f"--workdir={tmp_path}") == 2
    assert "Its batch is finite. A lower train.learning_rate" in capsys.readouterr().err


def test_memory_that_runs_out_names_what_to_lower(tmp_path, monkeypatch, capsys):
    def greedy(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr("contextssl_jax.experiment.train_step", greedy)
    assert run(f"--workdir={tmp_path}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "out of memory" in line
    assert "data.contexts" in line and "accumulate_steps" in line and "remat" in line


def test_only_want_of_memory_is_taken_for_it():
    with pytest.raises(jax.errors.JaxRuntimeError), reraise_out_of_memory("lower it"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    with (
        pytest.raises(UserError, match="out of memory .*; lower it"),
        reraise_out_of_memory("lower it"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory")


@pytest.mark.parametrize(
    "what, told", [("tensorboard", "TensorBoard: cannot write"), ("eval", "the report cannot be")]
)
def test_what_a_run_can_do_without_warns_once(tmp_path, capsys, what, told):
    options = ("--config.log.tensorboard=True", "--config.log.every=1", "--config.eval.every=1")
    command = [*QUICK, *options, f"--workdir={tmp_path}", *BRIEF]
    (tmp_path / "config.json").write_text(to_json(parse_command_line(command, ("train",)).config))
    (tmp_path / what).write_text("a file where a folder should be")
    assert main(command) == 0
    assert capsys.readouterr().err.count(told) == 1
    assert steps(tmp_path)[-1] == 2
    other = {"tensorboard": "eval", "eval": "tensorboard"}[what]
    assert list((tmp_path / other).rglob("*"))  # which is written all the same


def test_the_folder_tells_how_to_repeat_the_run(tmp_path):
    for _ in range(2):  # the second start does nothing, and is kept too
        assert run(*BRIEF, f"--workdir={tmp_path}") == 0
    first, second = map(json.loads, (tmp_path / "starts.jsonl").read_text().splitlines())
    assert first["command"][:3] == ["python", "-m", "contextssl_jax.main"]
    assert "--config.train.steps=2" in first["command"] and first["seed"] == 0
    assert first["versions"]["jax"] == jax.__version__ and first["processes"] == 1
    assert "cpu" in first["devices"] and first["config"] == second["config"]
    assert not first["deterministic"]


def test_other_data_under_the_same_name_are_refused(tmp_path, capsys):
    assert run(*BRIEF, f"--workdir={tmp_path}") == 0
    told = json.loads((tmp_path / "data.json").read_text())
    told["train"]["records"] += 1
    (tmp_path / "data.json").write_text(json.dumps(told))
    assert run(*BRIEF, f"--workdir={tmp_path}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "its data set is no longer the one" in line and "257 records" in line
    (tmp_path / "data.json").write_text("{")
    assert run(*BRIEF, f"--workdir={tmp_path}") == 2
    assert "data.json: is damaged" in capsys.readouterr().err


def test_deterministic_is_a_flag_of_the_compiler_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert run(*BRIEF, "--deterministic", f"--workdir={tmp_path}") == 0
    assert os.environ["XLA_FLAGS"].endswith("device_count=4 --xla_gpu_deterministic_ops=true")
    assert json.loads((tmp_path / "starts.jsonl").read_text())["deterministic"]
