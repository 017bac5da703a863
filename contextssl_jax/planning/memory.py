"""Memory of a training step on a device, estimated from its jaxpr."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params

from contextssl_jax.planning.counting import part_of

COPIES = "copies of parameters"

# Primitives that a compiler does not recompute.
_EXPENSIVE = re.compile(
    "dot_general|conv_general|ragged|reduce|scan|while|cond|psum|all_|ppermute|gather|scatter"
    "|sort|cum|arg|random|threefry"
)


class Saved(NamedTuple):
    """Bytes that the forward pass saves for the backward pass, by part; see saved_for_backward."""

    unfused: Counter[str]
    fused: Counter[str]


def size_of(tree: Any) -> int:
    """Return the total size in bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def saved_for_backward(
    loss: Callable[..., tuple[jax.Array, Any]],
    params: Any,
    *rest: Any,
    parts: Mapping[str, str],
    axes: Mapping[str, int],
) -> Saved:
    """Estimate the values that the forward pass saves, in addition to parameters and inputs.

    There are two estimates, both from the jaxpr and therefore independent of the platform. Unfused:
    all residuals of JAX, which are the values that the backward pass uses. Fused: elementwise
    values are recomputed from the results of products, convolutions and reductions wherever that
    saves memory. A BatchNorm and its ReLU, for example, then save their input only, instead of the
    five values of the same size that JAX saves. Compilers for accelerators come close to the fused
    estimate.

    Args:
      loss: (params, *rest) -> (loss, auxiliary output).
      params: shapes of the parameters.
      *rest: shapes of the other inputs on one device.
      parts: names of parts by name scope; see count_flops.
      axes: sizes of the device axes that the loss uses, by name.

    Returns:
      Bytes by part. Values that depend on parameters only, such as their casts to bfloat16, are
      counted as COPIES.
    """

    def residuals_of_vjp(params: Any, *rest: Any) -> list[jax.Array]:
        _, vjp, _ = jax.vjp(lambda p: loss(p, *rest), params, has_aux=True)
        return jax.tree.leaves(vjp)

    closed = jax.make_jaxpr(residuals_of_vjp, axis_env=list(axes.items()))(params, *rest)
    jaxpr = closed.jaxpr
    producers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    copies = _dependent_only_on(set(jaxpr.invars[: len(jax.tree.leaves(params))]), jaxpr)
    outputs = {var for var in jaxpr.outvars if isinstance(var, Var)}
    residuals = [var for var in producers if var in outputs]  # in the order of the program

    def by_part(saved: Mapping[Var, Var]) -> Counter[str]:
        total: Counter[str] = Counter()
        for var, residual in saved.items():
            scope = str(producers[residual].source_info.name_stack)
            total[COPIES if residual in copies else part_of(scope, parts)] += size_of(var.aval)
        return total

    return Saved(
        by_part({var: var for var in residuals}), by_part(_minimize_saved(residuals, producers))
    )


def _dependent_only_on(origin: set[Var], jaxpr: Jaxpr) -> set[Var]:
    """Return the variables that depend on variables in `origin` only."""
    dependent = set(origin)
    for eqn in jaxpr.eqns:
        inputs = list(_variables(eqn))
        if inputs and dependent.issuperset(inputs):
            dependent.update(eqn.outvars)
    return dependent


def _minimize_saved(residuals: list[Var], producers: Mapping[Var, JaxprEqn]) -> dict[Var, Var]:
    """Greedily choose small values to save, from which cheap operations compute all residuals.

    Returns:
      The saved values, each with the residual that it is saved for.
    """
    saved: dict[Var, Var] = {}
    for residual in residuals:
        sources: set[Var] = set()
        visited: set[Var] = set()
        pending = [residual]
        while pending:
            var = pending.pop()
            if var in saved or var in visited or var not in producers:
                continue
            visited.add(var)
            if _is_cheap(producers[var]):
                pending += _variables(producers[var])
            else:
                sources.add(var)
        recompute = size_of([var.aval for var in sources]) <= size_of(residual.aval)
        saved |= dict.fromkeys(sources if recompute else [residual], residual)
    return saved


def _is_cheap(eqn: JaxprEqn) -> bool:
    inner = (one for jaxpr in jaxprs_in_params(eqn.params) for one in jaxpr.eqns)
    return not _EXPENSIVE.match(eqn.primitive.name) and all(map(_is_cheap, inner))


def _variables(eqn: JaxprEqn) -> Iterator[Var]:
    return (var for var in eqn.invars if isinstance(var, Var))
