"""Precision of matrix products and convolutions.

Accelerators multiply float32 inputs in TF32 (NVIDIA) or bfloat16 (TPU) unless a program requests
otherwise. Products of bfloat16 inputs are exact at any precision. CPUs ignore the request.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from ml_collections import ConfigDict

R = TypeVar("R")


def with_precision(function: Callable[..., R], precision: str) -> Callable[..., R]:
    """Return the function with a precision for all products that it traces or executes.

    The precision also applies to their gradients. It is part of JAX's cache key. Operations with a
    precision of their own keep it.

    Args:
      function: the function, jitted or not.
      precision: "default", "high" or "highest".
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs) -> R:  # type: ignore[no-untyped-def]
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return wrapped


def train_precision(model: ConfigDict) -> str:
    """Return the precision of the train step from the section `model`.

    Without the option `precision`, it is "highest" for float32 and "default" for bfloat16.
    """
    if model.precision is None:
        return "highest" if model.dtype == "float32" else "default"
    precision: str = model.precision
    return precision
