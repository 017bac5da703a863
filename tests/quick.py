"""Compilation of a function for the arguments at hand."""

from collections.abc import Callable

import jax


def compiled(function: Callable, *arguments) -> jax.stages.Compiled:
    """Compile a function, or the result of jax.jit or jax.pmap, for the arguments."""
    lowerable = function if hasattr(function, "lower") else jax.jit(function)
    return lowerable.lower(*arguments).compile()


def run(function: Callable, *arguments):
    """Compile and call a function."""
    return compiled(function, *arguments)(*arguments)
