"""Methods by name; a new one is one file and one line here."""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.methods import contextssl, equimod, sen, sie, simclr, supervised, vicreg
from contextssl_jax.methods.base import Method

METHODS: dict[str, Callable[[ConfigDict, Dataset, str | None], Method]] = {
    "contextssl": contextssl.build,
    "supervised": supervised.build,
    "simclr": simclr.build,
    "vicreg": vicreg.build,
    "equimod": equimod.build,
    "sen": sen.build,
    "sie": sie.build,
    # The paper's N⁺: the context transformer in the place of N's projector or predictor.
    "simclr_plus": partial(simclr.build, plus=True),
    "vicreg_plus": partial(vicreg.build, plus=True),
    "equimod_plus": partial(equimod.build, plus=True),
    "sen_plus": partial(sen.build, plus=True),
}
