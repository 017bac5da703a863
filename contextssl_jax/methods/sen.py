"""SEN, as the paper and SIE compare with it: contrast with the predicted target.

The symmetric embedding network of arXiv 2204.11371 has an energy-based hinge loss. The literature
on 3DIEBench (arXiv 2302.10283) compares with NT-Xent alone, which is implemented here.
"""

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
      plus: SEN⁺ of the paper: the context transformer is the projector and the predictor.

    Raises:
      UserError: an option has an unknown value.
    """
    heads = choose_heads(config, dataset.space, axis, use_actions=True, plus=plus)
    return build_contrastive(config, dataset, axis, heads)
