"""SimCLR: invariance to all transformations by contrast (arXiv 2002.05709)."""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.methods.base import Method
from contextssl_jax.methods.context_head import choose_heads
from contextssl_jax.methods.contrastive import build_contrastive


def build(config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False) -> Method:
    """Build the method from the sections `model` and `loss`, and with `plus`, `mask`.

    Args:
      config: the options.
      dataset: whose views are rendered.
      axis: name of the axis over devices, or None.
      plus: SimCLR⁺ of the paper: the context transformer without actions is the projector.

    Raises:
      UserError: an option has an unknown value.
    """
    heads = choose_heads(config, dataset.space, axis, use_actions=False, plus=plus)
    return build_contrastive(config, dataset, axis, heads)
