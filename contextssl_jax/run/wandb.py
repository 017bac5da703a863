"""Weights & Biases, the extra `wandb`. It is optional: an error does not stop the run.

Its own environment variables apply, such as WANDB_PROJECT, WANDB_NAME and WANDB_MODE. Without a
login or a network, it writes to <workdir>/wandb only, which `wandb sync` uploads.
"""

import io
import logging
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from etils import epath
from PIL import Image

from contextssl_jax.progress import task
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import is_remote
from contextssl_jax.storage.safe_json import truncate

_log = logging.getLogger(__name__)
_PROJECT, _ID = "contextssl_jax", "wandb_id"
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30, 60  # seconds


class WandbWriter:
    """Writes scalars and pictures. After an error it warns once and is disabled."""

    def __init__(
        self, workdir: epath.Path, config: Mapping[str, Any], evaluation: int | None = None
    ) -> None:
        """Start the run of a workdir, or resume it by the id in the file wandb_id.

        Args:
          workdir: the workdir of the run.
          config: all options.
          evaluation: step of an evaluation, which is a run of its own in the same group, since the
            run itself may be training.
        """
        self._run: Any = None
        try:
            import wandb
        except ImportError:
            _log.warning(
                "Weights & Biases: not installed; continuing without it. To use it, run: pip"
                " install 'contextssl-jax[wandb]'"
            )
            return
        self._image = wandb.Image
        try:
            group = _run_id(workdir)
            suffix = "" if evaluation is None else f"-eval-{evaluation}"
            with task("starting Weights & Biases"):
                self._run = _start(
                    wandb,
                    project=os.environ.get("WANDB_PROJECT", _PROJECT),
                    name=os.environ.get("WANDB_NAME", workdir.name) + suffix,
                    id=group + suffix,
                    group=group,
                    job_type="train" if evaluation is None else "eval",
                    resume="allow",
                    config=dict(config),
                    dir=None if is_remote(workdir) else str(workdir),
                    settings=wandb.Settings(
                        init_timeout=_INIT_TIMEOUT, finish_timeout=_FINISH_TIMEOUT, console="off"
                    ),
                )
            # Its own count of steps cannot go back to those that a resumed run repeats.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # of many types, also of its service process
            self._disable(error)

    def write(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """See Dashboard."""
        if self._run is None:
            return
        try:
            self._run.log({"step": step, **values})
        except Exception as error:
            self._disable(error)

    def write_pictures(self, step: int, pictures: Mapping[str, bytes], wall_time: float) -> None:
        """See Dashboard."""
        if self._run is None:
            return
        try:
            opened = {name: Image.open(io.BytesIO(file)) for name, file in pictures.items()}
            self._run.log(
                {"step": step} | {name: self._image(image) for name, image in opened.items()}
            )
        except Exception as error:
            self._disable(error)

    def close(self, failed: bool) -> None:
        """See Dashboard."""
        if self._run is None:
            return
        try:
            with task("uploading to Weights & Biases"):
                self._run.finish(exit_code=int(failed))
        except Exception as error:
            self._disable(error)

    def _disable(self, error: Exception) -> None:
        self._run = None
        _log.warning("Weights & Biases: %s; continuing without it", truncate(error))


def _run_id(workdir: epath.Path) -> str:
    """Return the id of the workdir's run; write a new one if there is none."""
    file = workdir / _ID
    with suppress(FileNotFoundError):
        saved = file.read_text().strip()
        if re.fullmatch(r"\w{1,64}", saved):
            return saved
    new = secrets.token_hex(8)
    write_atomic(file, f"{new}\n")
    return new


def _start(wandb: Any, **arguments: Any) -> Any:
    """Start a run; offline if there is no login or no network, unless WANDB_MODE decides."""
    if os.environ.get("WANDB_MODE"):
        return wandb.init(**arguments)
    try:
        if wandb.login(prompt=False):
            return wandb.init(**arguments)
        reason = "no login"
    except Exception as error:
        reason = truncate(error)
    _log.warning("Weights & Biases: %s; writing offline, for a later `wandb sync`", reason)
    return wandb.init(**arguments, mode="offline")
