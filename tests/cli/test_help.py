"""`--help` of every command is frozen: a setting is a `--set` key, not a new flag. UPDATE_GOLDEN=1
writes it anew."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app

GOLDEN = Path(__file__).parents[1] / "golden" / "help"
COMMANDS = [
    *(
        "",
        "train",
        "predict",
        "serve",
        "eval",
        "export",
        "compare",
        "report",
        "tasks",
        "settings",
        "env",
        "completion",
    ),
    *(
        "data",
        "data convert",
        "data sample",
        "data check",
        "encoder",
        "encoder convert",
        "encoder info",
        "encoder list",
    ),
    *("encoder pretrain", "encoder tree", "trie", "trie build", "trie info"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_it_was(command):
    result = CliRunner().invoke(
        app, [*command.split(), "--help"], prog_name="nlpkit", env={"COLUMNS": "100"}
    )
    assert result.exit_code == 0, result.output
    file = GOLDEN / f"{command.replace(' ', '_') or 'nlpkit'}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(result.output)
    assert result.output == file.read_text()
    assert "\x1b" not in result.output
