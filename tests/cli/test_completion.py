"""What a shell offers at a TAB, asked as the shells ask."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from typer.main import get_command

import data_recipes
from cli.app import app
from cli.candidates import TABLE, candidates
from cli.completion import SCRIPTS, described
from nlpkit import encoders, tasks

PROGRAM = described(get_command(app))


def offered(line):
    """For the words of a line; the last one is what is being typed."""
    return candidates(PROGRAM, line.split(" "))


def test_the_table_of_commands_is_the_program():
    """UPDATE_GOLDEN=1 writes it anew."""
    if os.environ.get("UPDATE_GOLDEN"):
        text = json.dumps(PROGRAM, ensure_ascii=False, separators=(",", ":"))
        TABLE.write_text(text.replace(']},"', ']},\n"') + "\n", encoding="utf-8")
    assert json.loads(TABLE.read_text(encoding="utf-8")) == PROGRAM


def test_commands_and_options():
    assert {"train", "predict", "compare", "data"} <= set(offered(""))
    assert offered("tra") == ["train"]
    assert offered("encoder pre") == ["pretrain"]
    assert offered("eval --ta") == ["--task"]
    assert offered("data sample --he") == ["--help"]


def test_tasks_encoders_recipes_sections():
    assert offered("train ") == tasks.names()
    assert offered("data check g") == ["gplinker"]
    assert offered("eval --task ma") == []
    assert offered("train ner --encoder ") == encoders.names()
    recipes = offered("data convert ")
    assert "cluener" in recipes
    assert all(data_recipes.load(name) for name in recipes)
    assert offered("settings pre") == ["pretrain"]


def test_choices_of_an_option():
    assert offered("train ner --resume ") == ["auto", "never"]
    assert offered("predict run --on-error sk") == ["skip"]


def test_set_keys_are_those_of_the_task():
    assert offered("train ner --set train.ep") == ["train.epochs="]
    assert offered("train ner --set=ner.head_") == ["--set=ner.head_size="]
    assert offered("train ner --set = ner.head_") == ["ner.head_size="]  # as bash cuts it
    assert offered("train ner --set gpl") == []
    assert "gplinker.head_size=" in offered("predict run --set gpl")
    assert "pretrain.tokens=" in offered("encoder pretrain x.txt --set pretrain.t")
    assert offered("train ner --data a.jsonl --set encoder.drop") == ["encoder.dropout="]


def test_runs_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/ner", "runs/seeds/seed-1", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs/ner/config.json").write_text("{}")
    (tmp_path / "runs/seeds/seed-1/config.json").write_text("{}")
    assert offered("predict ") == ["elsewhere/", "runs/", "runs/ner", "runs/seeds"]
    assert offered("predict runs/n") == ["runs/ner"]
    assert offered("serve runs/n") == ["runs/ner"]
    assert offered("compare runs/ner runs/") == ["runs/ner", "runs/seeds"]
    assert offered("predict runs/seeds/") == ["runs/seeds/seed-1"]


def test_files_are_left_to_the_shell():
    assert offered("train ner --data ") == []
    assert offered("predict run ") == []


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_shell_takes_the_script(shell, tmp_path):
    """Parsed by the shell itself where it is there; bash also completes."""
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True)
    if shell != "bash":
        return
    lines = f"""nlpkit() {{ "{sys.executable}" -m cli.main "$@"; }}
source {script}
COMP_WORDS=(nlpkit train g) COMP_CWORD=2
_nlpkit
echo "${{COMPREPLY[@]}}"
"""
    found = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    assert found.stdout == "gplinker\n"


def test_a_tab_imports_little_and_takes_little():
    script = (
        "import resource, sys\n"
        "sys.argv = ['nlpkit', 'completion', 'bash', '--', 'train', 'ner', '--set', 'train.e']\n"
        "import cli.main\n"
        "assert cli.main.run(cli.main.answer) == 0\n"
        "assert not {'torch', 'numpy', 'orjson', 'typer', 'rich'} & set(sys.modules)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    command = [sys.executable, "-c", script]
    seconds = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        *keys, used = done.stdout.splitlines()
        assert keys == ["train.epochs=", "train.evaluate_every="]
        seconds.append(float(re.findall(r"[\d.]+", used)[0]))
    assert min(seconds) < 0.5  # 0.06 s on a processor that is not shared
