"""Bytes that a step keeps on a device, counted without running or compiling it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params

from contextssl_jax.planning.counting import part_of

COPIES = "copies of parameters"

# What a compiler does not compute a second time, by the names of JAX's primitives.
_COSTLY = re.compile(
    "dot_general|conv_general|ragged|reduce|scan|while|cond|psum|all_|ppermute|gather|scatter"
    "|sort|cum|arg|random|threefry"
)


class Saved(NamedTuple):
    """Bytes that the forward pass keeps for the backward pass, by part; see saved_for_backward."""

    unfused: Counter[str]
    fused: Counter[str]


def size_of(tree: Any) -> int:
    """Returns the bytes of all arrays, or their shapes, in a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def saved_for_backward(
    loss: Callable[..., tuple[jax.Array, Any]],
    params: Any,
    *rest: Any,
    parts: Mapping[str, str],
    axes: Mapping[str, int],
) -> Saved:
    """Counts what the forward pass keeps for the backward pass, beside parameters and inputs.

    It is counted twice, in the program alone and so the same for every platform. Unfused, as JAX's
    residuals: every value that the backward pass reads. Fused, as if all that is elementwise were
    computed again from what products, convolutions and reductions give, wherever that needs fewer
    bytes: a BatchNorm and its ReLU then read their input in the backward pass again, where JAX by
    itself keeps five copies of it. What compilers for accelerators keep is near the latter.

    Args:
      loss: (params, *rest) -> (loss, anything else).
      params: shapes of the parameters.
      *rest: shapes of the other inputs, as one device sees them.
      parts: names of parts by the name scope that makes their values, see count_flops.
      axes: sizes of the axes over devices that the loss names.

    Returns:
      Bytes by part; what depends on parameters alone, such as their casts to bfloat16, as COPIES.
    """

    def pull(params: Any, *rest: Any) -> list[jax.Array]:
        _, pulled, _ = jax.vjp(lambda p: loss(p, *rest), params, has_aux=True)
        return jax.tree.leaves(pulled)

    closed = jax.make_jaxpr(pull, axis_env=list(axes.items()))(params, *rest)
    jaxpr = closed.jaxpr
    makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    copies = _made_of(set(jaxpr.invars[: len(jax.tree.leaves(params))]), jaxpr)
    read = {var for var in jaxpr.outvars if isinstance(var, Var)}
    residuals = [var for var in makers if var in read]  # in the program's order

    def by_part(kept: Mapping[Var, Var]) -> Counter[str]:
        total: Counter[str] = Counter()
        for var, reader in kept.items():
            scope = str(makers[reader].source_info.name_stack)
            total[COPIES if reader in copies else part_of(scope, parts)] += size_of(var.aval)
        return total

    return Saved(by_part({var: var for var in residuals}), by_part(_least(residuals, makers)))


def _made_of(origin: set[Var], jaxpr: Jaxpr) -> set[Var]:
    """Returns the variables that depend on those of the origin, and on no others."""
    found = set(origin)
    for eqn in jaxpr.eqns:
        inputs = list(_variables(eqn))
        if inputs and found.issuperset(inputs):
            found.update(eqn.outvars)
    return found


def _least(residuals: list[Var], makers: Mapping[Var, JaxprEqn]) -> dict[Var, Var]:
    """Chooses what to keep so that cheap operations give all residuals, in few bytes.

    Returns:
      What is kept, and the residual that each is kept for.
    """
    kept: dict[Var, Var] = {}
    for residual in residuals:
        sources: set[Var] = set()
        seen: set[Var] = set()
        ahead = [residual]
        while ahead:
            var = ahead.pop()
            if var in kept or var in seen or var not in makers:
                continue
            seen.add(var)
            if _cheap(makers[var]):
                ahead += _variables(makers[var])
            else:
                sources.add(var)
        fewer = size_of([var.aval for var in sources]) <= size_of(residual.aval)
        kept |= dict.fromkeys(sources if fewer else [residual], residual)
    return kept


def _cheap(eqn: JaxprEqn) -> bool:
    inner = (one for jaxpr in jaxprs_in_params(eqn.params) for one in jaxpr.eqns)
    return not _COSTLY.match(eqn.primitive.name) and all(map(_cheap, inner))


def _variables(eqn: JaxprEqn) -> Iterator[Var]:
    return (var for var in eqn.invars if isinstance(var, Var))
