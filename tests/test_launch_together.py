"""Processes that are started together: their output, their ends, and whose fault it was."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from launch.output import Lines

_REPOSITORY = Path(__file__).parent.parent

_LAUNCHER = """
import json, sys
from launch.process import Command, leash
from launch.together import run
codes, grace, moment = json.loads(sys.argv[1])
commands = [Command([*leash(), sys.executable, "-S", "-u", "-c", code], {"N": str(i)})
            for i, code in enumerate(codes)]
sys.exit(run(commands, grace=grace, moment=moment))
"""

# What the processes below begin with; say() is how they tell the test where they are.
_PRELUDE = """
import os, signal, sys, time
def say(*words): print(*words, flush=True)
def err(*words): print(*words, file=sys.stderr, flush=True)
def saves():
    count = [0]
    def save(*_): count[0] += 1
    signal.signal(signal.SIGTERM, save)
    say("ready")
    while not count[0]: time.sleep(0.01)
    time.sleep(0.2)
    say("saved after", count[0])
def until(file):
    while not os.path.exists(file): time.sleep(0.01)
"""
_FOREVER = "say('ready', os.getpid())\nwhile True: time.sleep(1)"


_started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    while _started:
        with _started.pop() as launcher:  # closes its pipes
            launcher.kill()


def start(*codes: str, grace=20.0, moment=0.3, before=(), **options) -> subprocess.Popen:
    """Starts Python programs together, by a launcher that the command `before` starts."""
    arguments = json.dumps([[_PRELUDE + code for code in codes], grace, moment])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [*before, sys.executable, "-c", _LAUNCHER, arguments]
    _started.append(subprocess.Popen(command, cwd=_REPOSITORY, **options))
    return _started[-1]


def ends(launcher: subprocess.Popen, before: str = "") -> tuple[int, str, str]:
    """Returns the exit status and all that was written."""
    out, err = launcher.communicate(timeout=30)
    return launcher.returncode, before + out, err


def read_until_ready(launcher: subprocess.Popen, processes: int) -> str:
    said = ""
    while said.count("ready") < processes:
        line = launcher.stdout.readline()
        assert line, launcher.stderr.read()
        said += line
    return said


def gone(pid: int) -> bool:
    """Returns whether a process has ended, if need be after a moment."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_lines_are_whole_and_bear_their_process():
    pieces = """
for i in range(100):
    for part in f"{os.environ['N']}:{i}", "-abc", "-def\\n":
        sys.stdout.write(part); sys.stdout.flush()
err("on stderr")
"""
    status, out, err = ends(start(pieces, pieces, pieces))
    assert status == 0
    for i, prefix in enumerate(("", "[1] ", "[2] ")):
        own = [line for line in out.splitlines() if line.startswith(f"{prefix}{i}:")]
        assert own == [f"{prefix}{i}:{j}-abc-def" for j in range(100)]
    assert len(out.splitlines()) == 300
    assert sorted(err.splitlines()) == ["[1] on stderr", "[2] on stderr", "on stderr"]


def test_of_a_progress_bar_its_last_state_is_logged():
    bar = "sys.stderr.write('\\r10%\\r20%'); sys.stderr.flush(); time.sleep(0.05)\n"
    status, _, err = ends(start(bar + "sys.stderr.write('\\r30%\\nafter')", bar))
    assert status == 0
    assert sorted(err.splitlines()) == ["30%", "[1] 20%", "after"]


def test_nothing_that_was_written_last_is_lost(tmp_path):
    go = tmp_path / "go"
    launcher = start(f"""
say('ready', os.getpid())
until({str(go)!r})
sys.stdout.write("words\\n" * 10000)
""")
    pid = int(read_until_ready(launcher, 1).split()[1])
    launcher.send_signal(signal.SIGSTOP)  # it shall see the end before the words
    go.touch()
    assert gone(pid)
    launcher.send_signal(signal.SIGCONT)
    status, out, _ = ends(launcher)
    assert (status, out) == (0, "words\n" * 10000)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4), (2, 5, 9, 10)])
