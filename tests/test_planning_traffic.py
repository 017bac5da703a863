"""Traffic between devices: ring algorithms, hand-written HLO, and training steps of methods."""

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
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.memory import size_of
from contextssl_jax.planning.plan import traffic
from contextssl_jax.planning.program import build_program
from contextssl_jax.planning.traffic import Collective, collectives, ring_bytes

jax.devices()  # initializes JAX with four devices, before a plan initializes it with fewer


def test_ring_bytes():
    assert ring_bytes("all-reduce", 80, 4) == 2 * 3 * 20  # two passes, in chunks of a quarter
    assert ring_bytes("all-gather", 80, 4) == ring_bytes("reduce-scatter", 80, 4) == 3 * 20
    assert ring_bytes("collective-permute", 80, 4) == 80
    assert ring_bytes("all-reduce", 80, 1) == 0


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


def sent_bytes(text, devices):
    return {name: one.bytes for name, one in collectives(parse_hlo(text), devices).items()}


def test_sent_bytes_of_a_hand_written_program():
    assert sent_bytes(PROGRAM, 2) == {
        "all-reduce": (2 * 3 * 4 + 5 * 2) + 7 * 8 * 4,
        "all-gather": 10 / 2,
        "reduce-scatter": 4 * 4,  # half of the eight entries of the full array
    }


# Asynchronous collectives, with and without a kernel in between, and fused ones as of TPUs.
ASYNCHRONOUS = """\
%part (a.1: f32[8], b.1: f32[16]) -> f32[16] {
  ROOT %gather.1 = f32[16]{0} all-gather(%a.1), dimensions={0}
}

%async_collective_fusion.1 (a.2: f32[8], b.2: f32[16]) -> (f32[8], f32[16]) {
  %sine = f32[8]{0} sine(%a.2)
  %gather.2 = f32[16]{0} all-gather(%a.2), dimensions={0}
  ROOT %both = (f32[8]{0}, f32[16]{0}) tuple(%sine, %gather.2)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %start.1 = f32[8]{0} all-reduce-start(%a), to_apply=%add
  %wait = (f32[8]{0}, f32[8]{0}, u32[]) copy-start(%a)
  %done.1 = f32[8]{0} all-reduce-done(%start.1)
  %start.2 = (f32[8]{0}, f32[4]{0}) reduce-scatter-start(%done.1), to_apply=%add
  %kernel = f32[8]{0} sine(%a)
  %done.2 = f32[4]{0} reduce-scatter-done(%start.2)
  %async-collective-start = (f32[8]{0}, f32[16]{0}) fusion(%a), kind=kCustom, calls=%part
  %compute = (f32[8]{0}, f32[16]{0}) fusion(%a), kind=kOutput, calls=%async_collective_fusion.1
  ROOT %async-collective-done = f32[16]{0} fusion(%a), kind=kCustom, calls=%part
}
"""


def test_collectives_overlap_if_kernels_are_between_start_and_end():
    assert collectives(parse_hlo(ASYNCHRONOUS), 2) == {
        "all-reduce": Collective(1, 8 * 4.0, 0, 0.0),
        "reduce-scatter": Collective(1, 4 * 4.0, 1, 4 * 4.0),
        "all-gather": Collective(1, 8 * 4.0, 1, 8 * 4.0),
    }


