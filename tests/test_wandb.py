"""Weights & Biases: what a run sends, its resume, and that no failure of it ends a run."""

import importlib.util
import io
import json
import sys
from types import SimpleNamespace

import pytest
from etils import epath
from PIL import Image
from tiny import QUICK, run

from contextssl_jax.run.wandb import WandbWriter

TRAIN = (*QUICK, "--config.eval.every=4", "--config.log.wandb=True")


class FakeRun:
    """Records what is sent."""

    def __init__(self, **arguments) -> None:
        self.arguments, self.logged, self.metrics, self.exit_code = arguments, [], [], None

    def define_metric(self, name, step_metric=None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values) -> None:
        self.logged.append(values)

    def finish(self, exit_code) -> None:
        self.exit_code = exit_code


class Fake(SimpleNamespace):
    """The part of the module wandb that is used."""

    def __init__(self) -> None:
        super().__init__(runs=[], logged_in=True, Settings=dict, Image=lambda image: image.size)

    def login(self, prompt) -> bool:
        assert not prompt  # never waits for input
        return self.logged_in

    def init(self, **arguments) -> FakeRun:
        self.runs.append(FakeRun(**arguments))
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch) -> Fake:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    module = Fake()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_metrics_and_the_report_are_sent_and_a_resume_continues_the_run(fake, tmp_path):
    workdir = tmp_path / "mine"
    assert run(*TRAIN, f"--workdir={workdir}") == 0
    (first,) = fake.runs
    assert first.exit_code == 0 and ("*", "step") in first.metrics
    assert first.arguments["name"] == "mine" and first.arguments["dir"] == str(workdir)
    assert first.arguments["config"]["train"]["steps"] == 4 and "mode" not in first.arguments
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert first.logged[: len(lines)] == lines
    values, pictures = first.logged[len(lines) :]
    report = json.loads((workdir / "eval" / "4" / "report.json").read_text())
    name = "report/r2/crop/blur/linear/single/4"
    assert (
        values["step"] == 4
        and values[name] == report["r2"]["crop"]["blur"]["linear"]["single"]["4"]
    )
    assert len(values) > 100 and all(isinstance(value, int | float) for value in values.values())
    assert {"step", "report/adaptation", "report/neighbours"} <= pictures.keys()
    assert pictures["report/adaptation"][0] > 100  # pixels
    # The same id, also with more steps; a project of the environment.
    longer = (*TRAIN, "--config.train.steps=6", f"--workdir={workdir}")
    assert run(*longer, "--config.eval.every=0") == 0
    second = fake.runs[1]
    assert second.arguments["id"] == first.arguments["id"] and second.arguments["resume"] == "allow"
    assert [values["step"] for values in second.logged if "loss" in values] == [6]
    # A report of --mode=eval is a run of its own, in the same group.
    assert run(*longer, "--mode=eval") == 0
    third = fake.runs[2]
    assert third.arguments["id"] == f"{first.arguments['id']}-eval-6"
    assert third.arguments["group"] == first.arguments["group"] and third.exit_code == 0
    assert [values["step"] for values in third.logged] == [6, 6]


def test_a_run_that_fails_is_sent_as_failed(fake, tmp_path):
    diverging = (
        "--config.eval.every=0",
        "--config.train.learning_rate=1e30",
        "--config.train.steps=10",
    )
    assert run(*TRAIN, *diverging, f"--workdir={tmp_path / 'run'}") == 2
    assert fake.runs[0].exit_code == 1


def use(writer: WandbWriter) -> None:
    """Write some steps and a picture, and close."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 4)).save(picture, "PNG")
    for step in (1, 2):
        writer.write(step, {"loss": 1.0}, 0.0)
    writer.write_pictures(2, {"report/adaptation": picture.getvalue()}, 0.0)
    writer.close(failed=False)


def fail(*arguments, **named):
    raise ConnectionError("no network\nat all")


@pytest.mark.parametrize("method", ["define_metric", "log", "finish"])
def test_an_error_is_one_warning(method, fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(FakeRun, method, fail)
    use(WandbWriter(epath.Path(tmp_path), {}))
    assert caplog.messages == ["Weights & Biases: no network at all; continuing without it"]


def test_without_a_login_or_a_network_it_is_offline(fake, tmp_path, caplog, monkeypatch):
    fake.logged_in = False
    WandbWriter(epath.Path(tmp_path), {})
    assert fake.runs[-1].arguments["mode"] == "offline"
    assert caplog.messages == [
        "Weights & Biases: no login; writing offline, for a later `wandb sync`"
    ]
    monkeypatch.setattr(Fake, "login", fail)
    WandbWriter(epath.Path(tmp_path), {})
    assert fake.runs[-1].arguments["mode"] == "offline" and "no network" in caplog.messages[-1]
    # WANDB_MODE is the user's decision.
    monkeypatch.setenv("WANDB_MODE", "online")
    WandbWriter(epath.Path(tmp_path), {})
    assert "mode" not in fake.runs[-1].arguments
    monkeypatch.setattr(Fake, "init", fail)
    WandbWriter(epath.Path(tmp_path), {}).write(1, {"loss": 1.0}, 0.0)
    assert caplog.messages[-1] == "Weights & Biases: no network at all; continuing without it"


def test_without_the_package_one_line_names_the_extra(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    use(WandbWriter(epath.Path(tmp_path), {}))
    (line,) = caplog.messages
    assert line.endswith("pip install 'contextssl-jax[wandb]'")
    assert not (tmp_path / "wandb_id").exists()


def test_the_id_of_a_workdir_is_not_trusted(fake, tmp_path):
    (tmp_path / "wandb_id").write_text("../../etc")
    WandbWriter(epath.Path(tmp_path), {})
    assert fake.runs[0].arguments["id"].isalnum()
    assert (tmp_path / "wandb_id").read_text().strip() == fake.runs[0].arguments["id"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_the_real_package_writes_offline(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        use(WandbWriter(epath.Path(tmp_path), {"seed": 0}))
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    run_id = (tmp_path / "wandb_id").read_text().strip()
    assert len(folders) == 2 and all(folder.name.endswith(run_id) for folder in folders)
    for folder in folders:
        assert [path.name.partition("_")[0] for path in folder.rglob("*.png")] == ["adaptation"]
        assert caplog.messages == []
