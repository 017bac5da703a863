"""Whether a run has taken its last step: python -m launch.finished WORKDIR, status 0 if so."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Returns 0 for a run whose last step is saved, else 1."""
    return 0 if finished(Path(argv[1])) else 1


def finished(workdir: Path) -> bool:
    """Returns whether the checkpoint of the last step is there; it bears its name once whole."""
    try:
        steps = json.loads((workdir / "config.json").read_text())["train"]["steps"]
    except (OSError, ValueError, KeyError):
        return False
    return (workdir / "checkpoints" / str(steps)).is_dir()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
