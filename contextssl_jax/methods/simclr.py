"""SimCLR: invariance to all transformations, by contrast (arXiv 2002.05709)."""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.methods.context_head import build_context_head
from contextssl_jax.methods.contrastive import Contrastive, build_contrastive
from contextssl_jax.methods.heads import Head, build_projector


def build(
    config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False
) -> Contrastive:
    """Builds the method from the sections `model` and `loss`, and of `plus`, `mask`.

    Args:
      config: the options.
      dataset: to learn.
      axis: name of the axis over devices, or None.
      plus: SimCLR⁺ of the paper: the context transformer, told no actions, is the projector.

    Raises:
      UserError: an option has none of its possible values.
    """
    return build_contrastive(config, dataset, axis, invariant_head(config, dataset, axis, plus))


def invariant_head(
    config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool
) -> dict[str, Head]:
    """Builds the head that is told no actions: a projector or, of `plus`, the transformer."""
    if plus:
        return {"transformer": build_context_head(config, dataset.space, told=False)}
    return {"projector": build_projector(config.model, axis)}
