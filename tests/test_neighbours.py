"""Nearest views are those of the record, by a naive search; each is rendered once."""

import numpy as np
import pytest

from contextssl_jax.evaluation import neighbours
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.views import draw_views
from contextssl_jax.experiment import build_experiment

CONDITIONS = Conditions(
    {"crop": np.array([True, False]), "none": np.array([False, False])}, lengths=(0, 4)
)
RECORDS, VIEWS = 3, 9


@pytest.fixture
def given(config):
    rng = np.random.default_rng(0)
    dataset = build_experiment(config).dataset
    views = draw_views(dataset.splits["test"], (0,), RECORDS, VIEWS)
    bank = rng.normal(size=(CONDITIONS.size, RECORDS, VIEWS, 5))
    return dataset, views, bank, rng.normal(size=(2, 2, RECORDS, VIEWS, 5)), CONDITIONS


def test_neighbours_are_those_of_a_naive_search(given):
    dataset, views, bank, queries, _ = given
    found = neighbours.find_neighbours(*given)
    rendered = dataset.render(*views.rows(np.arange(RECORDS * VIEWS)))
    pixels = np.asarray(dataset.pixels(rendered)).reshape(RECORDS, VIEWS, *rendered.shape[1:])
    t = np.asarray(dataset.space.standardize(views.transform_params))
    crop = dataset.space.param_group_ids == 0

    def check(index: int, record: int, view: int) -> None:
        np.testing.assert_allclose(found.images[index] / 255, pixels[record, view], atol=0.01)
        gap = t[record, view] - t[record, 1]
        expected = [np.sqrt(np.mean(gap[own] ** 2)) for own in (crop, ~crop)]
        np.testing.assert_allclose(found.distances[index], expected, rtol=1e-5)

    for record in range(RECORDS):
        check(found.sources[record], record, 0)
        check(found.targets[record], record, 1)
        for e, environment in enumerate(CONDITIONS.environments):
            for c, length in enumerate(CONDITIONS.lengths):
                row = bank[CONDITIONS.row(environment, length), record]
                order = 1 + np.argsort(-row[1:] @ queries[e, c, record, 1])
                for index, view in zip(found.nearest[record, e, c], order[:6], strict=True):
                    check(index, record, view)
        of_all = np.sqrt(np.mean((t[record, 1:] - t[record, 1])[:, crop] ** 2, axis=1))
        assert found.mean_distances[record, 0] == pytest.approx(of_all.mean(), rel=1e-5)
    assert found.environments == ("crop", "none") and found.lengths == (0, 4)
    assert len(np.unique(found.images.reshape(len(found.images), -1), axis=0)) == len(found.images)


def test_large_images_are_reduced_and_rendered_in_batches(given, monkeypatch):
    whole = neighbours.find_neighbours(*given)
    monkeypatch.setattr(neighbours, "_BATCH", 4)
    np.testing.assert_array_equal(neighbours.find_neighbours(*given).images, whole.images)
    monkeypatch.setattr(neighbours, "_SIDE", 8)
    reduced = neighbours.find_neighbours(*given).images
    assert reduced.shape == (len(whole.images), 8, 8, 3)
    halved = whole.images.reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    assert np.abs(reduced - halved).mean() < 3
    assert reduced.dtype == np.uint8
