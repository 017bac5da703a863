"""Four whole train steps repeat those of the official code, from the same weights, views and masks.

tests/data/README.md describes the recording. The four steps in a row are taken in float64: Adam
divides each gradient by its size, so that rounding decides the direction of the smallest ones, and
every step enlarges such a difference by a factor of about 50. In float32 each of the four steps is
taken from the float64 state before it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import bench3d
from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.losses import normalize
from contextssl_jax.masks import keep_pairs, pair_mask
from contextssl_jax.methods import METHODS, contextssl
from contextssl_jax.methods.base import Method, observed_actions
from contextssl_jax.models.context_transformer import embed_contexts, interleave, make_tokens
from contextssl_jax.step import TrainState, build_optimizer
from contextssl_jax.transforms import build_space

STEPS, CONTEXTS, PAIRS, SIDE = 4, 4, 8, 32
OPTIMIZED = {"xla_backend_optimization_level": 1}  # a step takes a fifth of the time
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class Run(NamedTuple):
    method: Method
    batches: list[ContextBatch]
    masks: jax.Array  # of every step, bool [steps, L, 1, 1, 2K, 2K]
    states: list[TrainState]  # host arrays
    metrics: list[dict[str, float]]


def our_path(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the collection and path of a tensor of the official state dict."""
    part, *rest, entry = name.split(".")
    if part == "enc":
        layer = ["_".join(rest[:2]), *rest[2:]] if rest[0].startswith("layer") else rest
        if "downsample" in layer:
            layer = [layer[0], "shortcut" if layer[2] == "0" else "shortcut_bn"]
        if entry == "weight" and ("conv" in layer[-1] or layer[-1] == "shortcut"):
            return "params", ("encoder", *layer, "kernel")
        collection = "batch_stats" if entry.startswith("running") else "params"
        return collection, ("encoder", *layer, NORM[entry])
    if part == "aug_predictor":
        layer = [f"Dense_{int(rest[0]) // 2}"]
        return "params", ("predictor", *layer, "kernel" if entry == "weight" else "bias")
    ours = {"_read_in": "read_in", "_read_out": "read_out", "ln_f": "norm", "ln_1": "norm_1",
            "ln_2": "norm_2", "c_fc": "up", "attn.c_attn": "qkv", "attn.c_proj": "out",
            "mlp.c_proj": "down"}  # fmt: skip
    last = rest[-1] if rest[-1] in ours else ".".join(rest[-2:])
    block = [f"layers_{rest[2]}"] if rest[:2] == ["transformer", "h"] else []
    names = NORM if "norm" in ours[last] else {"weight": "kernel", "bias": "bias"}
    return "params", ("transformer", *block, ours[last], names[entry])


