"""SEN as the equivariant baseline of SIE and of the paper: contrast with where the action takes x.

The symmetric embedding network of arXiv 2204.11371 has an energy-based hinge loss; the form that
the literature on 3DIEBench compares with (arXiv 2302.10283) is NT-Xent alone, which this is.
"""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.methods.context_head import build_context_head
from contextssl_jax.methods.contrastive import Contrastive, build_contrastive
from contextssl_jax.methods.heads import Head, build_action_projector


def build(
    config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False
) -> Contrastive:
    """Builds the method from the sections `model` and `loss`, and of `plus`, `mask`.

    Args:
      config: the options.
      dataset: to learn.
      axis: name of the axis over devices, or None.
      plus: SEN⁺: the context transformer is the projector and predictor, told actions.

    Raises:
      UserError: an option has none of its possible values.
    """
    return build_contrastive(config, dataset, axis, equivariant_head(config, dataset, axis, plus))


def equivariant_head(
    config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool
) -> dict[str, Head]:
    """Builds the head that is told actions: a projector and predictor, or the transformer."""
    if plus:
        return {"transformer": build_context_head(config, dataset.space, told=True)}
    return {"equivariant": build_action_projector(config.model, axis)}
