"""Sweeps: what is run and what not, with real processes; once with the real main."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath
from handmade import finish, report

from contextssl_jax.run.lock import Lock
from contextssl_jax.sweeps.definition import load_sweep
from contextssl_jax.sweeps.runs import Run, list_runs
from launch import sweep

REPOSITORY = Path(__file__).parent.parent

# In place of contextssl_jax.main: leaves behind what the test has prepared, or ends otherwise.
FAKE = """
import json, os, shutil, signal, sys, time
here = {here!r}
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
place = os.path.relpath(flags["workdir"], here + "/work")
with open(here + "/calls", "a") as file:
    file.write(place + "\\n")
todo = json.load(open(here + "/todo")).get(place, "finish")
if todo == "fail":
    print("first line", file=sys.stderr)
    sys.exit("error: that was wrong")
if todo == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if todo in ("save", "die of it", "fail of it"):
    def save(*_):
        if todo == "fail of it":
            sys.exit("error: the disk is full")
        print("saved", flush=True)
        sys.exit(0)
    if todo != "die of it":
        signal.signal(signal.SIGTERM, save)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
if todo == "endure":
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGTERM))
    os.kill(os.getppid(), signal.SIGTERM)
    while True:
        time.sleep(1)
if todo == "lose":
    os.makedirs(flags["workdir"])
    shutil.copy(here + "/lock.json", flags["workdir"])
    sys.exit("error: in use")
if todo == "finish":
    shutil.copytree(here + "/prepared/" + place, flags["workdir"], dirs_exist_ok=True)
"""

SWEEP = """
from contextssl_jax.sweeps import Sweep, Variant

def get_sweep():
    return Sweep(
        "Two temperatures",
        (Variant("cold", "configs/debug.py", {"loss.temperature": 0.1}),
         Variant("hot", "configs/debug.py", {"loss.temperature": 0.5})),
        seeds=(0, 1),
        overrides={"train.steps": 4, "train.warmup_steps": 1, "eval.lengths": (0, 2)},
    )
"""


class Place:
    """A sweep file and a working directory, with a fake main program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.file = folder / "two.py"
        self.file.write_text(SWEEP)
        (folder / "fake.py").write_text(FAKE.format(here=str(folder)))
        for run in self.runs("prepared", (0, 1, 2)):
            finish(run, report(run, lambda *path: 0.5, lengths=(0, 2)))
        with Lock(epath.Path(folder)):
            self.lock = (folder / "lock.json").read_text()
        (folder / "lock.json").write_text(self.lock)  # of this process, which lives
        self.todo()

    def runs(self, name: str = "work", seeds: tuple[int, ...] = (0, 1)) -> list[Run]:
        return list_runs(load_sweep(str(self.file)), epath.Path(self.folder / name), seeds)

    def todo(self, **ends: str) -> None:
        """Says how runs end, such as cold_0="fail"; the others finish."""
        places = {name.replace("_", "/seed_"): end for name, end in ends.items()}
        (self.folder / "todo").write_text(json.dumps(places))

    def start(self, *options: str) -> int:
        arguments = (f"--sweep={self.file}", f"--workdir={self.work}")
        return sweep.main(["sweep", *arguments, *options])

    def calls(self) -> list[str]:
        """The runs that were started since the last call, in their order."""
        file = self.folder / "calls"
        found = file.read_text().replace("/seed_", " ").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def page(self) -> str:
        return (self.work / "sweep.md").read_text()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_MAIN", (sys.executable, "-S", str(tmp_path / "fake.py")))
    return Place(tmp_path)


def error_of(capfd) -> str:
    """The one line of a mistake."""
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_all_points_of_a_seed_come_first_and_what_is_done_is_not_run_again(place, capfd):
    assert place.start("--only=hot", "--seeds=0") == 0
    assert place.calls() == ["hot 0"]
    assert "1 of 2 runs are done" in place.page() and "cold, seed 0 (not begun)" in place.page()
    assert place.start() == 0
    assert place.calls() == ["cold 0", "cold 1", "hot 1"]
    before = place.page()
    assert "4 of 4 runs are done" in before
    assert place.start() == 0 and not place.calls()
    result = capfd.readouterr()
    assert "0 of 4 runs to do" in result.err and "R² of crop" in result.out
    for name in ("sweep.md", "sweep.png", "sweep.json", "sweep.html"):
        (place.work / name).unlink()
    assert place.start("--report") == 0 and not place.calls()
    assert place.page() == before
    assert {path.name for path in place.work.iterdir()} == {
        *("cold", "hot", "sweep.md", "sweep.png", "sweep.json", "sweep.html")
    }


