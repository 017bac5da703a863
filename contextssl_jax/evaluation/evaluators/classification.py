"""Accuracy of classes: linear and kNN probes of features and embeddings, also with few labels."""

from collections.abc import Callable

import jax
import numpy as np

from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    LENGTH,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    Report,
    TableLayout,
    Tree,
    describe_views,
    map_tree,
)
from contextssl_jax.evaluation.probes import knn_accuracies, standardize
from contextssl_jax.evaluation.reader import never_stop
from contextssl_jax.evaluation.trained_probes import (
    Training,
    classifier_accuracies,
    fit_classifiers,
)
from contextssl_jax.evaluation.views import Views

FRACTIONS = (1.0, 0.1, 0.01)  # of the labels
_KEY = 1
_LABELS = Level("labels", {"1.0": "100 %", "0.1": "10 %", "0.01": "1 %"})
_PROBE = Level("probe", {"linear": "linear", "knn": "kNN"})


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return accuracies from view embeddings; nothing for a data set without labels."""
    conditions, data = inputs.conditions, inputs.data
    values = accuracies_of_views(inputs, embeddings.fit, embeddings.test, data.fit, data.test)
    if values is None:
        return {}
    return {
        "accuracy_embeddings": {
            e: map_tree(lambda x, e=e: conditions.by_length(e, x), values)
            for e in conditions.environments
        }
    }


def evaluate_features(inputs: EvalInputs) -> Tree:
    """Return accuracies from the encoder's features of untransformed images; see evaluate."""
    z, data = inputs.features, inputs.data
    values = accuracies_of_views(
        inputs, z.fit_images[None], z.test_images[None], data.fit_images, data.test_images
    )
    return {} if values is None else {"accuracy_features": map_tree(lambda x: float(x[0]), values)}


def accuracies_of_views(
    inputs: EvalInputs, fit: np.ndarray, test: np.ndarray, fit_views: Views, test_views: Views
) -> dict[str, dict[str, np.ndarray]] | None:
    """Return `accuracies` from all views of records, each with the label of its record.

    Args:
      inputs: of which the random key and the probes' options.
      fit: [U, n, V, D].
      test: [U, m, V, D].
      fit_views: whose labels belong to `fit`.
      test_views: whose labels belong to `test`.

    Returns:
      None where either has no labels.
    """
    if fit_views.labels is None or test_views.labels is None:
        return None
    x, x_test = (h.reshape(len(h), -1, h.shape[-1]) for h in (fit, test))
    labels = np.repeat(fit_views.labels, fit.shape[2])
    test_labels = np.repeat(test_views.labels, test.shape[2])
    options = inputs.options.probe
    key = jax.random.fold_in(inputs.key, _KEY)
    training = Training.of(options)
    return accuracies(
        *(key, x, labels, x_test, test_labels, options.neighbours, training), inputs.check_stop
    )


def accuracies(
    key: jax.Array,
    fit: np.ndarray,
    fit_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    neighbours: int,
    training: Training,
    check_stop: Callable[[], None] = never_stop,
) -> dict[str, dict[str, np.ndarray]]:
    """Return accuracies of linear probes trained with Adam, and of kNN.

    Args:
      key: draws the linear probes' initial weights and orders.
      fit: vectors to learn from under U conditions, [U, n, D].
      fit_labels: int [n].
      test: [U, m, D].
      labels: int [m].
      neighbours: number of voters, reduced to the number of vectors.
      training: of the linear probes; their inputs are standardized.
      check_stop: called between the fits; may raise.

    Returns:
      Accuracy [U] by probe ("linear", "knn") and fraction of the labels ("1.0", "0.1", "0.01").
    """
    subsets = [few_labels(fit_labels, fraction) for fraction in FRACTIONS]
    x, scale, mean = jax.jit(standardize)(fit)
    layers = fit_classifiers(key, x, fit_labels, subsets, int(fit_labels.max()) + 1, training)
    scaled = (test - np.asarray(mean)) / np.asarray(scale)
    linear = np.asarray(classifier_accuracies(layers, scaled, labels))
    knn = []
    for bank, queries in zip(fit, test, strict=True):
        check_stop()
        knn.append(knn_accuracies(bank, fit_labels, queries, labels, subsets, neighbours))
    return {"linear": _by_fraction(linear), "knn": _by_fraction(np.stack(knn, axis=-1))}


def few_labels(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Return the indices of the first fraction of each class, rounded up, in rising order."""
    indices = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([i[: int(np.ceil(fraction * len(i)))] for i in indices]))


def _by_fraction(values: np.ndarray) -> dict[str, np.ndarray]:
    return {str(fraction): value for fraction, value in zip(FRACTIONS, values, strict=True)}


def _describe_probes(report: Report) -> str:
    probe = report["provenance"]["probe"]
    return (
        f"Linear: standardized vectors, {probe['steps']:,} steps of Adam. kNN:"
        f" {probe['neighbours']} neighbours, or as many as there are."
    )


EVALUATOR = Evaluator(
    metrics=(
        Metric(
            "accuracy_features",
            (_PROBE, _LABELS),
            "top-1 accuracy, 0 to 1",
            TableLayout(
                "Classes from the encoder's features",
                "Classes from features of untransformed images (of transformed views, where the"
                " data set has no others), by the fraction of labels that probes are fitted with.",
                lambda report: (
                    f"{describe_views(report, 'fit_images', 'test_images')}"
                    f" {_describe_probes(report)}"
                ),
            ),
        ),
        Metric(
            "accuracy_embeddings",
            (CONTEXT, _PROBE, _LABELS, LENGTH),
            "top-1 accuracy, 0 to 1",
            TableLayout(
                "Classes from embeddings",
                "Classes from view embeddings z⁺ of transformed views, by tokens of context; not"
                " comparable with accuracies on untransformed images.",
                lambda report: (
                    f"{describe_views(report, 'fit', 'test')} {_describe_probes(report)}"
                ),
            ),
        ),
    ),
    evaluate=evaluate,
    evaluate_features=evaluate_features,
    terms={"kNN": "Weighted vote of the nearest neighbours by cosine (arXiv 1805.01978)."},
)