def test_lines_do_not_depend_on_how_they_arrive(cuts):
    data = b"one\r\ntwo\rTWO\n\n\rthree \xff\r\rlast\r"
    lines, found = Lines(), []
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        found += lines.feed(data[begin:end])
    assert found == [b"one", b"TWO", b""]
    assert lines.unfinished() == b"last" and lines.close() == [b"last"]


def test_a_line_without_end_is_not_kept_without_end():
    lines = Lines()
    assert sum(len(one) for _ in range(64) for one in lines.feed(b"x" * 65536)) >= 1 << 21


def test_the_first_failure_ends_the_others_and_is_told_again():
    launcher = start(_FOREVER, "err('a hint'); err('error: no such thing'); sys.exit(3)", _FOREVER)
    status, out, err = ends(launcher)
    assert status == 3
    assert err.splitlines()[-3:] == [
        "launch: process 1 failed first, with status 3; the end of its stderr:",
        "launch:   a hint",
        "launch:   error: no such thing",
    ]
    assert all(gone(int(pid)) for pid in re.findall(r"ready (\d+)", out))


def test_those_that_do_not_end_are_killed(tmp_path):
    file = str(tmp_path / "file")
    deaf = "signal.signal(signal.SIGTERM, lambda *_: say('asked'))\n"
    fails = f"until({file!r}); sys.exit(1)"
    launcher = start(deaf + f"open({file!r}, 'w')\n" + _FOREVER, fails, grace=0.3)
    status, out, _ = ends(launcher)
    assert status == 1 and out.count("asked") == 1
    assert gone(int(re.search(r"ready (\d+)", out)[1]))


