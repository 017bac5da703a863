"""Chips that XLA can compile for on a host without them.

The description of the H100 follows https://www.nvidia.com/en-us/data-center/h100 and the table of
compute capabilities in NVIDIA's CUDA C++ Programming Guide. libtpu contains those of TPUs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.experimental import topologies

from contextssl_jax.errors import UserError, lookup
from contextssl_jax.planning.hardware import Chip, find_chip
from contextssl_jax.storage.paths import is_installed

# XLA's stream_executor.GpuTargetConfigProto; sizes in bytes, rates in 1/s.
_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 patch: 0 }
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472  # 228 KiB
  shared_memory_per_block: 49152  # 48 KiB
  shared_memory_per_block_optin: 232448  # 227 KiB
  l2_cache_size: 52428800  # 50 MiB
  memory_bandwidth: 3350000000000
  device_memory_size: 80000000000
  device_address_bits: 64
}
"""


@dataclass(frozen=True)
class Target:
    """A kind of chip to compile for.

    Attributes:
      platform: JAX platform, "cuda" or "tpu".
      chip: its specification.
      extra: extra of this project that installs the compiler.
      modules: Python modules, one of which must be installed.
      environment: environment variables to set before JAX is initialized.
      shapes: JAX's names of the topologies, in ascending order of size.
      clock: clock rate of a TPU core in Hz, for the compiler's estimates in cycles; None for GPUs.
    """

    platform: str
    chip: Chip
    extra: str
    modules: tuple[str, ...]
    environment: Mapping[str, str]
    shapes: tuple[str, ...]
    clock: float | None = None


def _tpu(name: str, shapes: tuple[str, ...], clock: float) -> Target:
    environment = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    topologies = tuple(f"{name}:{shape}" for shape in shapes)
    chip = find_chip(f"TPU {name}")
    return Target("tpu", chip, "compile-tpu", ("libtpu",), environment, topologies, clock)


_PLANE = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# Clock rates follow from the published peak rates: four 128 x 128 (v5e), eight 128 x 128 (v5p) and
# four 256 x 256 (v6e) units compute one multiply-add per cycle.
TARGETS: dict[str, Target] = {
    "h100": Target(
        "cuda",
        find_chip("H100 SXM"),
        "compile-gpu",
        ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"),
        {"XLA_FLAGS": "--xla_gpu_autotune_level=0"},  # autotuning needs a GPU
        tuple(f"1x1x{2**n}" for n in range(4)),
    ),
    "v5e": _tpu("v5e", _PLANE, 1.5e9),
    "v5p": _tpu("v5p", _CUBE, 1.75e9),
    "v6e": _tpu("v6e", _PLANE, 1.75e9),
}


def check_installed(chip: str) -> None:
    """Check that a chip is in TARGETS and its compiler installed.

    Raises:
      UserError: it is not.
    """
    target = lookup(TARGETS, chip, "--chip")
    if not any(map(is_installed, target.modules)):
        raise UserError(
            f"--chip={chip}: its compiler is not installed. Run: pip install"
            f" 'contextssl-jax[{target.extra}]'"
        )


def describe_devices(chip: str, count: int) -> tuple[Any, ...]:
    """Return abstract devices of a chip, from its smallest topology that is large enough.

    Programs can be compiled for them, but not executed. TARGETS[chip].environment must be set.

    Args:
      chip: a name in TARGETS.
      count: number of devices, at least 1.

    Raises:
      UserError: no topology of the chip is large enough.
    """
    target = TARGETS[chip]
    sizes = [_product(shape) for shape in target.shapes]
    fitting = [shape for shape, size in zip(target.shapes, sizes, strict=True) if size >= count]
    if not fitting:
        raise UserError(
            f"--devices: {chip} has topologies of at most {max(sizes)} devices, not {count}."
            f" Choose at most {max(sizes)}."
        )
    options = {"topology_name": fitting[0]}
    if target.platform == "cuda":
        options = {"topology_name": chip, "topology": fitting[0], "target_config": _H100}
    topology = topologies.get_topology_desc(platform=target.platform, **options)
    return tuple(topology.devices)[:count]


def _product(shape: str) -> int:
    sizes = shape.rpartition(":")[2].split("x")
    return math.prod(map(int, sizes))