def test_a_seed_that_was_run_once_stays_on_the_page(place):
    assert place.start("--seeds=2") == 0
    assert place.calls() == ["cold 2", "hot 2"]
    assert "2 of 2 runs" in place.page()
    assert place.start("--seeds=0") == 0
    assert place.calls() == ["cold 0", "hot 0"]
    assert "4 of 4 runs" in place.page() and "| seed 0 | seed 2 |" in place.page()


@pytest.mark.parametrize("missing", ["checkpoints/4", "eval/4/report.json"])
def test_what_lacks_its_report_or_its_last_step_is_run_again(missing, place):
    assert place.start("--seeds=0") == 0
    place.calls()
    (place.work / "hot" / "seed_0" / missing).rename(place.folder / "away")
    assert place.start("--seeds=0") == 0
    assert place.calls() == ["hot 0"]


def test_a_failure_is_printed_at_the_end_and_the_other_runs_continue(place, capfd):
    place.todo(cold_0="fail", hot_0="die", hot_1="nothing")
    assert place.start() == 1
    assert place.calls() == ["cold 0", "hot 0", "cold 1", "hot 1"]
    end = capfd.readouterr().err.partition("hot, seed 1 (4 of 4)")[2]
    for line in (
        "cold, seed 0: failed, with status 1:",
        "  first line",
        "  error: that was wrong",
        "hot, seed 0: failed, killed by SIGKILL:",
        "hot, seed 1: failed, without a report:",
        "1 of 4 runs are done, 3 failed, 0 locked by other processes",
    ):
        assert f"launch: {line}\n" in end
    page = place.page()
    assert "1 of 4 runs are done" in page
    assert "cold, seed 0 (failed: with status 1: error: that was wrong)" in page
    assert "hot, seed 0 (failed: killed by SIGKILL: no output)" in page
    # Later pages know, until it is mended.
    assert place.start("--report") == 0 and place.page() == page
    place.todo()
    assert place.start() == 0
    assert place.calls() == ["cold 0", "hot 0", "hot 1"]
    assert "4 of 4 runs are done" in place.page() and "failed" not in place.page()


def test_what_another_process_holds_is_passed_over(place, capfd):
    held = epath.Path(place.work / "cold" / "seed_0")
    held.mkdir(parents=True)
    with Lock(held):
        assert place.start() == 0
    assert place.calls() == ["hot 0", "cold 1", "hot 1"]
    result = capfd.readouterr().err
    assert result.count(f"cold, seed 0: skipped, locked by process {os.getpid()} on") == 1
    assert "3 of 4 runs are done, 0 failed, 1 locked by other processes" in result
    assert "cold, seed 0 (unfinished: nothing saved yet)" in place.page()
    assert place.start() == 0
    assert place.calls() == ["cold 0"]


def test_the_lock_of_a_dead_process_holds_nothing(place):
    dead = json.loads(place.lock) | {"started": "0"}
    for label in ("cold", "hot"):
        (place.work / label / "seed_1").mkdir(parents=True)
        (place.work / label / "seed_1" / "lock.json").write_text(json.dumps(dead))
    assert place.start("--seeds=1") == 0
    assert place.calls() == ["cold 1", "hot 1"]


def test_who_was_quicker_makes_no_failure(place, capfd):
    place.todo(cold_0="lose")
    assert place.start() == 0
    assert place.calls() == ["cold 0", "hot 0", "cold 1", "hot 1"]
    result = capfd.readouterr().err
    assert "cold, seed 0: skipped" in result and "0 failed, 1 locked" in result
    assert "failed" not in place.page()


def test_locked_runs_are_checked_again(place, monkeypatch):
    answers = iter(["someone"])
    monkeypatch.setattr(sweep, "lock_holder", lambda workdir: next(answers, None))
    assert place.start() == 0
    assert place.calls() == ["hot 0", "cold 1", "hot 1", "cold 0"]


