"""Compilation with few optimizations, for programs that a test runs once. Takes a third as long."""

from collections.abc import Callable

import jax

_OPTIONS: dict = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later versions do not have the option
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False


def compiled(function: Callable, *arguments) -> jax.stages.Compiled:
    """Compile a function, or the result of jax.jit or jax.pmap, for the arguments."""
    lowerable = function if hasattr(function, "lower") else jax.jit(function)
    return lowerable.lower(*arguments).compile(_OPTIONS)


def run(function: Callable, *arguments):
    """Compile and call a function."""
    return compiled(function, *arguments)(*arguments)
