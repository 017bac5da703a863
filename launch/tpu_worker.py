"""Shell scripts that a TPU worker runs: each is one argument of ssh, for any POSIX shell.

In the home folder, contextssl/<commit>/ holds the code of a commit and its environment. Beside it
of the newest run: log, lock (held while it lives), mark (which run it is), pid, status.
"""

import shlex
from collections.abc import Sequence

# Prints "worker <host> ", and one of: none; live <mark>; ended <status>; interrupted, as by a
# reboot; then the last line of the log.
STATUS = """\
cd ~/contextssl 2>/dev/null || { echo "worker $(hostname) none"; exit; }
if ! flock --nonblock lock true; then state="live $(cat mark)"
elif [ -e status ]; then state="ended $(cat status)"
elif [ -e mark ]; then state=interrupted
else state=none
fi
echo "worker $(hostname) $state $(tail -n 1 log 2>/dev/null)"
"""

LOG = "tail -n 100 -F ~/contextssl/log"

STOP = """\
cd ~/contextssl 2>/dev/null && ! flock --nonblock lock true || { echo 'no run is live'; exit; }
kill -TERM "$(cat pid)" && echo 'it saves and ends; see: status'
"""


def is_installed(commit: str) -> str:
    """Returns a script that prints "worker <host> installed" or "worker <host> missing"."""
    return f"""\
if [ -e ~/contextssl/{commit}/.installed ]; then state=installed; else state=missing; fi
echo "worker $(hostname) $state"
"""


def archive(commit: str) -> str:
    """Returns the name of the file in the home folder that a commit arrives in."""
    return f"contextssl-{commit}.tar.gz"


def install(commit: str, date: str) -> str:
    """Returns a script that unpacks a commit and makes its environment, unless it is there.

    uv brings its own Python where the worker's is too old, and takes no package that is newer
    than the commit: the same commit has the same environment on all workers, and after a
    preemption.

    Args:
      commit: to install, arrived as `archive`.
      date: of the commit, ISO 8601.
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
    """Returns a script that starts main and leaves it running, unless a run is live.

    Args:
      commit: to run, installed.
      mark: what `STATUS` calls the run.
      arguments: of main, taken literally.
    """
    command = shlex.join([".venv/bin/python", "-m", "contextssl_jax.main", *arguments])
    run = f"""\
rm -f ../status ../pid
echo {mark} >../mark
echo {shlex.quote(f"$ {command}  # commit {commit}")}
PYTHONUNBUFFERED=1 {command} &
echo $! >../pid
wait $!
echo $? >../status
"""
    return f"""\
cd ~/contextssl/{commit} && [ -e .installed ] || {{ echo "$(hostname): install first"; exit 1; }}
setsid nohup flock --nonblock ../lock sh -c {shlex.quote(run)} >>../log 2>&1 </dev/null &
"""
