"""Evaluation of a checkpoint: views and contexts are encoded once and shared by all evaluators."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import parse_environments
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.evaluators import EVALUATORS
from contextssl_jax.evaluation.evaluators.base import Embeddings, EvalInputs, Features, Tree
from contextssl_jax.evaluation.neighbours import Neighbours, find_neighbours
from contextssl_jax.evaluation.reader import ForwardPasses, never_stop
from contextssl_jax.evaluation.report import merge_draws, provenance
from contextssl_jax.evaluation.scores import probe_targets
from contextssl_jax.evaluation.views import draw_eval_data
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Variables
from contextssl_jax.models.precision import with_precision
from contextssl_jax.progress import task, track

_CONTEXTS_KEY = 2


class Evaluation(NamedTuple):
    """Results of an evaluation."""

    report: dict[str, Any]  # all values and their provenance, ready for JSON
    neighbours: Neighbours  # of the first drawn context


class Evaluate(Protocol):
    """Evaluates variables at a step."""

    def __call__(
        self, variables: Variables, step: int, check_stop: Callable[[], None] = never_stop
    ) -> Evaluation:
        """Return the results.

        Args:
          variables: of the model, equal on all processes.
          step: the number of training steps.
          check_stop: called between the parts of the evaluation; may raise to end it.
        """
        ...


class Clock:
    """Total seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the duration of the with block, which is a task, to the part."""
        began = time.perf_counter()
        with task(f"evaluation: {name}"):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def build_evaluation(config: ConfigDict, experiment: Experiment) -> Evaluate:
    """Draw all views once, and return the function that evaluates variables at a step.

    Args:
      config: of which the section `eval`.
      experiment: probes are fitted on the train split and scored on the test split.

    Raises:
      UserError: an option is wrong, or a split has too few records.
    """
    options, dataset, method = config.eval, experiment.dataset, experiment.eval_method
    conditions = build_conditions(options, experiment)
    data = draw_eval_data(options, dataset, conditions.lengths[-1])
    passes = ForwardPasses(method, options.batch)
    targets = probe_targets(dataset.space, data.fit, data.test)
    key = jax.random.key(options.seed)

    def evaluate(
        variables: Variables, step: int, check_stop: Callable[[], None] = never_stop
    ) -> Evaluation:
        clock, reader = Clock(), passes.interruptible(check_stop)
        variables = reader.place(variables)
        with clock.part("encoding"):
            features = Features(*(reader.encode(variables, views) for views in data[:-1]))
        predict = partial(reader.predict, variables)
        inputs = EvalInputs(
            *(dataset.space, method, conditions, data, targets, options, key, features, predict),
            check_stop,
        )
        of_features = _run(clock, inputs, lambda evaluator: evaluator.evaluate_features(inputs))
        draws: list[Tree] = []
        neighbours: list[Neighbours] = []
        for draw, pairs in enumerate(track(data.contexts, "evaluation", "contexts")):
            with clock.part("contexts"):
                context_key = None
                if options.sparse:
                    context_key = jax.random.fold_in(jax.random.fold_in(key, _CONTEXTS_KEY), draw)
                context = EncodedContexts(
                    *(reader, variables, method.space, conditions, pairs), context_key
                )
            with clock.part("embedding"):
                embeddings = _embed(context, inputs)
            draws.append(_run(clock, inputs, lambda e, h=embeddings: e.evaluate(inputs, h)))  # type: ignore[misc]
            if not neighbours:
                with clock.part("neighbours"):
                    bank, queries = embeddings.retrieval, embeddings.predicted_targets
                    neighbours.append(
                        find_neighbours(dataset, data.retrieval, bank, queries, conditions)
                    )
        origin = provenance(config, dataset.name, step, data, conditions, clock.seconds)
        report = {"provenance": origin} | merge_draws(draws) | of_features
        return Evaluation(report, neighbours[0])

    return with_precision(evaluate, "highest")


def build_conditions(options: ConfigDict, experiment: Experiment) -> Conditions:
    """Return the environments and lengths of the section `eval`.

    A method without contexts has the environments that it was trained in, and only length 0.

    Raises:
      UserError: an environment names no group, or no length is above 0.
    """
    groups = experiment.dataset.space.names
    if not experiment.eval_method.uses_context:
        return Conditions(experiment.environments, (0,))
    several = ("+".join(groups),) if len(groups) > 1 else ()
    names = tuple(options.environments) or (*groups, *several, "none")
    if not any(options.lengths):
        raise UserError(
            "--config.eval.lengths: has no length above 0. Add one, such as --config.eval.lengths="
            "0,126."
        )
    observed = parse_environments(names, groups, "--config.eval.environments")
    environments = dict(zip(names, observed, strict=True))
    return Conditions(environments, tuple(sorted(set(options.lengths))))


def _embed(context: EncodedContexts, inputs: EvalInputs) -> Embeddings:
    """Return all embeddings under the conditions of one context."""
    z, t = inputs.features, inputs.data.retrieval.transform_params
    sources = np.broadcast_to(z.retrieval[:, :1], z.retrieval.shape)
    actions = inputs.method.space.actions(t[:, :1], t)
    return Embeddings(
        context.view_embeddings(z.fit),
        context.view_embeddings(z.test),
        context.view_embeddings(z.retrieval),
        context.predicted_targets(sources, actions),
    )


def _run(clock: Clock, inputs: EvalInputs, evaluate: Callable[[Any], Tree]) -> Tree:
    """Return the values of all evaluators in one tree."""
    tree: Tree = {}
    for name, evaluator in EVALUATORS.items():
        inputs.check_stop()
        with clock.part(name):
            tree |= evaluate(evaluator)
    return tree
