"""Evaluation of features and embeddings on held-out data, and the monitor during training."""
