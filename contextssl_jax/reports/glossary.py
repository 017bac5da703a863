"""The glossary of a page: general terms, and those of its metrics."""

from contextssl_jax.evaluation.evaluators import EVALUATORS
from contextssl_jax.reports.page import Cell, Table

_TERMS = {
    "transformation group": "A family of image transformations, such as crops or blurs, with"
    " parameters that are known for every view.",
    "context": "Pairs of views and the actions between them that a model with contexts is given"
    " before it embeds a view; 2 tokens for each pair.",
    "environment": "The groups whose actions a context shows (observed groups); actions of other"
    " groups are hidden. 'none' shows no group. A group's own environment shows this group alone.",
    "action": "The transformation from one view to another, in relative parameters.",
    "z⁺, view embedding": "The embedding of a view without an action.",
    "z_r, predicted target": "The embedding of a view with the observed part of an action; it is"
    " trained to match the view embedding of the action's target.",
    "features": "Outputs of the encoder; they do not depend on a context.",
}


def glossary() -> Table:
    """Return all terms and their definitions."""
    terms = dict(_TERMS)
    for evaluator in EVALUATORS.values():
        terms |= evaluator.terms
    rows: list[list[Cell]] = [[term, definition] for term, definition in terms.items()]
    return Table("Glossary", ("term", "definition"), rows)
