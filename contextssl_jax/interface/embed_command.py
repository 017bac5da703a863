"""--mode=embed: embed all images of a folder, in a stream that can be resumed.

    python -m contextssl_jax.main --mode=embed --model=objects3d-small --images=FOLDER \\
        --context=PAIRS.csv --out=embeddings.npz

writes the arrays `paths`, relative to the folder, and `embeddings`, float32 [N, P]. Of each image,
the central square is resized. Chunks are stored beside the output until all are done, so that the
same command goes on after an interruption.
"""

import argparse
import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from contextssl_jax.data.image_files import describe_skipped, find_image_files, read_image
from contextssl_jax.errors import Parser, UserError, expand_home
from contextssl_jax.interface.loading import load_model
from contextssl_jax.interface.model import Model
from contextssl_jax.interface.pairs_file import read_context
from contextssl_jax.methods.rounding import MAX_ROUNDING
from contextssl_jax.progress import task
from contextssl_jax.storage.files import reraise_write_errors

_log = logging.getLogger(__name__)
_CHUNK = 1024  # images of a file of the stream
_JOB = "job.json"


def embed_folder(argv: Sequence[str]) -> None:
    """Run --mode=embed.

    Args:
      argv: arguments, without the program's name and --mode.

    Raises:
      UserError: an argument is wrong, no image is readable, or the output is not writable.
    """
    options = parse(argv)
    out, root = (
        Path(expand_home(options.out, "--out")),
        Path(expand_home(options.images, "--images")),
    )
    if options.batch < 1:
        raise UserError(f"--batch: {options.batch}, expected at least 1.")
    if out.suffix != ".npz":
        raise UserError(f"--out: {out} must end in .npz.")
    try:
        names, skipped = find_image_files(root)
    except OSError as error:
        raise UserError(f"--images: cannot read {root} ({error.strerror}).") from error
    if not names:
        raise UserError(f"--images: no images in {root}. Use a folder of images.")
    model = load_model(options.model, None, options.batch, "--model")
    context = read_context(model, options.context) if options.context else None
    length = options.length
    if length is not None and not 0 <= length <= (context.tokens if context else 0):
        raise UserError(
            f"--length: {length} tokens, but the context has {context.tokens if context else 0}."
        )
    if not 0 <= options.rounding <= MAX_ROUNDING:
        raise UserError(f"--rounding: {options.rounding}, expected 0 to {MAX_ROUNDING}.")
    embed = partial(model.embed, context=context, length=length, rounding=options.rounding)
    partial_folder = out.with_name(f"{out.name}.partial")
    with reraise_write_errors(out, "--out"):
        _open_job(partial_folder, _job(options, model, root, names))
        unreadable = _write_chunks(model, embed, root, names, partial_folder)
        count = _merge(partial_folder, out, model.card.embedding)
    skipped = {**skipped, **unreadable}
    if skipped:
        _log.warning("skipped in %s: %s", root, describe_skipped(skipped))
    _log.info("wrote %s embeddings of %s to %s", f"{count:,}", model.card.name, out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of --mode=embed.

    Raises:
      UserError: one is missing or unknown.
    """
    parser = Parser(
        prog="python -m contextssl_jax.main --mode=embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="released name, workdir, folder or file")
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--out", required=True, help="the .npz file to write")
    parser.add_argument("--context", help="CSV file of pairs; without it, no context")
    parser.add_argument("--length", type=int, help="tokens of the context; default: all")
    parser.add_argument(
        "--rounding",
        type=float,
        default=0.0,
        help="round entries to multiples of this, in units of 1 / sqrt(P); 0 does not round",
    )
    parser.add_argument("--batch", type=int, default=256, help="images that are embedded at once")
    return parser.parse_args(argv)


def _job(
    options: argparse.Namespace, model: Model, root: Path, names: Sequence[str]
) -> dict[str, object]:
    """Return what chunks depend on."""
    sizes = [[name, (root / name).stat().st_size] for name in names]
    table = Path(options.context).read_bytes() if options.context else b""
    return {
        "model": model.card.as_dict(),
        "context": hashlib.sha256(table).hexdigest(),
        "length": options.length,
        "rounding": options.rounding,
        "images": hashlib.sha256(json.dumps(sizes).encode()).hexdigest(),
    }


def _open_job(folder: Path, job: dict[str, object]) -> None:
    """Create the folder of chunks, or check that it is of the same job."""
    file = folder / _JOB
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(job))
    elif file.read_text() != json.dumps(job):
        raise UserError(
            f"--out: {folder} is of another model, context, rounding or folder of images. Delete"
            " it, or choose another file."
        )


def _write_chunks(
    model: Model,
    embed: Callable[..., np.ndarray],
    root: Path,
    names: Sequence[str],
    folder: Path,
) -> dict[str, list[str]]:
    """Embed chunk after chunk that is not yet written; return unreadable files by reason."""
    unreadable: dict[str, list[str]] = {}
    read = partial(read_image, side=model.card.image_size)
    running = task("embedding", len(names), "images", leave=True)
    with running as progress, ThreadPool() as pool:
        for start in range(0, len(names), _CHUNK):
            own = names[start : start + _CHUNK]
            file = folder / f"{start:012d}.npz"
            if not file.exists():
                images = pool.map(read, [root / name for name in own])
                good = [i for i, image in enumerate(images) if not isinstance(image, str)]
                embeddings = np.zeros((0, model.card.embedding), np.float32)
                if good:
                    stacked = np.stack([images[i] for i in good])
                    embeddings = embed(stacked)
                reasons = ["" if not isinstance(image, str) else image for image in images]
                new = file.with_suffix(".new")
                with new.open("wb") as opened:
                    np.savez(opened, names=own, reasons=reasons, embeddings=embeddings)
                new.replace(file)
            with np.load(file, allow_pickle=False) as chunk:
                for name, reason in zip(own, chunk["reasons"].tolist(), strict=True):
                    if reason:
                        unreadable.setdefault(reason, []).append(name)
            progress.advance(len(own))
    return unreadable


def _merge(folder: Path, out: Path, entries: int) -> int:
    """Write all chunks to one file, one after another, and remove them; return the rows."""
    files = sorted(folder.glob("*.npz"))
    paths: list[str] = []
    for file in files:
        with np.load(file, allow_pickle=False) as chunk:
            paths += chunk["names"][chunk["reasons"] == ""].tolist()
    if not paths:
        shutil.rmtree(folder)
        raise UserError("--images: none of the files could be read as images. Use others.")
    new = out.with_name(f"{out.name}.new")
    with zipfile.ZipFile(new, "w") as archive:
        with archive.open("paths.npy", "w") as member:
            np.lib.format.write_array(member, np.array(paths), allow_pickle=False)
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), entries)}
            np.lib.format.write_array_header_1_0(member, header)
            for file in files:
                with np.load(file, allow_pickle=False) as chunk:
                    member.write(chunk["embeddings"].astype("<f4").tobytes())
    new.replace(out)
    shutil.rmtree(folder)
    return len(paths)
