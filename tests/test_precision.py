"""The precision of matrix products and convolutions in programs for accelerators."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from small_methods import small_config

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.evaluate import build_evaluation
from contextssl_jax.evaluation.monitor import build_monitor
from contextssl_jax.experiment import build_experiment
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.resnet import BasicBlock, ResNet


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    """Registers a ResNet of two stages, of 5 3 x 3 convolutions and a shortcut."""

    def build(model, axis) -> ResNet:
        options = dict(axis=axis, dtype=jnp.dtype(model.dtype), remat=model.remat)
        return ResNet((1, 1), BasicBlock, "cifar", 4, **options)

    monkeypatch.setitem(ENCODERS, "tiny", build)


def products(text: str) -> list[tuple[tuple[str, ...], str]]:
    """Types of the operands and precision of each product and convolution."""
    found = []
    for line in text.splitlines():
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line:
            types = re.findall(r"tensor<(?:\d+x)*(\w+)>", line.rsplit(" : (", 1)[1])[:2]
            precision = set(re.findall(r"\b(DEFAULT|HIGH|HIGHEST)\b", line))
            assert len(precision) <= 1
            found.append((tuple(types), precision.pop() if precision else "DEFAULT"))
    return found


def step_products(options: dict, platform: str, parallel: str = "jit", name: str = "contextssl"):
    config = small_config(name)
    config.model.encoder = "tiny"
    config.train.parallel = parallel
    config.update_from_flattened_dict(options)
    experiment = build_experiment(config)
    place = experiment.parallel
    state, key_data = place.replicate((experiment.template(), experiment.key_data))
    arguments = state, place.shard(experiment.batches[0]), key_data
    if parallel == "pmap":  # its functions are lowered for the devices at hand only
        return products(experiment.step.lower(*arguments).as_text())
    lowered = experiment.step.trace(*arguments).lower(lowering_platforms=(platform,))
    return products(lowered.as_text())


@pytest.mark.parametrize(
    "name, platform, parallel, options",
    [
        ("contextssl", "cuda", "jit", {}),
        ("contextssl", "cpu", "pmap", {"model.remat": True}),
        ("sie", "cuda", "shard_map", {}),
        ("contextssl", "tpu", "jit", {"data.contexts": 8, "train.accumulate_steps": 2}),
    ],
)
def test_float32_step_has_highest_precision(name, platform, parallel, options):
    found = step_products(options, platform, parallel, name)
    assert len(found) > 3 * 6  # the encoder's convolutions and their gradients, and others
    assert set(found) == {(("f32", "f32"), "HIGHEST")}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_bfloat16_products_have_default_precision(platform):
    found = step_products({"model.dtype": "bfloat16"}, platform)
    low = [precision for types, precision in found if types == ("bf16", "bf16")]
    assert len(low) > 3 * 6 and set(low) == {"DEFAULT"}


@pytest.mark.parametrize("precision", ["default", "high"])
def test_the_option_sets_the_precision(precision):
    found, expected = step_products({"model.precision": precision}, "cuda"), precision.upper()
    assert sum(one == expected for _, one in found) > 3 * 6


@pytest.mark.parametrize("section, name", [("model", "precision"), ("eval", "dtype")])
def test_an_unknown_value_is_an_error(section, name):
    config = small_config("simclr")
    config[section][name] = "float16"
    with pytest.raises(UserError, match=f"^--config.{section}.{name}: .*float16"):
        build_experiment(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_evaluation_is_float32_at_highest_precision(dtype, tmp_path):
    config = small_config("contextssl")
    config.model.dtype, config.model.encoder = dtype, "patch"
    config.monitor.update(contexts=1, fit_views=20, test_views=10)
    config.eval.update(lengths=(0, 2), fit_records=20, test_records=10, images=20, batch=20)
    config.eval.environments = ("crop", "blur")
    config.eval.probe.update(steps=2, batch=10, hidden=(4,))
    config.eval.retrieval.update(records=2, views=5)
    experiment = build_experiment(config)
    monitor, evaluate = build_monitor(config, experiment), build_evaluation(config, experiment)
    variables = experiment.init().variables
    jax.clear_caches()
    jax.config.update("jax_dump_ir_to", str(tmp_path))
    try:
        monitor(variables)
        evaluate(variables, 0)
    finally:
        jax.config.update("jax_dump_ir_to", "")
    programs = [file.read_text() for file in Path(tmp_path).glob("*.mlir")]
    found = [one for text in programs for one in products(text)]
    assert len(found) > 20 and {precision for _, precision in found} == {"HIGHEST"}
    assert not any("bf16" in text for text in programs)
