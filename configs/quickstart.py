"""The paper's point in minutes: one model that follows an object's rotation or its colors.

    python -m contextssl_jax.main --config=configs/quickstart.py

Objects are drawn by the program, so nothing is downloaded. Hardware: two CPU cores, some 3 GB of
memory. Time: about seven minutes, the report included. Expected numbers (seed 0, linear probe,
single views of held-out objects, after 126 tokens): R2 .81 for rotation under the rotation context
and .02 under the color context, .97 for color under the color context and .02 under the rotation
context; see results/quickstart.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the options."""
    config = base.get_config()
    config.groups = ("rotation", "color")
    config.nuisances = ("light",)
    config.environments = ("rotation", "color")
    config.data.update(name="objects3d", contexts=2)
    config.objects3d.update(side=32, train=12_000, pool=8)
    config.model.encoder = "patch"
    config.model.transformer.update(width=128, outputs=128, initial=0.09)
    config.model.predictor.hidden = (256, 256)
    config.loss.temperature = 0.3
    config.loss.clamp = False
    config.mask.update(probability=0.95, probability_low=0.0, per_layer=False, per_context=True)
    config.train.update(
        steps=3600,
        optimizer="adamw",
        learning_rate=1.5e-3,
        warmup_steps=180,
        weight_decay=1e-4,
        beta2=0.98,
        clip=1.0,
    )
    config.checkpoint.every = 1200
    config.log.every = 200
    config.monitor.update(every=1200, test_views=800, contexts=4)
    config.eval.every = config.train.steps
    config.eval.update(fit_records=5_000, test_records=900)
    config.eval.probe.hidden = (128,)
    return config
