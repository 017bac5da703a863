"""Four forced CPU devices, and numbers recorded from the official code and torchvision."""

import os
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs are deaf to Ctrl-C, and so would be all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the tests' time would else go into compiling the same small programs again.
_cache = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from configs import debug  # noqa: E402


@pytest.fixture
def recorded() -> Callable[[str], dict[str, np.ndarray]]:
    """Reads tests/data/<name>.npz: outputs of the official code in float64, stored as float32."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(Path(__file__).parent / "data" / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture
def config() -> ConfigDict:
    """The options of configs/debug.py on one device, quiet."""
    options = debug.get_config()
    options.train.parallel = "jit"
    options.log.tensorboard = False
    return options
