"""Several sweeps on one page: python -m contextssl_jax.sweeps FOLDER FOLDER ... --out=FOLDER

The page has, of each sweep, the table in the paper's layout and the first picture, with command,
seeds, steps and hardware. It is written to --out as tables.md and tables.html.
"""

import os
import sys
from collections.abc import Sequence

from etils import epath

from contextssl_jax.errors import Parser, UserError
from contextssl_jax.reports.page import Picture, Table, html, markdown
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import error_reason, io_errors, resolve_path
from contextssl_jax.sweeps.page import PICTURES
from contextssl_jax.sweeps.stored import read_layout

_TITLE = "The paper's tables, at the size of two CPU cores"
_INTRODUCTION = (
    "Rows of the paper are quoted. They are of other data, models and training (see each caption):"
    " compare patterns, not values.",
    "Each sweep's own page has all tables, probes and runs; its sweep.json has the values of each"
    " seed and the runs that they are from.",
)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status, 2 for a user error."""
    parser = Parser(prog="python -m contextssl_jax.sweeps", description=__doc__)
    parser.add_argument("sweeps", nargs="+", metavar="FOLDER", help="of a sweep, with its page")
    parser.add_argument("--out", required=True, help="folder to write to")
    try:
        options = parser.parse_args(argv[1:])
        folders = [resolve_path(folder, "FOLDER") for folder in options.sweeps]
        gather(folders, resolve_path(options.out, "--out"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def gather(folders: Sequence[epath.Path], out: epath.Path) -> None:
    """Write one page of several sweeps' tables and pictures.

    Args:
      folders: of the sweeps, each with a sweep.json.
      out: folder of the page.

    Raises:
      UserError: a sweep cannot be read, or the page cannot be written.
    """
    parts: list[Table | Picture] = []
    images: dict[str, bytes] = {}
    for folder in folders:
        table = read_layout(folder)
        pictures = (name for name in PICTURES if (folder / name).exists())
        parts.append(table)
        for name in [*pictures][:1]:
            file = os.path.relpath(folder / name, out)
            images[file] = (folder / name).read_bytes()
            parts.append(Picture(f"{table.title}: picture", file, "", table.title))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "tables.md", markdown(_TITLE, _INTRODUCTION, parts))
        write_atomic(out / "tables.html", html(_TITLE, _INTRODUCTION, parts, images))
    except io_errors() as error:
        raise UserError(f"--out: cannot write {out} ({error_reason(error)})") from error
    print(f"see {out / 'tables.html'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
