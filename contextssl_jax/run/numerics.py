"""Settings of JAX and XLA outside the config that decide a run's numbers."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import jax

from contextssl_jax.errors import UserError
from contextssl_jax.storage.safe_json import truncate

_log = logging.getLogger(__name__)

# Random numbers and types: with another value, a resumed run is another run.
_DECIDING = (
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_ENABLE_X64",
)
_ROUNDING = ("JAX_DEFAULT_MATMUL_PRECISION",)
# Parts of the names of XLA's flags that change rounding.
_XLA_ROUNDING = ("precision", "determin", "fast_m", "ftz", "tf32", "autotune")


def numerics() -> dict[str, Any]:
    """Return the settings by environment variable, as JSON values; XLA's flags by flag."""
    settings = {name: getattr(jax.config, name.lower()) for name in (*_DECIDING, *_ROUNDING)}
    return settings | _xla_flags(os.environ.get("XLA_FLAGS", ""))


def check_numerics(workdir: str, recorded: Any) -> None:
    """Compare the settings with those recorded when a run began.

    A difference that only changes rounding is a warning.

    Args:
      workdir: of the run, for messages.
      recorded: from `numerics`; without a record, as from earlier versions, nothing is compared.

    Raises:
      UserError: random numbers or types would be different ones.
    """
    if not isinstance(recorded, Mapping):
        return
    current = numerics()
    for name in _DECIDING:
        if name in recorded and recorded[name] != current[name]:
            was, now = truncate(recorded[name]), truncate(current[name])
            raise UserError(
                f"{name}: was {was} when the run in {workdir} began, is {now}, which changes its"
                f" random numbers or types. Set {name}={was}, or use a different --workdir."
            )
    for name in sorted(recorded.keys() | current.keys()):
        if recorded.get(name) != current.get(name):
            was, now = truncate(recorded.get(name)), truncate(current.get(name))
            _log.warning(
                "%s: was %s when the run in %s began, is %s: results differ by rounding. Set it as"
                " before for the same bits.",
                *(truncate(name), was, workdir, now),
            )


def _xla_flags(text: str) -> dict[str, str]:
    """Return XLA's flags that change rounding."""
    flags = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if any(part in name for part in _XLA_ROUNDING):
            flags[name] = value or "true"
    return flags
