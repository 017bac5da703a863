"""The names of a ContextSSL model's tensors in the official code.

That is github.com/Sharut/In-Context-Symmetries.
`enc` is torchvision's ResNet-18 without its classifier, `predictor` the context transformer, and
`aug_predictor` the predictor of transform parameters. PyTorch stores linear weights as [out, in]
and convolutions as [out, in, height, width]; here they are [in, out] and [height, width, in, out].
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contextssl_jax.errors import UserError
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.weights.names import Tensors, check_tensors, to_float32

_LINEAR, _CONV = (1, 0), (2, 3, 1, 0)  # our axes, by index of the official ones
_STAGES = (2, 2, 2, 2)  # residual blocks of a ResNet-18
_BLOCK_LINEAR = {"attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "up", "mlp.c_proj": "down"}
_HEAD_HIDDEN = 1024  # width of the unused heads

# Tensors of the official checkpoints without a counterpart here: heads that no output depends on,
# counters of batches, and the causal mask that PyTorch 1 stores.
_UNUSED = re.compile(
    r"(equiv_linear|rel_aug_predictor|projector)\..*|.*\.num_batches_tracked"
    r"|predictor\.transformer\.h\.\d+\.attn\.bias"
)


class Entry(NamedTuple):
    """One tensor under both names."""

    official: str
    ours: str
    axes: tuple[int, ...] | None = None  # permutation from the official axes to ours


def official_entries(config: Mapping[str, Any], part: str, option: str) -> tuple[Entry, ...]:
    """Return the tensors of a config's model, or of its encoder.

    Args:
      config: the options of the model.
      part: "all" or "encoder".
      option: the option that asks for the official names, for the error message.

    Raises:
      UserError: the official code has no such model.
    """
    method, model = config["method"], config["model"]
    if model["encoder"] != "resnet18" or (part == "all" and method != "contextssl"):
        raise UserError(
            f"{option}: official weights are of ContextSSL with a ResNet-18, not of"
            f" {truncate(method)} with {truncate(model['encoder'])}. Use a config with the method"
            " contextssl and the encoder resnet18."
        )
    if part == "encoder":
        return tuple(_encoder())
    layers = len(model["predictor"]["hidden"]) + 1
    return (*_encoder(), *_transformer(model["transformer"]["blocks"]), *_predictor(layers))


def uses_official_units(config: Mapping[str, Any]) -> bool:
    """Return True if a model takes actions and predicts parameters in their own units."""
    standardized = (
        config["model"].get("standardize_actions"),
        config["loss"].get("standardize_targets"),
    )
    return not any(standardized)


def read_state_dict(
    tensors: Mapping[str, np.ndarray],
    entries: Sequence[Entry],
    part: str,
    shapes: Mapping[str, Sequence[int]],
    source: str,
    advice: str,
) -> Tensors:
    """Return the entries' tensors of an official state dict, float32, in our layout by our names.

    Args:
      tensors: the state dict.
      entries: from `official_entries`.
      part: "all", or "encoder" to ignore all other tensors.
      shapes: of the model's tensors, by our names.
      source: option and file, for the message.
      advice: see `check_tensors`.

    Raises:
      UserError: the state dict does not fit the model.
    """
    used = {
        name: tensor
        for name, tensor in tensors.items()
        if _UNUSED.fullmatch(name) is None and (part == "all" or name.startswith("enc."))
    }
    check_tensors(used, to_official_shapes(entries, shapes), source, advice)
    return from_official(entries, to_float32(used))


def to_official_shapes(
    entries: Sequence[Entry], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Return the official shapes by official name, from ours by our name."""
    return {
        e.official: tuple(
            shapes[e.ours][axis] for axis in _inverse(e) or range(len(shapes[e.ours]))
        )
        for e in entries
    }


