"""A group of processes: output, exit, and the process that caused a failure."""

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
from running import HANGING

from launch.output import LineBuffer

_REPOSITORY = Path(__file__).parent.parent

_LAUNCHER = """
import json, sys
from launch.process import Command, kill_with_parent
from launch.process_group import run
codes, grace_period, failure_window = json.loads(sys.argv[1])
prefix = [*kill_with_parent(), sys.executable, "-S", "-u", "-c"]
commands = [Command([*prefix, code], {"N": str(i)}) for i, code in enumerate(codes)]
sys.exit(run(commands, grace_period=grace_period, failure_window=failure_window))
"""

# The first lines of the programs below. With say(), they report their state to the test.
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


def start(
    *codes: str, grace_period=20.0, failure_window=0.3, prefix=(), **options
) -> subprocess.Popen:
    """Start Python programs as a group, with a launcher whose command has a prefix."""
    arguments = json.dumps([[_PRELUDE + code for code in codes], grace_period, failure_window])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [*prefix, sys.executable, "-c", _LAUNCHER, arguments]
    _started.append(subprocess.Popen(command, cwd=_REPOSITORY, **options))
    return _started[-1]


def ends(launcher: subprocess.Popen, before: str = "") -> tuple[int, str, str]:
    """Return the exit status, standard output, after `before`, and standard error."""
    out, err = launcher.communicate(timeout=HANGING)
    return launcher.returncode, before + out, err


def read_until_ready(launcher: subprocess.Popen, processes: int) -> str:
    output = ""
    while output.count("ready") < processes:
        line = launcher.stdout.readline()
        assert line, launcher.stderr.read()
        output += line
    return output


def gone(pid: int) -> bool:
    """Return True when a process has exited, and False if it hangs."""
    for _ in range(100 * HANGING):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_lines_are_complete_and_have_a_prefix():
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


def test_last_state_of_a_progress_bar_is_logged():
    bar = "sys.stderr.write('\\r10%\\r20%'); sys.stderr.flush(); time.sleep(0.05)\n"
    status, _, err = ends(start(bar + "sys.stderr.write('\\r30%\\nafter')", bar))
    assert status == 0
    assert sorted(err.splitlines()) == ["30%", "[1] 20%", "after"]


def test_last_output_is_not_lost(tmp_path):
    go = tmp_path / "go"
    launcher = start(f"""
say('ready', os.getpid())
until({str(go)!r})
sys.stdout.write("words\\n" * 10000)
""")
    pid = int(read_until_ready(launcher, 1).split()[1])
    launcher.send_signal(signal.SIGSTOP)  # so that it detects the exit before it reads the output
    go.touch()
    assert gone(pid)
    launcher.send_signal(signal.SIGCONT)
    status, out, _ = ends(launcher)
    assert (status, out) == (0, "words\n" * 10000)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4), (2, 5, 9, 10)])
def test_lines_do_not_depend_on_chunks(cuts):
    data = b"one\r\ntwo\rTWO\n\n\rthree \xff\r\rlast\r"
    lines, found = LineBuffer(), []
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        found += lines.feed(data[begin:end])
    assert found == [b"one", b"TWO", b""]
    assert lines.incomplete() == b"last" and lines.close() == [b"last"]


def test_length_of_an_incomplete_line_is_limited():
    lines = LineBuffer()
    assert sum(len(one) for _ in range(64) for one in lines.feed(b"x" * 65536)) >= 1 << 21


def test_first_failure_stops_the_others_and_is_repeated_at_the_end():
    launcher = start(_FOREVER, "err('a hint'); err('error: no such thing'); sys.exit(3)", _FOREVER)
    status, out, err = ends(launcher)
    assert status == 3
    assert err.splitlines()[-3:] == [
        "launch: process 1 failed first, with status 3; last lines of its stderr:",
        "launch:   a hint",
        "launch:   error: no such thing",
    ]
    assert all(gone(int(pid)) for pid in re.findall(r"ready (\d+)", out))


def test_processes_that_ignore_sigterm_are_killed(tmp_path):
    file = str(tmp_path / "file")
    ignores = "signal.signal(signal.SIGTERM, lambda *_: say('ignored'))\n"
    fails = f"until({file!r}); sys.exit(1)"
    launcher = start(ignores + f"open({file!r}, 'w')\n" + _FOREVER, fails, grace_period=0.3)
    status, out, _ = ends(launcher)
    assert status == 1 and out.count("ignored") == 1
    assert gone(int(re.search(r"ready (\d+)", out)[1]))


