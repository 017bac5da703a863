"""A leading ~ in every path that the user sets, since shells leave it in --option=~/path."""

import json
import re
from pathlib import Path

import pytest
from etils import epath

from configs import debug
from contextssl_jax.config import parse_command_line
from contextssl_jax.data.bench3d.prepare import prepare
from contextssl_jax.data.folder import find_images
from contextssl_jax.data.staging import cache_folder, stage_folder
from contextssl_jax.data.tfds_source import _builder
from contextssl_jax.errors import UserError, expand_home
from contextssl_jax.run.workdir import check_workdir
from contextssl_jax.storage.files import json_output
from contextssl_jax.storage.paths import resolve_path
from contextssl_jax.sweeps.definition import load_sweep
from launch import finished

_REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    (tmp_path / "my home").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "my home"
    assert [path.name for path in tmp_path.iterdir()] == ["my home"]  # no folder named ~


def test_outputs_and_workdirs(home):
    assert resolve_path("~/run", "--workdir") == epath.Path(home / "run")
    (home / "run").mkdir()
    (home / "run" / "notes.txt").touch()
    with pytest.raises(UserError, match=f"{home}/run is not empty"):
        check_workdir("~/run", debug.get_config())
    (home / "run" / "config.json").write_text('{"train": {"steps": 5}}')
    (home / "run" / "checkpoints" / "5").mkdir(parents=True)
    assert finished.main(["", "~/run"]) == 0
    with json_output("~/plan.json") as write:
        write(1)
    assert json.loads((home / "plan.json").read_text()) == 1


def test_configs_and_sweeps(home):
    config = (_REPOSITORY / "configs" / "debug.py").read_text()
    (home / "mine.py").write_text(config)
    for flag in ("--config=~/mine.py", "-config=~/mine.py"):
        command = parse_command_line(["main", flag, "--config.seed=3"], ("train",))
        assert command.config.seed == 3 and command.workdir == "runs/mine"
    (home / "sweep.py").write_text(
        (_REPOSITORY / "configs" / "sweeps" / "ablations.py").read_text()
    )
    assert load_sweep("~/sweep.py") == load_sweep(str(home / "sweep.py"))


def test_data(home, monkeypatch):
    assert stage_folder("~/data", "--config.data.dir") == str(home / "data")
    with pytest.raises(UserError, match=f"cannot read {home}/photos"):
        find_images("~/photos")
    with pytest.raises(UserError, match=str(home)):
        prepare("~/raw", None, "~/out", 8, 1)
    monkeypatch.setenv("TFDS_DATA_DIR", "~/tfds")
    for data_dir, folder in ((None, "tfds"), ("~/other", "other")):
        assert Path(_builder("cifar10", data_dir).data_path).is_relative_to(home / folder)


def test_paths_without_a_home_of_their_own_stay_or_are_named(monkeypatch):
    for path in ("run", "/run", "a/~/b", "./~", "gs://bucket/~x"):
        assert expand_home(path, "--workdir") == path
    with pytest.raises(UserError, match=r"^--out: no home folder is known for ~nobody7/run\. "):
        resolve_path("~nobody7/run", "--out")


def test_without_a_home_the_variable_to_set_is_named(monkeypatch):
    """As in a container that runs with a user id without a name."""

    def fail(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", fail)
    with pytest.raises(UserError, match="^--workdir: no home folder is known for ~/run"):
        resolve_path("~/run", "--workdir")
    with pytest.raises(UserError, match="^XDG_CACHE_HOME: no home folder"):
        cache_folder()
    with pytest.raises(UserError, match="^TFDS_DATA_DIR: no home folder"):
        _builder("cifar10", None)
    assert resolve_path("run", "--workdir") == epath.Path("run")


def test_there_is_one_place():
    sources = [*_REPOSITORY.glob("contextssl_jax/**/*.py"), *_REPOSITORY.glob("launch/*.py")]
    places = [path.name for path in sources if re.search(r"\bexpanduser\(", path.read_text())]
    assert places == ["errors.py"]
