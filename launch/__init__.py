"""Launchers of contextssl_jax for one machine, SLURM and TPU pods; see README.md."""
