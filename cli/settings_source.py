"""The settings, read from the source without importing it, so that `nlpkit settings` and the completion
of a shell answer at once. A section is a dataclass whose docstring says "section `name`"; the base
of several says "sections `one`, `two` and `three`".
"""

from __future__ import annotations

import ast
import operator
import re
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nlpkit

if typing.TYPE_CHECKING:
    from nlpkit import config

SOURCE = Path(nlpkit.__file__).parent
_OPERATORS: dict[type, Any] = {ast.Pow: operator.pow, ast.Sub: operator.sub}
_SECTIONS = re.compile(r"sections? (`\w+`(?:(?:,| and)\s+`\w+`)*)")


@dataclass(frozen=True)
class Setting:
    """A setting; `of` says whose it is where several classes share a section."""

    key: str
    type: str
    range: str
    default: str
    what: str
    of: str


def read_settings(sections: Collection[str] | None = None) -> Iterator[Setting]:
    """The settings of some sections, None for all: of a file in the order in which they stand."""
    for module in _modules(sections):
        constants = _constants(module)
        for node, section, of in _classes(module, sections):
            yield from _of_class(node, section, of, constants)


def read_keys(sections: Collection[str] | None = None) -> Iterator[str]:
    """The keys alone of the same settings, which takes less time."""
    for module in _modules(sections):
        for node, section, _ in _classes(module, sections):
            for field, _ in _fields(node):
                yield f"{section}.{field}"


CALLS = {
    "techniques": SOURCE / "training" / "techniques",
    "wrappers": SOURCE / "optim" / "wrappers",
    "balance": SOURCE / "training" / "balance",
}
"""Setting of `train` whose value is `name(argument=value)` -> the folder with a file for each
name."""


def read_calls(setting: str) -> Iterator[Setting]:
    """The arguments of what a setting of `CALLS` may call, `name.argument` each; what has none is
    one line, of its name alone."""
    for path in sorted(CALLS[setting].glob("[a-z]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        told = (ast.get_docstring(module) or "").split("\n\n")[0]
        of = " ".join(told.split()).removesuffix(".")
        constants = _constants(module)
        found: list[Setting] = []
        for node in module.body:
            if isinstance(node, ast.ClassDef) and _is_dataclass(node):
                found += _of_class(node, path.stem, of, constants)
        arguments = [argument for argument in found if not argument.type.startswith("ClassVar")]
        yield from arguments or [Setting(path.stem, "", "", "", of, of)]


def _modules(sections: Collection[str] | None) -> Iterator[ast.Module]:
    """The files that have settings of these sections."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        named = {name for found in _SECTIONS.findall(text) for name in _names(found)}
        if named and (sections is None or not named.isdisjoint(sections)):
            yield ast.parse(text)


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    constants = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
    return constants


def _classes(
    module: ast.Module, sections: Collection[str] | None
) -> Iterator[tuple[ast.ClassDef, str, str]]:
    """The classes of settings of these sections: (class, its section, its docstring)."""
    for node in module.body:
        if not isinstance(node, ast.ClassDef):
            continue
        docstring = ast.get_docstring(node) or ""
        found = _SECTIONS.search(docstring)
        if not found or not _is_dataclass(node):
            continue
        for section in _names(found[1]):
            if sections is None or section in sections:
                yield node, section, " ".join(docstring.split()).removesuffix(".")


def _names(quoted: str) -> list[str]:
    """The names of "`one`, `two` and `three`"."""
    return re.findall(r"`(\w+)`", quoted)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """The names of the fields of a dataclass, and where each stands in its body."""
    for place, field in enumerate(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield field.target.id, place


def _of_class(
    node: ast.ClassDef, section: str, of: str, constants: dict[str, ast.expr]
) -> Iterator[Setting]:
    """The fields of a dataclass; the string under a field is its docstring."""
    for name, place in _fields(node):
        field: Any = node.body[place]
        below = node.body[place + 1] if place + 1 < len(node.body) else None
        what = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            what = " ".join(str(below.value.value).split())
        default = field.value
        if isinstance(default, ast.Name) and default.id in constants:
            default = constants[default.id]
        kind, limits = describe_type(field.annotation)
        shown = "" if default is None else _toml(default)
        yield Setting(f"{section}.{name}", kind, limits, shown, what, of)


def describe_type(node: ast.expr) -> tuple[str, str]:
    """A type as a user reads it, and the range of its numbers ("" for any)."""
    if isinstance(node, ast.BinOp):  # X | None
        kind, limits = describe_type(node.left)
        return f"{kind} or {describe_type(node.right)[0]}", limits
    if isinstance(node, ast.Constant) and node.value is None:
        return "none", ""
    if isinstance(node, ast.Name):
        return _named(node.id)
    if not isinstance(node, ast.Subscript):
        return ast.unparse(node), ""
    name = ast.unparse(node.slice)
    inside = node.slice
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    outer = ast.unparse(node.value)
    if outer == "Literal":
        return ", ".join(str(ast.literal_eval(part)) for part in parts), ""
    if outer == "Annotated":
        return describe_type(parts[0])[0], describe_range(_range(parts[1]))
    if outer in ("tuple", "list"):
        kind, limits = describe_type(parts[0])
        return f"list of {kind}", limits
    return f"{outer} of {name}", ""


def _named(name: str) -> tuple[str, str]:
    """A builtin type, or one of the kinds of numbers in `nlpkit.config`."""
    from nlpkit import config

    kind = getattr(config, name, None)
    arguments = typing.get_args(kind)
    if not arguments:
        return name, ""
    return arguments[0].__name__, describe_range(kind.__metadata__[0])  # type: ignore[union-attr]


def _range(call: ast.expr) -> config.Range:
    """`Range(...)` as it stands in a type; its arguments are numbers, or names of `nlpkit.config`."""
    from nlpkit import config

    assert isinstance(call, ast.Call)
    given = [_number(argument) for argument in call.args]
    named = {str(keyword.arg): _number(keyword.value) for keyword in call.keywords}
    return config.Range(*given, **named)


def _number(node: ast.expr) -> Any:
    """A number, a name of `nlpkit.config`, or one of these to the power of, or less, another."""
    from nlpkit import config

    if isinstance(node, ast.Name):
        return getattr(config, node.id)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_number(node.left), _number(node.right))
    return ast.literal_eval(node)


def describe_range(limits: config.Range) -> str:
    """`1 to 1000`, `above 0`, ..."""
    low = high = ""
    if limits.least is not None:
        low = f"at least {limits.least:,}"
    elif limits.above is not None:
        low = f"above {limits.above:,}"
    if limits.most is not None:
        high = f"at most {limits.most:,}"
    elif limits.below is not None:
        high = f"below {limits.below:,}"
    multiple = f"a multiple of {limits.multiple}" if limits.multiple > 1 else ""
    return ", ".join(part for part in (low, high, multiple) if part)


def _toml(node: ast.expr) -> str:
    """A default as `--set` takes it."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return str(value) if value != "" else '""'
