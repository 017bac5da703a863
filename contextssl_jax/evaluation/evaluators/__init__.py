"""All evaluators by name. To add one: one file here, one entry in EVALUATORS, one test."""

from collections.abc import Iterator, Mapping

from contextssl_jax.evaluation.evaluators import (
    alignment_uniformity,
    classification,
    erasure,
    predictor,
    r2_probes,
    retrieval,
)
from contextssl_jax.evaluation.evaluators.base import Evaluator, Metric

EVALUATORS: dict[str, Evaluator] = {
    "r2_probes": r2_probes.EVALUATOR,
    "erasure": erasure.EVALUATOR,
    "classification": classification.EVALUATOR,
    "retrieval": retrieval.EVALUATOR,
    "predictor": predictor.EVALUATOR,
    "alignment_uniformity": alignment_uniformity.EVALUATOR,
}


def all_metrics() -> Iterator[Metric]:
    """Yield every metric of every evaluator, in the order of their tables."""
    for evaluator in EVALUATORS.values():
        yield from evaluator.metrics


def metric_by_key() -> Mapping[str, Metric]:
    """Return every metric by its key in report.json."""
    return {metric.key: metric for metric in all_metrics()}
