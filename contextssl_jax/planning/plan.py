"""The plan of a run: estimates of its cost."""

import logging
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.config import Command
from contextssl_jax.distributed.sharding import shard_shapes
from contextssl_jax.models.precision import train_precision
from contextssl_jax.planning.compilation import compile_isolated
from contextssl_jax.planning.compiled_tables import format_estimate
from contextssl_jax.planning.counting import OTHER
from contextssl_jax.planning.dummy_datasets import reads_data
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hardware import CHIPS, Chip
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.memory import saved_for_backward, size_of
from contextssl_jax.planning.program import Program, build_program
from contextssl_jax.planning.tables import format_plan
from contextssl_jax.planning.targets import check_installed
from contextssl_jax.planning.traffic import collectives, requested_bytes
from contextssl_jax.storage.files import json_output

TARGET = "tpu"  # platform whose branches of lax.platform_dependent are counted; GPUs use the same
UTILISATION = 0.35  # of the chips' peak rates, unless --utilisation is set

Plan = dict[str, Any]  # a nested dictionary of JSON values

_log = logging.getLogger(__name__)


def plan(command: Command) -> None:
    """Print the estimated cost of a run, without running it, and write it to --out as JSON.

    With --chip, an estimate by the compiler for that chip follows the plan, and is its
    "chip_estimate", which is None otherwise.

    Raises:
      UserError: an option is invalid, the compiler is not installed or fails, or the file is not
        writable.
    """
    if command.chip is not None:
        check_installed(command.chip)
    with json_output(command.out) as write:
        result = make_plan(command.config, command.devices or 1, command.utilisation or UTILISATION)
        print(format_plan(result), flush=True)
        estimate = None
        if command.chip is not None:
            results, steps = compile_isolated(command), command.config.train.steps
            estimate = {**results, "run_seconds": steps * results["milliseconds"] / 1e3}
            print(f"\n{format_estimate(estimate, steps)}")
        write({**result, "chip_estimate": estimate})


def make_plan(config: ConfigDict, devices: int, utilisation: float) -> Plan:
    """Return the plan of a run, from arithmetic and the step compiled for the CPU of this host.

    Args:
      config: the options.
      devices: number of devices that the global batch is split over.
      utilisation: assumed fraction of the chips' peak FLOP/s, in (0, 1].

    Returns:
      Bytes, seconds, and counts of parameters and FLOPs, by name. FLOPs are those of all devices;
      all other values are those of one device.
    """
    program = build_program(config, devices)
    _log.info("compiling the step for the CPU of this host, which may take a minute")
    start = time.perf_counter()
    compiled = program.traced.lower().compile()
    seconds = time.perf_counter() - start
    memory, flops = _memory(program), _flops(program)
    analysis = compiled.memory_analysis()
    return {
        "run": {
            "method": config.method,
            "data": config.data.name,
            "reads_data": reads_data(config),
            "contexts": config.data.contexts,
            "pairs": config.data.pairs,
            "dtype": config.model.dtype,
            "precision": train_precision(config.model),
            "steps": config.train.steps,
            "devices": devices,
            "parallel": program.experiment.parallel.mode,
            "optimizer_shards": program.experiment.parallel.shards,
            "utilisation": utilisation,
        },
        "parameters": {
            part: sum(leaf.size for leaf in jax.tree.leaves(tree))
            for part, tree in program.state.params.items()
        },
        "memory": memory,
        "compiled": {
            "seconds": seconds,
            "arguments": analysis.argument_size_in_bytes,
            "temporaries": analysis.temp_size_in_bytes,
        },
        "flops": flops,
        "traffic": traffic(program, compiled.as_text()) if devices > 1 else None,
        "chips": [
            _estimate_chip(chip, program, memory["all"], flops["all"], utilisation)
            for chip in CHIPS
        ],
    }


def _memory(program: Program) -> dict[str, Any]:
    state, accumulate_steps = program.state, program.accumulate_steps

    def local_chunk(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        contexts = leaf.shape[0] // (program.devices * accumulate_steps)
        return jax.ShapeDtypeStruct((contexts, *leaf.shape[1:]), leaf.dtype)

    axis = program.experiment.parallel.axis
    saved = saved_for_backward(
        program.experiment.method.loss,
        state.params,
        state.batch_stats,
        jax.tree.map(local_chunk, program.batch),
        jax.eval_shape(jax.random.key, 0),
        parts=program.parts,
        axes={axis: program.devices} if axis else {},
    )
    shards = program.experiment.parallel.shards
    held = {
        "parameters": size_of(shard_shapes(state.params, shards)),
        **({"gathered parameters": size_of(state.params)} if shards > 1 else {}),
        "optimiser moments": size_of(shard_shapes(state.opt_state, shards)),
        "batch statistics": size_of(state.batch_stats),
        # With accumulation, the gradients of a chunk and their sum.
        "gradients": size_of(state.params) * (1 if accumulate_steps == 1 else 2),
        "batch": size_of(program.batch) // program.devices,
    }
    total = sum(held.values())
    return {
        "held": held,
        "saved": {
            part: {"fused": saved.fused[part], "unfused": size}
            for part, size in sorted(saved.unfused.items(), key=_other_last)
        },
        "all": {
            "fused": total + saved.fused.total(),
            "unfused": total + saved.unfused.total(),
        },
    }


def _flops(program: Program) -> dict[str, Any]:
    jaxpr = program.traced.jaxpr.jaxpr
    counted = count_flops(jaxpr, TARGET, program.parts)
    lowered = program.traced.lower(lowering_platforms=(TARGET,))
    parts = dict(sorted(((part, 0) for part, _ in counted), key=_other_last))
    return {
        "parts": {
            part: {
                direction: program.devices * counted[part, direction]
                for direction in ("forward", "backward")
            }
            for part in parts
        },
        "all": program.devices * counted.total(),
        "check": {  # counts of one device, with loops counted once
            "here": count_flops(jaxpr, TARGET, loops=False).total(),
            "xla": lowered.cost_analysis()["flops"],
        },
    }


def traffic(program: Program, text: str) -> dict[str, dict[str, float]]:
    """Return the bytes that one device sends, as requested by the step and as compiled.

    Args:
      program: the traced step.
      text: HLO text of the compiled step.
    """
    jaxpr = program.traced.jaxpr.jaxpr
    sent = collectives(parse_hlo(text), program.devices)
    return {
        "asked": dict(requested_bytes(jaxpr, program.devices, TARGET, program.parts)),
        "sent": {name: kind.bytes for name, kind in sent.items()},
    }


def _estimate_chip(
    chip: Chip, program: Program, memory: dict[str, int], flops: int, utilisation: float
) -> dict[str, Any]:
    state, shards = program.state, program.experiment.parallel.shards
    moments, params = (
        size_of(shard_shapes(tree, shards)) for tree in (state.opt_state, state.params)
    )
    # A device reads and writes its shards of parameters and moments, and reads those of gradients.
    update_bytes = 3 * params + 2 * moments
    if shards > 1:  # the gather writes all parameters
        update_bytes += size_of(state.params)
    model = program.config.model
    peak = chip.peak(model.dtype, train_precision(model))
    step = flops / (program.devices * peak * utilisation)
    return {
        "name": chip.name,
        "peak": peak,
        "memory": chip.memory,
        "hosts": chip.hosts(program.devices),
        "fits": {which: size <= chip.memory for which, size in memory.items()},
        "step_seconds": step,
        "update_seconds": update_bytes / chip.bandwidth,
        "run_seconds": program.config.train.steps * step,
    }


def _other_last(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] == OTHER, item[0]