def test_a_death_by_signal_is_told_by_its_name():
    status, _, err = ends(start(_FOREVER, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert status == 137
    assert err == "launch: process 1 failed first, killed by SIGKILL; its stderr is empty\n"


_BOOM = """
err("Traceback (most recent call last):")
err("ValueError: boom")
"""
_GLOO = "err('JaxRuntimeError: Gloo all-reduce failed: Connection closed by peer')\n"
_TOLD = "err('error: process 1 ended: no'); sys.exit(1)"
_ABORTED = "err('F1 another task died')\nos.abort()"


@pytest.mark.parametrize(
    "first, second, status, told",
    [
        # Who only lost another is not to blame, even if it ended long before.
        (_GLOO + "open(F, 'w'); sys.exit(1)", "until(F); time.sleep(0.5); sys.exit(7)", 7, ""),
        # Nor where the one to blame hangs in its own shutdown, and is ended by the launcher.
        ("err('error: lost process 1'); sys.exit(1)", _BOOM + _FOREVER, 143, "ValueError: boom"),
        # The end of the one to blame may be that of a victim: all tasks are aborted at once.
        (_GLOO + _ABORTED, _BOOM + "time.sleep(0.1)\n" + _ABORTED, 134, "ValueError: boom"),
        # Nor who was told of the failure by the one that failed, however it was told.
        (_TOLD, "time.sleep(0.3); err('error: no'); sys.exit(2)", 2, "error: no"),
        # Nor is who was ended by the launcher, with nothing to say.
        (_FOREVER, "err('error: lost process 0'); sys.exit(6)", 6, "lost process 0"),
        # Nothing of what was meant for others to read is taken for a fault.
        (_GLOO + "sys.exit(1)", "time.sleep(0.1); os.kill(os.getpid(), 9)", 137, ""),
    ],
)  # fmt: skip
def test_the_blame_is_not_on_who_lost_another(tmp_path, first, second, status, told):
    file = f"F = {str(tmp_path / 'file')!r}\n"
    found, _, err = ends(start(file + first, file + second, moment=0.3))
    assert found == status
    assert "process 1 failed first" in err and err.rstrip().endswith(told)


def test_of_two_that_fail_by_themselves_the_first_is_named(tmp_path):
    file = str(tmp_path / "file")
    second = f"open({file!r} + '.new', 'w').write(str(os.getpid()))\n"
    second += f"os.rename({file!r} + '.new', {file!r}); sys.exit(5)"
    first = f"until({file!r}); pid = open({file!r}).read()\n"
    first += "while os.path.exists('/proc/' + pid): time.sleep(0.01)\n"
    first += "err('error: later'); sys.exit(4)"
    status, _, err = ends(start(first, second, moment=1))
    assert status == 5 and "process 1 failed first, with status 5" in err


def test_a_mistake_that_all_find_is_told_once():
    mistake = "err('error: --config.x: no such option'); sys.exit(2)"
    status, _, err = ends(start(mistake, mistake, mistake))
    assert status == 2
    assert len(re.findall(r"^(\[\d\] )?error: ", err, re.M)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once_to_all_which_save(number):
    launcher = start("saves()", "saves()", start_new_session=True)
    before = read_until_ready(launcher, 2)
    os.killpg(launcher.pid, number)  # as a terminal does: to the foreground's whole group
    status, out, err = ends(launcher, before)
    assert status == 0
    assert sorted(out.splitlines()[2:]) == ["[1] saved after 1", "saved after 1"]
    assert err == f"launch: {number.name}: all processes save and stop; once more kills them\n"


def test_a_second_signal_kills():
    deaf = "signal.signal(signal.SIGTERM, lambda *_: say('asked'))\n" + _FOREVER
    launcher = start(deaf, deaf)
    pids = re.findall(r"ready (\d+)", read_until_ready(launcher, 2))
    launcher.send_signal(signal.SIGINT)
    for _ in pids:
        assert "asked" in launcher.stdout.readline()
    launcher.send_signal(signal.SIGINT)
    status, _, err = ends(launcher)
    assert status == 130 and err.endswith("launch: killed\n")
    assert all(gone(int(pid)) for pid in pids)


def test_nohup_is_respected():
    launcher = start("saves()", before=["nohup"], stdin=subprocess.DEVNULL)
    before = read_until_ready(launcher, 1)
    launcher.send_signal(signal.SIGHUP)
    launcher.send_signal(signal.SIGTERM)
    status, out, err = ends(launcher, before)
    assert (status, out) == (0, "ready\nsaved after 1\n") and "SIGHUP" not in err


def test_no_process_outlives_a_killed_launcher():
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _FOREVER
    launcher = start(deaf, deaf)
    pids = re.findall(r"ready (\d+)", read_until_ready(launcher, 2))
    launcher.kill()
    launcher.communicate(timeout=30)
    assert all(gone(int(pid)) for pid in pids)


def test_what_a_process_leaves_behind_ends_with_it():
    leaves = """
if (child := os.fork()): say("child", child)
else: time.sleep(1000)
"""
    status, out, _ = ends(start(leaves, ""))
    assert status == 0 and gone(int(re.search(r"child (\d+)", out)[1]))


def test_a_run_does_not_end_with_its_reader(tmp_path):
    file = tmp_path / "end"
    writes = (
        f"say('ready'); until({str(tmp_path / 'go')!r})\n"
        + f"""
for i in range(1000): say('x' * 100)
open({str(file)!r}, 'w').close()
"""
    )
    launcher = start(writes)
    read_until_ready(launcher, 1)
    launcher.stdout.close()
    (tmp_path / "go").touch()
    assert launcher.wait(30) == 0 and file.exists()
    launcher.stderr.close()


def test_on_a_terminal_process_0_has_one_for_its_bar_and_prefixes_have_color(tmp_path):
    tells = (
        f"go = {str(tmp_path / 'go')!r}"
        + """
say(os.isatty(2), os.get_terminal_size(2).columns if os.isatty(2) else 0)
N = os.environ["N"]
sys.stderr.write(f"\\r<{N}>"); sys.stderr.flush(); until(go)
sys.stderr.write(f"\\r<{N} whole>\\n")
"""
    )
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 93, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    launcher = start(tells, tells, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
            if b"<0>" in shown and b"[1]" in shown:
                (tmp_path / "go").touch()
    except OSError:  # how a terminal ends
        pass
    os.close(ours)
    assert launcher.wait(30) == 0
    assert b"True 93\r\n" in shown and b"\x1b[32m[1]\x1b[0m False 0\r\n" in shown
    assert b"\r\x1b[K<0>" in shown and b"<1>" not in shown  # one bar at a time
    assert b"<0 whole>\r\n" in shown and b"\x1b[32m[1]\x1b[0m <1 whole>\r\n" in shown
