"""The workdir of a run: lock, checkpoints, metadata and metrics."""
