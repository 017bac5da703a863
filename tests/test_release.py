"""Releasing a run: the folder is complete, its card states the report's figures."""

import json
from pathlib import Path

import numpy as np
import pytest

import contextssl_jax as cssl
from contextssl_jax import release
from tests.tiny import QUICK, run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert run(*QUICK, "--config.eval.every=4", f"--workdir={workdir}") == 0
    return workdir


def command(*arguments: object) -> int:
    return release.main(["release", *map(str, arguments)])


def report_r2(workdir: Path, environment: str, group: str) -> float:
    report = json.loads((workdir / "eval" / "4" / "report.json").read_text())
    return report["r2"][environment][group]["linear"]["single"]["4"]


def test_a_released_model_is_that_of_the_run(workdir, tmp_path):
    out = tmp_path / "small"
    assert command(workdir, f"--out={out}", "--license=apache-2.0", "--limit=A demonstration.") == 0
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    expected, images = cssl.load(workdir), np.random.default_rng(0).random((3, 16, 16, 3))
    for path in (out, out / "model.safetensors"):
        model = cssl.load(path)
        np.testing.assert_array_equal(model.embed(images), expected.embed(images))
        assert model.card.figures["r2"]["linear"]["crop"]["blur"] == report_r2(
            workdir, "crop", "blur"
        )
    assert expected.card.figures == model.card.figures


def test_the_card_states_figures_units_and_command(workdir, tmp_path):
    assert command(workdir, f"--out={tmp_path}", "--name=mine", "--license=mit") == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: contextssl-jax\n") and "\nlicense: mit\n" in text
    assert "{" not in text and str(workdir) not in text
    values = [report_r2(workdir, "crop", group) for group in ("crop", "blur")]
    row = f"| linear | crop | {values[0]:.3f} | {values[1]:.3f} |"
    assert row in text
    assert 'cssl.load("mine")' in text and "--config=configs/debug.py" in text
    assert "standard deviation in pixels" in text


def test_rounded_weights_are_evaluated_anew(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release, "_TOLERANCE", 1.0)
    assert command(workdir, f"--out={tmp_path / 'half'}", "--dtype=bfloat16") == 0
    halves = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert command(workdir, f"--out={tmp_path / 'whole'}") == 0
    assert halves < 0.8 * (tmp_path / "whole" / "model.safetensors").stat().st_size
    figures = cssl.load(tmp_path / "half").card.figures
    assert figures != cssl.load(tmp_path / "whole").card.figures
    monkeypatch.setattr(release, "_TOLERANCE", -1.0)
    assert command(workdir, f"--out={tmp_path / 'none'}", "--dtype=bfloat16") == 2
    assert "--dtype: rounding the weights changes ['" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_wrong_input_is_one_line(workdir, tmp_path, capsys):
    for arguments, message in (
        ((workdir, f"--out={tmp_path}", "--step=2"), "has no report of step 2. Make it by"),
        ((tmp_path / "none", f"--out={tmp_path}"), "has no config.json. Name the folder of a run"),
        ((workdir, f"--out={workdir / 'config.json'}"), "--out: "),
    ):
        assert command(*arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error
