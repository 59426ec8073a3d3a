"""Who may import whom, read from the source: the layers of the package."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY = {
    "errors": set(),
    "json_value": {"errors"},
    "jsonl": {"errors", "json_value"},
    "config": {"errors", "jsonl"},
    "calls": {"errors", "config"},
    "text": {"errors", "jsonl"},
    "optim": {"errors", "config", "calls"},
    "decoding": {"errors", "jsonl"},
    "formats": {"errors", "json_value", "jsonl", "text"},
    "layers": {"errors", "text", "decoding", "encoders.base"},
    "encoders": {"errors", "jsonl", "config", "text", "layers"},
    "task": {"errors", "formats", "text"},
    "tasks": {
        *("errors", "jsonl", "config", "text", "formats", "layers", "encoders", "decoding"),
        *("json_value", "task", "evaluation.metrics", "evaluation.thresholds"),
    },
    "samples": {"errors", "text", "tasks.ape210k.arithmetic", "tasks.xiangqi"},
    "inference": {
        *("errors", "jsonl", "json_value", "config", "text", "layers", "decoding", "encoders"),
        *("task", "run", "run_files"),
    },
    "run_files": {"errors"},
    "folder_lock": {"errors"},
    "run": {
        "run_files",
        "errors",
        "jsonl",
        "config",
        "text",
        "formats",
        "encoders",
        "tasks",
        "inference.precision",
    },
    "training": {
        *("errors", "jsonl", "config", "calls", "text", "optim", "encoders", "task", "tasks"),
        *("inference", "run", "evaluation.thresholds", "folder_lock"),
    },
    "evaluation": {
        *("errors", "jsonl", "config", "text", "encoders", "task", "tasks", "inference", "run"),
        "training.dataset",
    },
    "pretraining": {
        *("errors", "jsonl", "config", "text", "optim", "encoders", "inference", "run"),
        *("run_files", "training"),
    },
}
"""Room -> what it may import besides itself: rooms, or single files of one (`room.file`)."""
LEAVES = {
    "evaluation.metrics": {"errors"},
    "evaluation.thresholds": {"evaluation.metrics"},
    "encoders.base": {"errors", "text"},
}
"""Files that lie lower than their room."""
FILES = sorted(
    path for folder in ("nlpkit", "cli", "data_recipes") for path in (ROOT / folder).rglob("*.py")
)


def imports(path, everywhere=True):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (
                {node.module}
                if node.module != "nlpkit"
                else {f"nlpkit.{alias.name}" for alias in node.names}
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = set(imports(path))
    roots = {name.split(".")[0] for name in names}
    if parts[0] == "cli":
        assert not {"torch", "transformers"} & {
            name.split(".")[0] for name in imports(path, everywhere=False)
        }
        return
    assert not {"typer", "rich", "cli"} & roots
    inside = {name.removeprefix("nlpkit.") for name in names if name.startswith("nlpkit.")}
    inside -= {"__version__"}
    own = ".".join(parts[1:])
    if parts[0] == "data_recipes":
        assert inside <= {"json_value", "jsonl", "errors"}
    elif own in LEAVES:
        assert all(is_among(name, LEAVES[own]) for name in inside)
    elif parts[1] != "__init__":
        assert not {name for name in inside if not is_among(name, MAY[parts[1]] | {parts[1]})}
    if parts[:2] == ("nlpkit", "tasks") and len(parts) > 2:
        others = {name.split(".")[1] for name in inside if name.startswith("tasks.")}
        others -= {parts[2]} | {name for name in others if name.startswith("_")}
        assert not others, "a task imports no other task"


def is_among(name, allowed):
    """Whether a module is one of the allowed rooms or files, or lies in one."""
    return any(f"{name}.".startswith(f"{one}.") for one in allowed)


def test_no_circle_of_files_exists():
    """Also not by imports inside functions, or for type checkers only."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    below = {name: files_of(path, modules) - {name} for name, path in modules.items()}
    while leaves := {name for name, needs in below.items() if not needs & below.keys()}:
        below = {name: needs for name, needs in below.items() if name not in leaves}
    assert not below


def files_of(path, modules):
    """The modules that a file imports, each the longest name that is a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules.keys()
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found |= {name if name in modules else node.module} & modules.keys()
    return found


def test_nothing_is_unpickled_or_evaluated():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "marshal.load"}, (
                path
            )
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def test_files_and_functions_stay_short():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                assert node.end_lineno - first.lineno < 45, f"{path}: {node.name}"
        assert len(text.splitlines()) <= 300, path


def test_there_are_no_packages_among_the_tests():
    assert not list((ROOT / "tests").rglob("__init__.py"))
