"""The evaluation: every view encoded once, every context read once, every measure from these."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from contextssl_jax.data.contexts import parse_environments
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation import measures
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.erasure import explained_variance, linear_r2
from contextssl_jax.evaluation.neighbours import Neighbours, find_neighbours
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.report import EvalResults, assemble, provenance
from contextssl_jax.evaluation.scores import Target, r2_per_entry
from contextssl_jax.evaluation.views import EvalData, Views, draw_eval_data
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Method, Variables

_PROBES, _CLASSES, _SPARSE = range(3)  # keys


class Evaluation(NamedTuple):
    """What an evaluation found."""

    report: dict[str, Any]  # every figure, ready for JSON
    neighbours: Neighbours  # of the first drawn context


Evaluate = Callable[[Variables, int], Evaluation]


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


class Encoded(NamedTuple):
    """The encoder's features of all views but the contexts', [n, V, F]; see Looked."""

    fit: np.ndarray
    test: np.ndarray
    fit_images: np.ndarray
    test_images: np.ndarray
    retrieval: np.ndarray


@dataclass(frozen=True)
class _Measurer:
    """Measures features, and embeddings under one drawn context."""

    dataset: Dataset
    method: Method
    reader: ForwardPasses
    conditions: Conditions
    looked: EvalData
    targets: dict[str, Target]
    probing: measures.ProbeOptions
    root: jax.Array  # key of all that is drawn beside the views
    sparse: bool
    exclude_source: bool

    def features(self, z: Encoded, clock: Clock) -> measures.Metrics:
        """Measures the encoder's features: R² of views, classes of untouched images."""
        images = self.looked.fit_images, self.looked.test_images
        return {
            "r2": self._r2(z.fit[None], z.test[None], clock),
            **self._classes(z.fit_images[None], z.test_images[None], images, clock),
        }

    def context(
        self, variables: Variables, z: Encoded, pairs: Views, draw: int, clock: Clock
    ) -> tuple[measures.Metrics, Neighbours]:
        """Measures embeddings under all conditions of one context; draw is its number."""
        looked, conditions, space = self.looked, self.conditions, self.dataset.space
        with clock.part("contexts"):
            key = jax.random.fold_in(self._key(_SPARSE), draw) if self.sparse else None
            context = EncodedContexts(self.reader, variables, space, conditions, pairs, key)
        with clock.part("embedding"):
            fit, test, bank = (context.plain(x) for x in (z.fit, z.test, z.retrieval))
            t = looked.retrieval.transform_params
            sources = np.broadcast_to(z.retrieval[:, :1], z.retrieval.shape)
            queries = context.asked(sources, np.asarray(space.actions(t[:, :1], t)))
        measured = {
            "r2": self._r2(fit, test, clock),
            **self._classes(fit, test, (looked.fit, looked.test), clock),
        }
        with clock.part("erasure"):
            flat, flat_test = (h.reshape(len(h), -1, h.shape[-1]) for h in (fit, test))
            target, groups = self.targets["single"], len(space.names)
            measured["erasure"] = {
                "readable": linear_r2(flat, flat_test, target, groups),
                "share": explained_variance(flat, flat_test, target, groups),
            }
        with clock.part("retrieval"):
            measured["retrieval"] = measures.retrievals(
                bank, queries, conditions, self.exclude_source
            )
        with clock.part("telling"):
            measured |= self._told(variables, bank, queries, test)
        with clock.part("neighbours"):
            found = find_neighbours(self.dataset, looked.retrieval, bank, queries, conditions)
        return measured, found

    def _key(self, stream: int) -> jax.Array:
        return jax.random.fold_in(self.root, stream)

    def _r2(self, fit: np.ndarray, test: np.ndarray, clock: Clock) -> measures.Metrics:
        groups = len(self.dataset.space.names)
        with clock.part("ridge probes"):
            closed = measures.closed_r2(fit, test, self.targets, self.probing, groups)
        with clock.part("Adam probes"):
            trained = measures.trained_r2(
                self._key(_PROBES), fit, test, self.targets, self.probing, groups
            )
        return closed | trained

    def _classes(
        self, fit: np.ndarray, test: np.ndarray, views: tuple[Views, Views], clock: Clock
    ) -> measures.Metrics:
        with clock.part("classes"):
            labels = views[0].labels, views[1].labels
            return measures.classes(self._key(_CLASSES), fit, test, labels, self.probing)

    def _told(
        self, variables: Variables, bank: np.ndarray, queries: np.ndarray, test: np.ndarray
    ) -> measures.Metrics:
        """Scores what the method itself tells: the retrieval views' latents, the test's classes."""
        plain = self.reader.predict(variables, bank)
        measured: measures.Metrics = {}
        if plain.transform_params is not None:
            asked = self.reader.predict(variables, queries)
            measured["predictor"] = {
                "plain": self._latents_r2(plain.transform_params),
                "asked": self._latents_r2(asked.transform_params),
            }
        labels = self.looked.test.labels
        if plain.classes is not None and labels is not None:
            logits = self.reader.predict(variables, test).classes
            measured["told"] = measures.predicted_class_accuracy(
                logits, self.conditions, lambda shown: self.method.target_classes(labels, shown)
            )
        return measured

    def _latents_r2(self, told: np.ndarray) -> np.ndarray:
        """Scores told latents of the retrieval views, [..., n, V, T] -> [..., T]."""
        t = np.asarray(self.dataset.space.standardize(self.looked.retrieval.transform_params))
        told = told.reshape(*told.shape[:-3], -1, told.shape[-1])
        return r2_per_entry(t.reshape(-1, t.shape[-1]), told)


