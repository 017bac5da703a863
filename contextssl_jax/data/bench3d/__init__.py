"""3DIEBench (arXiv 2302.10283): rendered objects of known rotation, hues and light direction."""

from contextssl_jax.data.bench3d.dataset import SPEC

__all__ = ["SPEC"]
