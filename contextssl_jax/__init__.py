"""Contextual self-supervised learning (arXiv 2405.18193) in JAX."""

__version__ = "0.1.0"
