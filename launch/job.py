"""Run contextssl_jax.main in a job that a scheduler restarts, with the flags of main:

    python -m launch.job --config=cifar10_crop_blur --workdir=gs://bucket/runs/crop_blur

SIGTERM is forwarded to main, which saves. The exit status is 0 if the run is finished, 3 if it has
ended without error but is not finished, so that the job is to be restarted, and that of main after
an error: 2 for one that the user can fix.
"""

import sys
from collections.abc import Sequence

from launch import finished
from launch.arguments import flag_value, is_training
from launch.process import Command, kill_with_parent
from launch.process_group import run


def main(argv: Sequence[str]) -> int:
    """Run the job. Return its exit status."""
    arguments = list(argv[1:])
    workdir = flag_value(arguments, "--workdir")
    if not workdir:
        print("error: --workdir: missing. Specify one that outlives the machine.", file=sys.stderr)
        return 2
    command = [*kill_with_parent(), sys.executable, "-m", "contextssl_jax.main", *arguments]
    status = run([Command(command, {"PYTHONUNBUFFERED": "1"})])
    if status or not is_training(arguments):
        return status
    return finished.main(["finished", workdir])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
