"""All probes of transform parameters and actions: names, fits and scores."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.probes import ridge_predict
from contextssl_jax.evaluation.reader import never_stop
from contextssl_jax.evaluation.scores import Target, score
from contextssl_jax.evaluation.trained_probes import (
    Training,
    fit_parameter_probes,
    inputs_of,
    predict_parameters,
)

# Display names by key in report.json.
PROBES = {
    "ridge_weak": "weak ridge",
    "ridge_strong": "strong ridge",
    "linear": "linear",
    "mlp": "MLP",
}
TARGETS = {"single": "parameters of a view", "pair": "action between two views"}
Scores = dict[str, dict[str, dict[str, np.ndarray]]]  # by probe and target; see scores.score


def probe_scores(
    key: jax.Array,
    fit: np.ndarray,
    test: np.ndarray,
    targets: Mapping[str, Target],
    options: ConfigDict,
    groups: int,
    check_stop: Callable[[], None] = never_stop,
) -> Scores:
    """Fit all probes and score them.

    Args:
      key: draws initial weights and the order of records.
      fit: vectors of two views of n records under U conditions, [U, n, 2, D].
      test: [U, m, 2, D].
      targets: by name, see scores.probe_targets.
      options: the section `eval.probe`.
      groups: G.
      check_stop: called between the fits; may raise.

    Returns:
      Scores (see `score`, with U in front) by probe and target.
    """
    x, x_test = (inputs_of(h) for h in (fit, test))
    scores: Scores = {probe: {} for probe in PROBES}
    penalties = options.weak, options.strong
    for name, target in targets.items():
        check_stop()
        predicted = np.asarray(ridge_predict(x[name], target.fit, x_test[name], penalties))
        for probe, one in zip(("ridge_weak", "ridge_strong"), predicted, strict=True):
            scores[probe][name] = score(target, one, groups)
    check_stop()
    layers = fit_parameter_probes(
        key,
        fit,
        {name: target.fit for name, target in targets.items()},
        tuple(options.hidden),
        Training.of(options),
    )
    for probe, by_target in jax.device_get(predict_parameters(layers, x_test)).items():
        for name, target in targets.items():
            scores[probe][name] = score(target, by_target[name], groups)
    return scores