def test_what_another_has_done_meanwhile_is_not_run(place, monkeypatch):
    answers, is_done = iter([False] * 4 + [True]), sweep.is_done
    monkeypatch.setattr(sweep, "is_done", lambda run: next(answers, None) or is_done(run))
    assert place.start() == 0
    assert place.calls() == ["hot 0", "cold 1", "hot 1"]


@pytest.mark.parametrize(
    "end, status, words",
    [
        ("save", 0, "stopped. Run the same command to resume"),
        ("die of it", 0, "stopped. Run the same command to resume"),
        ("fail of it", 1, "error: the disk is full"),
    ],
)
def test_a_signal_is_passed_on_and_ends_the_sweep(end, status, words, place, capfd):
    place.todo(hot_0="fail")
    assert place.start("--seeds=0", "--only=hot") == 1
    (place.work / "sweep.md").unlink()
    assert place.calls() == ["hot 0"]
    place.todo(hot_0=end)
    capfd.readouterr()
    assert place.start() == status
    assert place.calls() == ["cold 0", "hot 0"]
    result = capfd.readouterr()
    assert words in result.err and ("saved" in result.out) == (end == "save")
    assert not (place.work / "sweep.md").exists()
    assert place.start("--report") == 0
    assert ("failed" in place.page()) == bool(status)


def test_a_stopped_sweep_prints_its_failures(place, capfd):
    place.todo(cold_0="fail", hot_0="save")
    assert place.start() == 1
    end = capfd.readouterr().err.partition("SIGTERM")[2]
    assert "cold, seed 0: failed, with status 1:" in end and "error: that was wrong" in end


def test_a_second_signal_kills(place, capfd):
    place.todo(cold_0="endure")
    assert place.start() == 128 + signal.SIGTERM
    assert place.start("--report") == 0
    assert "failed" not in place.page()


def test_a_dry_run_prints_what_a_shell_can_run(place, capfd):
    assert place.start("--seeds=0", "--only=cold") == 0
    place.calls()
    capfd.readouterr()
    assert place.start("--dry-run", "--seeds=0", "--set=data.name=it's") == 2
    assert "belongs to a run with different options" in error_of(capfd)
    assert place.start("--dry-run", "--seeds=0") == 0
    result = capfd.readouterr().out
    assert result.startswith("# cold, seed 0: done\n") and not place.calls()
    subprocess.run(["sh", "-c", result], check=True)
    assert place.calls() == ["hot 0"]


def test_options_of_the_command_line_are_the_strongest(place, capfd):
    place.work = place.folder / "other work"
    assert place.start("--dry-run", "--seeds=7", "--set=loss.temperature=0.2", "--only=hot") == 2
    assert "'cold' and 'hot' are the same run" in error_of(capfd)
    assert place.start("--dry-run", "--seeds=7", "--set=train.steps=9", "--only=hot") == 0
    (run,) = list_runs(load_sweep(str(place.file)), epath.Path("x"), (7,), ["train.steps=9"])[1:]
    assert (run.config.train.steps, run.config.train.warmup_steps) == (9, 1)
    assert (run.config.seed, run.config.loss.temperature, run.config.eval.every) == (7, 0.5, 9)
    printed = capfd.readouterr().out.split()
    assert printed.index("--config.train.steps=4") < printed.index("--config.train.steps=9")


@pytest.mark.parametrize(
    "before, after, message",
    [
        ('"loss.temperature": 0.5', '"loss.temperature": 0.6', "loss.temperature (was 0.5"),
        ('"train.steps": 4', '"train.steps": 5', "train.steps (was 4, is 5)"),
        ('"hot"', '"warm"', "holds variants that the sweep has not (hot)"),
    ],
)
def test_a_sweep_that_has_changed_is_refused_and_nothing_lost(before, after, message, place, capfd):
    assert place.start() == 0
    place.calls()
    files = {path: path.read_bytes() for path in place.work.rglob("*") if path.is_file()}
    place.file.write_text(SWEEP.replace(before, after))
    capfd.readouterr()
    for option in ("--dry-run", "--report", "--seeds=0"):
        assert place.start(option) == 2
        assert message in error_of(capfd)
    assert not place.calls()
    assert files == {path: path.read_bytes() for path in place.work.rglob("*") if path.is_file()}


