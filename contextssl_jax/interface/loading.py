"""Rebuild a model from its options, weights and statistics alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.inputs import images_dataset, parse_statistics
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.evaluation.headline import headline_figures
from contextssl_jax.evaluation.stored import REPORT, read_report, report_folder
from contextssl_jax.interface.card import Card, describe_group
from contextssl_jax.interface.model import Model
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import Method
from contextssl_jax.run.compilation_cache import enable_compilation_cache
from contextssl_jax.run.trained_model import (
    read_trained_model,
    read_workdir_config,
    restore_config,
)
from contextssl_jax.storage.paths import resolve_path
from contextssl_jax.weights.names import (
    check_tensors,
    flatten_variables,
    to_float32,
    unflatten_variables,
)
from contextssl_jax.weights.saved_model import SavedModel

_RELEASED = Path(__file__).parent.parent / "released"


def load(
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    batch: int = 256,
    compilation_cache: bool = True,
) -> Model:
    """Load a trained model.

    Args:
      path: the name of a released model (see `released_models`), the workdir of a run, a folder
        that `contextssl_jax.release` wrote, or its .safetensors file.
      step: of a workdir's checkpoint; by default the newest.
      batch: images that are embedded at once.
      compilation_cache: keep compiled programs in the user's cache folder, unless JAX has a cache
        already.

    Raises:
      ValueError: there is no such model, or it is not readable.
    """
    if batch < 1:
        raise ValueError(f"batch: {batch}, expected at least 1.")
    with user_errors_as_value_errors():
        if compilation_cache and jax.config.values["jax_compilation_cache_dir"] is None:
            enable_compilation_cache(True, os.environ)
        return load_model(str(path), step, batch, "path")


def load_model(path: str, step: int | None, batch: int, option: str) -> Model:
    """Load a trained model for a command; see `load`.

    Args:
      path: see `load`.
      step: see `load`.
      batch: at least 1.
      option: the option that sets the path, for error messages.

    Raises:
      UserError: there is no such model, or it is not readable.
    """
    found = _find(path, option)
    saved = read_trained_model(found, step, option)
    if saved.figures is None:
        saved = saved._replace(figures=_figures(found, saved.step))
    return build_model(saved, Path(path).name, batch, option)


def released_models() -> tuple[str, ...]:
    """Return the names of the models that come with this package."""
    folders = _RELEASED.iterdir() if _RELEASED.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if folder.is_dir()))


def released_config(name: str) -> ConfigDict:
    """Return the options of a released model, of `released_models`."""
    return restore_config(read_workdir_config(epath.Path(_RELEASED / name), "source"))


def build_model(saved: SavedModel, name: str, batch: int, option: str = "path") -> Model:
    """Build a model.

    Args:
      saved: options, weights and statistics.
      name: for its card.
      batch: images of the largest batch.
      option: the option that sets the model, for error messages.

    Raises:
      UserError: the weights do not fit the options, or a group or method is unknown.
    """
    config = restore_config(saved.config)
    dataset = images_dataset(config, parse_statistics(saved.statistics, f"{option}: {name}"))
    config.model.dtype = config.eval.dtype
    method = lookup(METHODS, config.method, f"{option}: method")(config, dataset, None)
    side = int(np.asarray(saved.statistics["image_size"]))
    shapes, features = _shapes(method, side)
    check_tensors(
        saved.variables,
        shapes,
        f"{option}: {name}",
        "Use the version that trained it, or restore both config and weights from one run",
    )
    variables = unflatten_variables(to_float32(saved.variables))
    card = Card(
        name=name,
        method=config.method,
        data=config.data.name,
        groups={group.name: describe_group(group) for group in dataset.space.groups},
        environments=tuple(config.environments),
        image_size=side,
        max_pairs=config.data.pairs - 1 if method.uses_context else 0,
        features=features,
        embedding=list(method.heads.values())[-1].outputs,
        step=saved.step,
        seed=config.seed,
        figures=saved.figures,
    )
    return Model(card, saved.config, method, dataset.space, variables, batch)


@contextmanager
def user_errors_as_value_errors() -> Iterator[None]:
    """Re-raise UserError, which commands print, as ValueError."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error).removeprefix("--")) from error


def _find(path: str, option: str) -> epath.Path:
    """Return the folder or file of a path, or that of a released model."""
    if path in released_models():
        return epath.Path(_RELEASED / path)
    found = resolve_path(path, option)
    if not found.exists():
        names = ", ".join(released_models()) or "none"
        raise UserError(f"{option}: {path} does not exist, and is no released model ({names}).")
    return found


def _figures(workdir: epath.Path, step: int) -> dict[str, Any] | None:
    """Return the figures of a step's report; None if it has none."""
    file = report_folder(workdir, step) / REPORT
    return headline_figures(read_report(file)) if file.exists() else None


def _shapes(method: Method, side: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes of a method's variables by flat name, and the entries of features."""
    image, params = np.zeros((side, side, 3), np.float32), np.zeros(1, np.float32)  # unused
    batch = ContextBatch(
        record=image[None, None, None],
        transform_params=params[None, None, None],
        environments=np.zeros((1, 1, len(method.space.groups)), bool),
        position=np.zeros(1, np.int32),
        labels=np.zeros((1, 1), np.int32),
    )
    variables = jax.eval_shape(method.init, jax.random.key(0), batch)
    features = jax.eval_shape(method.encode, variables, image[None], params[None])
    shapes = {name: leaf.shape for name, leaf in flatten_variables(variables).items()}
    return shapes, features.shape[-1]
