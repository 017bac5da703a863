"""The variants of a table of all methods, on any data; no sweep by itself."""

from collections.abc import Mapping
from typing import Any

from contextssl_jax.sweeps import Variant

# Environments of the methods that use actions, by their labels in tables.
ROTATION_COLOR = {
    "rotation": ("rotation",),
    "color": ("color",),
    "rotation, color": ("rotation+color",),
}
_NO_ACTIONS: dict[str, Any] = {"environments": ("none",), "eval.environments": ("none",)}


def invariant(ours: str, data: str, alone: Mapping[str, Any]) -> list[Variant]:
    """Return ContextSSL and the methods without actions.

    Args:
      ours: config of ContextSSL.
      data: ending of the other configs' names, such as "objects3d.py".
      alone: overrides with masks that hide all but the token itself, for c = 0.
    """
    points = [Variant("ContextSSL", ours)]
    for name in ("SimCLR", "VICReg"):
        plus = {"method": f"{name.lower()}_plus", **_NO_ACTIONS}
        points += [
            Variant(name, f"configs/{name.lower()}_{data}"),
            Variant(f"{name}+ (c = 0)", ours, {**plus, **alone}),
            Variant(f"{name}+", ours, plus),
        ]
    return points


def equivariant(data: str, environments: Mapping[str, tuple[str, ...]]) -> list[Variant]:
    """Return the methods with actions, one variant for each choice of groups.

    Args:
      data: see invariant.
      environments: by their labels in tables.
    """
    return [
        Variant(f"{name}, {groups}", f"configs/{name.lower()}_{data}", {"environments": names})
        for name in ("EquiMod", "SEN", "SIE")
        for groups, names in environments.items()
    ]
