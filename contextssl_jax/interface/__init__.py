"""A trained model in NumPy arrays: load it, show it a context, embed images."""

from contextssl_jax.interface.loading import load, released_models
from contextssl_jax.interface.model import Context, Model, Neighbors
from contextssl_jax.interface.samples import Pairs, sample_pairs

__all__ = ["Context", "Model", "Neighbors", "Pairs", "load", "released_models", "sample_pairs"]
