"""Labels that depend on the context: loss, predictions and accuracy against naive versions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import run
from small_methods import small, small_config

from contextssl_jax.data import DATASETS
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.predictor import predicted_class_accuracy
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import observed_actions

RNG = np.random.default_rng(0)
OBSERVED = {  # (crop, blur); labels are shifted by 4 where crop is observed
    "crop": np.array([True, False]),
    "blur": np.array([False, True]),
    "crop+blur": np.array([True, True]),
    "none": np.array([False, False]),
}


def loss_and_embeddings(one, batch):
    """The method's loss and metrics, and the embeddings of x and y tokens, [B, E, K, P]."""
    key, shape = jax.random.key(1), batch.transform_params.shape[:3]
    loss, (_, metrics) = one.method.loss(one.params, one.batch_stats, batch, key)
    record = np.broadcast_to(batch.record, (*shape, *batch.record.shape[3:]))
    flat = (x.reshape(-1, *x.shape[3:]) for x in (record, batch.transform_params))
    features = one.method.encode(one.variables, *flat).reshape(*shape, -1)
    embeddings, _ = one.method.heads["transformer"].embed_pairs(
        {"params": one.params["transformer"]},
        features,
        observed_actions(one.method.space, batch),
        batch.position,
        key,
    )
    return loss, metrics, embeddings.predicted, embeddings.y


def naive_predictor(params, h):
    hidden = np.maximum(0, h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def test_the_loss_is_cross_entropy_of_shifted_labels_and_the_predictors_error():
    one = small("supervised", (("loss.predictor_weight", 3.0), ("loss.temperature", 0.5)))
    environments = np.tile(np.stack(list(OBSERVED.values())), (4, 1, 1))
    labels = RNG.integers(0, 4, (4, 3)).astype(np.int32)
    batch = one.batch._replace(environments=environments, labels=labels)
    loss, metrics, x, y = run(lambda: loss_and_embeddings(one, batch))
    classifier, predictor = one.params["classifier"], one.params["predictor"]
    target = np.asarray(one.method.space.standardize(batch.transform_params[:, :, 1]))
    entropy, error, right = [], [], []
    for b, e, k in np.ndindex(4, 4, 3):
        for h in (x[b, e, k], y[b, e, k]):
            h = h / np.sqrt((h**2).sum())
            logits = (h @ classifier["kernel"] + classifier["bias"]) / 0.5
            assert logits.shape == (8,)  # four classes, moved by four
            label = labels[b, k] + (4 if environments[b, e, 0] else 0)
            entropy.append(np.log(np.exp(logits).sum()) - logits[label])
            right.append(logits.argmax() == label)
            squares = (naive_predictor(predictor, h) - target[b, k]) ** 2
            crop, blur = squares[:4].mean(), squares[4]
            error.append(crop * environments[b, e, 0] + blur * environments[b, e, 1])
    np.testing.assert_allclose(metrics["loss_labels"], np.mean(entropy), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_predictor"], np.mean(error), rtol=1e-4)
    np.testing.assert_allclose(metrics["label_accuracy"], np.mean(right), atol=1e-6)
    np.testing.assert_allclose(loss, np.mean(entropy) + 3.0 * np.mean(error), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)


def test_it_predicts_parameters_and_the_classes_that_it_is_trained_on():
    one = small("supervised")
    h = RNG.normal(size=(5, 6)).astype(np.float32)
    found = one.method.predict(one.variables, h)
    classifier = one.params["classifier"]
    expected = (h @ classifier["kernel"] + classifier["bias"]) / 0.5
    np.testing.assert_allclose(found.classes, expected, atol=1e-5)
    np.testing.assert_allclose(
        found.transform_params, naive_predictor(one.params["predictor"], h), atol=1e-5
    )
    others = [
        small(name).method.predict(small(name).variables, h) for name in ("simclr", "sen_plus")
    ]
    assert all(other == (None, None) for other in others)
    found = small("contextssl").method.predict(small("contextssl").variables, h)
    assert found.transform_params.shape == (5, 5) and found.classes is None


@pytest.mark.parametrize(
    "environment, shift", [("crop", 4), ("crop+blur", 4), ("blur", 0), ("none", 0)]
)
def test_classes_are_shifted_where_the_environment_observes_the_group(environment, shift):
    labels = np.array([0, 3, 1])
    observed = OBSERVED[environment]
    np.testing.assert_array_equal(
        small("supervised").method.target_classes(labels, observed), labels + shift
    )
    np.testing.assert_array_equal(small("simclr").method.target_classes(labels, observed), labels)


def test_predicted_classes_are_scored_by_the_environment_of_the_context():
    """An oracle that knows the labels, and shifts them after contexts that observe crop."""
    conditions = Conditions({name: OBSERVED[name] for name in ("crop", "blur")}, (0, 2))
    labels, classes = RNG.integers(0, 4, 30), small("supervised").method.target_classes
    found = np.empty((3, 30, 2), int)  # alone, after crop's 2 tokens, after blur's
    for environment, length in ((name, c) for name in ("crop", "blur") for c in (0, 2)):
        observed = OBSERVED[environment] if length else OBSERVED["none"]
        found[conditions.row(environment, length)] = classes(labels, observed)[:, None]
    found[2, :, 1] = (labels + 1) % 4  # after blur, every second view is taken for another class
    found = predicted_class_accuracy(
        np.eye(8)[found], conditions, lambda observed: classes(labels, observed)
    )
    np.testing.assert_allclose(found, [[0, 1], [1, 0.5]])


@pytest.mark.parametrize(
    "labels, group, message",
    [
        (
            False,
            "crop",
            "^--config.method: supervised needs labels, which synthetic does not have."
            " Choose another method or --config.data.name.$",
        ),
        (
            True,
            "rotation",
            r"^--config.supervised.group: 'rotation' is none of the groups \('crop', 'blur'",
        ),
    ],
)
def test_what_cannot_be_learnt_is_one_line(labels, group, message):
    config = small_config("supervised")
    config.supervised.group = group
    dataset = DATASETS["synthetic"].build(config)
    if not labels:
        split = dataclasses.replace(dataset.splits["train"], labels=None)
        splits = {"train": split, "test": split}
        dataset = dataclasses.replace(dataset, splits=splits, classes=0)
    with pytest.raises(UserError, match=message):
        METHODS["supervised"](config, dataset, None)


def test_with_weight_zero_the_predictors_error_has_no_gradient():
    """lambda = 0 leaves the cross-entropy."""
    one = small("supervised", (("loss.predictor_weight", 0.0),))

    def loss(params):
        return one.method.loss(params, one.batch_stats, one.batch, jax.random.key(1))[0]

    slopes = run(jax.grad(loss), one.params)
    assert max(np.abs(x).max() for x in jax.tree.leaves(slopes["predictor"])) == 0
    assert np.abs(jnp.asarray(slopes["classifier"]["kernel"])).min() > 0
