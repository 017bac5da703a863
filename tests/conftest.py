"""Fixtures: four CPU devices, a compilation cache, recorded outputs of reference code."""

import os
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a shell ignore SIGINT, and the processes that the tests start inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup, subprocesses would ignore SIGHUP too. A handler is not inherited.
    signal.signal(signal.SIGHUP, lambda number, frame: None)

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
# Without a cache, most of the time is spent on compiling the same small programs again. The workers
# of pytest-xdist inherit the folder of the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from configs import debug  # noqa: E402


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], dict[str, np.ndarray]]:
    """Return a function that reads tests/data/<name>.npz.

    The files contain outputs of the official code and torchvision, computed in float64 and stored
    as float32.
    """

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(Path(__file__).parent / "data" / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile with few optimizations, in a module whose programs run for a few steps only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def config() -> ConfigDict:
    """Return the options of configs/debug.py, on one device and without TensorBoard."""
    options = debug.get_config()
    options.train.parallel = "jit"
    options.log.tensorboard = False
    return options
