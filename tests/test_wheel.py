"""The wheel trains, evaluates and reports in an empty folder, without the clone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TINY

ROOT = Path(__file__).parent.parent
QUICKSTART = (
    *(option for option in TINY if "environments" not in option and "unconditioned" not in option),
    "--config.eval.environments=rotation,color",
    "--config.monitor.every=0",
    "--config.objects3d.train=40",
    "--config.objects3d.test=40",
    "--config.objects3d.side=16",
    "--config.objects3d.pool=2",
)
# Of a user, in whose folder the package must not look.
OWN_FOLDER = {"base.py": "raise RuntimeError", "small.py": "raise RuntimeError"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build the wheel, and install it in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 8e6  # of which the released models take 6
    options = ("--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "-q")
    install = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site")]
    subprocess.run([*install, str(wheel)], check=True)
    return folder / "site"


def execute(installed: Path, folder: Path, *arguments: str) -> str:
    """Run Python in a folder with the installed package, and return its output."""
    environment = os.environ | {"PYTHONPATH": str(installed), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quickstart_trains_and_writes_its_report(installed, tmp_path):
    command = ("-m", "contextssl_jax.main", "--config=quickstart")
    execute(installed, tmp_path, *command, *QUICKSTART)
    run = tmp_path / "runs" / "quickstart"
    folder = run / "eval" / "2"
    report = json.loads((folder / "report.json").read_text())
    assert report["r2"].keys() == {"rotation", "color"}
    assert "<table" in (folder / "report.html").read_text()
    # The package is not in a repository, as that of the clone would be.
    assert report["provenance"]["git"] is None
    start = json.loads((run / "starts.jsonl").read_text())
    assert start["command"][:4] == ["python", *command]


def test_configs_do_not_need_the_clone_or_a_folder_named_configs(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    for name, text in OWN_FOLDER.items():
        (tmp_path / "configs" / name).write_text(text)
    code = (
        "import contextssl_jax; from contextssl_jax.configs import CONFIG_FOLDER, list_configs\n"
        "from contextssl_jax.config_file import load_config\n"
        "print(CONFIG_FOLDER, *list_configs())\n"
        "for name in list_configs(): assert load_config(f'{CONFIG_FOLDER}/{name}.py').seed == 0"
    )
    folder, *names = execute(installed, tmp_path, "-c", code).split()
    assert Path(folder) == installed / "contextssl_jax" / "configs"
    with_get_config = [
        path.stem for path in (ROOT / "configs").glob("*.py") if "get_config(" in path.read_text()
    ]
    assert {"quickstart", "base", "debug", "cifar10_small"} <= set(names) <= set(with_get_config)


def test_a_config_of_a_user_builds_on_one_of_the_package(installed, tmp_path):
    page = (ROOT / "docs" / "training.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "mine.py").write_text(code)
    help_text = execute(
        installed, tmp_path, "-m", "contextssl_jax.main", "--config=mine.py", "--help"
    )
    assert "loss.temperature" in help_text and " 0.2 (" in help_text
