"""Markdown pages from the templates of this package."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("contextssl_jax.interface"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown
)


def render_page(template: str, **values: Any) -> str:
    """Render a template, a file in `templates`, with its values."""
    return _TEMPLATES.get_template(template).render(**values)
