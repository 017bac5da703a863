"""The Python interface: what a user computes is what the report computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

import contextssl_jax as cssl
from configs import debug
from contextssl_jax.config import to_json
from contextssl_jax.data.inputs import input_statistics
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.views import draw_views
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.interface.batches import Batches
from contextssl_jax.interface.loading import build_model
from contextssl_jax.interface.samples import _render
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.rounding import round_to_grid
from contextssl_jax.weights.names import flatten_variables, to_float32
from contextssl_jax.weights.saved_model import SavedModel, write_model

SCALE = 1.5  # of random weights, so that the context matters


def options(kind: str) -> ConfigDict:
    config = debug.get_config()
    config.train.parallel = "jit"
    config.log.tensorboard = False
    if kind in ("scenes", "official units"):
        config.data.name = "objects3d"
        config.objects3d.update(side=16, train=40, test=40, pool=0, samples=1)
        config.groups, config.unconditioned_transforms = ("rotation", "color"), ("light",)
        config.environments = ("rotation", "color")
    if kind == "official units":
        config.model.standardize_actions = config.loss.standardize_targets = False
    if kind in METHODS:
        config.method = kind
        predictor = "hypernetwork" if kind == "sie" else "linear"
        config.model.projector.update(widths=(8, 6), predictor=predictor)
        config.supervised.update(group="crop", shift=4)
    return config


def saved_model(config: ConfigDict, experiment: Experiment) -> SavedModel:
    """Return a model of random weights, scaled up so that the context matters."""
    variables = jax.tree.map(lambda leaf: SCALE * leaf, experiment.init().variables)
    statistics = input_statistics(experiment.dataset).to_json()
    return SavedModel(json.loads(to_json(config)), 3, flatten_variables(variables), statistics)


class Case:
    """A model, and the experiment that it is of."""

    def __init__(self, kind: str) -> None:
        self.config = options(kind)
        self.experiment = build_experiment(self.config)
        self.saved = saved_model(self.config, self.experiment)
        self.model = build_model(self.saved, kind, 64)
        self.variables = jax.tree.map(lambda leaf: SCALE * leaf, self.experiment.init().variables)
        dataset = self.experiment.dataset
        self.views = draw_views(dataset.splits["test"], (0, 1), 18, 2)
        record, params = self.views.rows(np.arange(36))
        self.params = self.views.transform_params
        images = np.asarray(dataset.pixels(dataset.render(record, params)))
        self.images = images.reshape(18, 2, *images.shape[1:])
        own = dataset.space.with_units(standardize_params=False, standardize_actions=False)
        actions = np.asarray(own.actions(self.params[:, 0], self.params[:, 1]))
        self.actions = {n: actions[:, own.action_group_ids == g] for g, n in enumerate(own.names)}


@pytest.fixture(scope="module", params=["images", "scenes", "official units"])
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def plain():
    return Case("images")


def test_embeddings_are_those_of_the_report_after_every_length(case):
    pairs = case.model.card.max_pairs
    names = case.experiment.dataset.space.names
    environments = {"none": np.zeros(2, bool), names[0]: np.array([True, False]),
                    "+".join(names): np.ones(2, bool)}  # fmt: skip
    lengths = tuple(range(2 * pairs + 1))
    reader = ForwardPasses(case.experiment.eval_method, 16)
    variables, space = reader.place(case.variables), case.experiment.eval_method.space
    report = EncodedContexts(
        *(reader, variables, space, Conditions(environments, lengths)),
        *(case.views.part(slice(pairs)), None),
    )
    queries = case.views.part(slice(pairs, None))
    features = reader.encode(variables, queries)
    np.testing.assert_allclose(
        case.model.encode(case.images[pairs:, 0]), features[:, 0], rtol=1e-5, atol=1e-5
    )
    actions = np.asarray(
        space.actions(queries.transform_params[:, 0], queries.transform_params[:, 1])
    )
    expected = report.view_embeddings(features[:, 0])
    targets = report.predicted_targets(features[:, 0], actions)
    for e, (name, observed) in enumerate(environments.items()):
        shown = {g: case.actions[g] for g, of in zip(names, observed, strict=True) if of}
        context = case.model.context(
            *case.images[:pairs].swapaxes(0, 1), **{g: a[:pairs] for g, a in shown.items()}
        )
        assert context.groups == tuple(shown) and context.tokens == 2 * pairs
        for length in lengths:
            row = Conditions(environments, lengths).row(name, length)
            z = case.model.embed(case.images[pairs:, 0], context, length=length)
            np.testing.assert_allclose(z, expected[row], atol=1e-5)
            if shown:
                z = case.model.embed(
                    *(case.images[pairs:, 0], context),
                    length=length,
                    **{g: a[pairs:] for g, a in shown.items()},
                )
                np.testing.assert_allclose(z, targets[e, length], atol=1e-5)
        assert np.abs(expected[row] - expected[0]).max() > 1e-3  # the context matters
    general = case.model.embed(case.images[pairs:, 0])
    np.testing.assert_allclose(general, expected[0], atol=1e-5)
    predicted = case.experiment.eval_method.predict(case.variables, general).transform_params
    found = case.model.predict(general)
    assert tuple(found) == names
    for g, name in enumerate(names):
        own = space.param_group_ids == g
        in_units = predicted[:, own] * space.param_std[own] + space.param_mean[own]
        np.testing.assert_allclose(found[name], in_units, rtol=1e-4, atol=1e-5)


def test_rounded_embeddings_are_those_of_a_report_with_rounding(plain):
    z = plain.model.embed(plain.images[:, 0])
    rounded = plain.model.embed(plain.images[:, 0], rounding=0.5)
    np.testing.assert_allclose(rounded, round_to_grid(z, 0.5), atol=1e-6)
    assert np.abs(rounded - z).max() > 0.01


def test_a_model_saved_before_an_option_existed_is_loaded(plain):
    config = json.loads(json.dumps(plain.saved.config))
    for section, name in (("mask", "context"), ("loss", "encoder_weight"), ("eval", "rounding")):
        del config[section][name]
    del config["model"]["resnet"]
    old = build_model(plain.saved._replace(config=config), "old", 64)
    np.testing.assert_array_equal(
        old.embed(plain.images[:, 0]), plain.model.embed(plain.images[:, 0])
    )


def test_features_embed_as_their_images_do(plain):
    model, images = plain.model, plain.images[:, 0]
    context = model.context(
        plain.images[:5, 0], plain.images[:5, 1], crop=plain.actions["crop"][:5]
    )
    features = model.encode(images)
    np.testing.assert_allclose(
        model.embed(features, context), model.embed(images, context), atol=1e-6
    )
    both = model.encode(plain.images[:5].reshape(10, 16, 16, 3)).reshape(5, 2, -1)
    same = model.context(both[:, 0], both[:, 1], crop=plain.actions["crop"][:5])
    np.testing.assert_allclose(model.embed(images, same), model.embed(images, context), atol=1e-6)


def test_bytes_and_lists_are_taken(plain):
    levels = (255 * plain.images[:3, 0]).round().astype(np.uint8)
    np.testing.assert_allclose(
        plain.model.encode(list(levels)), plain.model.encode(levels / 255), atol=1e-5
    )


def test_one_action_applies_to_all_images(plain):
    model, images = plain.model, plain.images[:4, 0]
    context = model.context(images, images, blur=[0.1, 0.2, 0.3, 0.4])
    same = model.embed(images, context, blur=0.5, crop=[0.1, 0, 0, 0])
    each = model.embed(images, context, blur=np.full((4, 1), 0.5), crop=[[0.1, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(same, each)


def test_nearest_equals_a_sort_of_all_cosines(plain):
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(70, 16)), rng.normal(size=(9, 16))
    found = plain.model.nearest(queries, bank, k=4)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank)]
    cosines = unit[0] @ unit[1].T
    np.testing.assert_array_equal(found.indices, np.argsort(-cosines, axis=1)[:, :4])
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :4], atol=1e-5)


@pytest.mark.parametrize("n", [1, 16, 65, 200])
def test_batches_return_all_rows_in_order(n):
    rows = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    found = Batches(64).map(jax.jit(lambda x, none: {"twice": 2 * x}), rows, None)
    np.testing.assert_array_equal(found["twice"], 2 * rows)


def test_a_quaternion_and_its_negative_are_one_rotation(case):
    if "rotation" not in case.actions:
        pytest.skip("this model has no rotations")
    model, images, q = case.model, case.images[:5, 0], case.actions["rotation"][:5]
    context = model.context(images, images, rotation=q)
    np.testing.assert_array_equal(
        model.embed(images, model.context(images, images, rotation=-q)),
        model.embed(images, context),
    )
    with pytest.raises(ValueError, match="norm 2, not 1"):
        model.context(images, images, rotation=2 * q)


def test_a_method_without_contexts_embeds_and_says_so():
    model = Case("simclr").model
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert model.embed(images).shape == (2, model.card.embedding)
    with pytest.raises(ValueError, match="simclr uses no contexts"):
        model.context(images, images)
    with pytest.raises(ValueError, match="predicts nothing"):
        model.predict(model.embed(images))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_rebuilt_without_its_data_set(method):
    config = options(method)
    experiment = build_experiment(config)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape), experiment.init_shapes().variables)
    statistics = input_statistics(experiment.dataset).to_json()
    options_json = json.loads(to_json(config))
    saved = SavedModel(options_json, 0, to_float32(flatten_variables(variables)), statistics)
    model = build_model(saved, method, 16)
    z = model.embed(np.zeros((2, 16, 16, 3), np.uint8), blur=[0.1, 0.2])
    assert z.shape == (2, model.card.embedding)


IMAGES = np.zeros((3, 16, 16, 3))
CROPS = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(IMAGES[0]), r"images: shape .*Pass images\[None\] for one"),
        (lambda m: m.encode(IMAGES[..., :1]), "RGB, channels last"),
        (lambda m: m.encode(IMAGES[:0]), "no images"),
        (lambda m: m.encode(IMAGES[:, :8]), "8 by 16 pixels"),
        (lambda m: m.encode(IMAGES + 2), r"values from 2 to 2, expected floats in \[0, 1\]"),
        (lambda m: m.encode(IMAGES + np.nan), "values from nan"),
        (lambda m: m.encode(IMAGES.astype(int)), "type int64"),
        (lambda m: m.context(IMAGES, IMAGES[:2]), "y: 2 images, but x has 3"),
        (lambda m: m.context(*[np.zeros((8, 16, 16, 3))] * 2), "at most 7"),
        (lambda m: m.context(IMAGES, IMAGES, hue=CROPS), "hue: no group .*crop, blur"),
        (lambda m: m.context(IMAGES, IMAGES, crop=CROPS[:2]), r"crop: shape .*expected \[3, 4\]"),
        (lambda m: m.context(IMAGES, IMAGES, crop=CROPS + np.inf), "crop: a value is not finite"),
        (lambda m: m.context(IMAGES, IMAGES, crop=CROPS + 90), "crop: 90 is .* boxes"),
        (lambda m: m.embed(IMAGES, length=1), "length: 1 tokens, but the context has 0"),
        (lambda m: m.embed(IMAGES, m.context(IMAGES, IMAGES), length=7), "has 6"),
        (lambda m: m.embed(np.zeros((3, 5))), r"images: shape \(3, 5\), expected \[N, 32\]"),
        (lambda m: m.embed(IMAGES, rounding=5), "rounding: 5, expected 0 to 4"),
        (lambda m: m.predict(np.zeros((3, 5))), r"embeddings: shape .*expected \[N, 16\]"),
        (lambda m: m.nearest(np.ones((3, 16)), np.ones((2, 16)), k=3), "k: 3, expected 1 to 2"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(plain, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(plain.model)
    assert "\n" not in str(error.value)


def test_a_context_belongs_to_its_model(plain):
    other = build_model(plain.saved, "other", 64)
    with pytest.raises(ValueError, match="context: encoded by another model"):
        other.embed(IMAGES, plain.model.context(IMAGES, IMAGES))


def test_weights_that_do_not_fit_are_an_error(plain):
    tensors = dict(plain.saved.variables)
    del tensors[next(iter(tensors))]
    with pytest.raises(UserError, match="does not fit the model .missing"):
        build_model(plain.saved._replace(variables=tensors), "name", 64)
    with pytest.raises(UserError, match="no statistics of its data set"):
        build_model(plain.saved._replace(statistics={}), "name", 64)


@pytest.mark.parametrize("name", ["nowhere", "file.txt"])
def test_what_is_no_model_is_an_error(name, tmp_path):
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ValueError, match="path: .*does not exist|unknown suffix"):
        cssl.load(tmp_path / name)


def test_a_process_that_imports_nothing_else_embeds_from_a_file(plain, tmp_path):
    write_model(epath.Path(tmp_path), plain.saved, "--out")
    np.savez(tmp_path / "images.npz", plain.images)
    script = """
