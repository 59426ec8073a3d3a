"""What the package has, read from its folders: nothing is imported, so that help comes at once."""

from __future__ import annotations

import pkgutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules_of(folder: str) -> list[str]:
    """The names of the modules and packages in a folder of the project, in alphabetical order, but
    for private ones."""
    names = [module.name for module in pkgutil.iter_modules([str(ROOT / folder)])]
    return sorted(name for name in names if not name.startswith("_"))
