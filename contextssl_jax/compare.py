"""Comparison of several runs' reports: python -m contextssl_jax.compare runs/one runs/two."""

import sys

from contextssl_jax.reports.comparison import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
