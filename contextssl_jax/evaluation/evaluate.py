"""The evaluation: every view encoded once, every context read once, every measure from these."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from contextssl_jax.data.contexts import parse_environments
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation import measures
from contextssl_jax.evaluation.contexts import Conditions, ReadContexts
from contextssl_jax.evaluation.neighbours import Neighbours, find_neighbours
from contextssl_jax.evaluation.reader import Reader
from contextssl_jax.evaluation.report import Measured, assemble, provenance
from contextssl_jax.evaluation.scores import r2_per_entry
from contextssl_jax.evaluation.views import draw_all
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Variables

_PROBES, _CLASSES, _SPARSE = range(3)  # keys


class Evaluation(NamedTuple):
    """What an evaluation found."""

    report: dict[str, Any]  # every figure, ready for JSON
    neighbours: Neighbours  # of the first drawn context


Evaluate = Callable[[Variables, int], Evaluation]


def build_evaluation(config: ConfigDict, experiment: Experiment) -> Evaluate:
    """Draws all views once, and returns the evaluation of variables at a step.

    Args:
      config: for the section `eval`.
      experiment: probes are fitted on the train split and scored on the test split.

    Raises:
      UserError: an option is wrong, or a split has too few records.
    """
    options, dataset, method = config.eval, experiment.dataset, experiment.method
    space = dataset.space
    conditions = build_conditions(options, space.names)
    looked = draw_all(options, dataset, conditions.lengths[-1])
    reader = Reader(method, options.batch)
    probing, root = measures.Probing.of(options.probe), jax.random.key(options.seed)
    keys = [jax.random.fold_in(root, i) for i in (_PROBES, _CLASSES, _SPARSE)]
    targets = measures.latent_targets(space, looked.fit, looked.test)
    t = looked.retrieval.latents
    from_first = np.asarray(space.actions(t[:, :1], t))
    reached = np.asarray(space.standardise(t))

    def r2(fit: np.ndarray, test: np.ndarray, clock: Clock) -> measures.Measures:
        with clock.part("ridge probes"):
            closed = measures.closed_r2(fit, test, targets, probing, len(space.names))
        with clock.part("Adam probes"):
            trained = measures.trained_r2(keys[0], fit, test, targets, probing, len(space.names))
        return closed | trained

    def predictor_r2(variables: Variables, h: np.ndarray) -> np.ndarray:
        """How well the predictor tells the retrieval views' latents, [..., n, V, P] -> [..., T]."""
        told = reader.predict(variables, h)
        return r2_per_entry(
            reached.reshape(-1, reached.shape[-1]),
            told.reshape(*told.shape[:-3], -1, told.shape[-1]),
        )

    def evaluate(variables: Variables, step: int) -> Evaluation:
        clock = Clock()
        variables = reader.place(variables)
        with clock.part("encoding"):
            fit, test, fit_images, test_images, retrieval = (
                reader.encode(variables, views) for views in looked[:-1]
            )
        features: measures.Measures = {"r2": r2(fit[None], test[None], clock)}
        image_labels = looked.fit_images.labels, looked.test_images.labels
        view_labels = looked.fit.labels, looked.test.labels
        with clock.part("classes"):
            features |= measures.classes(
                keys[1], fit_images[None], test_images[None], image_labels, probing
            )
        draws: list[measures.Measures] = []
        neighbours: list[Neighbours] = []
        bar = tqdm(looked.contexts, "contexts", unit="context", disable=None, leave=False)
        for i, pairs in enumerate(bar):
            with clock.part("contexts"):
                key = jax.random.fold_in(keys[2], i) if options.sparse else None
                contexts = ReadContexts(reader, variables, space, conditions, pairs, key)
            with clock.part("embedding"):
                h_fit, h_test, bank = (contexts.plain(z) for z in (fit, test, retrieval))
                sources = np.broadcast_to(retrieval[:, :1], retrieval.shape)
                queries = contexts.asked(sources, from_first)
            draw: measures.Measures = {"r2": r2(h_fit, h_test, clock)}
            with clock.part("classes"):
                draw |= measures.classes(keys[1], h_fit, h_test, view_labels, probing)
            with clock.part("retrieval"):
                draw["retrieval"] = measures.retrievals(
                    bank, queries, conditions, options.retrieval.exclude_source
                )
            with clock.part("predictor"):
                draw["predictor"] = {
                    "plain": predictor_r2(variables, bank),
                    "asked": predictor_r2(variables, queries),
                }
            draws.append(draw)
            if not neighbours:
                with clock.part("neighbours"):
                    neighbours.append(
                        find_neighbours(dataset, looked.retrieval, bank, queries, conditions)
                    )
        floor = measures.constants(targets, len(space.names))
        figures = assemble(conditions, space, targets, Measured(floor, features, draws))
        report = {"provenance": provenance(config, step, looked, conditions, clock.seconds)}
        return Evaluation(report | figures, neighbours[0])

    return evaluate


def build_conditions(options: ConfigDict, groups: tuple[str, ...]) -> Conditions:
    """Reads environments and lengths from the section `eval`.

    Raises:
      UserError: an environment names no group, or a length is no even number of tokens.
    """
    several = ("+".join(groups),) if len(groups) > 1 else ()
    names = tuple(options.environments) or (*groups, *several, "none")
    for length in options.lengths:
        if length < 0 or length % 2:
            raise UserError(f"eval.lengths: {length} is no even number of tokens, 2 for each pair")
    if not options.lengths:
        raise UserError("eval.lengths: name at least one, such as (0, 126)")
    shown = parse_environments(names, groups)
    return Conditions(dict(zip(names, shown, strict=True)), tuple(sorted(set(options.lengths))))


class Clock:
    """Seconds of each part, in all its turns."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the part."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