def get(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def to_torch(x: np.ndarray) -> np.ndarray:
    """Return the layout of torch: [o, i, h, w] of [h, w, i, o], and [o, i] of [i, o]."""
    return np.transpose(x, (3, 2, 0, 1)) if x.ndim == 4 else x.T


def from_torch(x: np.ndarray) -> np.ndarray:
    return np.transpose(x, (2, 3, 1, 0)) if x.ndim == 4 else x.T


def sample(x: np.ndarray) -> np.ndarray:
    flat = to_torch(np.asarray(x)).ravel()
    return flat[:: max(1, flat.size // 16)][:16]


def draw_weights(template: TrainState, names: list[str], seed: int) -> dict[str, Any]:
    """Return the variables that the recording began with."""
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(np.zeros_like, template.variables)  # of which the shapes are used
    for name in sorted(names):
        collection, path = our_path(name)
        shape = to_torch(get(variables[collection], path)).shape
        if len(shape) == 4:
            value = rng.normal(0, (2 / (shape[0] * shape[2] * shape[3])) ** 0.5, shape)
        elif len(shape) == 2:
            value = rng.normal(0, shape[1] ** -0.5, shape)
        elif name.endswith(("running_var", "weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        get(variables[collection], path[:-1])[path[-1]] = from_torch(value)
    return variables


def get_config():
    """Return the official preset in the size and the schedule of the recording, in float32."""
    config = bench3d.rotation_color()
    config.data.update(contexts=CONTEXTS, pairs=PAIRS)
    config.bench3d.side = SIDE
    config.model.dtype = "float32"
    config.model.transformer.update(width=64, blocks=2)
    config.train.update(learning_rate=2e-3, warmup_steps=2, steps=8, parallel="jit")
    return config


def make_batches(record: dict[str, np.ndarray]) -> list[ContextBatch]:
    shape = STEPS, CONTEXTS, PAIRS, 2
    rng = np.random.default_rng(int(record["images_seed"]))
    images = rng.normal(0, 1, (*shape, 3, SIDE, SIDE)).astype(np.float32)
    images = np.moveaxis(images, -3, -1)
    latents = record["latents"].reshape(*shape, 6)
    return [
        ContextBatch(
            images[step],
            latents[step],
            np.tile(record["environment"][step], (CONTEXTS, 1, 1)),
            np.arange(CONTEXTS, dtype=np.int32) + CONTEXTS * step,
            np.zeros((CONTEXTS, PAIRS), np.int32),
        )
        for step in range(STEPS)
    ]


def build_recorded_experiment(config, masks: jax.Array, batch: ContextBatch) -> Experiment:
    """Build an experiment whose views are given, with the masks of the step of the positions."""

    class Views:
        size, labels = CONTEXTS * PAIRS, np.zeros(CONTEXTS * PAIRS, np.int32)

        def draw(self, rng, indices, views):
            record, latents = (
                leaf.reshape(-1, *leaf.shape[2:]) for leaf in (batch.record, batch.transform_params)
            )
            return record[indices], latents[indices]

    def draw_masks(key, position, **options):
        return masks[position[0] // CONTEXTS]

    space = build_space(config, SIDE, scenes=True)
    dataset = Dataset(
        *("recorded", space, {"train": Views()}, lambda record, t: record),
        *(np.zeros(3), np.ones(3), 0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "contextssl", partial(contextssl.build, draw_masks=draw_masks))
        return build_experiment(config, dataset)


@contextmanager
def float64() -> Iterator[None]:
    """Replace float32 by float64 in whatever is traced inside."""

    def attention(q, k, v, mask):  # JAX's own has a softmax in float32
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)

    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)
        patch.setattr(jnp, "dtype", lambda name: np.dtype("float64"))
        patch.setattr(jax.nn, "dot_product_attention", attention)
        yield


def first_state(experiment: Experiment, record: dict[str, np.ndarray]) -> TrainState:
    """Return the state that the recording began with: the schedule's second step."""
    names = [str(name) for name in record["names"]]
    names += [name.removeprefix("buffer.") for name in record if name.startswith("buffer.")]
    variables = draw_weights(experiment.template(), names, int(record["seed"]))

    def is_schedule(state: Any) -> bool:
        return isinstance(state, optax.ScaleByScheduleState)

    def start(state: Any) -> Any:
        return state._replace(count=state.count + 1) if is_schedule(state) else state

    opt_state = build_optimizer(get_config().train).init(variables["params"])
    opt_state = jax.tree.map(start, opt_state, is_leaf=is_schedule)
    return TrainState(
        np.int32(1), variables["params"], variables["batch_stats"], jax.device_get(opt_state)
    )


def take_steps(record: dict[str, np.ndarray], starts: Sequence[TrainState] | None = None) -> Run:
    """Take the four steps in a row, or each from a state of its own in float32."""
    kept = keep_pairs(jnp.asarray(record["uniform"]), 0.5) & pair_mask(2 * PAIRS)
    masks, batches = kept[:, :, None, None], make_batches(record)
    experiment = build_recorded_experiment(get_config(), masks, batches[0])
    state = first_state(experiment, record)
    states, metrics, step = [], [], None
    for i, batch in enumerate(batches):
        state = state if starts is None else in_float32(starts[i])
        states += [state] if starts is None else []
        placed = experiment.parallel.replicate((state, experiment.key_data))
        arguments = placed[0], experiment.parallel.shard(batch), placed[1]
        step = step or experiment.step.lower(*arguments).compile(OPTIMIZED)
        state, found = jax.device_get(step(*arguments))
        metrics.append({name: float(value) for name, value in found.items()})
        states += [] if starts is None else [state]
    return Run(experiment.method, batches, masks, states + [state] * (starts is None), metrics)


def in_float32(tree: Any) -> Any:
    def convert(leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(convert, tree)


@pytest.fixture(scope="module")
def record(recorded) -> dict[str, np.ndarray]:
    return recorded("official_training")


@pytest.fixture(scope="module")
def exact(record) -> Run:
    """The four steps in a row, in float64; five states."""
    with float64():
        return take_steps(record)


@pytest.fixture(scope="module")
def single(record, exact) -> Run:
    """Each step from its exact state, in float32; the states after them."""
    return take_steps(record, exact.states)


def check_losses(
    record: dict[str, np.ndarray], metrics: list[dict[str, float]], rtol: float
) -> None:
    for name in ("loss_contrastive", "loss_predictor", "learning_rate"):
        found = [step[name] for step in metrics]
        np.testing.assert_allclose(found, record[name], rtol=rtol, err_msg=name)
    total = record["loss_contrastive"] + 5 * record["loss_predictor"]
    np.testing.assert_allclose([step["loss"] for step in metrics], total, rtol=rtol)


def check_gradients(
    record: dict[str, np.ndarray], before: TrainState, after: TrainState, rtol: float
) -> None:
    """Check the gradients of the first step, by Adam's first moment 0.1 (g + 1e-3 p)."""
    (moments,) = (s for s in after.opt_state if isinstance(s, optax.ScaleByAdamState))
    gradients = jax.tree.map(lambda mu, p: 10 * mu - 1e-3 * p, moments.mu, before.params)
    for name, norm in zip(record["names"], record["gradient_norms_1"], strict=True):
        gradient, atol = get(gradients, our_path(str(name))[1]), rtol * norm
        np.testing.assert_allclose(np.linalg.norm(gradient), norm, atol=atol, err_msg=name)
        expected = record[f"gradient_1.{name}"]
        np.testing.assert_allclose(sample(gradient), expected, atol=atol, err_msg=name)


def test_four_steps_in_float64(record, exact):
    """Measured: losses 6e-8, gradients 8e-10, parameters and running statistics 4e-7."""
    check_losses(record, exact.metrics, 1e-6)
    check_gradients(record, *exact.states[:2], 1e-8)
    state = exact.states[-1]
    for name, norm in zip(record["names"], record["parameter_norms_after"], strict=True):
        found = get(state.params, our_path(str(name))[1])
        np.testing.assert_allclose(np.linalg.norm(found), norm, rtol=1e-6, err_msg=name)
    for name, expected in record.items():
        kind, _, tensor = name.partition(".")
        if kind in ("after", "buffer"):
            collection, path = our_path(tensor)
            found = sample(get(state.variables[collection], path))
            atol = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=atol, err_msg=name)


def test_each_step_in_float32(record, exact, single):
    """Measured: losses 3e-7, gradients 7e-4, the parameters of the last step 2e-5.

    Rounding decides on which side of 0 some activations of the encoder are, hence the bound of its
    gradients. Earlier parameters differ more, since Adam makes all gradients equally large.
    """
    check_losses(record, single.metrics, 1e-5)
    check_gradients(record, in_float32(exact.states[0]), single.states[0], 1e-2)
    for name, norm in zip(record["names"], record["parameter_norms_after"], strict=True):
        path = our_path(str(name))[1]
        found, expected = (get(run.states[-1].params, path) for run in (single, exact))
        np.testing.assert_allclose(np.linalg.norm(found), norm, rtol=1e-4, err_msg=name)
        assert np.linalg.norm(found - expected) < 1e-4 * norm, name


def test_actions_features_embeddings_and_predictions_of_the_first_step(record, exact, single):
    batch, method, variables = single.batches[0], single.method, in_float32(exact.states[0])
    variables, t = variables.variables, batch.transform_params
    actions = method.space.actions(t[:, :, 0], t[:, :, 1]).reshape(-1, 6)
    np.testing.assert_allclose(actions, record["actions"][0], atol=1e-6)

    def forward(variables, batch):
        features, _ = method.modules["encoder"].apply(
            {name: variables[name]["encoder"] for name in variables},
            batch.record.reshape(-1, SIDE, SIDE, 3),
            train=True,
            mutable=["batch_stats"],
        )
        by_pair = features.reshape(CONTEXTS, 1, PAIRS, 2, -1)
        tokens = make_tokens(by_pair, observed_actions(method.space, batch))
        own = {"params": variables["params"]["transformer"]}
        both = embed_contexts(method.modules["transformer"], own, tokens, single.masks[0])
        h = normalize(interleave(*both)).reshape(len(features), -1)
        return features, h, method.predict(variables, h).transform_params

    found = jax.jit(forward)(variables, batch)
    for name, value in zip(("features_1", "embeddings_1", "told_1"), found, strict=True):
        atol = 1e-5 * np.abs(record[name]).max()
        np.testing.assert_allclose(value, record[name], atol=atol, err_msg=name)
