"""The method's own predictions from embeddings: R² of parameters, and accuracy of classes."""

from collections.abc import Callable

import numpy as np

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    GROUP,
    LENGTH,
    Comparison,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    TableLayout,
    Tree,
    describe_test_views,
)
from contextssl_jax.evaluation.scores import r2_per_entry

_TOKENS = {"z+": "z⁺: parameters of the view", "z_r": "z_r: parameters of the action's target"}


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return the scores of what the method predicts; nothing of what it does not predict."""
    conditions, labels = inputs.conditions, inputs.data.test.labels
    of_views = inputs.predict(embeddings.retrieval)
    tree: Tree = {}
    if of_views.transform_params is not None:
        of_targets = inputs.predict(embeddings.predicted_targets)
        tree["predictor_r2"] = _parameters_r2(
            inputs, of_views.transform_params, of_targets.transform_params
        )
    if of_views.classes is not None and labels is not None:
        values = predicted_class_accuracy(
            inputs.predict(embeddings.test).classes,
            conditions,
            lambda observed: inputs.method.target_classes(labels, observed),
        )
        tree["accuracy_told"] = {
            e: conditions.name_lengths(row)
            for e, row in zip(conditions.environments, values, strict=True)
        }
    return tree


def predicted_class_accuracy(
    logits: np.ndarray, conditions: Conditions, targets: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the accuracy of classes that the method predicts.

    Args:
      logits: of V views of n records under U conditions, [U, n, V, C].
      conditions: the U conditions.
      targets: returns the target classes [n] for an environment's observed groups, bool [G].

    Returns:
      Accuracy by environment and length, [E, lengths].
    """
    predicted = logits.argmax(axis=-1)
    return np.asarray(
        [
            [
                np.mean(predicted[conditions.row(name, length)] == targets(observed)[:, None])
                for length in conditions.lengths
            ]
            for name, observed in conditions.environments.items()
        ]
    )


def _parameters_r2(inputs: EvalInputs, of_views: np.ndarray, of_targets: np.ndarray) -> Tree:
    """Return R² by environment, group, token and length.

    Args:
      inputs: of which the retrieval views' parameters are the targets.
      of_views: predictions from z⁺, in the method's units, [U, r, V, T].
      of_targets: predictions from z_r, [E, C, r, V, T].
    """
    conditions, space = inputs.conditions, inputs.method.space
    t = np.asarray(space.standardize(inputs.data.retrieval.transform_params))
    t = t.reshape(-1, t.shape[-1])
    views_r2, targets_r2 = (
        r2_per_entry(t, x.reshape(*x.shape[:-3], -1, x.shape[-1])) for x in (of_views, of_targets)
    )
    return {
        e: {
            group: {
                "z+": conditions.by_length(e, views_r2[:, own].mean(axis=1)),
                "z_r": conditions.name_lengths(targets_r2[i][:, own].mean(axis=1)),
            }
            for g, group in enumerate(space.names)
            for own in [space.param_group_ids == g]
        }
        for i, e in enumerate(conditions.environments)
    }


EVALUATOR = Evaluator(
    metrics=(
        Metric(
            "predictor_r2",
            (CONTEXT, GROUP, Level("token", _TOKENS), LENGTH),
            "R², at most 1; 0 is the mean of the data",
            TableLayout(
                "The model's own predictor",
                "Parameters that the model's own predictor outputs, by tokens of context. It was"
                " trained on the groups that a context shows; R² of others may be far below 0.",
                lambda report: describe_test_views(report, "retrieval"),
            ),
        ),
        Metric(
            "accuracy_told",
            (CONTEXT, LENGTH),
            "top-1 accuracy, 0 to 1",
            TableLayout(
                "Classes predicted by the model",
                "Classes as the model itself predicts them, by tokens of context; correct is the"
                " class that holds in the context's environment.",
                lambda report: describe_test_views(report, "test"),
            ),
            Comparison(by_environment=True),
        ),
    ),
    evaluate=evaluate,
)
