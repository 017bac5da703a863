"""The configs that come with the package, by name: `from contextssl_jax.configs import base`.

Their files are in the repository's folder configs/, and beside this one in an installed package. A
user's own folder configs/ is therefore never in the way.
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

CONFIG_FOLDER = Path(__file__).parent
if not (CONFIG_FOLDER / "base.py").exists():  # a clone
    CONFIG_FOLDER = CONFIG_FOLDER.parents[1] / "configs"
    __path__[:] = [str(CONFIG_FOLDER)]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # a module of the folder


def list_configs() -> dict[str, str]:
    """Return the first line of each config's docstring, by name, without executing any config."""
    lines = {}
    for path in sorted(CONFIG_FOLDER.glob("*.py")):
        module = ast.parse(path.read_text())
        functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        if "get_config" in functions:  # other files are parts that configs include
            lines[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return lines
