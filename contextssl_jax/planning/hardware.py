"""Specifications of accelerators, as published by their vendors.

Peak rates are those of dense products, half of the published rate if that assumes sparsity. A
gigabyte is taken as 10^9 bytes, a conservative reading. Sources:

- TPU v4: https://docs.cloud.google.com/tpu/docs/v4
- TPU v5e: https://docs.cloud.google.com/tpu/docs/v5e
- TPU v5p: https://docs.cloud.google.com/tpu/docs/v5p
- TPU v6e: https://docs.cloud.google.com/tpu/docs/v6e
- H100 SXM: https://www.nvidia.com/en-us/data-center/h100
- H200 SXM: https://www.nvidia.com/en-us/data-center/h200

TPUs multiply float32 inputs as sums of bfloat16 products, so their rates follow from that of
bfloat16. NVIDIA's are those of TF32, and of FP32 without tensor cores.
"""

from collections.abc import Mapping
from typing import NamedTuple

# Products of bfloat16 that a TPU computes for one of float32, by JAX's name of the precision.
_TPU_PASSES = {"default": 1, "high": 3, "highest": 6}


class Chip(NamedTuple):
    """One accelerator, which is one JAX device."""

    name: str
    bfloat16: float  # FLOP/s
    float32: Mapping[str, float]  # FLOP/s by precision
    memory: float  # bytes
    bandwidth: float  # memory bandwidth, bytes/s
    per_host: int  # chips in one machine

    def peak(self, dtype: str, precision: str) -> float:
        """Return the peak rate of products, FLOP/s; that of bfloat16 is the same at any precision.

        Args:
          dtype: of the inputs, "bfloat16" or "float32".
          precision: "default", "high" or "highest"; see models.precision.
        """
        return self.bfloat16 if dtype == "bfloat16" else self.float32[precision]

    def hosts(self, devices: int) -> int:
        """Return the number of machines for a number of devices."""
        return -(-devices // self.per_host)


def _tpu_float32(bfloat16: float) -> dict[str, float]:
    return {precision: bfloat16 / passes for precision, passes in _TPU_PASSES.items()}


_HOPPER_FLOAT32 = {"default": 494.5e12, "high": 494.5e12, "highest": 67e12}

CHIPS = (
    Chip("TPU v4", 275e12, _tpu_float32(275e12), 32e9, 1200e9, 4),
    Chip("TPU v5e", 197e12, _tpu_float32(197e12), 16e9, 819e9, 8),
    Chip("TPU v5p", 459e12, _tpu_float32(459e12), 95e9, 2765e9, 4),
    Chip("TPU v6e", 918e12, _tpu_float32(918e12), 32e9, 1638e9, 8),
    Chip("H100 SXM", 989e12, _HOPPER_FLOAT32, 80e9, 3350e9, 8),
    Chip("H200 SXM", 989e12, _HOPPER_FLOAT32, 141e9, 4800e9, 8),
)


def find_chip(name: str) -> Chip:
    """Return the chip of a name in CHIPS."""
    return next(chip for chip in CHIPS if chip.name == name)
