"""Sweeps: variants of configs times seeds, and one page of all results."""

from contextssl_jax.sweeps.definition import Sweep, Variant

__all__ = ["Variant", "Sweep"]
