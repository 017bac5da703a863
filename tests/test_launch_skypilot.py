"""The SkyPilot task, without SkyPilot: its keys, and its script with an emulated Python."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from configs import cifar10_crop_blur

_REPOSITORY = Path(__file__).parent.parent
_PYTHON = """#!/bin/sh
echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID" "$@" >>calls
exit "$STATUS"
"""


@pytest.fixture(scope="module")
def task() -> dict:
    return yaml.safe_load((_REPOSITORY / "launch" / "skypilot.yaml").read_text())


@pytest.fixture
def run(task, tmp_path):
    """Return a function that runs the task's script, and returns its status and its commands."""
    tools = {".venv/bin/python": _PYTHON, "bin/nvidia-smi": "#!/bin/sh\n"}
    for name, text in tools.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    one_node = {"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_IPS": "10.0.0.1", "STATUS": "0"}

    def script(gpus: bool = False, **environment: str) -> tuple[int, list[str]]:
        path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} if gpus else {}
        given = os.environ | path | one_node | task["envs"] | {"WORKDIR": "gs://b/r"} | environment
        done = subprocess.run(["bash", "-c", task["run"]], cwd=tmp_path, env=given)
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return script


def test_spot_jobs_recover_and_their_disks_hold_nothing(task):
    resources = task["resources"]
    assert task["envs"]["WORKDIR"] is None  # SkyPilot requires --env WORKDIR=…
    assert resources["use_spot"] and "file_mounts" not in task
    assert 3 in resources["job_recovery"]["recover_on_exit_codes"]  # of launch.job
    kinds = [one["accelerators"] for one in resources["any_of"]]
    assert any(kind.startswith("tpu-") for kind in kinds)
    assert any(not kind.startswith("tpu-") for kind in kinds)
    for kind in kinds:
        assert cifar10_crop_blur.get_config().data.contexts % int(re.split("[-:]", kind)[-1]) == 0


def test_commands_name_existing_modules_configs_and_extras(task):
    modules = re.findall(r"\.venv/bin/python -m ([\w.]+)", task["run"])
    assert modules == ["launch.job"] and importlib.util.find_spec(modules[0])
    assert (_REPOSITORY / "configs" / f"{task['envs']['CONFIG']}.py").exists()
    extras = re.search(r"--editable '\.\[(\w+)\]'", task["setup"])[1]
    assert re.search(rf"^{extras} = ", (_REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_script_ends_with_the_status_of_the_job(run):
    status, calls = run(OPTIONS="--config.seed=1 --config.train.steps=9", STATUS="3")
    assert status == 3
    own = ["--config=cifar10_crop_blur", "--workdir=gs://b/r"]
    given = ["--config.seed=1", "--config.train.steps=9"]
    assert [call.split() for call in calls] == [["-m", "launch.job", *own, *given]]


def test_several_machines_with_gpus_join_the_first(run):
    several = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    status, calls = run(gpus=True, **several, SKYPILOT_NODE_RANK="1")
    assert status == 0 and calls[0].startswith("10.0.0.1:8476 2 1 -m launch.job ")
