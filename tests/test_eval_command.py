"""--mode=eval: what it writes, and one clear line for every mistake."""

import json
import shutil
from pathlib import Path

import pytest

from contextssl_jax.main import main
from contextssl_jax.run.checksums import _checksum

QUICK = ("--config=configs/debug.py", "--config.train.steps=6", "--config.train.warmup_steps=2",
         "--config.monitor.every=0", "--config.checkpoint.every=3", "--config.data.contexts=3",
         "--config.log.every=3", "--config.log.tensorboard=False",
         "--config.model.transformer.blocks=1")  # fmt: skip
SMALL = ("--config.eval.lengths=(0,4)", "--config.eval.environments=('crop','blur')",
         "--config.eval.probe.steps=5", "--config.eval.fit_records=40",
         "--config.eval.test_records=20", "--config.eval.images=30",
         "--config.eval.retrieval.records=3")  # fmt: skip


def run(*arguments: object) -> int:
    return main(["main", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints 3 and 6, and the report of step 6 that was made in training."""
    workdir = tmp_path_factory.mktemp("run")
    training = ("--config.eval.every=6", "--config.train.parallel=jit")
    assert run(*QUICK, *SMALL, *training, f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def report_of(workdir: Path, step: int) -> dict:
    report = json.loads((workdir / "eval" / str(step) / "report.json").read_text())
    del report["provenance"]["seconds"]
    return report


def files(workdir: Path) -> list[str]:
    return sorted(str(path.relative_to(workdir)) for path in workdir.rglob("*"))


def test_a_checkpoint_gives_the_report_that_training_gave(copied):
    """Also on four devices, over which the run's three contexts would not split."""
    before = report_of(copied, 6)
    shutil.rmtree(copied / "eval")
    assert run(*QUICK, *SMALL, "--mode=eval", f"--workdir={copied}") == 0
    assert report_of(copied, 6) == before
    folder = copied / "eval" / "6"
    assert {p.name for p in folder.iterdir()} == {
        *("report.json", "report.md", "report.html"),
        *("adaptation.png", "neighbours.png", "curves.png"),
    }
    markdown, page = ((folder / f"report.{kind}").read_text() for kind in ("md", "html"))
    value = before["r2"]["crop"]["blur"]["mlp"]["pair"]["4"]
    for text in (markdown, page):
        assert f"{value:.3f}" in text and before["provenance"]["config"] in text
        assert "Retrieval" in text and "Adaptivity" in text
    assert page.count("data:image/png;base64,") == 2  # adaptation and curves
    assert '"nearest"' in page and len(page.encode()) < 8_000_000
    for text in (markdown, page):  # the answer comes before everything else
        places = [text.index(f"{group} ") for group in ("crop", "blur", "classes")]
        places += [text.index("Values: R²"), text.index("Adaptation"), text.index("Retrieval")]
        assert places == sorted(places)


def test_training_does_not_make_a_report_again(copied):
    report = copied / "eval" / "6" / "report.json"
    report.write_text("kept")
    training = ("--config.eval.every=3", "--config.train.parallel=jit")
    assert run(*QUICK, *SMALL, *training, f"--workdir={copied}") == 0
    assert report.read_text() == "kept"


def test_another_step_and_other_views_can_be_evaluated(copied):
    arguments = (*QUICK, *SMALL, "--config.eval.test_records=10", "--config.eval.lengths=(0,2,4)")
    arguments += ("--config.eval.draws=2", "--config.eval.sparse=True")
    assert run(*arguments, "--mode=eval", "--step=3", f"--workdir={copied}") == 0
    result = report_of(copied, 3)["provenance"]
    assert (result["step"], result["lengths"], result["draws"]) == (3, [0, 2, 4], 2)
    text = (copied / "eval" / "3" / "report.md").read_text()
    assert "Beside the paper's Table 3" in text and "0.925" in text and "±" in text
    assert "does not publish" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--mode=eval", "--step=4"), "--step: {} has no checkpoint 4. Choose one of 3, 6"),
        (("--mode=eval", "--step=-1"), "step"),
        (("--step=3",), "--step: only valid with --mode=eval"),
        (("--mode=eval", "--config.model.transformer.width=64"), "model.transformer.width (was 32"),
        (("--mode=eval", "--config.eval.lengths=(0,600)"), "a context of 600 tokens needs 300"),
        (("--mode=eval", "--config.eval.lengths=(0,5)"), "eval.lengths: must be even"),
        (("--mode=eval", "--config.eval.environments=('spin',)"), "'spin'"),
        (
            ("--mode=eval", "--config.eval.context_split=dev"),
            "context_split: must be one",
        ),
        (("--mode=eval", "--config.eval.images=999"), "eval.images: 999"),
        (("--mode=eval", "--config.eval.retrieval.views=2"), "eval.retrieval.views: must be an"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(arguments, message, trained, capsys):
    before = files(trained)
    assert run(*QUICK, *SMALL, *arguments, f"--workdir={trained}") == 2
    error = capsys.readouterr().err.strip()
    assert message.format(trained) in error and error.startswith("error: ") and "\n" not in error
    assert files(trained) == before


def test_other_types_than_the_run_are_named(copied, capsys):
    """They are no damage of its checkpoints."""
    file = copied / "starts.jsonl"
    start = json.loads(file.read_text())
    start["numerics"]["JAX_ENABLE_X64"] = True
    file.write_text(json.dumps(start) + "\n")
    assert run(*QUICK, *SMALL, "--mode=eval", f"--workdir={copied}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: JAX_ENABLE_X64: was True when the run in") and "\n" not in error


def test_an_unwritable_folder_is_an_error_before_the_work(copied, capsys):
    shutil.rmtree(copied / "eval")
    (copied / "eval").write_text("in the way")
    assert run(*QUICK, *SMALL, "--mode=eval", f"--workdir={copied}") == 2
    error = capsys.readouterr().err.strip()
    assert f"--workdir: cannot write {copied / 'eval' / '6'}" in error and "\n" not in error


def test_without_a_checkpoint_nothing_is_made(tmp_path, capsys):
    assert run(*QUICK, "--mode=eval", f"--workdir={tmp_path / 'none'}") == 2
    assert f"--workdir: {tmp_path / 'none'} has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_model_that_does_not_fit_names_the_parameter(copied, capsys):
    config = json.loads((copied / "config.json").read_text())
    config["model"]["predictor"]["hidden"] = [8]
    (copied / "config.json").write_text(json.dumps(config))
    wrong = "--config.model.predictor.hidden=(8,)"
    assert run(*QUICK, *SMALL, wrong, "--mode=eval", f"--workdir={copied}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a different model" in error and "params.predictor" in error
    assert "[32] in the checkpoint, [8] in the config" in error


def test_parameters_that_are_not_those_saved_are_refused(copied, capsys):
    file = copied / "checkpoints" / "6" / "host" / "metadata"
    host = json.loads(file.read_text())
    name = next(name for name in host["arrays"] if name.startswith("params"))
    host["arrays"][name]["crc32"] += 1
    del host["checksum"]
    host["checksum"] = _checksum(host)
    file.write_text(json.dumps(host))
    assert run(*QUICK, *SMALL, "--mode=eval", "--step=6", f"--workdir={copied}") == 2
    assert (
        "is damaged (ValueError: an array does not match its checksum)" in capsys.readouterr().err
    )


def test_a_damaged_checkpoint_is_an_error_and_stays_in_place(copied, capsys):
    (copied / "checkpoints" / "6" / "host" / "metadata").write_text("{")
    before = files(copied / "checkpoints")
    assert run(*QUICK, *SMALL, "--mode=eval", "--step=6", f"--workdir={copied}") == 2
    assert "--step: checkpoint 6 is damaged (JSONDecodeError" in capsys.readouterr().err
    assert run(*QUICK, *SMALL, "--mode=eval", f"--workdir={copied}") == 0
    assert "checkpoint 6 is damaged" in capsys.readouterr().err
    assert (copied / "eval" / "3" / "report.json").exists()
    assert files(copied / "checkpoints") == before