def from_official(entries: Sequence[Entry], tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Return the entries' tensors in our layout by our names."""
    return {e.ours: np.ascontiguousarray(tensors[e.official].transpose(e.axes)) for e in entries}


def to_official(entries: Sequence[Entry], tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Return the entries' tensors in the official layout by the official names."""
    return {
        e.official: np.ascontiguousarray(tensors[e.ours].transpose(_inverse(e))) for e in entries
    }


def unused_tensors(official: Mapping[str, np.ndarray], step: int) -> Tensors:
    """Return the tensors that the official code also expects in a state dict.

    The unused heads are zeros, and the counters of batches are the step.

    Args:
      official: the other tensors.
      step: training steps taken.
    """
    read_in, read_out = (
        official["predictor._read_in.weight"],
        official["predictor._read_out.weight"],
    )
    outputs, actions = len(read_out), read_in.shape[1] - len(read_out)
    last = [name for name in official if name.startswith("aug_predictor.")][-1]
    widths = (2 * outputs, _HEAD_HIDDEN, _HEAD_HIDDEN, len(official[last]))
    heads = {"equiv_linear": (outputs, actions)}
    heads |= {f"rel_aug_predictor.{2 * i}": (widths[i], widths[i + 1]) for i in range(3)}
    counters = (name for name in official if name.endswith("running_mean"))
    return {
        **{f"{head}.weight": np.zeros((n, m), np.float32) for head, (m, n) in heads.items()},
        **{f"{head}.bias": np.zeros(n, np.float32) for head, (m, n) in heads.items()},
        **{
            name.replace("running_mean", "num_batches_tracked"): np.array(step, np.int64)
            for name in counters
        },
    }


def _inverse(entry: Entry) -> tuple[int, ...] | None:
    return None if entry.axes is None else tuple(int(axis) for axis in np.argsort(entry.axes))


def _encoder() -> Iterator[Entry]:
    yield _conv("conv1", "conv1")
    yield from _batch_norm("bn1", "bn1")
    for stage, blocks in enumerate(_STAGES, start=1):
        for i in range(blocks):
            official, ours = f"layer{stage}.{i}", f"layer{stage}_{i}"
            for j in (1, 2):
                yield _conv(f"{official}.conv{j}", f"{ours}.conv{j}")
                yield from _batch_norm(f"{official}.bn{j}", f"{ours}.bn{j}")
            if stage > 1 and i == 0:
                yield _conv(f"{official}.downsample.0", f"{ours}.shortcut")
                yield from _batch_norm(f"{official}.downsample.1", f"{ours}.shortcut_bn")


def _transformer(blocks: int) -> Iterator[Entry]:
    predictor, transformer = "predictor", "params.transformer"
    yield from _linear(f"{predictor}._read_in", f"{transformer}.read_in")
    yield from _linear(f"{predictor}._read_out", f"{transformer}.read_out")
    yield from _layer_norm(f"{predictor}.transformer.ln_f", f"{transformer}.norm")
    for i in range(blocks):
        official, ours = f"{predictor}.transformer.h.{i}", f"{transformer}.layers_{i}"
        for j in (1, 2):
            yield from _layer_norm(f"{official}.ln_{j}", f"{ours}.norm_{j}")
        for theirs, name in _BLOCK_LINEAR.items():
            yield from _linear(f"{official}.{theirs}", f"{ours}.{name}")


def _predictor(layers: int) -> Iterator[Entry]:
    for i in range(layers):  # a ReLU has an index of its own between two layers
        yield from _linear(f"aug_predictor.{2 * i}", f"params.predictor.Dense_{i}")


def _conv(official: str, ours: str) -> Entry:
    return Entry(f"enc.{official}.weight", f"params.encoder.{ours}.kernel", _CONV)


def _linear(official: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{official}.weight", f"{ours}.kernel", _LINEAR)
    yield Entry(f"{official}.bias", f"{ours}.bias")


def _layer_norm(official: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{official}.weight", f"{ours}.scale")
    yield Entry(f"{official}.bias", f"{ours}.bias")


def _batch_norm(official: str, ours: str) -> Iterator[Entry]:
    yield from _layer_norm(f"enc.{official}", f"params.encoder.{ours}")
    for theirs, name in (("running_mean", "mean"), ("running_var", "var")):
        yield Entry(f"enc.{official}.{theirs}", f"batch_stats.encoder.{ours}.{name}")
