"""Shared part of the configs of 3DIEBench with rotation and color; no config by itself.

(Those are named after the data set, and no Python name begins with a digit.)
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import base


def rotation_color() -> ConfigDict:
    """Return the options of 3diebench_rotation_color.py, which describes them.

    Those of the official code that are not here are the defaults of base.py.
    """
    config = base.get_config()
    config.groups = ("rotation", "color")
    config.environments = ("rotation", "color")
    config.data.update(name="3diebench", environment_per="batch", threads=8, prefetch=8)
    config.scene.update(hue="linear", canonical=False)
    config.model.update(dtype="bfloat16", standardize_actions=False)
    config.loss.standardize_targets = False
    config.model.resnet.stem = "imagenet"
    # The official code's 82 batches an epoch, of which the last is smaller: here contexts go on
    # into the next epoch, so that these are 1,001.5 epochs.
    config.train.update(steps=82_000, warmup_steps=820)
    config.checkpoint.every = 4_100
    config.monitor.every = 8_200
    config.eval.update(batch=1024, fit_records=20_000, test_records=10_000)
    config.eval.probe.update(hidden=(1024, 1024), steps=4_000)
    config.eval.retrieval.records = 500
    return config


def rotation_color_standardized() -> ConfigDict:
    """Return the options of 3diebench_rotation_color_standardized.py, which describes them."""
    config = rotation_color()
    config.model.standardize_actions = True
    config.loss.standardize_targets = True
    return config
