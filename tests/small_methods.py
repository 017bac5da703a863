"""Methods at their smallest, built once: a linear encoder, projectors with batch statistics."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from configs import debug
from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import Method
from contextssl_jax.models import ENCODERS


class _Linear(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        features: jax.Array = nn.Dense(8, use_bias=False)(images.reshape(len(images), -1))
        return features


class Small(NamedTuple):
    experiment: Experiment
    method: Method
    params: Any  # host arrays, larger than they are drawn, so that everything matters
    batch_stats: Any
    batch: ContextBatch  # host arrays

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.batch_stats}


def small_config(name: str) -> ConfigDict:
    """The options; two environments, all read, 4 contexts of 3 pairs."""
    config = debug.get_config()
    config.method = name
    config.train.parallel = "jit"
    config.log.tensorboard = False
    config.data.update(contexts=4, pairs=3)
    config.synthetic.update(side=8, train=64, test=48)
    config.blur.taps = 3
    config.supervised.update(group="crop", shift=4)
    config.mask.update(probability=0.5, per_layer=False)
    config.loss.update(temperature=0.5, clamp=False)
    config.model.encoder = "linear"
    config.model.transformer.update(width=16, heads=2, blocks=1, outputs=6, initial=0.3)
    config.model.projector.update(
        widths=(8, 6), predictor="hypernetwork" if name == "sie" else "linear"
    )
    config.model.predictor.hidden = (8,)
    return config


@functools.cache
def small(name: str, options: tuple[tuple[str, Any], ...] = ()) -> Small:
    """Builds a method of the name with some other options, by their dotted names."""
    assert name in METHODS
    ENCODERS.setdefault("linear", lambda model, axis: _Linear())
    config = small_config(name)
    config.update_from_flattened_dict(dict(options))
    experiment = build_experiment(config)
    rng = np.random.default_rng(0)
    # Drawn here: an initial state by the method would be compiled first.
    state = experiment.template()
    params = jax.tree.map(
        lambda x: rng.normal(0, len(x) ** -0.5, x.shape).astype(np.float32), state.params
    )
    stats = jax.tree.map(lambda x: rng.uniform(0.5, 2, x.shape).astype(x.dtype), state.batch_stats)
    return Small(experiment, experiment.method, params, stats, experiment.batches[0])
