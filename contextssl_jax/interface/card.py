"""What a user needs to know of a model: its data, groups, units, sizes and figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from contextssl_jax.transforms import Group


@dataclass(frozen=True)
class GroupCard:
    """One group: names and units of its parameters and of its action."""

    parameters: tuple[str, ...]
    param_units: str
    action: tuple[str, ...]
    action_units: str


@dataclass(frozen=True)
class Card:
    """A model's description.

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
      figures: of the model's report, if it has one; see reports.answer.
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
            f"{self.name}: {self.method} trained on {self.data}, {self.step:,} steps, seed"
            f" {self.seed}",
            f"images: {self.image_size} x {self.image_size} pixels; features: {self.features};"
            f" embeddings: {self.embedding}; contexts: up to {self.max_pairs} pairs",
            f"environments of training: {', '.join(self.environments)}",
        ]
        for name, group in self.groups.items():
            lines += [
                f"{name}: action ({', '.join(group.action)}): {group.action_units}",
                f"  parameters ({', '.join(group.parameters)}): {group.param_units}",
            ]
        for name, value in (self.figures or {}).items():
            lines.append(f"{name}: {value}")
        return "\n".join(lines)


def describe_group(group: Group) -> GroupCard:
    """Return the card of a group."""
    return GroupCard(
        *(group.parameter_names, group.param_units, group.action_names, group.action_units)
    )
