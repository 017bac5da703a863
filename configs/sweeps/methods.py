"""The points of a table of all methods, on any data; no sweep by itself."""

from collections.abc import Mapping
from typing import Any

from contextssl_jax.sweeps import Variant

# Which groups the methods are told, by what pages call them.
ROTATION_COLOR = {
    "rotation": ("rotation",),
    "color": ("color",),
    "rotation, color": ("rotation+color",),
}
_UNTOLD: dict[str, Any] = {"environments": ("none",), "eval.environments": ("none",)}


def invariant(ours: str, data: str, alone: Mapping[str, Any]) -> list[Variant]:
    """Returns ContextSSL, and the methods that are told no actions.

    Args:
      ours: config of ContextSSL.
      data: how the configs of the others end, such as "objects3d.py".
      alone: masks that hide all but the token itself, for c = 0.
    """
    points = [Variant("ContextSSL", ours)]
    for name in ("SimCLR", "VICReg"):
        plus = {"method": f"{name.lower()}_plus", **_UNTOLD}
        points += [
            Variant(name, f"configs/{name.lower()}_{data}"),
            Variant(f"{name}+ (c = 0)", ours, {**plus, **alone}),
            Variant(f"{name}+", ours, plus),
        ]
    return points


def equivariant(data: str, told: Mapping[str, tuple[str, ...]]) -> list[Variant]:
    """Returns the methods that are told actions, once for each choice of groups.

    Args:
      data: see invariant.
      told: environments by what pages call them.
    """
    return [
        Variant(f"{name}, {groups}", f"configs/{name.lower()}_{data}", {"environments": shown})
        for name in ("EquiMod", "SEN", "SIE")
        for groups, shown in told.items()
    ]
