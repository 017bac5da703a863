"""The evaluation finds what a method with known symmetries does."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.evaluate import build_conditions, build_evaluation
from contextssl_jax.evaluation.evaluators import EVALUATORS, all_metrics
from contextssl_jax.evaluation.evaluators.r2_probes import adaptivity
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.experiment import build_experiment
from contextssl_jax.methods.base import Predictions, mask_actions
from contextssl_jax.reports.summary import statements
from contextssl_jax.reports.tables import describe_source, tables


class Oracle:
    """Embeds a view as its latents; with a context, those of the groups that it shows alone.

    A query with an action is embedded as the view that the action leads to.
    """

    uses_context = True

    def __init__(self, space):
        self.space = space

    def encode(self, variables, record, transform_params):
        return self.space.standardize(transform_params)

    def encode_context(self, variables, features, actions, key=None):
        return (jnp.abs(actions).sum(axis=0) > 0)[jnp.asarray([0, 4])]  # shown groups

    def embed(self, variables, context, length, features, actions):
        space = self.space
        if actions is None:
            actions = jnp.zeros((len(features), len(space.action_mean)))
        raw = actions * space.action_std + space.action_mean
        raw = jnp.where(jnp.abs(actions).sum(axis=1, keepdims=True) > 0, raw, 0)
        reached = features + raw / space.param_std
        kept = jnp.where(length > 0, mask_actions(reached, context, space.param_group_ids), reached)
        # On a sphere, so that the nearest by dot product is the nearest.
        flat = jnp.concatenate([0.1 * kept, jnp.ones((len(kept), 1))], axis=1)
        return flat / jnp.linalg.norm(flat, axis=1, keepdims=True)

    def predict(self, variables, embeddings):
        return Predictions(10 * embeddings[..., :5] / embeddings[..., 5:])


@pytest.fixture
def oracle(config):
    config.eval.probe.update(steps=600, learning_rate=0.03)
    experiment = build_experiment(config)
    return dataclasses.replace(experiment, eval_method=Oracle(experiment.dataset.space))


def test_an_oracle_that_adapts_is_measured_as_such(config, oracle):
    report, neighbours = build_evaluation(config, oracle)({}, 7)
    for probe in PROBES:
        for target in TARGETS:
            for shown, hidden in (("crop", "blur"), ("blur", "crop")):
                own = report["r2"][shown][shown][probe][target]
                other = report["r2"][shown][hidden][probe][target]
                assert all(value > 0.9 for value in own.values()), (probe, target, own)
                assert other["0"] > 0.9 and other["14"] < 0.3
                gap = report["adaptivity"][hidden][probe][target]
                assert abs(gap["0"]) < 1e-6 and gap["14"] > 0.7
            both, none = (report["r2"][e]["crop"][probe][target] for e in ("crop+blur", "none"))
            assert both["14"] > 0.9 and none["14"] < 0.3
    assert report["r2_features"]["crop"]["mlp"]["single"] > 0.9
    assert report["predictor_r2"]["crop"]["crop"]["z+"]["14"] > 0.99
    assert report["predictor_r2"]["crop"]["blur"]["z+"]["14"] < 0.01
    # All groups observed: the target is the nearest. None observed: no better than chance.
    chance = report["provenance"]["retrieval_chance"]
    assert report["retrieval"]["crop+blur"]["hit@1"]["14"] == 1.0
    together, longest = neighbours.environments.index("crop+blur"), neighbours.lengths.index(14)
    assert (neighbours.nearest[:, together, longest, 0] == neighbours.targets).all()
    assert report["retrieval"]["crop"]["hit@1"]["14"] > 0.7
    assert report["retrieval"]["none"]["mrr"]["14"] == pytest.approx(chance["mrr"])
    assert "r2_std" not in report
    assert [line.verdict for line in statements(report)][:2] == ["adapts", "adapts"]
    # Crops and blurs are compared by subtraction, which a linear probe can do.
    assert all(by["pair"]["mean"] > 0.999 for by in report["r2_ceiling"].values())


def test_a_report_has_every_figure_by_its_name_and_says_where_it_is_from(config):
    experiment = build_experiment(config)
    variables = experiment.init().variables
    config.eval.draws = 3
    report = build_evaluation(config, experiment)(variables, 7).report
    report = json.loads(json.dumps(report, allow_nan=False))
    environments, lengths = ["crop", "blur", "crop+blur", "none"], ["0", "2", "14"]
    assert list(report["r2"]) == environments
    for name in ("r2", "r2_std", "r2_global"):
        for environment in environments:
            for group in ("crop", "blur"):
                for probe in ("ridge_weak", "ridge_strong", "linear", "mlp"):
                    for target in ("single", "pair"):
                        row = report[name][environment][group][probe][target]
                        assert list(row) == lengths
    assert list(report["adaptivity"]["crop"]["linear"]["single"]) == lengths
    assert list(report["r2_entries"]["none"]["crop"]["mlp"]["single"]) == [
        f"crop {entry}" for entry in experiment.dataset.space.groups[0].parameter_names
    ]
    # Spread: none without a context, some with one.
    spread = report["r2_std"]["crop"]["blur"]["ridge_weak"]["single"]
    assert spread["0"] == 0 and spread["14"] > 0
    assert list(report["accuracy_features"]["knn"]) == ["1.0", "0.1", "0.01"]
    result = report["provenance"]
    assert (result["step"], result["seed"], result["draws"]) == (7, 0, 3) and len(
        result["config"]
    ) == 12
    assert result["views"]["test"] == {"split": "test", "records": 48, "views": 96}
    assert {"encoding", "embedding", *EVALUATORS} <= result["seconds"].keys()
    # Every declared table has rows, except of what this method does not predict.
    found = tables(report)
    declared = {metric.key for metric in all_metrics() if metric.table is not None}
    assert declared - found.keys() == {"accuracy_told"}
    for table in found.values():
        assert len(table.caption) < 260  # two lines of a page
        assert all(len(row) == len(table.header) for row in table.rows)
    assert result["config"] in describe_source(report) and "step 7" in describe_source(report)


def test_evaluating_twice_or_on_more_draws_keeps_the_first(config):
    experiment = build_experiment(config)
    variables = jax.tree.map(lambda leaf: 2 * leaf, experiment.init().variables)
    reports = [build_evaluation(config, experiment)(variables, 1).report for _ in range(2)]
    for report in reports:
        del report["provenance"]["seconds"]
    assert reports[0] == reports[1]


def test_adaptivity_is_own_minus_the_mean_of_the_others():
    environments = ("a", "b", "c", "a+b")
    r2 = {
        e: {g: {"linear": {"single": {"2": value}}} for g in "abc"}
        for e, value in zip(environments, (0.9, 0.5, 0.1, 77.0), strict=True)
    }
    found = adaptivity(r2, "abc")
    assert found["a"]["linear"]["single"]["2"] == pytest.approx(0.9 - (0.5 + 0.1) / 2)
    # One group: the others show none.
    found = adaptivity({"a": r2["a"], "none": r2["b"]}, "a")
    assert found["a"]["linear"]["single"]["2"] == pytest.approx(0.4)
    assert adaptivity({"a": r2["a"]}, "a") == {}


def test_default_environments_are_each_group_all_and_none(config):
    experiment = build_experiment(config)
    found = build_conditions(config.eval, experiment)
    assert list(found.environments) == ["crop", "blur", "crop+blur", "none"]
    alone = config.copy_and_resolve_references()
    alone.groups = alone.environments = ("crop",)
    found = build_conditions(config.eval, build_experiment(alone))
    assert list(found.environments) == ["crop", "none"]
    config.eval.environments, config.eval.lengths = ("none", "blur"), (6, 2, 2)
    found = build_conditions(config.eval, experiment)
    assert list(found.environments) == ["none", "blur"] and found.lengths == (2, 6)
    assert [found.row(e, c) for e in found.environments for c in (2, 6)] == [0, 1, 2, 3]
    for options, message in (
        (dict(lengths=(0,)), "--config.eval.lengths: has no length above 0"),
        (dict(lengths=(2,), environments=("spin",)), "--config.eval.environments: 'spin'"),
    ):
        config.eval.update(options)
        with pytest.raises(UserError, match=message):
            build_conditions(config.eval, experiment)
