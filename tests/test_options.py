"""Options are declared with their ranges, and a value outside is one line."""

import ast
import copy
import math
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base, debug
from contextssl_jax.config import flatten, parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment
from contextssl_jax.options import (
    FREE,
    Options,
    Resume,
    check_options,
    declarations,
    integer,
    number,
    switch,
)
from contextssl_jax.transforms import GROUPS

ALL = {name: option for name, option, _ in declarations(base.get_config())}
# Values that no option of the type accepts; the first as on the command line.
OUTSIDE = {
    int: ("-1", -1, 10**20, "1", 1.5, math.nan, True),
    float: ("nan", math.nan, math.inf, -math.inf, -1.0, 10**400, "1", True),
    str: ("", " ", 1, True),
    bool: ("perhaps", 2, "True"),
    tuple: ("None", (None,), (math.nan,), (-1,), ("",), (math.inf, 1.0), ("x", "x"), "x", 1),
}


def parsed(*arguments: str, path: str = "configs/base.py") -> ConfigDict:
    return parse_command_line(["main", f"--config={path}", *arguments], ("train",)).config


def test_every_option_is_declared_and_its_default_is_valid():
    config = base.get_config()
    assert ALL.keys() == {name for name, _ in flatten(config)}
    check_options(config)
    for path in Path("configs").glob("*.py"):
        if "def get_config(" in path.read_text():
            parsed(path=str(path))


@pytest.mark.parametrize("name", ALL)
def test_a_value_outside_the_range_is_one_line(name):
    option = ALL[name]
    text, *values = OUTSIDE[option.kind]
    if "one of" in option.expected:
        values.append("no such value")
    if option.default is not None:
        values.append(None)
    assert not any(option.is_valid(value) for value in values)
    with pytest.raises(UserError) as caught:
        parsed(f"--config.{name}={text}")
    message = str(caught.value)
    assert message.startswith(f"--config.{name}: must be {option.expected}, not ")
    assert message.endswith("default.") and "\n" not in message


@pytest.mark.parametrize(
    "name, valid, invalid",
    [
        ("seed", ("0", "4294967295"), ("4294967296",)),
        ("data.contexts", ("1", "16384"), ("0", "16385")),
        ("monitor.every", ("0", "1"), ("2147483648",)),
        ("objects3d.pool", ("0", "2"), ("1",)),
        ("blur.taps", ("1", "9"), ("0", "8")),
        ("scene.angle", ("1e-3", "90"), ("0", "90.01")),
        ("folder.test", ("0.01", "0.99"), ("0", "1")),
        ("train.beta1", ("0", "0.99"), ("1",)),
        ("mask.probability", ("0", "1"), ("1.001",)),
        ("loss.temperature", ("1e-3", "7"), ("0",)),
        ("crop.scale", ("(0.5,0.5)", "[0.1,1]"), ("0.5,0.1", "0.5", "0.1,0.2,0.3", "0,1", "0.5,2")),
        ("eval.lengths", ("0", "0,2,14"), ("()", "1", "2,-2", "2.0,4")),
        ("model.patch.widths", ("8,8",), ("8", "8,8,8")),
        ("environments", ("crop", "crop+blur,none"), ("()", "crop,crop", "(1,2)")),
    ],
)
def test_the_ends_of_ranges(name, valid, invalid):
    for value in valid:
        parsed(f"--config.{name}={value}")
    for value in invalid:
        with pytest.raises(UserError, match=f"^--config.{name}: must be "):
            parsed(f"--config.{name}={value}")


@pytest.mark.parametrize(
    "text",
    ["crop,none", "crop, none", "(crop,none)", "[crop, none]", "('crop','none')", "crop,none,"],
)
def test_tuples_of_names_need_no_quotes(text):
    for arguments in ((f"--config.environments={text}",), ("--config.environments", text)):
        assert parsed(*arguments).environments == ("crop", "none")
    assert parsed("--config.groups=crop").groups == ("crop",)
    assert parsed("--config.groups=crop", "--config.groups=blur").groups == ("crop", "blur")
    assert parsed("--config.unconditioned_transforms=()").unconditioned_transforms == ()
    assert parsed("--config.eval.lengths=0,2,14").eval.lengths == (0, 2, 14)
    assert parsed("--config.crop.scale=0.3,1.0").crop.scale == (0.3, 1.0)


