"""`nlpkit completion`: what a shell offers at a TAB, without importing a model.

`nlpkit completion bash` prints a script for the shell to read; the script then asks `nlpkit
completion bash -- WORD...` with the words of the line up to the cursor, the last one unfinished.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.folders import modules_of
from cli.output import write
from cli.tasks import task_names

BASH = """_nlpkit() {
  local IFS=$'\\n'
  COMPREPLY=($(nlpkit completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [[ ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o default -o bashdefault -F _nlpkit nlpkit
"""
ZSH = """#compdef nlpkit
_nlpkit() {
  local -a found
  found=("${(@f)$(nlpkit completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -z ${found[1]} ]]; then
    _files
    return
  fi
  compadd -Q -S '' -- ${(M)found:#*[=/]}
  compadd -Q -- ${found:#*[=/]}
}
compdef _nlpkit nlpkit
"""
FISH = """function __nlpkit
  set -l word (commandline -ct)
  nlpkit completion fish -- (commandline -opc)[2..-1] "$word" 2>/dev/null
end
complete -c nlpkit -a '(__nlpkit)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
NO_VALUE = ("--help", "--version")


def completion(
    context: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.")],
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Print what a shell needs to complete commands, tasks, encoders, settings and runs; for bash
    put it into ~/.bashrc: source <(nlpkit completion bash)."""
    if not words:
        write([SCRIPTS[shell].encode()])
        return
    offer(context.find_root().command, words)


def asked(arguments: list[str]) -> list[str]:
    """The words that a shell's script asks about at a TAB; none where the program was called for
    something else. Typer would take twice as long to find them."""
    if arguments[:1] != ["completion"] or arguments[2:3] != ["--"]:
        return []
    return arguments[3:] if arguments[1] in SCRIPTS else []


def offer(command: Any, words: list[str]) -> None:
    """Writes the `candidates`, one a line."""
    found = candidates(command, words)
    write([f"{one}\n".encode(errors="surrogateescape") for one in found])


def candidates(command: Any, words: list[str]) -> list[str]:
    """What may stand in the place of the last word; empty where the shell's own completion of files
    is as good.

    `command` is the command of the whole program.
    """
    *before, current = words
    place = 0
    while place < len(before) and before[place] in getattr(command, "commands", {}):
        command = command.commands[before[place]]
        place += 1
    given = [word for word in before[place:] if word != "="]  # bash cuts --set=key in three
    option = _option(command, given[-1]) if given else None
    if option is not None and not _is_flag(option):
        found = _values(option, command, given, "" if current == "=" else current)
        return [one for one in found if current == "=" or one.startswith(current)]
    name, equals, value = current.partition("=")
    option = _option(command, name)
    if equals and option is not None:
        found = _values(option, command, given, value)
        return [f"{name}={one}" for one in found if one.startswith(value)]
    if current.startswith("-"):
        names = [one for param in command.params for one in param.opts if one.startswith("--")]
        return [one for one in [*names, "--help"] if one.startswith(current)]
    if getattr(command, "commands", None):
        return [one for one in command.commands if one.startswith(current)]
    argument = _argument(command, given)
    found = _values(argument, command, given, current) if argument is not None else []
    return [one for one in found if one.startswith(current)]


def _option(command: Any, word: str) -> Any:
    """The option of a command that goes by the word; None where there is none."""
    for param in command.params:
        if param.param_type_name == "option" and word in param.opts:
            return param
    return None


def _is_flag(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False)) or bool(set(option.opts) & set(NO_VALUE))


def _positional(command: Any, given: Iterable[str]) -> list[str]:
    """The words that are arguments, not options and their values."""
    found = []
    takes_value = False
    for word in given:
        option = _option(command, word)
        if takes_value:
            takes_value = False
        elif option is not None:
            takes_value = not _is_flag(option)
        elif not word.startswith("--"):
            found.append(word)
    return found


def _argument(command: Any, given: list[str]) -> Any:
    """The argument of a command that comes next; the last one where it takes any number."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    place = len(_positional(command, given))
    if place < len(arguments):
        return arguments[place]
    return arguments[-1] if arguments and arguments[-1].nargs == -1 else None


def _values(param: Any, command: Any, given: list[str], current: str) -> list[str]:
    """The values that a parameter may have, so far as they are known."""
    choices = _choices(param)
    if choices:
        return choices
    if param.name == "set_":
        return _keys(command, given)
    if param.name in ("run", "systems"):
        return _runs(current)
    find = SOURCES.get(param.name)
    return find() if find else []


def _choices(param: Any) -> list[str]:
    """The values of a `Literal`: Typer keeps them in one place or another, by its version."""
    found = getattr(getattr(param, "type", None), "choices", None)
    if found:
        return list(map(str, found))
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return list(typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else []


def _keys(command: Any, given: list[str]) -> list[str]:
    """The `--set` keys: of the task named before, where it is, with those that go with it."""
    from cli.settings import read_settings

    if command.name == "convert":
        return []
    sections = None
    named = [word.replace("-", "_") for word in _positional(command, given)[:1]]
    if command.name == "pretrain":
        sections = {"pretrain", "encoder"}
    elif named and named[0] in task_names():
        sections = {named[0]}
        sections |= {"train", "encoder"} if command.name == "train" else set()
    return sorted({f"{setting.key}=" for setting in read_settings(sections)})


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
    from cli.settings import read_settings

    return sorted({setting.key.partition(".")[0] for setting in read_settings()})


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
