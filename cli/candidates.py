"""What a shell may offer at a TAB, from the words of the line, without importing Typer or a model.

The commands with their options are data, `commands.json`, which a test keeps equal to the program.
A command is {"commands": {name: command}} or {"options": [param], "arguments": [param]}; a param has
its `name` in the code, `names` as they are typed, `takes` (how many values: 0, 1 or "any") and its
`choices`, empty where they are not a fixed list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cli.folders import modules_of
from cli.output import write
from cli.tasks import task_names

TABLE = Path(__file__).with_name("commands.json")


def offer(words: list[str]) -> int:
    """Writes the `candidates`, one a line; the exit code."""
    import json

    program = json.loads(TABLE.read_text(encoding="utf-8"))
    found = candidates(program, words)
    write([f"{one}\n".encode(errors="surrogateescape") for one in found])
    return 0


def candidates(command: dict[str, Any], words: list[str]) -> list[str]:
    """What may stand in the place of the last word; empty where the shell's own completion of files
    is as good.

    `command` is the whole program.
    """
    *before, current = words
    name = ""
    while before and before[0] in command.get("commands", {}):
        name = before.pop(0)
        command = command["commands"][name]
    given = [word for word in before if word != "="]  # bash cuts --set=key in three
    option = _option(command, given[-1]) if given else None
    if option is not None and option["takes"]:
        found = _values(option, name, command, given, "" if current == "=" else current)
        return [one for one in found if current == "=" or one.startswith(current)]
    typed, equals, value = current.partition("=")
    option = _option(command, typed)
    if equals and option is not None:
        found = _values(option, name, command, given, value)
        return [f"{typed}={one}" for one in found if one.startswith(value)]
    if current.startswith("-"):
        names = [one for option in command["options"] for one in option["names"]]
        long = [one for one in [*names, "--help"] if one.startswith("--")]
        return [one for one in long if one.startswith(current)]
    if "commands" in command:
        return [one for one in command["commands"] if one.startswith(current)]
    argument = _argument(command, given)
    found = _values(argument, name, command, given, current) if argument is not None else []
    return [one for one in found if one.startswith(current)]


def _option(command: dict[str, Any], word: str) -> Any:
    """The option of a command that goes by the word; None where there is none."""
    for option in command["options"]:
        if word in option["names"]:
            return option
    return None


def _positional(command: dict[str, Any], given: Iterable[str]) -> list[str]:
    """The words that are arguments, not options and their values."""
    found = []
    takes_value = False
    for word in given:
        option = _option(command, word)
        if takes_value:
            takes_value = False
        elif option is not None:
            takes_value = bool(option["takes"])
        elif not word.startswith("--"):
            found.append(word)
    return found


def _argument(command: dict[str, Any], given: list[str]) -> Any:
    """The argument of a command that comes next; the last one where it takes any number."""
    arguments = command.get("arguments", [])
    place = len(_positional(command, given))
    if place < len(arguments):
        return arguments[place]
    return arguments[-1] if arguments and arguments[-1]["takes"] == "any" else None


def _values(
    param: dict[str, Any], name: str, command: dict[str, Any], given: list[str], current: str
) -> list[str]:
    """The values that a parameter of the command `name` may have, so far as they are known."""
    if param["choices"]:
        return param["choices"]
    if param["name"] == "set_":
        return _keys(name, command, given)
    if param["name"] in ("run", "runs", "systems"):
        return _runs(current)
    find = SOURCES.get(param["name"])
    return find() if find else []


def _keys(name: str, command: dict[str, Any], given: list[str]) -> list[str]:
    """The `--set` keys: of the task named before, where it is, with those that go with it."""
    from cli.settings_source import read_keys

    if name == "convert":
        return []
    sections = None
    named = [word.replace("-", "_") for word in _positional(command, given)[:1]]
    if name == "pretrain":
        sections = {"pretrain", "encoder"}
    elif named and named[0] in task_names():
        sections = {named[0]}
        sections |= {"train", "encoder"} if name == "train" else set()
    return sorted({f"{key}=" for key in read_keys(sections)})


def _runs(current: str) -> list[str]:
    """Folders to go into, with a slash, and runs, which have a config; in an empty word also those
    of `runs/`."""
    folder, slash, _ = current.rpartition("/")
    places = [Path(folder + slash or ".")] + ([] if current else [Path("runs")])
    found = []
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if not path.is_dir() or path.name.startswith("."):
                continue
            is_run = (path / "config.json").exists() or (path / "seed-1" / "config.json").exists()
            name = f"{folder}{slash}{path.name}" if place == places[0] else str(path)
            found.append(name if is_run else f"{name}/")
    return found


def _sections() -> list[str]:
    from cli.settings_source import read_keys

    return sorted({key.partition(".")[0] for key in read_keys()})


def _recipes() -> list[str]:
    return modules_of("data_recipes")


def _encoders() -> list[str]:
    """Those that ship: files with an encoder that has settings, and folders of checkpoints."""
    folder = Path(__file__).parents[1] / "nlpkit" / "encoders"
    found = [path.parent.name for path in folder.glob("*/config.json")]
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "\nclass Encoder" in text and "\n    Config = " in text:
            found.append(path.stem)
    return sorted(found)


SOURCES: dict[str | None, Callable[[], list[str]]] = {
    "task": task_names,
    "section": _sections,
    "recipe": _recipes,
    "encoder": _encoders,
}
