"""Fixtures: four CPU devices, quick compilation, recorded outputs of reference code."""

import importlib.metadata
import os
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a shell ignore SIGINT, and the processes that the tests start inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup, subprocesses would ignore SIGHUP too. A handler is not inherited.
    signal.signal(signal.SIGHUP, lambda number, frame: None)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
# Most of the time is compilation of small programs that run for a few steps. Subprocesses inherit
# these settings, which take a third of the time, and workers of pytest-xdist the cache too.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
os.environ["XLA_FLAGS"] = ""
if importlib.metadata.version("jax") < "0.11":  # later versions may not have the flags
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

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


@pytest.fixture
def config() -> ConfigDict:
    """Return the options of configs/debug.py, on one device and without TensorBoard."""
    options = debug.get_config()
    options.train.parallel = "jit"
    options.log.tensorboard = False
    return options
