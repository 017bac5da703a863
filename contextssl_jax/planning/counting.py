"""Cost of the operations in a jaxpr, summed by name scope."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params

OTHER = "other"

Key = TypeVar("Key", bound=Hashable)


def count_operations(
    jaxpr: Jaxpr,
    operations: Mapping[str, Callable[[JaxprEqn], float]],
    label: Callable[[str], Key],
    platform: str,
    *,
    loops: bool = True,
) -> Counter[Key]:
    """Sum the cost of the operations of a program.

    Unused values are not counted. Within shard_map, shapes and counts are those of one device. A
    conditional counts as its most expensive branch, and a while loop as one iteration.

    Args:
      jaxpr: the program.
      operations: cost functions of equations, by primitive name; other primitives cost nothing.
      label: maps the name scope of an equation to the key of its count.
      platform: the platform, such as "tpu", whose branch of lax.platform_dependent is counted.
      loops: True to count a scan as many times as it runs; False to count it once, as XLA does.

    Returns:
      Costs by label.
    """

    def walk(jaxpr: Jaxpr, results: Iterable[Any], outer: str) -> Counter[Key]:
        total: Counter[Key] = Counter()
        used = {var for var in results if isinstance(var, Var)}
        for eqn in reversed(jaxpr.eqns):
            if not eqn.effects and used.isdisjoint(eqn.outvars):
                continue
            scope = f"{outer}/{eqn.source_info.name_stack}"
            if operation := operations.get(eqn.primitive.name):
                total.update({label(scope): operation(eqn)})  # type: ignore[dict-item]
            inner = [
                walk(one, _used_outputs(one, eqn, used), scope)
                for one in jaxprs_in_params(eqn.params)
            ]
            if eqn.primitive.name == "cond":
                inner = [_select_branch(eqn, inner, platform)]
            times = eqn.params["length"] if loops and eqn.primitive.name == "scan" else 1
            for one in inner:
                total.update({key: times * n for key, n in one.items()})
            used.update(var for var in eqn.invars if isinstance(var, Var))
        return total

    return walk(jaxpr, jaxpr.outvars, "")


def part_of(scope: str, parts: Mapping[str, str]) -> str:
    """Return the part that a name scope such as "transpose(jvp(ResNet))/conv1" belongs to."""
    return next((parts[word] for word in re.findall(r"\w+", scope) if word in parts), OTHER)


def _used_outputs(inner: Jaxpr, eqn: JaxprEqn, used: set[Var]) -> list[Any]:
    """Return the used outputs of an equation's inner program; all outputs for a loop."""
    if eqn.primitive.name in ("scan", "while") or len(inner.outvars) != len(eqn.outvars):
        return inner.outvars
    pairs = zip(inner.outvars, eqn.outvars, strict=True)
    return [inner_var for inner_var, var in pairs if var in used]


def _select_branch(eqn: JaxprEqn, branches: list[Counter[Key]], platform: str) -> Counter[Key]:
    """Return the count of the platform's branch, or otherwise of the most expensive branch."""
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return max(branches, key=Counter.total)
    # The last branch is the default; its platforms are None.
    choices = zip(branches, platforms, strict=True)
    return next(branch for branch, names in choices if names is None or platform in names)
