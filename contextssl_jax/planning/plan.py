"""The plan of a run: everything about its cost that can be told without running it."""

import logging
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.planning.counting import OTHER
from contextssl_jax.planning.dummy_datasets import reads_data
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hardware import CHIPS, Chip
from contextssl_jax.planning.memory import saved_for_backward, size_of
from contextssl_jax.planning.program import Program, build_program
from contextssl_jax.planning.tables import show
from contextssl_jax.planning.traffic import requested_bytes, sent_bytes
from contextssl_jax.storage.files import json_output

TARGET = "tpu"  # whose branch of lax.platform_dependent counts; that of GPUs is the same

Plan = dict[str, Any]  # a tree by names, which JSON can hold

_log = logging.getLogger(__name__)


def plan(config: ConfigDict, devices: int, utilisation: float, out: str | None) -> None:
    """Prints what a run of the config costs on so many devices, without running it.

    Args:
      config: the options.
      devices: that the global batch is split over.
      utilisation: share of the chips' peak that is taken to be reached, in (0, 1].
      out: JSON file to write the plan to as well, or None.

    Raises:
      UserError: an option is wrong, or the file cannot be written.
    """
    with json_output(out) as write:
        made = make_plan(config, devices, utilisation)
        print(show(made))
        write(made)


def make_plan(config: ConfigDict, devices: int, utilisation: float) -> Plan:
    """Makes the plan; see `plan`.

    Returns:
      Bytes, seconds, counts of parameters and of floating-point operations, by names. Operations
      are those of all devices together, the rest is one device's.
    """
    program = build_program(config, devices)
    _log.info("compiling the step for this host's CPU, which may take a minute")
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
            "steps": config.train.steps,
            "devices": devices,
            "parallel": program.experiment.parallel.mode,
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
        "chips": [_on(chip, program, memory["all"], flops["all"], utilisation) for chip in CHIPS],
    }


def _memory(program: Program) -> dict[str, Any]:
    state, turns = program.state, program.turns

    def share(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        contexts = leaf.shape[0] // (program.devices * turns)
        return jax.ShapeDtypeStruct((contexts, *leaf.shape[1:]), leaf.dtype)

    axis = program.experiment.parallel.axis
    saved = saved_for_backward(
        program.experiment.method.loss,
        state.params,
        state.batch_stats,
        jax.tree.map(share, program.batch),
        jax.eval_shape(jax.random.key, 0),
        parts=program.parts,
        axes={axis: program.devices} if axis else {},
    )
    held = {
        "parameters": size_of(state.params),
        "optimiser moments": size_of(state.opt_state),
        "batch statistics": size_of(state.batch_stats),
        "gradients": size_of(state.params) * (1 if turns == 1 else 2),  # of a turn, and their sum
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
            part: {way: program.devices * counted[part, way] for way in ("forward", "backward")}
            for part in parts
        },
        "all": program.devices * counted.total(),
        "check": {  # of one device, where loops count once
            "here": count_flops(jaxpr, TARGET, loops=False).total(),
            "xla": lowered.cost_analysis()["flops"],
        },
    }


def traffic(program: Program, text: str) -> dict[str, dict[str, float]]:
    """Returns the bytes that one device sends, as the step asks and in its compiled HLO text."""
    jaxpr = program.traced.jaxpr.jaxpr
    return {
        "asked": dict(requested_bytes(jaxpr, program.devices, TARGET, program.parts)),
        "sent": sent_bytes(text, program.devices),
    }


def _on(
    chip: Chip, program: Program, memory: dict[str, int], flops: int, utilisation: float
) -> dict[str, Any]:
    state = program.state
    # The update reads and writes parameters and moments, and reads gradients.
    moved = 3 * size_of(state.params) + 2 * size_of(state.opt_state)
    step = flops / (program.devices * chip.peak * utilisation)
    return {
        "name": chip.name,
        "peak": chip.peak,
        "memory": chip.memory,
        "hosts": chip.hosts(program.devices),
        "fits": {which: size <= chip.memory for which, size in memory.items()},
        "step_seconds": step,
        "update_seconds": moved / chip.bandwidth,
        "run_seconds": program.config.train.steps * step,
    }


def _other_last(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] == OTHER, item[0]
