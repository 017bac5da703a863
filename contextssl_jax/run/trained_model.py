"""A trained model from wherever it is: a workdir, a saved folder, or a file."""

from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.configs import base
from contextssl_jax.errors import UserError
from contextssl_jax.options import declarations
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.run.workdir import CONFIG
from contextssl_jax.storage.paths import io_errors, workdir_error
from contextssl_jax.storage.safe_json import read_json, truncate
from contextssl_jax.weights.names import flatten_variables
from contextssl_jax.weights.saved_model import MODEL, SavedModel, read_model


def read_trained_model(path: epath.Path, step: int | None, option: str) -> SavedModel:
    """Read a model with its options and statistics.

    Args:
      path: the workdir of a run, or a folder or file that `saved_model.write_model` wrote.
      step: of a workdir's checkpoint; None for the newest.
      option: the option that sets the path, for error messages.

    Raises:
      UserError: there is no such model, or it is not readable.
    """
    try:
        is_saved = not path.is_dir() or (path / MODEL).exists()
    except io_errors() as error:
        raise workdir_error(path, error) from error
    if not is_saved:
        config = read_workdir_config(path, option)
        checkpoint = load_checkpoint(path, None, step, option)
        statistics = checkpoint.host.get("inputs", {})
        return SavedModel(config, checkpoint.step, flatten_variables(checkpoint.state), statistics)
    if step is not None:
        raise UserError(f"{option}: {path} has one step, so that none can be chosen.")
    return read_model(path, option)


def read_workdir_config(workdir: epath.Path, option: str) -> dict[str, Any]:
    """Read the options of a workdir.

    Raises:
      UserError: the folder is not a workdir, or its config is damaged.
    """
    file = workdir / CONFIG
    try:
        config: dict[str, Any] = read_json(file)
        is_config = all(isinstance(config[section], dict) for section in ("model", "loss"))
    except FileNotFoundError as error:
        raise UserError(
            f"{option}: {workdir} has no {CONFIG}. Name the folder of a run."
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{option}: cannot read {file} ({truncate(error)}). Restore it.") from error
    if not is_config:
        raise UserError(f"{option}: {file} is not of a run. Name the folder of a run.")
    return config


def restore_config(saved: Mapping[str, Any]) -> ConfigDict:
    """Return the options of a saved config, also those that did not exist when it was saved.

    These have the value that describes what the program did before, or else their default.
    """
    config = ConfigDict(saved)
    for name, option, default in declarations(base.get_config()):
        *sections, key = name.split(".")
        section = config
        for part in sections:
            if part not in section:
                section[part] = ConfigDict()
            section = section[part]
        if key not in section:
            section[key] = default if option.before is None else option.before
    return config
