"""What a program does, counted in its jaxpr by where it does it."""

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
    """Adds up what the operations of a program cost.

    Values that nothing reads do not count. Within shard_map shapes are those of one device, and so
    is the count. Of a condition, the branch that costs most counts; a loop whose length is not
    known counts once.

    Args:
      jaxpr: the program.
      operations: the cost of an equation, by its primitive's name; others cost nothing.
      label: what an equation is counted as, by its name scope.
      platform: the branch of lax.platform_dependent that counts, such as "tpu".
      loops: count a scan as often as it runs; else once, as XLA does.
    """

    def walk(jaxpr: Jaxpr, results: Iterable[Any], outer: str) -> Counter[Key]:
        total: Counter[Key] = Counter()
        read = {var for var in results if isinstance(var, Var)}
        for eqn in reversed(jaxpr.eqns):
            if not eqn.effects and read.isdisjoint(eqn.outvars):
                continue
            scope = f"{outer}/{eqn.source_info.name_stack}"
            if operation := operations.get(eqn.primitive.name):
                total.update({label(scope): operation(eqn)})  # type: ignore[dict-item]
            inner = [
                walk(one, _read_of(one, eqn, read), scope) for one in jaxprs_in_params(eqn.params)
            ]
            if eqn.primitive.name == "cond":
                inner = [_taken(eqn, inner, platform)]
            times = eqn.params["length"] if loops and eqn.primitive.name == "scan" else 1
            for one in inner:
                total.update({key: times * n for key, n in one.items()})
            read.update(var for var in eqn.invars if isinstance(var, Var))
        return total

    return walk(jaxpr, jaxpr.outvars, "")


def part_of(scope: str, parts: Mapping[str, str]) -> str:
    """Returns the part that a name scope such as "transpose(jvp(ResNet))/conv1" belongs to."""
    return next((parts[word] for word in re.findall(r"\w+", scope) if word in parts), OTHER)


def _read_of(inner: Jaxpr, eqn: JaxprEqn, read: set[Var]) -> list[Any]:
    """Returns the results of an equation's inner program that are read; of a loop, all."""
    if eqn.primitive.name in ("scan", "while") or len(inner.outvars) != len(eqn.outvars):
        return inner.outvars
    return [own for own, var in zip(inner.outvars, eqn.outvars, strict=True) if var in read]


def _taken(eqn: JaxprEqn, branches: list[Counter[Key]], platform: str) -> Counter[Key]:
    """Returns the count of the branch that the platform takes, or else that costs most."""
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return max(branches, key=Counter.total)
    # None is the default branch, the last.
    choices = zip(branches, platforms, strict=True)
    return next(branch for branch, on in choices if on is None or platform in on)
