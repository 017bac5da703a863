"""Faults cause a one-line error or a warning; checkpoints are kept, and the run resumes."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from running import HERE, STEPS, assert_same_run, end, finish_here, start, steps, wait_for
from tiny import QUICK, run

from contextssl_jax.config import parse_command_line, to_json
from contextssl_jax.data import DATASETS
from contextssl_jax.data.dataset import DatasetSpec
from contextssl_jax.data.synthetic import build as build_synthetic
from contextssl_jax.errors import UserError, reraise_out_of_memory

# A mount in a namespace that ends with the process, if the system permits it.
MOUNT = ("unshare", "--map-root-user", "--mount", "sh", "-c")
SMALL_DISK = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'

NO_MONITOR = ("--config.monitor.every=0", "--config.log.tensorboard=False")
TWO_STEPS = ("--config.train.warmup_steps=0", "--config.train.steps=2")


def can_mount(folder: Path) -> bool:
    try:
        mounted = subprocess.run([*MOUNT, SMALL_DISK, "1m", folder, "true"], capture_output=True)
    except OSError:
        return False
    return mounted.returncode == 0


def test_second_run_on_a_workdir_is_rejected_and_the_first_continues(tmp_path):
    options = (*NO_MONITOR, "--config.train.steps=1000000")
    first = start(tmp_path, *options)
    wait_for(lambda: bool(steps(tmp_path)), first)
    second = start(tmp_path, *options)
    (log,) = end(second)
    assert second[0].returncode == 2
    (line,) = [line for line in log.splitlines() if line.startswith("error")]
    assert f"is in use by process {first[0].pid} on" in line
    first[0].terminate()
    (log,) = end(first)
    assert first[0].returncode == 0, log
    assert not (tmp_path / "lock.json").exists()


def test_full_disk_ends_the_run_with_an_error(tmp_path, capsys):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("the system does not permit mounts")
    # Some of the saves fit. The content of the disk is copied before it is unmounted.
    script = (
        'mount -t tmpfs -o size=2500k tmpfs "$0" && out=$1 && shift && { "$@"; code=$?;'
        ' cp -r "$0/run" "$out"; exit $code; }'
    )
    options = ("--config.checkpoint.keep=100", *NO_MONITOR)
    limits = (*MOUNT, script, str(disk), str(kept))
    process = start(disk / "run", *options, **HERE, limits=limits)
    (log,) = end(process)
    assert process[0].returncode == 2, log
    (line,) = [line for line in log.splitlines() if line.startswith("error")]
    assert "cannot save" in line and "No space left" in line and "Traceback" not in log
    last = steps(kept)[-1]
    assert f"The last checkpoint is step {last}" in line and last < STEPS
    finish_here(kept, *options)
    assert f"from step {last} of" in capsys.readouterr().err
    whole = tmp_path / "whole"
    finish_here(whole, *options)
    assert_same_run(kept, whole)


class NonFiniteSplit:
    """The synthetic train split, with an infinite transform parameter from some context on."""

    def __init__(self, split, first: int) -> None:
        self.size, self.labels, self._split, self._first = split.size, split.labels, split, first

    def draw(self, rng, indices, views):
        record, transform_params = self._split.draw(rng, indices, views)
        # The last number of a batch's seed is that of the context.
        if np.atleast_1d(rng.bit_generator.seed_seq.entropy)[-1] >= self._first:
            transform_params = transform_params.copy()
            transform_params[0, 0, 0] = np.inf
        return record, transform_params


def test_error_names_a_non_finite_batch(tmp_path, monkeypatch, capsys):
    def build(config):
        dataset = build_synthetic(config)
        split = NonFiniteSplit(dataset.splits["train"], 30 * 4)
        return replace(dataset, splits={**dataset.splits, "train": split})

    monkeypatch.setitem(DATASETS, "synthetic", DatasetSpec(build))
    options = ("--config.checkpoint.every=10", "--config.data.contexts=4")
    assert run(*QUICK, *options, f"--workdir={tmp_path}", "--config.train.steps=40") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: step 31: ") and "The last checkpoint is step 30" in line
    assert "The batch of step 31 is not finite either: transform_params of context 0" in line
    assert steps(tmp_path)[-1] == 30


def test_error_of_a_diverged_loss_suggests_a_smaller_learning_rate(tmp_path, capsys):
    assert run(*QUICK, "--config.train.learning_rate=1e30", f"--workdir={tmp_path}") == 2
    error = capsys.readouterr().err
    assert "is finite. Try a smaller --config.train.learning_rate" in error


def test_out_of_memory_error_names_the_options_to_change(tmp_path, monkeypatch, capsys):
    def out_of_memory(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr("contextssl_jax.experiment.train_step", out_of_memory)
    assert run(*QUICK, f"--workdir={tmp_path}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "out of memory" in line
    assert "data.contexts" in line and "accumulate_steps" in line and "remat" in line


def test_only_out_of_memory_errors_are_reraised():
    with pytest.raises(jax.errors.JaxRuntimeError), reraise_out_of_memory("Decrease x"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    with (
        pytest.raises(UserError, match=r"out of memory .*\. Decrease x\."),
        reraise_out_of_memory("Decrease x"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory")


@pytest.mark.parametrize(
    "output, warning",
    [("tensorboard", "TensorBoard: cannot write"), ("eval", "cannot write the report")],
)
def test_failed_optional_output_warns_once(tmp_path, capsys, output, warning):
    options = ("--config.log.tensorboard=True", "--config.log.every=1", "--config.eval.every=1")
    command = [*QUICK, *options, f"--workdir={tmp_path}", *TWO_STEPS]
    config = parse_command_line(["main", *command], ("train",)).config
    (tmp_path / "config.json").write_text(to_json(config))
    (tmp_path / output).write_text("a file instead of a folder")
    assert run(*command) == 0
    assert capsys.readouterr().err.count(warning) == 1
    assert steps(tmp_path)[-1] == 2
    other = {"tensorboard": "eval", "eval": "tensorboard"}[output]
    assert list((tmp_path / other).rglob("*"))  # the other output is written


def test_metadata_of_each_start_is_recorded(tmp_path):
    for _ in range(2):  # the second start has no steps left, and is recorded too
        assert run(*QUICK, *TWO_STEPS, f"--workdir={tmp_path}") == 0
    first, second = map(json.loads, (tmp_path / "starts.jsonl").read_text().splitlines())
    assert first["command"][:3] == ["python", "-m", "contextssl_jax.main"]
    assert "--config.train.steps=2" in first["command"] and first["seed"] == 0
    assert first["versions"]["jax"] == jax.__version__ and first["processes"] == 1
    assert "cpu" in first["devices"] and first["config"] == second["config"]
    assert not first["deterministic"]


def test_changed_data_set_is_rejected(tmp_path, capsys):
    assert run(*QUICK, *TWO_STEPS, f"--workdir={tmp_path}") == 0
    saved = json.loads((tmp_path / "data.json").read_text())
    saved["train"]["records"] += 1
    (tmp_path / "data.json").write_text(json.dumps(saved))
    assert run(*QUICK, *TWO_STEPS, f"--workdir={tmp_path}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the data set has changed" in line and "257 records" in line
    (tmp_path / "data.json").write_text("{")
    assert run(*QUICK, *TWO_STEPS, f"--workdir={tmp_path}") == 2
    assert "data.json: damaged" in capsys.readouterr().err


def test_deterministic_sets_the_compiler_flag_and_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert run(*QUICK, *TWO_STEPS, "--deterministic", f"--workdir={tmp_path}") == 0
    assert os.environ["XLA_FLAGS"].endswith("device_count=4 --xla_gpu_deterministic_ops=true")
    assert json.loads((tmp_path / "starts.jsonl").read_text())["deterministic"]
