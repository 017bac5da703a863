"""Sweeps: configs with options changed, times seeds, and one page of them all."""

from contextssl_jax.sweeps.definition import Sweep, Variant

__all__ = ["Variant", "Sweep"]
