"""3DIEBench (arXiv 2302.10283): rendered objects whose rotation, hues and light are known."""

from contextssl_jax.data.bench3d.dataset import build

__all__ = ["build"]
