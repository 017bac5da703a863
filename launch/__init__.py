"""Starting contextssl_jax on one machine, on SLURM and on TPU pods; see README.md."""
