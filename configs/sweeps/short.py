"""Shared part of small sweeps: a third of the steps, a smaller report; no sweep by itself."""

from typing import Any

# Of objects3d_paper, on the built-in objects.
SHORT: dict[str, Any] = {
    "loss.encoder_weight": 0.0,
    "train.steps": 1200,
    "train.warmup_steps": 60,
    "monitor.every": 600,
    "eval.environments": ("rotation", "color"),
    "eval.retrieval.records": 50,
}

# Of cifar10_small; which environments are evaluated is to be added.
SHORT_CIFAR10: dict[str, Any] = {
    "train.steps": 3000,
    "train.warmup_steps": 150,
    "monitor.every": 1500,
    "eval.fit_records": 5000,
    "eval.images": 10000,
    "eval.retrieval.records": 50,
    "eval.draws": 2,
}