def test_a_section_of_the_user_declares_its_own_range(monkeypatch):
    monkeypatch.setattr("contextssl_jax.transforms.GROUPS", dict(GROUPS))
    path = "configs/own_group.py"
    assert parsed("--config.gamma.largest=0.2", path=path).gamma.largest == 0.2
    with pytest.raises(UserError, match=r"--config.gamma.largest: must be .* above 0, not -0.2"):
        parsed("--config.gamma.largest=-0.2", path=path)


def test_a_section_without_declarations_accepts_any_value(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from configs import debug\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
        "    config = debug.get_config()\n    config.own = ConfigDict({'shift': 0})\n"
        "    return config\n"
    )
    assert parsed("--config.own.shift=-3", path=str(file)).own.shift == -3


def test_a_declaration_in_a_plain_section_is_an_error():
    config = Options({"own": ConfigDict({"size": integer(1, 1)})})
    with pytest.raises(UserError, match="--config.own.size: is declared in a ConfigDict"):
        check_options(config)


def test_copies_keep_declarations():
    config = Options({"a": number(1.0, above=0), "b": Options({"c": switch(True)})})
    for other in (copy.deepcopy(config), config.copy_and_resolve_references()):
        assert [name for name, _, _ in declarations(other)] == ["a", "b.c"]
        other.a = -1.0
        with pytest.raises(UserError, match="--config.a: "):
            check_options(other)
    assert config.a == 1.0


def test_the_python_interface_checks_options_too(config):
    config.loss.temperature = 0.0
    with pytest.raises(UserError, match="--config.loss.temperature: must be a finite number above"):
        build_experiment(config)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"data.contexts": 16384, "data.pairs": 128},
            "--config.data.contexts: must be at most 8192",
        ),
        ({"mask.probability_low": 0.95}, "--config.mask.probability_low: must be at most --config"),
    ],
)
def test_options_that_exclude_each_other(options, message, config):
    config.update_from_flattened_dict(options)
    with pytest.raises(UserError, match=message):
        build_experiment(config)


def test_documentation_lists_what_may_change_on_resume():
    text = Path("docs/training.md").read_text().partition("### What may change")[2]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", text.partition("\n## ")[0], re.MULTILINE)
    documented = {name for row, _ in rows for name in re.findall(r"`([\w.*]+)`", row)}
    sections = {name.partition(".*")[0] for name in documented if name.endswith(".*")}
    for section in sections:
        inside = {option.resume for name, option in ALL.items() if name.startswith(f"{section}.")}
        assert inside == {FREE}
    names = {name for name in documented if not name.endswith(".*")}
    expected = {
        name
        for name, option in ALL.items()
        if option.resume is not Resume.FIXED and name.partition(".")[0] not in sections
    }
    assert names == expected


def test_messages_name_options_as_they_are_written_on_the_command_line():
    sections = {name.partition(".")[0] for name in ALL if "." in name}
    bare = re.compile(rf"(?<![\w.'/=-])(?:{'|'.join(sections)})\.[a-z_{{]")
    start = re.compile(rf"^(?:{'|'.join(name for name in ALL if '.' not in name)})\b[:,]")
    found, seen = [], 0
    for path in Path("contextssl_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                seen += 1
                text = "".join(map(_text, node.args))
                if bare.search(text) or start.search(text):
                    found.append(f"{path}:{node.lineno}: {text}")
    assert seen > 100 and not found


def _text(node: ast.AST) -> str:
    """Return a string of a source file, with {} in place of the values in an f-string."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.FormattedValue):
        return "{}"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_a_few_steps_work_with_every_config():
    for path in Path("configs").glob("*.py"):
        if "def get_config(" in path.read_text():
            assert parsed("--config.train.steps=20", path=str(path)).train.steps == 20


def test_debug_builds_on_declarations():
    assert isinstance(debug.get_config(), Options)
