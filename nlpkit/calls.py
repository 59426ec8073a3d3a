"""Settings that are lists of calls, as in `train.techniques = ["fgm(epsilon=0.5)", ...]`.

What can be called are the files of a package: a call has the name of its file, and its arguments
are the fields of one frozen dataclass in it. They are written as in TOML: `3`, `0.1`, `true`,
`"text"`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.config import build
from nlpkit.errors import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CALL = re.compile(r"(?P<name>\w+)(\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class Callables:
    """The files of a package that a setting may call.

    Args:
        package: dotted name of the package.
        path: its `__path__`.
        section: section of the setting, for messages.
        setting: name of the setting in its section.
        class_name: what the dataclass in each file is called.
    """

    package: str
    path: Sequence[str]
    section: str
    setting: str
    class_name: str

    def names(self) -> list[str]:
        """The files of the package, sorted."""
        return sorted(module.name for module in pkgutil.iter_modules(self.path))

    def parse(self, calls: Iterable[str]) -> list[Any]:
        """The objects of `name(argument=value, ...)` strings, in order.

        Raises ValueError for what is no such call or names no file, SettingsError for an unknown or
        wrong argument.
        """
        return [self._parse_one(call) for call in calls]

    def _parse_one(self, call: str) -> Any:
        match = _CALL.fullmatch(call.strip())
        if match is None:
            raise ValueError(f'{self.setting}: expected name(argument=value), got "{call}"')
        name = match["name"]
        names = self.names()
        if name not in names:
            known = ", ".join(names)
            near = did_you_mean(name, names)
            raise ValueError(f'{self.setting}: expected some of {known}, got "{name}"{near}')
        try:
            arguments = tomllib.loads(f"value = {{{match['arguments'] or ''}}}")["value"]
        except (ValueError, RecursionError):
            raise ValueError(
                f'{self.setting}: expected {name}(argument=value), got "{call}"'
            ) from None
        called = getattr(importlib.import_module(f"{self.package}.{name}"), self.class_name)
        return build(called, arguments, f"{self.section}.{self.setting}: {name}")
