"""The full-size step lowers for a TPU from a host without one, as the program that it should be."""

import functools
import re
from collections.abc import Mapping

import jax
import pytest

from configs import cifar10_crop_blur
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.program import Program, build_program

jax.devices()  # starts JAX with all devices, before a plan starts it with those that it needs

# Options by dotted name that change the step in kind, and the convolutions that it then has: 17 of
# 3 x 3 and 3 shortcuts, each with its two gradients, of which the first layer has no use for one.
VARIANTS: dict[str, tuple[Mapping[str, object], int]] = {
    "as it is": ({}, 3 * 20 - 1),
    "remat": ({"model.remat": True}, 78),
    "parts": ({"data.contexts": 8, "train.accumulate_steps": 2}, 3 * 20 - 1),
}


@functools.cache
def full_size(variant: str, devices: int) -> Program:
    """The step of cifar10_crop_blur.py with fewer and shorter contexts."""
    config = cifar10_crop_blur.get_config()
    config.data.update(contexts=4, pairs=4)
    config.update_from_flattened_dict(VARIANTS[variant][0])
    return build_program(config, devices)


def lowered(program: Program, platform: str) -> jax.stages.Lowered:
    return program.traced.lower(lowering_platforms=(platform,))


def operands(text: str, operation: str) -> list[tuple[str, ...]]:
    """Types of both operands, such as ("bf16", "bf16"), of each such operation."""
    lines = [line for line in text.splitlines() if f"stablehlo.{operation}" in line]
    return [
        tuple(re.findall(r"tensor<(?:\d+x)*(\w+)>", line.rsplit(" : (", 1)[1])[:2])
        for line in lines
    ]


def written_for_cpus(text: str) -> bool:
    """Whether 3 x 3 convolutions have matrix products as gradients; see models/convolution.py."""
    return re.search(r'/conv\d/[^"]*dot_general', text) is not None


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_full_size_step_lowers_for_a_tpu(variant, devices):
    program = full_size(variant, devices)
    tpu = lowered(program, "tpu")
    text = tpu.as_text(debug_info=True)
    convolutions, products = operands(text, "convolution"), operands(text, "dot_general")
    assert len(convolutions) == VARIANTS[variant][1]
    assert set(convolutions) == {("bf16", "bf16")}
    assert not written_for_cpus(text)
    # 3 x (read-in, 4 a block, read-out, the predictor's 3) and attention's.
    assert products.count(("bf16", "bf16")) >= 3 * (1 + 4 * 3 + 1 + 3) + 3 * 4
    # Two a block: jax.nn.dot_product_attention takes its logits' gradients in float32.
    assert products.count(("f32", "bf16")) == 2 * 3
    # Rendering, the losses and the latents' errors.
    assert products.count(("f32", "f32")) <= 12
    assert len(set(products)) == 3
    assert ("all_reduce" in text) == (devices > 1)
    # What XLA adds is elementwise, so large in this small batch for the update of 166 M parameters.
    here = count_flops(program.traced.jaxpr.jaxpr, "tpu", loops=False).total()
    assert 0.9 < here / tpu.cost_analysis()["flops"] < 1


def test_for_a_cpu_it_has_the_gradients_written_for_cpus():
    program = full_size("as it is", 1)
    assert written_for_cpus(lowered(program, "cpu").as_text(debug_info=True))
