"""--mode=export: a model as compiled-ahead programs that run without this package.

    python -m contextssl_jax.main --mode=export --model=objects3d-small --out=FOLDER

writes `encode.jaxexport` and `embed.jaxexport`, artifacts of jax.export for CPU, CUDA and TPU with
any number of images, and README.md with their arguments and an example. The weights are in them.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from contextssl_jax.errors import Parser, UserError, expand_home
from contextssl_jax.interface.loading import load_model
from contextssl_jax.interface.model import Model
from contextssl_jax.interface.pages import render_page
from contextssl_jax.models.precision import with_precision
from contextssl_jax.storage.files import reraise_write_errors
from contextssl_jax.storage.paths import is_installed

_log = logging.getLogger(__name__)
PLATFORMS = ("cpu", "cuda", "tpu")


def export_folder(argv: Sequence[str]) -> None:
    """Run --mode=export.

    Args:
      argv: arguments, without the program's name and --mode.

    Raises:
      UserError: an argument is wrong, or the output is not writable.
    """
    options = parse(argv)
    folder = Path(expand_home(options.out, "--out"))
    if not is_installed("flatbuffers"):
        raise UserError(
            "--mode=export: requires flatbuffers, which is not installed. Run: pip install"
            " 'contextssl-jax[export]'"
        )
    model = load_model(options.model, None, 1, "--model")
    artifacts = export_model(model)
    card = model.card
    text = render_page(
        "exported.md",
        card=card,
        platforms=PLATFORMS,
        entries=sum(len(group.action) for group in card.groups.values()),
    )
    with reraise_write_errors(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, artifact in artifacts.items():
            (folder / f"{name}.jaxexport").write_bytes(artifact)
        (folder / "README.md").write_text(text)
    size = sum(map(len, artifacts.values())) / 1e6
    _log.info("wrote %s to %s, %.1f MB", " and ".join(artifacts), folder, size)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of --mode=export.

    Raises:
      UserError: one is missing or unknown.
    """
    parser = Parser(
        prog="python -m contextssl_jax.main --mode=export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="released name, workdir, folder or file")
    parser.add_argument("--out", required=True, help="folder to write to")
    return parser.parse_args(argv)


def export_model(model: Model) -> dict[str, bytes]:
    """Return the serialized programs by name: "encode", "embed".

    Their arguments, float32 unless said otherwise, for N images and contexts of at most K pairs:
      encode: images in [0, 1] [N, H, W, 3] -> features [N, F].
      embed: features [N, F]; actions [N, A] of all groups in the order of the card, in their own
        units, NaN for groups that are not observed -> embeddings [N, P]. A model with contexts
        takes three more: the context's features [K, 2, F] and actions [K, A], padded by anything,
        and the number of its tokens to use, int32 [].
    """
    card = model.card
    (rows,) = jax.export.symbolic_shape("n")

    def array(*shape: Any, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    side, entries = card.image_size, sum(len(g.action) for g in card.groups.values())
    pairs = card.max_pairs
    queries = array(rows, card.features), array(rows, entries)
    context = array(pairs, 2, card.features), array(pairs, entries), array(dtype=jnp.int32)
    programs = {
        "encode": (_encode(model), (array(rows, side, side, 3),)),
        "embed": (_embed(model), queries + context if pairs else queries),
    }
    return {
        name: bytes(
            jax.export.export(jax.jit(with_precision(function, "highest")), platforms=PLATFORMS)(
                *arguments
            ).serialize()
        )
        for name, (function, arguments) in programs.items()
    }


def _encode(model: Model) -> Callable[..., jax.Array]:
    variables = jax.device_get(model.variables)

    def encode(images: jax.Array) -> jax.Array:
        return model.method.encode(variables, images, jnp.zeros((images.shape[0], 0)))

    return encode


def _embed(model: Model) -> Callable[..., jax.Array]:
    variables, method = jax.device_get(model.variables), model.method

    def standardize(actions: jax.Array) -> jax.Array:
        space = method.space
        standardized = (actions - space.action_mean) / space.action_std
        return jnp.where(jnp.isnan(actions), 0.0, standardized)

    def embed(features: jax.Array, actions: jax.Array, *context: jax.Array) -> jax.Array:
        encoded, tokens = None, jnp.int32(0)
        if context:
            pair_features, pair_actions, tokens = context
            encoded = method.encode_context(variables, pair_features, standardize(pair_actions))
        return method.embed(variables, encoded, tokens, features, standardize(actions))

    return embed