def test_loop_in_a_compiled_program_is_counted_as_many_times_as_it_runs():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def loop(x):
        return lax.scan(lambda c, _: (lax.psum(jnp.sin(c), "data"), None), x, length=5)[0]

    mapped = jax.shard_map(loop, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    text = jax.jit(mapped).lower(np.ones(6, np.float32)).compile().as_text()
    assert sent_bytes(text, 4) == {"all-reduce": 5 * ring_bytes("all-reduce", 6 * 4, 4)}


def plan_traffic(config, devices, mode="auto"):
    """Trace and compile a step, and return its program and traffic."""
    config.train.parallel = mode
    program = build_program(config, devices)
    options = {"xla_backend_optimization_level": 0}
    compiled = program.traced.lower().compile(compiler_options=options)
    return program, traffic(program, compiled.as_text())


def matrices(params) -> int:
    """Return the bytes of arrays of two or more axes, which are split over the devices."""
    return size_of([leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1])


@pytest.mark.parametrize(
    "devices, mode, negatives, chunks",
    [(2, "auto", "context", 1), (4, "auto", "batch", 1), (2, "pmap", "batch", 2)],
)
def test_requested_and_sent_bytes_of_contextssl(
    config, monkeypatch, devices, mode, negatives, chunks
):
    tiny = functools.partial(ResNet, (1, 1), BasicBlock, "cifar", 4)
    monkeypatch.setitem(ENCODERS, "tiny", lambda model, axis: tiny(axis))
    config.model.encoder = "tiny"
    config.groups = config.environments = ("crop",)
    config.loss.negatives = negatives
    config.train.accumulate_steps = chunks
    program, result = plan_traffic(config, devices, mode)
    state = program.state
    tokens = config.data.contexts * 2 * config.data.pairs
    embeddings = 4 * tokens * config.model.transformer.outputs * (negatives == "batch")
    # Six means, early and late losses, and for each group two sums of errors and their count.
    metrics = chunks * 4 * (6 + 2 + 3)
    sharded = mode == "auto"
    gathered = ring_bytes("all-gather", matrices(state.params) * sharded, devices)
    norm = ring_bytes("all-reduce", 4 * sharded, devices)
    assert result["asked"] == {
        # A reduce-scatter sends as many bytes as the gather, an all-reduce those of both.
        "gradients": ring_bytes("all-reduce", size_of(state.params), devices) - gathered + norm,
        **({"parameters": gathered} if sharded else {}),
        # The backward pass sends as many bytes of gradients as the forward pass of statistics.
        "statistics: encoder": chunks
        * ring_bytes("all-reduce", 2 * size_of(state.batch_stats), devices),
        "loss": ring_bytes("all-gather", embeddings, devices)
        + ring_bytes("reduce-scatter", embeddings, devices)
        + ring_bytes("all-reduce", metrics, devices),
    }
    assert set(result["sent"]) == {"all-reduce"} | (
        {"all-gather", "reduce-scatter"} if embeddings or sharded else set()
    )
    # The biases, of 8 channels, of a block's last norm and of its shortcut's norm have the same
    # gradient. XLA sends it once, except with gradient accumulation.
    saving = ring_bytes("all-reduce", 8 * 4, devices) if chunks == 1 else 0
    assert sum(result["sent"].values()) == sum(result["asked"].values()) - saving


@pytest.mark.parametrize("method", ["vicreg", "simclr"])
def test_requested_and_sent_bytes_of_other_methods(config, method):
    config.method, config.environments = method, ("none",)
    config.model.projector.widths = (8, 8, 4)
    program, result = plan_traffic(config, 2)
    params, statistics = size_of(program.state.params), size_of(program.state.batch_stats)
    sent = ring_bytes("all-reduce", params + 4, 2)  # with the norm of the gradient
    assert result["asked"]["gradients"] + result["asked"]["parameters"] == sent
    assert result["asked"]["statistics: projector"] == ring_bytes("all-reduce", 2 * statistics, 2)
    # Mean and covariance of two sets of views and their gradients, or embeddings; and metrics.
    views, width = 4 * config.data.contexts * 2 * config.data.pairs, 4
    loss = {
        "vicreg": ring_bytes("all-reduce", 2 * 2 * 4 * (width + width**2) + 4 * 4, 2),
        "simclr": 2 * ring_bytes("all-gather", views * width, 2)
        + ring_bytes("all-reduce", 7 * 4, 2),
    }
    assert result["asked"]["loss"] == loss[method]
    assert sum(result["sent"].values()) == pytest.approx(sum(result["asked"].values()), rel=0.02)
    text = " ".join(tables._traffic(result, 2).split())
    assert "statistics: projector" in text and "compiled program to the step: 1.0" in text