def test_signal_that_killed_a_process_is_named():
    status, _, err = ends(start(_FOREVER, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert status == 137
    assert err == "launch: process 1 failed first, killed by SIGKILL; its stderr is empty\n"


_BOOM = """
err("Traceback (most recent call last):")
err("ValueError: boom")
"""
_GLOO = "err('JaxRuntimeError: Gloo all-reduce failed: Connection closed by peer')\n"
_NOTIFIED = "err('error: process 1 ended: no'); sys.exit(1)"
_ABORTED = "err('F1 another task died')\nos.abort()"


@pytest.mark.parametrize(
    "first, second, status, last_line",
    [
        # A process that reports the loss of another is not the cause, even if it exits long before.
        (_GLOO + "open(F, 'w'); sys.exit(1)", "until(F); time.sleep(0.5); sys.exit(7)", 7, ""),
        # Nor if the cause hangs in its shutdown, and is stopped by the launcher.
        ("err('error: lost process 1'); sys.exit(1)", _BOOM + _FOREVER, 143, "ValueError: boom"),
        # The cause may exit in the same way as the others, when the runtime aborts all tasks.
        (_GLOO + _ABORTED, _BOOM + "time.sleep(0.1)\n" + _ABORTED, 134, "ValueError: boom"),
        # Nor a process that exits because the failed process has notified it.
        (_NOTIFIED, "time.sleep(0.3); err('error: no'); sys.exit(2)", 2, "error: no"),
        # Nor a process without output that is stopped by the launcher.
        (_FOREVER, "err('error: lost process 0'); sys.exit(6)", 6, "lost process 0"),
        # A process without output may be the cause.
        (_GLOO + "sys.exit(1)", "time.sleep(0.1); os.kill(os.getpid(), 9)", 137, ""),
    ],
)  # fmt: skip
def test_cause_is_not_a_process_that_lost_another(tmp_path, first, second, status, last_line):
    file = f"F = {str(tmp_path / 'file')!r}\n"
    found, _, err = ends(start(file + first, file + second, failure_window=0.3))
    assert found == status
    assert "process 1 failed first" in err and err.rstrip().endswith(last_line)


def test_first_of_two_independent_failures_is_named(tmp_path):
    file = str(tmp_path / "file")
    second = f"open({file!r} + '.new', 'w').write(str(os.getpid()))\n"
    second += f"os.rename({file!r} + '.new', {file!r}); sys.exit(5)"
    first = f"until({file!r}); pid = open({file!r}).read()\n"
    first += "while os.path.exists('/proc/' + pid): time.sleep(0.01)\n"
    first += "err('error: later'); sys.exit(4)"
    status, _, err = ends(start(first, second, failure_window=1))
    assert status == 5 and "process 1 failed first, with status 5" in err


def test_error_of_all_processes_is_printed_once():
    fails = "err('error: --config.x: no such option'); sys.exit(2)"
    status, _, err = ends(start(fails, fails, fails))
    assert status == 2
    assert len(re.findall(r"^(\[\d\] )?error: ", err, re.M)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_is_forwarded_once_to_all_processes(number):
    launcher = start("saves()", "saves()", start_new_session=True)
    before = read_until_ready(launcher, 2)
    os.killpg(launcher.pid, number)  # to the process group, as a terminal does
    status, out, err = ends(launcher, before)
    assert status == 0
    assert sorted(out.splitlines()[2:]) == ["[1] saved after 1", "saved after 1"]
    message = f"{number.name}: saving and stopping all processes; repeat to kill them"
    assert err == f"launch: {message}\n"


def test_second_signal_kills():
    ignores = "signal.signal(signal.SIGTERM, lambda *_: say('ignored'))\n" + _FOREVER
    launcher = start(ignores, ignores)
    pids = re.findall(r"ready (\d+)", read_until_ready(launcher, 2))
    launcher.send_signal(signal.SIGINT)
    for _ in pids:
        assert "ignored" in launcher.stdout.readline()
    launcher.send_signal(signal.SIGINT)
    status, _, err = ends(launcher)
    assert status == 130 and err.endswith("launch: killed\n")
    assert all(gone(int(pid)) for pid in pids)


def test_sighup_is_ignored_under_nohup():
    launcher = start("saves()", prefix=["nohup"], stdin=subprocess.DEVNULL)
    before = read_until_ready(launcher, 1)
    launcher.send_signal(signal.SIGHUP)
    launcher.send_signal(signal.SIGTERM)
    status, out, err = ends(launcher, before)
    assert (status, out) == (0, "ready\nsaved after 1\n") and "SIGHUP" not in err


def test_processes_are_killed_with_the_launcher():
    ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _FOREVER
    launcher = start(ignores, ignores)
    pids = re.findall(r"ready (\d+)", read_until_ready(launcher, 2))
    launcher.kill()
    launcher.communicate(timeout=HANGING)
    assert all(gone(int(pid)) for pid in pids)


def test_children_of_a_process_are_killed_after_its_exit():
    leaves = """
if (child := os.fork()): say("child", child)
else: time.sleep(1000)
"""
    status, out, _ = ends(start(leaves, ""))
    assert status == 0 and gone(int(re.search(r"child (\d+)", out)[1]))


def test_processes_continue_after_stdout_is_closed(tmp_path):
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


def test_process_0_has_a_terminal_for_its_progress_bar_and_prefixes_are_colored(tmp_path):
    reports = (
        f"go = {str(tmp_path / 'go')!r}"
        + """
say(os.isatty(2), os.get_terminal_size(2).columns if os.isatty(2) else 0)
N = os.environ["N"]
sys.stderr.write(f"\\r<{N}>"); sys.stderr.flush(); until(go)
sys.stderr.write(f"\\r<{N} end>\\n")
"""
    )
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 93, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    launcher = start(reports, reports, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 4096):
            shown += data
            if b"<0>" in shown and b"[1]" in shown:
                (tmp_path / "go").touch()
    except OSError:  # end of a terminal
        pass
    os.close(parent)
    assert launcher.wait(30) == 0
    assert b"True 93\r\n" in shown and b"\x1b[32m[1]\x1b[0m False 0\r\n" in shown
    assert b"\r\x1b[K<0>" in shown and b"<1>" not in shown  # only the bar of process 0
    assert b"<0 end>\r\n" in shown and b"\x1b[32m[1]\x1b[0m <1 end>\r\n" in shown
