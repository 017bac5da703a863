"""The monitor: R² under contexts, and its repeatability."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation import monitor
from contextssl_jax.evaluation.monitor import build_monitor
from contextssl_jax.evaluation.scores import r2_per_entry
from contextssl_jax.evaluation.views import draw_views
from contextssl_jax.experiment import build_experiment
from contextssl_jax.methods.base import Predictions, mask_actions


class Oracle:
    """A method that embeds a view as its latents, those of hidden groups fading with length."""

    uses_context = True

    def __init__(self, space):
        self.space = space

    def encode(self, variables, record, transform_params):
        return self.space.standardize(transform_params)

    def encode_context(self, variables, features, actions, key=None):
        return (jnp.abs(actions).sum(axis=0) > 0)[jnp.asarray([0, 4])]  # shown groups

    def embed(self, variables, context, length, features, actions):
        kept = mask_actions(features, context, self.space.param_group_ids)
        return jnp.where(length > 0, kept, features)

    def predict(self, variables, embeddings):
        return Predictions(embeddings)


@pytest.fixture
def experiment(config):
    return build_experiment(config)


def test_it_sees_adaptation(config, experiment):
    oracle = dataclasses.replace(experiment, eval_method=Oracle(experiment.dataset.space))
    config.monitor.penalty = 1e-3
    seen = build_monitor(config, oracle)({})
    longest = 2 * config.data.pairs - 2
    for shown, hidden in (("crop", "blur"), ("blur", "crop")):
        assert seen[f"r2/{shown}/{shown}/0"] > 0.99 and seen[f"r2/{shown}/{hidden}/0"] > 0.99
        assert seen[f"r2/{shown}/{shown}/{longest}"] > 0.99
        assert abs(seen[f"r2/{shown}/{hidden}/{longest}"]) < 0.2


def test_the_monitor_is_repeatable_and_length_zero_ignores_the_environment(config, experiment):
    look, state = build_monitor(config, experiment), experiment.init()
    first, second = look(state.variables), build_monitor(config, experiment)(state.variables)
    assert first == second
    for group in ("crop", "blur"):
        assert first[f"r2/crop/{group}/0"] == first[f"r2/blur/{group}/0"]
    assert 0 <= first["knn"] <= 1


def test_the_longest_context_is_a_mean_over_drawn_ones(config, experiment, monkeypatch):
    class OfContext(Oracle):
        """Forgets a share of each latent that depends on the context it reads."""

        def encode_context(self, variables, features, actions, key=None):
            return jnp.abs(features).sum() % 1.0

        def embed(self, variables, context, length, features, actions):
            noise = 3 * context * jnp.sin(1e4 * features)
            return jnp.where(length > 0, features + noise, features)

    method = OfContext(experiment.dataset.space)
    oracle = dataclasses.replace(experiment, eval_method=method)
    scores = []

    def recorded(target, predicted):
        scores.append(r2_per_entry(target, predicted))
        return scores[-1]

    monkeypatch.setattr(monitor, "r2_per_entry", recorded)
    config.monitor.contexts = 4
    seen = build_monitor(config, oracle)({})
    entries = np.stack(scores)[:, 1, :4]  # crop's, of the four contexts, in the first environment
    assert entries.std(axis=0).min() > 1e-3
    assert seen["r2/crop/crop/14"] == pytest.approx(entries.mean())
    assert seen["r2/crop/crop/0"] == pytest.approx(np.stack(scores)[0, 0, :4].mean())


def test_too_many_views_are_an_error(config, experiment):
    size = experiment.dataset.splits["test"].size
    in_contexts = config.monitor.contexts * config.data.pairs
    config.monitor.test_views = size - in_contexts
    build_monitor(config, experiment)
    config.monitor.test_views += 1
    message = f"{size - in_contexts + 1} records and {in_contexts} for contexts, but the test split"
    with pytest.raises(UserError, match=message):
        build_monitor(config, experiment)
    config.monitor.fit_views = 10_000
    with pytest.raises(UserError, match="monitor.fit_views: needs 10000"):
        build_monitor(config, experiment)


@pytest.mark.parametrize("seed", range(3))
def test_contexts_are_of_other_records_than_the_scored_views(config, experiment, monkeypatch, seed):
    drawn = []

    def recorded(split, *arguments):
        views = draw_views(split, *arguments)
        drawn.append((split, views.indices))
        return views

    monkeypatch.setattr(monitor, "draw_views", recorded)
    config.seed = seed
    build_monitor(config, experiment)
    _, (test, scored), (of_contexts, contexts) = drawn
    assert of_contexts is test is experiment.dataset.splits["test"]
    assert len(contexts) == config.monitor.contexts * config.data.pairs
    assert len({*scored, *contexts}) == len(scored) + len(contexts)


def test_knn_uses_untransformed_images(config, experiment):
    seen = []

    class Spy(Oracle):
        def encode(self, variables, record, transform_params):
            jax.debug.callback(lambda t: seen.append(np.array(t)), transform_params)
            return super().encode(variables, record, transform_params)

    spy = dataclasses.replace(experiment, eval_method=Spy(experiment.dataset.space))
    build_monitor(config, spy)({})
    identity = experiment.dataset.space.identity
    assert any((transform_params == identity).all() for transform_params in seen)
