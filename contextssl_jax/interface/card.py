"""What a user needs to know of a model: its data, groups, units, sizes and figures."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.transforms import Group

_WIDTH = 79  # characters of a printed line


@dataclass(frozen=True)
class GroupCard:
    """One group: names and units of its parameters and of its action."""

    parameters: tuple[str, ...]
    param_units: str
    action: tuple[str, ...]
    action_units: str


@dataclass(frozen=True)
class Card:
    """A model's description; print it.

    Attributes:
      name: of the release, or its path.
      method: of training.
      data: the data set.
      groups: those that a context can observe.
      environments: the groups that training contexts observed.
      image_size: side of the square images in pixels.
      max_pairs: pairs of the longest context.
      features: entries of the encoder's features, F.
      embedding: entries of embeddings, P.
      step: training steps taken.
      seed: of training.
      figures: of its report, see evaluation.headline; None if it has no report.
    """

    name: str
    method: str
    data: str
    groups: Mapping[str, GroupCard]
    environments: tuple[str, ...]
    image_size: int
    max_pairs: int
    features: int
    embedding: int
    step: int
    seed: int
    figures: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the card as nested dicts, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.method} on {self.data}, {self.step:,} steps, seed {self.seed}",
            f"images {self.image_size} x {self.image_size}, features {self.features}, embeddings"
            f" {self.embedding}, contexts of up to {self.max_pairs} pairs; trained on contexts of"
            f" {', '.join(self.environments)}",
        ]
        for name, group in self.groups.items():
            lines += [
                f"{name}",
                f"  action ({', '.join(group.action)}): {group.action_units}",
                f"  parameters ({', '.join(group.parameters)}): {group.param_units}",
            ]
        wrapped = (
            textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
            for line in [*lines, *_describe(self.figures)]
        )
        return "\n".join(wrapped)


def describe_group(group: Group) -> GroupCard:
    """Return the card of a group."""
    return GroupCard(
        *(group.parameter_names, group.param_units, group.action_names, group.action_units)
    )


def _describe(figures: Mapping[str, Any] | None) -> list[str]:
    """Return one line for each group and probe."""
    if figures is None:
        return ["no report"]
    lines = [f"R² of {figures['views']:,} held-out views after {figures['tokens']} tokens"]
    for probe, environments in figures["r2"].items():
        for group, of_features in figures["r2_features"][probe].items():
            values = [f"{r2[group]:.2f} ({name})" for name, r2 in environments.items()]
            lines.append(
                f"  {group}, {PROBES.get(probe, probe)} probe: {', '.join(values)}; features"
                f" {of_features:.2f}"
            )
    if figures["classes"] is not None:
        lines.append(f"  classes, linear probe of features: {100 * figures['classes']:.1f} %")
    return lines