def test_a_sweep_may_grow(place):
    assert place.start("--seeds=0") == 0
    place.calls()
    place.file.write_text(
        SWEEP.replace(
            "0.5})", '0.5}), Variant("warm", "configs/debug.py", {"loss.temperature": 1.0})'
        )
    )
    for run in place.runs("prepared", (0,)):
        if run.point.label == "warm":
            finish(run, report(run, lambda *path: 0.5, lengths=(0, 2)))
    assert place.start("--seeds=0") == 0
    assert place.calls() == ["warm 0"]


def test_a_run_s_own_folder_is_no_sweep_s(place, capfd):
    place.work = place.folder / "prepared" / "hot" / "seed_0"
    assert place.start() == 2
    assert "is a run's own" in error_of(capfd)
    place.work = place.file
    assert place.start() == 2
    assert "--workdir: cannot use" in error_of(capfd)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--seeds=0,0"], "--seeds: name different whole numbers"),
        (["--seeds=-1"], "--seeds: name different"),
        (["--seeds=one"], "--seeds: name different"),
        (["--only=cool"], "--only: unknown value 'cool'. Choose one of cold, hot"),
        (["--set=train.steps"], "--set: invalid setting"),
        (["--set=seed=4"], "--set: invalid setting"),
        (["--set=train.step=4"], "--config.train.step: no such option"),
        (["--set=train.steps=x"], "'cold': "),
        (["--workdir=s3://x"], "--workdir: s3://x is not a supported"),
        (["--sweep=nowhere.py"], "--sweep: cannot read 'nowhere.py'"),
        (["--repeat"], "unrecognized arguments: --repeat"),
    ],
)
def test_user_errors_are_one_line(options, message, place, capfd):
    assert place.start(*options) == 2
    assert message in error_of(capfd)
    assert not place.work.exists()


def test_what_is_needed_is_said(capfd):
    assert sweep.main(["sweep"]) == 2
    assert "--sweep, --workdir" in error_of(capfd)


TINY = """
from contextssl_jax.sweeps import Sweep, Variant

def get_sweep():
    return Sweep("Tiny", (Variant("λ = 5", "configs/debug.py"), Variant("λ = 0", "configs/debug.py",
                                                          {"loss.predictor_weight": 0.0})), (3,),
                 overrides={
        "train.steps": 8, "train.warmup_steps": 1, "checkpoint.every": 1, "monitor.every": 0,
        "log.tensorboard": False, "model.transformer.blocks": 1, "eval.lengths": (0, 2),
        "eval.environments": ("crop",), "eval.probe.steps": 2, "eval.fit_records": 16,
        "eval.test_records": 16, "eval.images": 16, "eval.batch": 16, "eval.probe.hidden": (4,),
        "eval.retrieval.records": 2, "eval.retrieval.views": 5, "eval.draws": 1,
        "data.contexts": 2, "data.pairs": 4})
"""


def test_a_killed_sweep_resumes_and_ends_with_its_page(tmp_path, monkeypatch):
    file, work = tmp_path / "tiny.py", tmp_path / "work"
    file.write_text(TINY)
    command = [sys.executable, "-m", "launch.sweep", f"--sweep={file}", f"--workdir={work}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    first, second = list_runs(load_sweep(str(file)), epath.Path(work), (3,))
    started = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 120
    while not (first.workdir / "checkpoints" / "1").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    started.kill()
    assert started.communicate()[0].count(b"launch: ") == 2
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "λ = 0, seed 3 (2 of 2)" in done.stderr and "2 of 2 runs are done" in done.stderr
    starts = [run.workdir / "starts.jsonl" for run in (first, second)]
    assert [len(file.read_text().splitlines()) for file in starts] == [2, 1]
    assert "from step 0 of 8" not in done.stderr.split("λ = 0")[0]
    result = json.loads((work / "sweep.json").read_text())
    for run in (first, second):
        own = json.loads(run.report.read_text())
        figure = result["figures"][run.point.label]["r2"]["crop"]["blur"]["mlp"]["pair"]["2"]
        value = own["r2"]["crop"]["blur"]["mlp"]["pair"]["2"]
        assert figure == {"mean": value, "std": None, "seeds": {"3": value}}
    assert [run["state"] for run in result["runs"]] == ["done", "done"]
    assert result["runs"][0]["provenance"]["git"] == own["provenance"]["git"]
    # Nothing is left to do.
    monkeypatch.setattr(sweep, "_MAIN", ("false",))
    assert sweep.main(["sweep", *command[3:]]) == 0
