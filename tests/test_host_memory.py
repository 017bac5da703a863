"""Tests of the allocation of the host's memory."""

import platform
import subprocess
import sys

import pytest

from contextssl_jax.run import host_memory

_SCRIPT = """
import os
import resource

from contextssl_jax.run.host_memory import reuse_freed_memory

assert reuse_freed_memory(os.environ)

import jax
import jax.numpy as jnp

product = jax.jit(lambda x: jax.lax.optimization_barrier(x @ x.T[:, :256]).cumsum(1).sum())
x = jnp.ones((1 << 16, 16))
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    product(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@glibc
def test_executions_reuse_the_memory_of_earlier_ones():
    command = [sys.executable, "-c", _SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1000  # a temporary array has 16,384 pages of 4 KiB


@pytest.mark.parametrize("platforms", ["cuda", "cuda,cpu", "tpu"])
def test_hosts_of_accelerators_keep_the_defaults(platforms):
    assert not host_memory.reuse_freed_memory({"JAX_PLATFORMS": platforms})


def test_hosts_with_a_plugin_of_jax_keep_the_defaults(monkeypatch):
    monkeypatch.setattr(host_memory, "find_spec", lambda name: name == "jax_plugins" or None)
    assert not host_memory.reuse_freed_memory({})
