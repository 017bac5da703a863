"""Shell scripts for TPU workers, for any POSIX shell. Each is passed to ssh as one argument.

In the home folder, contextssl/<commit>/ contains the code of a commit and its environment.
contextssl/ also contains files of the newest run: log, lock (locked while the run is live), mark
(an identifier of the run), pid, status, and stopped (on worker 0, if the user has stopped it).
"""

import shlex
from collections.abc import Sequence

# Prints "worker <host> ", then "none", "live <mark>", "stopped <status>", "ended <status>" or
# "interrupted" (for example by a reboot), then the last line of the log.
STATUS = """\
cd ~/contextssl 2>/dev/null || { echo "worker $(hostname) none"; exit; }
if ! flock --nonblock lock true; then state="live $(cat mark)"
elif [ -e stopped ]; then state="stopped $(cat status)"
elif [ -e status ]; then state="ended $(cat status)"
elif [ -e mark ]; then state=interrupted
else state=none
fi
echo "worker $(hostname) $state $(tail -n 1 log 2>/dev/null)"
"""

LOG = "tail -n 100 -F ~/contextssl/log"

STOP = """\
cd ~/contextssl 2>/dev/null && ! flock --nonblock lock true || { echo 'no run is live'; exit; }
touch stopped
kill -TERM "$(cat pid)" && echo 'saving and stopping; check with: status'
"""


def is_installed(commit: str) -> str:
    """Return a script that prints "worker <host> installed" or "worker <host> missing"."""
    return f"""\
if [ -e ~/contextssl/{commit}/.installed ]; then state=installed; else state=missing; fi
echo "worker $(hostname) $state"
"""


def archive(commit: str) -> str:
    """Return the file name of a commit's archive in the home folder."""
    return f"contextssl-{commit}.tar.gz"


def install(commit: str, date: str) -> str:
    """Return a script that unpacks a commit and creates its environment, unless it is installed.

    uv installs a Python if the worker's is too old, and no package that is newer than the commit,
    so that the environment is the same on all workers and after a preemption.

    Args:
      commit: the commit, whose `archive` is in the home folder.
      date: date of the commit, ISO 8601.
    """
    return f"""\
set -e
cd
[ ! -e contextssl/{commit}/.installed ] || exit 0
rm -rf contextssl/{commit}
mkdir -p contextssl/{commit}
tar -xzf {archive(commit)} -C contextssl/{commit}
cd contextssl/{commit}
python3 -m pip install --quiet --target=.uv uv
.uv/bin/uv venv --quiet --python=3.12 .venv
.uv/bin/uv pip install --quiet --python=.venv --exclude-newer={date} --editable '.[tpu,gcs]'
touch .installed
rm ~/{archive(commit)}
echo "$(hostname): installed"
"""


def start(commit: str, mark: str, arguments: Sequence[str]) -> str:
    """Return a script that starts contextssl_jax.main in the background, unless a run is live.

    Args:
      commit: an installed commit.
      mark: identifier of the run, which `STATUS` prints.
      arguments: arguments of contextssl_jax.main, without shell expansion.
    """
    command = shlex.join([".venv/bin/python", "-m", "contextssl_jax.main", *arguments])
    run = f"""\
echo {mark} >../mark
echo {shlex.quote(f"$ {command}  # commit {commit}")}
PYTHONUNBUFFERED=1 {command} &
echo $! >../pid
wait $!
echo $? >../status
"""
    return f"""\
cd ~/contextssl/{commit} && [ -e .installed ] || {{ echo "$(hostname): install first"; exit 1; }}
flock --nonblock ../lock rm -f ../status ../pid ../stopped
setsid nohup flock --nonblock ../lock sh -c {shlex.quote(run)} >>../log 2>&1 </dev/null &
"""


def is_finished(commit: str, workdir: str) -> str:
    """Return a script that prints "worker <host> finished" or "worker <host> interrupted".

    It fails if neither is certain.

    Args:
      commit: an installed commit.
      workdir: workdir of a run that has ended with status 0.
    """
    return f"""\
cd ~/contextssl/{commit} && .venv/bin/python -m launch.finished {shlex.quote(workdir)}
case $? in 0) state=finished ;; 3) state=interrupted ;; *) exit 1 ;; esac
echo "worker $(hostname) $state"
"""
