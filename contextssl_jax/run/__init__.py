"""The folder of a run: its lock, checkpoints, metadata and metrics."""
