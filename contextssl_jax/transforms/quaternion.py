"""Rotations as unit quaternions (x, y, z, w), SciPy's order; for NumPy and JAX arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a NumPy array on the host, a JAX array on the device


def from_euler(angles: np.ndarray) -> np.ndarray:
    """Convert extrinsic Euler angles x, y, z in radians [..., 3] to unit quaternions [..., 4].

    Within a quarter turn about each axis w is never negative.
    """
    half = angles / 2
    zero = np.zeros_like(half[..., 0])
    x, y, z = (
        np.stack([*(np.sin(half[..., i]) if i == j else zero for j in range(3)), cosine], axis=-1)
        for i, cosine in enumerate(np.moveaxis(np.cos(half), -1, 0))
    )
    return multiply(z, multiply(y, x))


def multiply(p: Array, q: Array) -> Array:
    """Return the quaternion of the rotation q followed by p: [..., 4], [..., 4] -> [..., 4]."""
    numpy = jnp if isinstance(p, jax.Array) or isinstance(q, jax.Array) else np
    px, py, pz, pw = (p[..., i] for i in range(4))
    qx, qy, qz, qw = (q[..., i] for i in range(4))
    entries = (
        pw * qx + px * qw + py * qz - pz * qy,
        pw * qy - px * qz + py * qw + pz * qx,
        pw * qz + px * qy - py * qx + pz * qw,
        pw * qw - px * qx - py * qy - pz * qz,
    )
    return numpy.stack(entries, axis=-1)


def inverse(q: Array) -> Array:
    """Return the inverse of unit quaternions [..., 4]."""
    return q * np.array([-1, -1, -1, 1], np.float32)


def upper(q: Array) -> Array:
    """Return whichever of q and -q (the same rotation) has a non-negative w, [..., 4]."""
    return q * (1 - 2 * (q[..., 3:] < 0))


def to_matrix(q: Array) -> tuple[tuple[Array, Array, Array], ...]:
    """Return the rows of the rotation matrices of unit quaternions [..., 4], entries [...]."""
    x, y, z, w = (q[..., i] for i in range(4))
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
