"""The configs of the methods that ContextSSL is compared with are of what they are named for."""

import importlib

import pytest

from configs import cifar10_crop_blur, cifar10_small, quickstart
from contextssl_jax.config import flatten
from contextssl_jax.methods import METHODS
from contextssl_jax.models.projector import ActionProjector, Projector
from contextssl_jax.planning.dummy_datasets import dummy_dataset

CONFIGS = {  # by data and size: groups, widths of the projector
    "cifar10": (("crop", "blur"), (2048, 2048, 2048)),
    "cifar10:small": (("crop", "blur"), (256, 256, 128)),
    "objects3d": (("rotation", "color"), (256, 256, 128)),
    "3diebench": (("rotation", "color"), (2048, 2048, 2048)),
}
NAMES = ("simclr", "vicreg", "equimod", "sen", "sie")


def get(name, data):
    data, _, size = data.partition(":")
    get_config = importlib.import_module(f"configs.{name}_{data}").get_config
    return get_config(size) if size else get_config()


@pytest.mark.parametrize("data", CONFIGS)
@pytest.mark.parametrize("name", NAMES)
def test_it_builds_its_method_on_its_data(name, data):
    config, (groups, widths) = get(name, data), CONFIGS[data]
    assert config.method == name and config.groups == groups
    assert config.data.name == data.partition(":")[0]
    assert config.environments == (("none",) if name in NAMES[:2] else ("+".join(groups),))
    method = METHODS[name](config, dummy_dataset(config), None)
    assert method.space.names == groups and not method.uses_context
    modules = [module for part, module in method.modules.items() if part != "encoder"]
    kinds = {
        "simclr": [Projector],
        "vicreg": [Projector],
        "equimod": [Projector, ActionProjector],
        "sen": [ActionProjector],
        "sie": [Projector, ActionProjector],
    }
    assert [type(module) for module in modules] == kinds[name]
    halves = 2 if name == "sie" else 1
    assert all(module.widths == tuple(w // halves for w in widths) for module in modules)
    turns = name == "sie" or data == "objects3d"  # where hues lie on circles
    predictor = "hypernetwork" if turns else "linear"
    assert all(m.predictor == predictor for m in modules if isinstance(m, ActionProjector))
    assert not config.loss.clamp


@pytest.mark.parametrize("data, invariance, variance, temperature", [
    ("cifar10", 25, 50, 0.5), ("cifar10:small", 25, 50, 0.3), ("objects3d", 10, 10, 0.3),
    ("3diebench", 10, 10, 0.1),
])  # fmt: skip
def test_coefficients(data, invariance, variance, temperature):
    for name in NAMES:
        loss = get(name, data).loss
        assert loss.temperature == temperature
        if name in ("vicreg", "sie"):
            found = loss.invariance_weight, loss.variance_weight, loss.covariance_weight
            assert found == (invariance, variance, 1)
        if name == "sie":
            assert loss.equivariance_weight == pytest.approx(0.45 * invariance)
        if name == "equimod":
            assert loss.equivariance_weight == 1


@pytest.mark.parametrize("data, contextssl", [
    ("cifar10", cifar10_crop_blur), ("cifar10:small", cifar10_small), ("objects3d", quickstart),
])  # fmt: skip
def test_data_encoder_and_length_are_those_beside_which_it_stands(data, contextssl):
    other = dict(flatten(contextssl.get_config()))
    may_differ = ("method", "environments", "loss.", "model.projector.", "train.learning_rate",
                  "train.weight_decay")  # fmt: skip
    for name in NAMES:
        for option, value in flatten(get(name, data)):
            assert value == other[option] or option.startswith(may_differ), option
