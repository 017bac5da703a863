"""Specifications of accelerators, as published by their vendors.

Peak rates are those of dense bfloat16 products, half of the published rate if that assumes
sparsity. A gigabyte is taken as 10^9 bytes, a conservative reading. Sources:

- TPU v4: https://docs.cloud.google.com/tpu/docs/v4
- TPU v5e: https://docs.cloud.google.com/tpu/docs/v5e
- TPU v5p: https://docs.cloud.google.com/tpu/docs/v5p
- H100 SXM: https://www.nvidia.com/en-us/data-center/h100
- H200 SXM: https://www.nvidia.com/en-us/data-center/h200
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """One accelerator, which is one JAX device."""

    name: str
    peak: float  # bfloat16 FLOP/s
    memory: float  # bytes
    bandwidth: float  # memory bandwidth, bytes/s
    per_host: int  # chips in one machine

    def hosts(self, devices: int) -> int:
        """Return the number of machines for a number of devices."""
        return -(-devices // self.per_host)


CHIPS = (
    Chip("TPU v4", 275e12, 32e9, 1200e9, 4),
    Chip("TPU v5e", 197e12, 16e9, 819e9, 8),
    Chip("TPU v5p", 459e12, 95e9, 2765e9, 4),
    Chip("H100 SXM", 989e12, 80e9, 3350e9, 8),
    Chip("H200 SXM", 989e12, 141e9, 4800e9, 8),
)
