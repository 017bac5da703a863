"""Bytes between devices: rings by hand, HLO by hand, and compiled steps against the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from contextssl_jax.models import ENCODERS
from contextssl_jax.models.resnet import BasicBlock, ResNet
from contextssl_jax.planning import tables
from contextssl_jax.planning.plan import traffic
from contextssl_jax.planning.program import build_program
from contextssl_jax.planning.traffic import needed, ring, sent

jax.devices()  # starts JAX with all devices, before a plan starts it with those that it needs


def test_rings():
    assert ring("all-reduce", 80, 4) == 2 * 3 * 20  # twice around, a quarter at a time
    assert ring("all-gather", 80, 4) == ring("reduce-scatter", 80, 4) == 3 * 20
    assert ring("collective-permute", 80, 4) == 80
    assert ring("all-reduce", 80, 1) == 0


PROGRAM = """\
HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %one = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %next = (s32[], f32[8]{0}) tuple(%i, %one)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %p = (f32[2,3]{1,0}, bf16[5]{0}) all-reduce(%a, %b), replica_groups={{0,1}}, to_apply=%add
  %q = pred[10]{0} all-gather(%c), dimensions={0}
  %r = f32[4]{0} reduce-scatter(%d), dimensions={0}, to_apply=%add
  %s = (s32[], f32[8]{0}) while(%t), condition=%c.1, body=%body.1, backend_config={"known_trip_count":{"n":"7"}}
  ROOT %u = f32[8]{0} fusion(%all-reduce), kind=kLoop, calls=%add, metadata={op_name="all-reduce"}
}
"""  # noqa: E501


def test_a_program_by_hand():
    assert sent(PROGRAM, 2) == {
        "all-reduce": (2 * 3 * 4 + 5 * 2) + 7 * 8 * 4,
        "all-gather": 10 / 2,
        "reduce-scatter": 4 * 4,  # the whole has eight entries, of which half are sent
    }


def test_the_formula():
    result = needed(devices=2, gradients=100, statistics=10, embeddings=30, metrics=4)
    assert result == {"gradients": 100, "batch statistics": 20, "embeddings": 30, "metrics": 4}


def test_a_loop_of_a_compiled_program_counts_as_often_as_it_runs():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def loop(x):
        return lax.scan(lambda c, _: (lax.psum(jnp.sin(c), "data"), None), x, length=5)[0]

    mapped = jax.shard_map(loop, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    text = jax.jit(mapped).lower(np.ones(6, np.float32)).compile().as_text()
    assert sent(text, 4) == {"all-reduce": 5 * ring("all-reduce", 6 * 4, 4)}


@pytest.mark.parametrize("devices, negatives", [(2, "context"), (4, "batch")])
def test_a_step_sends_what_the_formula_says(config, monkeypatch, devices, negatives):
    tiny = functools.partial(ResNet, (1, 1), BasicBlock, "cifar", 4)
    monkeypatch.setitem(ENCODERS, "tiny", lambda model, axis: tiny(axis))
    config.model.encoder = "tiny"
    config.groups = config.environments = ("crop",)
    config.loss.negatives = negatives
    config.train.parallel = "auto"
    program = build_program(config, devices)
    quickly = {"xla_backend_optimization_level": 0}
    compiled = program.traced.lower().compile(compiler_options=quickly)
    result = traffic(program, compiled.as_text())
    gathers = negatives == "batch"
    assert set(result["sent"]) == {"all-reduce"} | (
        {"all-gather", "reduce-scatter"} if gathers else set()
    )
    assert {name for name, size in result["needed"].items() if not size} == (
        set() if gathers else {"embeddings"}
    )
    # The biases of a block's last norm and of its shortcut's have one gradient, which XLA sends
    # once: here of 8 channels.
    once = ring("all-reduce", 8 * 4, devices)
    assert sum(result["sent"].values()) == sum(result["needed"].values()) - once


def test_other_methods_have_no_formula_and_their_program_is_told(config):
    config.method, config.environments = "vicreg", ("none",)
    config.model.projector.widths = (8, 8, 4)
    config.train.parallel = "auto"
    program = build_program(config, 2)
    quickly = {"xla_backend_optimization_level": 0}
    compiled = program.traced.lower().compile(compiler_options=quickly)
    result = traffic(program, compiled.as_text())
    assert set(result) == {"sent"} and sum(result["sent"].values()) > 0
    told = tables._traffic(result, 2)
    assert "in the compiled program" in told and "formula" not in told
