"""Methods by name; a new one is one file and one line here."""

from collections.abc import Callable

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.methods import contextssl
from contextssl_jax.methods.base import Method

METHODS: dict[str, Callable[[ConfigDict, Dataset, str | None], Method]] = {
    "contextssl": contextssl.build,
}
