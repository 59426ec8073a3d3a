"""Who may import whom, read from the source: the layers of the package."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOW = {
    "errors",
    "jsonl",
    "config",
    "metrics",
    "text",
    "modules",
    "encoders",
    "optim",
    "decoding",
    "batching",
    "devices",
}
MAY = {
    "errors": set(),
    "jsonl": {"errors"},
    "config": {"errors"},
    "metrics": {"errors"},
    "batching": {"errors"},
    "devices": {"errors"},
    "text": {"errors", "jsonl"},
    "optim": {"errors"},
    "decoding": {"errors", "jsonl"},
    "modules": {"errors", "jsonl", "metrics", "text", "decoding"},
    "encoders": {"errors", "jsonl", "text", "modules"},
    "task": {"errors", "text", "modules"},
    "tasks": {"errors", "jsonl", "metrics", "modules", "encoders", "decoding", "text", "task"},
    "samples": {"errors", "text"},
    "dataset": {"errors", "jsonl"},
    "training": {"errors", "optim", "task"},
    "prediction": {"errors", "jsonl", "batching", "task"},
    "run": {"errors", "jsonl", "config", "devices", "text", "encoders", "tasks"},
    "card": set(),
    "checkpoints": {"run", "training"},
    "evaluation": LOW | {"run", "tasks", "dataset", "prediction"},
    "checking": LOW | {"tasks", "dataset"},
    "pretraining": {"errors", "devices", "jsonl", "text", "encoders", "optim", "training", "run", "checkpoints"},
    "opening": {"errors", "checkpoints", "encoders", "fit", "pretraining", "run"},
    "fit": LOW | {"run", "tasks", "card", "checkpoints", "dataset", "prediction", "training"},
}  # `fit`, `evaluation` and `checking` put the parts together; nothing imports them but the command line
FILES = sorted(path for folder in ("nlpkit", "cli", "data_recipes") for path in (ROOT / folder).rglob("*.py"))


def imports(path, everywhere=True):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from {node.module} if node.module != "nlpkit" else {f"nlpkit.{alias.name}" for alias in node.names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = set(imports(path))
    roots = {name.split(".")[0] for name in names}
    if parts[0] == "cli":
        assert not {"torch", "transformers"} & {name.split(".")[0] for name in imports(path, everywhere=False)}
        return
    assert not {"typer", "rich", "cli"} & roots
    inside = {name.split(".")[1] for name in names if name.startswith("nlpkit.")} - {"__version__"}
    if parts[0] == "data_recipes":
        assert inside <= {"jsonl", "errors"}
    elif len(parts) > 1 and parts[1] != "__init__":
        assert inside - {parts[1]} <= MAY[parts[1]]
        if parts[1] == "tasks":
            assert not {name for name in names if name.startswith("nlpkit.tasks")}, "a task imports no other task"


def test_nothing_is_unpickled_or_evaluated():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "marshal.load"}, path
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def test_files_and_functions_stay_short():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
        assert len(text.splitlines()) <= 300, path


def test_there_are_no_packages_among_the_tests():
    assert not list((ROOT / "tests").rglob("__init__.py"))