import sys
import contextssl_jax as cssl, numpy as np
model = cssl.load("model.safetensors")
images = np.load("images.npz")["arr_0"]
context = model.context(images[:7, 0], images[:7, 1])
np.save("embeddings.npy", model.embed(images[:, 0], context, length=6))
assert "matplotlib" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": str(Path(cssl.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    context = plain.model.context(plain.images[:7, 0], plain.images[:7, 1])
    np.testing.assert_allclose(
        np.load(tmp_path / "embeddings.npy"),
        plain.model.embed(plain.images[:, 0], context, length=6),
        atol=1e-5,
    )


def test_sampled_pairs_are_the_data_sets_views(case):
    pairs = cssl.sample_pairs(case.model, 4, seed=1)
    dataset = case.experiment.dataset
    views = draw_views(dataset.splits["test"], (1,), 4, 2)
    images = _render(dataset, views)
    np.testing.assert_array_equal(pairs.x, images[:, 0])
    np.testing.assert_array_equal(pairs.y, images[:, 1])
    space = dataset.space
    actions = space.actions(views.transform_params[:, 0], views.transform_params[:, 1])
    for g, name in enumerate(space.names):
        own = space.action_group_ids == g
        standardized = (pairs.actions[name] - space.action_mean[own]) / space.action_std[own]
        np.testing.assert_allclose(standardized, actions[:, own], atol=1e-4)
    np.testing.assert_array_equal(
        np.concatenate(list(pairs.y_params.values()), axis=1), views.transform_params[:, 1]
    )
    with pytest.raises(ValueError, match="pairs: 0, expected 1 to"):
        cssl.sample_pairs(case.model, 0)
