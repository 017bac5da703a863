"""What the sweeps on the built-in objects share: a third of the quickstart, a lighter report."""

from typing import Any

SHORT: dict[str, Any] = {
    "train.steps": 1200,
    "train.warmup_steps": 60,
    "monitor.every": 600,
    "eval.environments": ("rotation", "color"),
    "eval.retrieval.records": 50,
}
