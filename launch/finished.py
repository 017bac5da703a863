"""Whether a run has taken its last step: python -m launch.finished WORKDIR.

Status 0 if it has, 3 if not; any other is a fault, which is neither.
"""

import sys
from collections.abc import Sequence

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import is_complete, resolve_path
from contextssl_jax.storage.safe_json import read_json

_UNFINISHED = 3


def main(argv: Sequence[str]) -> int:
    """Returns 0 for a run whose last step is saved, else 3; 2 for no such place."""
    try:
        return 0 if finished(resolve_path(argv[1], "WORKDIR")) else _UNFINISHED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def finished(workdir: epath.Path) -> bool:
    """Returns whether the checkpoint of the last step is there, and whole."""
    try:
        steps = read_json(workdir / "config.json")["train"]["steps"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    saved = workdir / "checkpoints" / str(steps)
    return saved.is_dir() and is_complete(saved)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
