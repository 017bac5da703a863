"""The quickstart with three seeds.

    python -m launch.sweep --sweep=configs/sweeps/quickstart.py --workdir=runs/quickstart_seeds

One point, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/quickstart_seeds.
"""

from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Quickstart",
        points=(Variant("quickstart", "configs/quickstart.py"),),
        paper="Table 1",
    )
