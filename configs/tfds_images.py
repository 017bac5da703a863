"""The experiment of cifar10_small.py on any image data set of TFDS, such as CIFAR-100.

    python -m contextssl_jax.main --config=tfds_images --config.tfds.name=cifar100

TFDS prepares a data set first. Unlike loading, that needs TensorFlow, here or in another
environment:

    pip install tensorflow importlib_resources
    python -c "import tensorflow_datasets as tfds
    tfds.builder('cifar100').download_and_prepare(file_format='array_record')"
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import cifar10_small


def get_config() -> ConfigDict:
    """Return the options."""
    config = cifar10_small.get_config()
    config.data.name = "tfds"
    config.tfds.side = 32
    return config
