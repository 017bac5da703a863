"""What may change when a run is resumed, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from tiny import QUICK, run

from configs import debug, objects3d_rotation_blur
from contextssl_jax.config import parse_command_line, to_json
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment
from contextssl_jax.options import integer
from contextssl_jax.resume import (
    _batch_dependence,
    check_accumulation,
    check_resume,
    log_schedule,
    memory_advice,
)
from contextssl_jax.run.metadata import read_starts
from contextssl_jax.run.numerics import check_numerics, numerics
from contextssl_jax.run.workdir import check_workdir, fingerprint


@pytest.fixture
def workdir(tmp_path) -> Path:
    """What a finished run of four steps leaves that the next start compares."""
    config = parse_command_line(["", *QUICK], ("train",)).config
    folder = tmp_path / "run"
    (folder / "checkpoints" / "4").mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    (folder / "starts.jsonl").write_text(json.dumps({"numerics": numerics()}) + "\n")
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved(workdir: Path) -> dict:
    return json.loads((workdir / "config.json").read_text())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("train.steps=3",),
            "--config.train.steps: was 4, is 3, but {} has a checkpoint of step 4.",
        ),
        (("train.accumulate_steps=2",), "--config.train.accumulate_steps: was 1, is 2, which chan"),
        (("loss.temperature=0.2",), "--config.loss.temperature (was 0.1, is 0.2). Use a different"),
        (("train.steps=6", "seed=1"), "different options: --config.seed (was 0, is 1). Use a diff"),
    ],
)
def test_other_changes_are_one_line_and_nothing_is_written(arguments, message, workdir, capsys):
    before = files(workdir)
    options = (f"--config.{argument}" for argument in arguments)
    assert run(*QUICK, *options, f"--workdir={workdir}") == 2
    error = capsys.readouterr().err.strip()
    assert message.format(workdir) in error and "\n" not in error
    assert files(workdir) == before


def test_evaluation_takes_the_options_of_the_latest_start(workdir, capsys):
    arguments = (*QUICK, "--mode=eval", "--config.train.steps=8", f"--workdir={workdir}")
    assert run(*arguments) == 2
    assert "--config.train.steps (was 4, is 8)" in capsys.readouterr().err


def test_what_leaves_the_result_the_same_may_change(workdir):
    config = debug.get_config()
    for name in ("monitor.every", "monitor.contexts", "eval.every", "eval.draws", "log.every",
                 "data.threads", "data.prefetch", "checkpoint.keep"):  # fmt: skip
        config.update_from_flattened_dict({name: 7})
    config.update_from_flattened_dict(
        {"data.dir": "/x", "folder.path": "/x", "model.remat": True, "train.parallel": "pmap"}
    )
    (workdir / "config.json").write_text(json.dumps(debug.get_config().to_dict()))
    assert check_workdir(str(workdir), config) == {}
    assert fingerprint(config) == fingerprint(debug.get_config())
    config.model.dtype = "bfloat16"
    assert fingerprint(config) != fingerprint(debug.get_config())


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    """Its config.json has another monitor, a renamed option and one that is gone."""
    shutil.copy("results/objects3d_rotation_blur/config.json", tmp_path)
    content = saved(tmp_path)
    content["nuisances"] = content.pop("unconditioned_transforms")
    content["eval"]["of_an_earlier_version"] = 3
    del content["monitor"]["neighbours"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = objects3d_rotation_blur.get_config()
    assert check_workdir(str(tmp_path), config) == {}
    (tmp_path / "config.json").write_text(json.dumps(content | {"of_an_earlier_version": 3}))
    with pytest.raises(UserError, match=r"of_an_earlier_version \(was 3, is None\)"):
        check_workdir(str(tmp_path), config)


def test_an_option_of_a_later_version_has_its_earlier_value(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    config.train.new = integer(5, 1, before=3)
    with pytest.raises(UserError, match=r"--config.train.new \(was 3, is 5\)"):
        check_workdir(str(tmp_path), config)
    config.train.new = 3
    assert check_workdir(str(tmp_path), config) == {}


def experiment_of(config: ConfigDict, **options):
    config.update_from_flattened_dict(options)
    experiment = build_experiment(config)
    return experiment, experiment.template()


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"loss.negatives": "context"}, None),
        ({"loss.negatives": "batch"}, "the loss compares"),
        ({"loss.negatives": "context", "model.encoder": "resnet18"}, "batch statistics"),
        ({"loss.negatives": "context", "method": "simclr"}, "batch statistics"),
        ({"loss.negatives": "context", "method": "simclr_plus"}, None),
        ({"loss.negatives": "context", "method": "vicreg_plus"}, "the loss compares"),
    ],
)
def test_accumulation_may_change_where_the_gradient_is_the_same(options, reason, config):
    config.model.resnet.width = 4
    experiment, template = experiment_of(config, **options)
    found = _batch_dependence(experiment, template)
    assert found is None if reason is None else reason in found
    changes = {"train.accumulate_steps": [1, 2]}
    if reason:
        with pytest.raises(UserError, match=f"was 1, is 2, which changes the gradient.*{reason}"):
            check_accumulation(changes, experiment, template)
    else:
        check_accumulation(changes, experiment, template)
    advice = memory_advice(config, experiment, template)
    assert advice.startswith("Resume with --config.model.remat=True")
    resumable, _, anew = advice.partition("anew, in a different --workdir")
    assert ("accumulate_steps" in resumable) == (reason is None)
    assert ("accumulate_steps" in anew) == (reason is not None)


@pytest.mark.parametrize(
    "name, value",
    [
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_enable_x64", True),
        ("jax_random_seed_offset", 1),
    ],
)
def test_other_random_numbers_or_types_are_refused(name, value, workdir, capsys):
    before, was = files(workdir), getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        assert run(*QUICK, f"--workdir={workdir}") == 2
    finally:
        jax.config.update(name, was)
    error = capsys.readouterr().err.strip()
    assert f"{name.upper()}: was {was} when the run in {workdir} began, is {value}" in error
    assert "\n" not in error and files(workdir) == before


def test_a_run_without_a_record_is_not_compared(workdir):
    start = read_starts(workdir)[0]
    config = parse_command_line(["", *QUICK], ("train",)).config
    text = json.dumps({name: value for name, value in start.items() if name != "numerics"})
    jax.config.update("jax_random_seed_offset", 1)
    try:
        with pytest.raises(UserError, match="JAX_RANDOM_SEED_OFFSET"):
            check_resume(str(workdir), config)
        (workdir / "starts.jsonl").write_text(f"{text}\nnot JSON\n[1]\n")
        assert len(read_starts(workdir)) == 1
        assert check_resume(str(workdir), config) == {}
    finally:
        jax.config.update("jax_random_seed_offset", 0)


def test_settings_that_change_rounding_are_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_dump_to=/tmp/x")
    recorded = numerics()
    assert "--xla_dump_to" not in recorded
    check_numerics("runs/x", recorded)
    assert not caplog.messages
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    with jax.default_matmul_precision("highest"):
        check_numerics("runs/x", recorded)
    flags = [message.partition(":")[0] for message in caplog.messages]
    assert flags == [
        "--xla_cpu_enable_fast_math", "--xla_gpu_deterministic_ops", "JAX_DEFAULT_MATMUL_PRECISION",
    ]  # fmt: skip
    assert all("differ by rounding" in message for message in caplog.messages)


def test_a_warm_up_that_is_too_long_is_shortened_with_a_line(caplog):
    caplog.set_level("INFO", "contextssl_jax")
    train = debug.get_config().train
    log_schedule(train, {}, 0)
    assert not caplog.messages
    train.steps = 5
    log_schedule(train, {}, 0)
    assert caplog.messages == [
        "--config.train.warmup_steps: 5 is not below --config.train.steps=5; the warm-up takes a"
        " tenth of the run, 0 steps"
    ]
