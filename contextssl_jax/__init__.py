"""Contextual self-supervised learning (arXiv 2405.18193) in JAX.

    import contextssl_jax as cssl

    model = cssl.load("objects3d-small")

The names below are of the package `interface`, which is imported when one of them is first used, so
that commands that need no model start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextssl_jax.interface import Context, Model, load, released_models, sample_pairs

__version__ = "0.1.0"
__all__ = ["Context", "Model", "load", "released_models", "sample_pairs"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from contextssl_jax import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
