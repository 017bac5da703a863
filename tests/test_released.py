"""The models that come with the package: they load by name and give their cards' figures."""

import os
from pathlib import Path

import numpy as np
import pytest

import contextssl_jax as cssl
from contextssl_jax.evaluation.probes import ridge_predict
from contextssl_jax.evaluation.scores import r2_per_entry

GROUPS = {"objects3d-small": ("rotation", "color"), "cifar10-small": ("crop", "blur")}
FIT, TEST, SEED = 700, 300, 5  # records, two views each


def test_the_package_has_these_models():
    assert cssl.released_models() == tuple(sorted(GROUPS))


@pytest.mark.parametrize("name", GROUPS)
def test_files_are_small_and_the_card_states_what_the_file_does(name):
    folder = Path(cssl.__file__).parent / "released" / name
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.keys() == {"model.safetensors", "config.json", "README.md"}
    assert sizes["model.safetensors"] < 5e6
    card, text = cssl.load(name).card.figures, (folder / "README.md").read_text()
    for r2 in card["r2"]["linear"].values():
        assert " | ".join(f"{r2[group]:.3f}" for group in GROUPS[name]) in text
    assert "revision | unknown" not in text and "license: apache-2.0" in text


@pytest.mark.parametrize("name", GROUPS)
def test_a_model_adapts_on_a_draw_of_its_own_as_its_card_says(name):
    """Ridge regression on fewer views than the report's: R² may be lower by .1."""
    if name == "cifar10-small" and "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("TFDS_DATA_DIR is not set")
    model, groups = cssl.load(name), GROUPS[name]
    assert tuple(model.card.groups) == groups
    shown = cssl.sample_pairs(model, 63, seed=SEED)
    views = cssl.sample_pairs(model, FIT + TEST, seed=SEED + 1)
    images = np.concatenate([views.x, views.y])
    params = {g: np.concatenate([views.x_params[g], views.y_params[g]]) for g in groups}
    is_test = np.tile(np.arange(FIT + TEST) >= FIT, 2)
    features = model.encode(images)
    card = model.card.figures["r2"]["ridge_strong"]
    for own in groups:
        context = model.context(shown.x, shown.y, **{own: shown.actions[own]})
        z = model.embed(features, context)
        for group in groups:
            mean, std = params[group][~is_test].mean(axis=0), params[group][~is_test].std(axis=0)
            target = (params[group] - mean) / std
            predicted = np.asarray(
                ridge_predict(z[None, ~is_test], target[~is_test], z[None, is_test], (0.1,))
            )[0, 0]
            r2 = r2_per_entry(target[is_test], predicted).mean()
            assert abs(r2 - card[own][group]) < 0.1, (own, group, r2, card[own][group])
