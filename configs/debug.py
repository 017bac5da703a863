"""A run of seconds without a data set: every part at its smallest size.

python -m contextssl_jax.main --config=debug
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import base


def get_config() -> ConfigDict:
    """Return the options."""
    config = base.get_config()
    config.data.update(name="synthetic", contexts=4, pairs=8)
    config.model.encoder = "patch"
    config.model.patch.update(widths=(8, 16), blocks=1, features=32)
    config.model.transformer.update(width=32, blocks=2, heads=2, outputs=16, initial=0.18)
    config.model.predictor.hidden = (32,)
    config.train.update(steps=30, learning_rate=1e-3, warmup_steps=5)
    config.checkpoint.every = 10
    config.log.every = 5
    config.monitor.update(every=15, contexts=2, fit_views=128, test_views=64, neighbours=5)
    config.eval.update(lengths=(0, 2, 14), fit_records=128, test_records=48, images=64, batch=64)
    config.eval.probe.update(steps=100, batch=32, hidden=(16,))
    config.eval.retrieval.update(records=8, views=6)
    return config
