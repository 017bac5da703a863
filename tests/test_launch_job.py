"""The exit status of launch.job, by which a scheduler decides whether to restart it."""

import json
import sys

import pytest

from launch import job


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Return a function that runs a job whose main ends as given, and returns its exit status."""

    def run(status: int, steps: int, *flags: str) -> int:
        def main(commands) -> int:
            (command,) = commands
            assert command.arguments[-6:-2] == [
                sys.executable,
                "-m",
                "contextssl_jax.main",
                flags[0],
            ]
            (tmp_path / "config.json").write_text(json.dumps({"train": {"steps": 4}}))
            (tmp_path / "checkpoints" / str(steps)).mkdir(parents=True)
            return status

        monkeypatch.setattr(job, "run", main)
        return job.main(["job", *flags, "--config.seed=1", f"--workdir={tmp_path}"])

    return run


@pytest.mark.parametrize(
    "status, steps, flag, expected",
    [
        (0, 4, "--config=debug", 0),
        (0, 2, "--config=debug", 3),  # SIGTERM
        (2, 4, "--config=debug", 2),
        (1, 2, "--config=debug", 1),
        (0, 2, "--mode=eval", 0),
    ],
)
def test_status_of_a_job(ended, status, steps, flag, expected):
    assert ended(status, steps, flag) == expected


def test_job_without_a_workdir_is_an_error(capsys):
    assert job.main(["job", "--config=debug"]) == 2
    assert capsys.readouterr().err.startswith("error: --workdir: missing")
