"""The main command: its output files, and one-line errors for invalid options."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny import run

from contextssl_jax.config import parse_command_line
from contextssl_jax.main import MODES
from contextssl_jax.run.workdir import check_workdir
from contextssl_jax.step import build_schedule

DEBUG = "--config=configs/debug.py"
QUICK = ("--config.train.steps=6", "--config.train.warmup_steps=2", "--config.log.every=3",
         "--config.monitor.every=0", "--config.checkpoint.every=3",
         "--config.train.parallel=jit")  # fmt: skip


def test_run_writes_its_files(tmp_path, capsys):
    workdir = tmp_path / "run"
    small = ("--config.model.transformer.blocks=1", "--config.monitor.every=3",
             "--config.monitor.fit_views=20", "--config.monitor.test_views=10")  # fmt: skip
    arguments = (DEBUG, *QUICK, *small, f"--workdir={os.path.relpath(workdir)}")
    assert run(*arguments) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [3, 6]
    assert [line["step"] for line in lines if "monitor/knn" in line] == [0, 3, 6]
    expected = {"loss", "loss_contrastive", "loss_predictor", "alignment_accuracy", "early_late",
                "similarity_positive", "similarity_negative", "gradient_norm", "learning_rate",
                "data_wait", "views_per_second", "predictor_r2/crop_x", "predictor_r2/crop_y",
                "predictor_r2/blur_x", "predictor_r2/blur_y"}  # fmt: skip
    assert expected <= training[-1].keys()
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 6
    assert (workdir / "checkpoints" / "6").is_dir()
    assert (workdir / "curves.png").stat().st_size > 10_000
    assert list((workdir / "tensorboard").iterdir())
    # Running the same command again only adds a line to starts.jsonl.
    before = (workdir / "metrics.jsonl").read_text()
    assert run(*arguments) == 0
    assert (workdir / "metrics.jsonl").read_text() == before
    starts = [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]
    assert [start["command"][3:] for start in starts] == [list(arguments)] * 2
    assert all(start["config"] and start["seed"] == 0 and start["versions"] for start in starts)
    check_extension(workdir, arguments, capsys)


def check_extension(workdir: Path, arguments: Sequence[str], capsys: pytest.CaptureFixture) -> None:
    """Check that the finished run of six steps is extended to twelve."""
    capsys.readouterr()
    assert run(*arguments, "--config.train.steps=12") == 0
    config = parse_command_line(["", *arguments, "--config.train.steps=12"], ("train",)).config
    rate = build_schedule(config.train)
    logged = capsys.readouterr().err.splitlines()
    message = next(m for m in logged if m.startswith("--config.train.steps: was 6, is 12"))
    assert f"{float(rate(6)):.3g} at step 6, where it was 0, and 0 at step 12" in message
    assert any("from step 6 of 12" in line for line in logged)
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 12
    start = json.loads((workdir / "starts.jsonl").read_text().splitlines()[-1])
    assert start["changes"] == {"train.steps": [6, 12]}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "loss" in line}
    assert list(rates) == [3, 6, 9, 12]
    # A line has the mean over its three steps, the first of which is taken at the line before.
    assert rates[9] == pytest.approx(sum(float(rate(step)) for step in (6, 7, 8)) / 3)
    assert check_workdir(str(workdir), config) == {}  # nothing has changed since


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "--config: missing"),
        (("--config=configs/nope.py",), "cannot read 'configs/nope.py'"),
        (("--config=nowhere/debug.py",), "or use --config=debug, which comes with the package"),
        (("--config=quickstrat",), "no config is named 'quickstrat'. Did you mean quickstart"),
        (("--config", "small"), "no config is named 'small'. Did you mean cifar10_small?"),
        (("--config=zzzz",), "no config is named 'zzzz'. --help lists all names"),
        (("--config=simclr_cifar10:mid",), "sizes 'full' and 'small', not in 'mid'"),
        (("--config=configs/simclr_cifar10.py:mid",), "sizes 'full' and 'small', not in 'mid'"),
        (("--config=configs/debug.py:small",), "debug.py:small: get_config() takes 0 positional"),
        ((DEBUG, "--config.train.stpes=3"), "Did you mean --config.train.steps?"),
        ((DEBUG, "--config.steps=3"), "Did you mean --config.train.steps?"),
        ((DEBUG, "--config.nuisances=()"), "Use --config.unconditioned_transforms instead"),
        ((DEBUG, "--config.train.steps=3.5"), "--config.train.steps: must be an integer"),
        ((DEBUG, "--config.log.tensorboard=perhaps"), "--config.log.tensorboard"),
        ((DEBUG, "--workdri=x"), "workdri"),
        ((DEBUG, "--mode=fly"), "mode"),
        ((DEBUG, "steps=3"), "steps=3: unknown argument"),
        ((DEBUG, "--config.data.name=imagenet"), "data.name: unknown value 'imagenet'"),
        ((DEBUG, "--config.method=byol"), "method: unknown value 'byol'"),
        ((DEBUG, "--config.model.encoder=vit"), "model.encoder: unknown value 'vit'"),
        ((DEBUG, "--config.loss.negatives=all"), "'batch', 'context', not 'all'"),
        ((DEBUG, "--config.data.environment_per=epoch"), "data.environment_per: must be one of"),
        ((DEBUG, "--config.environments=crop,hue"), "environments: 'hue'"),
        ((DEBUG, "--config.groups=('crop','spin')", "--config.environments=('crop',)"), "'spin'"),
        ((DEBUG, "--config.data.pairs=1000"), "data.pairs: 1000"),
        ((DEBUG, "--config.model.transformer.heads=3"), "model.transformer.heads"),
        ((DEBUG, "--config.train.parallel=mpi"), "--config.train.parallel: must be one of"),
        ((DEBUG, "--config.log.every=0"), "--config.log.every: must be an integer from 1 to"),
        ((DEBUG, "--config.model.dtype=float16"), "model.dtype: must be one of 'float32'"),
        ((DEBUG, "--config.model.patch.size=3"), "model.patch.size"),
        ((DEBUG, "--config.model.encoder=resnet18", "--config.model.resnet.stem=a"), "resnet.stem"),
        ((DEBUG, "--config.blur.taps=4"), "blur.taps: must be an odd integer"),
        ((DEBUG, "--config.monitor.fit_views=9999"), "--config.monitor.fit_views: needs 9999"),
        ((DEBUG, "--config.crop.scale=(0.5,0.1)"), "crop.scale"),
        ((DEBUG, "--workdir=/dev/null/run"), "--workdir: cannot use /dev/null/run"),
    ],
)  # fmt: skip
def test_invalid_option_is_a_one_line_error(arguments, message, tmp_path, capsys):
    assert run(f"--workdir={tmp_path / 'run'}", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not (tmp_path / "run").exists()  # it is free for the corrected command


def test_config_file_without_get_config_is_rejected(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # as in a new process
    assert run("--config=configs/small.py") == 2
    assert capsys.readouterr().err.startswith("error: --config: configs/small.py has no get_config")


def test_run_without_log_lines_and_monitor(tmp_path):
    assert run(DEBUG, *QUICK, "--config.log.every=100", f"--workdir={tmp_path}") == 0
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_error_for_a_workdir_of_another_config_names_the_differences(tmp_path, capsys):
    workdir = f"--workdir={tmp_path}"
    assert run(DEBUG, *QUICK, workdir) == 0
    capsys.readouterr()
    before = (tmp_path / "config.json").read_text()
    assert run(DEBUG, *QUICK, "--config.loss.temperature=0.2", "--config.seed=1", workdir) == 2
    error = capsys.readouterr().err
    assert "--config.loss.temperature (was 0.1, is 0.2)" in error
    assert "--config.seed (was 0, is 1)" in error
    assert (tmp_path / "config.json").read_text() == before
    # Options that do not change the result may differ.
    assert run(DEBUG, *QUICK, "--config.log.every=2", "--config.data.threads=1", workdir) == 0


def test_folder_with_other_files_is_not_changed(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert run(DEBUG, f"--workdir={tmp_path}") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_non_finite_loss_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, capsys):
    arguments = (DEBUG, *QUICK, "--config.train.learning_rate=1e30", f"--workdir={tmp_path}")
    arguments += ("--config.checkpoint.every=1", "--config.checkpoint.keep=10")
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    bad = int(error.split("step ")[1].split(":")[0])
    assert f"The last checkpoint is step {kept[-1]}" in error and kept[-1] < bad


def test_every_config_builds_and_documents_its_command():
    for path in sorted(Path("configs").glob("*.py")):
        text = path.read_text()
        scope: dict = {}
        if "def get_config(" not in text:  # included by other configs
            assert "no config by itself" in text.lower()
            continue
        exec(compile(text, str(path), "exec"), scope)
        assert scope["get_config"]().seed == 0
        if path.name != "base.py":
            assert re.search(rf"--config={path.stem}\b", scope["__doc__"])


def test_default_workdir_has_the_name_and_size_of_the_config():
    for path, folder in (
        ("configs/debug.py", "runs/debug"),
        ("configs/simclr_cifar10.py:small", "runs/simclr_cifar10_small"),
        ("debug", "runs/debug"),
        ("simclr_cifar10:small", "runs/simclr_cifar10_small"),
    ):
        command = parse_command_line(["main", f"--config={path}"], ("train",))
        assert command.workdir == folder


def test_a_closed_stdout_is_no_error(monkeypatch, capfd):
    """As of a plan that is piped to head."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setitem(MODES, "plan", lambda command: print("line\n" * 100_000))
        assert run(DEBUG, "--mode=plan") == 0
    assert capfd.readouterr().err == ""
