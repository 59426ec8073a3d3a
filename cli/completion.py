"""`nlpkit completion`: what a shell offers at a TAB.

`nlpkit completion bash` prints a script for the shell to read; the script then asks `nlpkit
completion bash -- WORD...` with the words of the line up to the cursor, the last one unfinished;
`candidates` answers.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

import typer

from cli.candidates import offer
from cli.output import write

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


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.")],
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Print what a shell needs to complete commands, tasks, encoders, settings and runs; for bash
    put it into ~/.bashrc: source <(nlpkit completion bash)."""
    if words:
        offer(words)
    else:
        write([SCRIPTS[shell].encode()])


def described(command: Any) -> dict[str, Any]:
    """A command of Typer's with all below it, as `candidates` takes it."""
    options = [param for param in command.params if param.param_type_name == "option"]
    found: dict[str, Any] = {"options": [_described(option) for option in options]}
    if getattr(command, "commands", None):
        below = {name: described(one) for name, one in command.commands.items()}
        return {"commands": below, **found}
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    return {**found, "arguments": [_described(argument) for argument in arguments]}


def _described(param: Any) -> dict[str, Any]:
    takes: int | str = 1
    if getattr(param, "is_flag", False):
        takes = 0
    elif param.nargs == -1:
        takes = "any"
    is_option = param.param_type_name == "option"
    names = [name for name in param.opts if is_option]
    return {"name": param.name, "names": names, "takes": takes, "choices": _choices(param)}


def _choices(param: Any) -> list[str]:
    """The values of a `Literal`: Typer keeps them in one place or another, by its version."""
    found = getattr(getattr(param, "type", None), "choices", None)
    if found:
        return list(map(str, found))
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return list(typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else []
