"""Check whether a run is finished: python -m launch.finished WORKDIR.

The exit status is 0 if the last step is saved and no signal has interrupted its monitor or report,
3 if not, and another number after an error.
"""

import sys
from collections.abc import Sequence

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import is_complete, resolve_path
from contextssl_jax.storage.safe_json import read_json

_UNFINISHED = 3


def main(argv: Sequence[str]) -> int:
    """Return 0 if the run is finished, 3 if it is not, and 2 for an invalid path."""
    try:
        return 0 if is_finished(resolve_path(argv[1], "WORKDIR")) else _UNFINISHED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def is_finished(workdir: epath.Path) -> bool:
    """Return True if the last step's checkpoint is complete and its evaluation not interrupted."""
    try:
        steps = read_json(workdir / "config.json")["train"]["steps"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    checkpoint = workdir / "checkpoints" / str(steps)
    saved: bool = checkpoint.is_dir() and is_complete(checkpoint)
    return saved and not (workdir / "interrupted.json").exists()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
