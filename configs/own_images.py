"""The experiment of cifar10_small.py on a folder of your own images, with or without classes.

    python -m contextssl_jax.main --config=own_images --config.folder.path=FOLDER

A thousand images are enough. With more, increase the views of `monitor` and the records of `eval`:
evaluation on a few hundred images is noisy.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import cifar10_small


def get_config() -> ConfigDict:
    """Return the options."""
    config = cifar10_small.get_config()
    config.data.name = "folder"
    config.folder.test = 0.2
    # Of twice CIFAR-10's side, so patches and padding are too.
    config.folder.side, config.model.patch.size, config.crop.padding = 64, 8, 8
    config.crop.fill = (0.5, 0.5, 0.5)
    config.monitor.update(fit_views=600, test_views=128, contexts=2)
    config.eval.update(fit_records=600, test_records=128)
    config.eval.retrieval.records = 64
    return config