def build_evaluation(config: ConfigDict, experiment: Experiment) -> Evaluate:
    """Draws all views once, and returns the evaluation of variables at a step.

    Args:
      config: for the section `eval`.
      experiment: probes are fitted on the train split and scored on the test split.

    Raises:
      UserError: an option is wrong, or a split has too few records.
    """
    options, dataset = config.eval, experiment.dataset
    space = dataset.space
    method = experiment.method
    conditions = build_conditions(options, experiment)
    looked = draw_eval_data(options, dataset, conditions.lengths[-1])
    reader = ForwardPasses(method, options.batch)
    targets = measures.probe_targets(space, looked.fit, looked.test)
    floor = measures.constants(targets, len(space.names))
    measurer = _Measurer(
        dataset,
        method,
        reader,
        conditions,
        looked,
        targets,
        measures.ProbeOptions.of(options.probe),
        jax.random.key(options.seed),
        sparse=options.sparse,
        exclude_source=options.retrieval.exclude_source,
    )

    def evaluate(variables: Variables, step: int) -> Evaluation:
        clock = Clock()
        variables = reader.place(variables)
        with clock.part("encoding"):
            z = Encoded(*(reader.encode(variables, views) for views in looked[:-1]))
        features = measurer.features(z, clock)
        bar = tqdm(looked.contexts, "contexts", unit="context", disable=None, leave=False)
        draws, neighbours = zip(
            *(measurer.context(variables, z, pairs, i, clock) for i, pairs in enumerate(bar)),
            strict=True,
        )
        figures = assemble(conditions, space, targets, EvalResults(floor, features, draws))
        origin = provenance(config, dataset.name, step, looked, conditions, clock.seconds)
        return Evaluation({"provenance": origin} | figures, neighbours[0])

    return evaluate


def build_conditions(options: ConfigDict, experiment: Experiment) -> Conditions:
    """Reads environments and lengths from the section `eval`.

    Of a method that reads no contexts, there are the environments that it was trained in, and no
    length but 0.

    Raises:
      UserError: an environment names no group, or a length is no even number of tokens.
    """
    groups = experiment.dataset.space.names
    if not experiment.method.uses_context:
        return Conditions(experiment.environments, (0,))
    several = ("+".join(groups),) if len(groups) > 1 else ()
    names = tuple(options.environments) or (*groups, *several, "none")
    for length in options.lengths:
        if length < 0 or length % 2:
            raise UserError(f"eval.lengths: {length} is no even number of tokens, 2 for each pair")
    if not any(options.lengths):
        raise UserError("eval.lengths: name at least one above 0, such as (0, 126)")
    shown = parse_environments(names, groups)
    return Conditions(dict(zip(names, shown, strict=True)), tuple(sorted(set(options.lengths))))
