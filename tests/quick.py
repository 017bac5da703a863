"""Programs of tests that run once: compiled in a third of the time, if slower ones."""

from collections.abc import Callable

import jax

_OPTIONS: dict = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later ones know no such option
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False


def compiled(function: Callable, *arguments) -> jax.stages.Compiled:
    """Compiles a function, or what jax.jit or jax.pmap made of one, for the arguments."""
    lowerable = function if hasattr(function, "lower") else jax.jit(function)
    return lowerable.lower(*arguments).compile(_OPTIONS)


def run(function: Callable, *arguments):
    """Compiles and calls."""
    return compiled(function, *arguments)(*arguments)
