"""Compilation without optimizations, for programs that run once, such as initialization."""

import functools
from collections.abc import Callable
from typing import Any

import jax

_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later versions do not have the option
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False


def jit_unoptimized(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return jax.jit of a function, which on CPUs is compiled in a fraction of the time.

    There, LLVM takes half a second for a random permutation that runs for milliseconds.

    Args:
      function: of arrays.
      **options: of jax.jit.
    """

    @functools.cache
    def jitted() -> Callable[..., Any]:  # at the first call, since it initializes the devices
        on_cpu = jax.default_backend() == "cpu"
        return jax.jit(function, compiler_options=_OPTIONS if on_cpu else None, **options)

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        return jitted()(*arguments)

    return wrapped
