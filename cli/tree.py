"""`nlpkit encoder tree`: lines of text in, their trees out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import write, write_json
from nlpkit.errors import SettingsError

if TYPE_CHECKING:
    from nlpkit.inference.trees import TreeReader

Option = typer.Option


def tree(
    source: Annotated[
        str, typer.Argument(help="A run or an encoder whose neurons are ordered: on_lstm.")
    ],
    file: Annotated[
        str, typer.Argument(help="Text, a sentence a line, or JSONL with text; - is stdin.")
    ] = "-",
    layer: Annotated[
        int | None, Option(help="Whose gates tell the trees, from 1; default: the middle one.")
    ] = None,
    picture: Annotated[bool, Option("--picture", help="Indented text instead of JSON.")] = False,
    agreement: Annotated[
        bool, Option("--agreement", help="Only the share of words that are parts of the trees.")
    ] = False,
) -> None:
    """The binary tree of each sentence, from the master forget gates of an ordered-neurons LSTM.

    It is split before the token at which most is forgotten, and both sides again. --agreement
    compares with jieba's words, and tells the same of trees that know nothing.
    """
    from nlpkit.inference import trees
    from nlpkit.jsonl import check_readable, read_lines

    if picture and agreement:
        raise SettingsError("--picture and --agreement: expected one of them")
    check_readable(file)
    reader = trees.open_trees(source, layer)
    if agreement:
        write_json({"layer": reader.layer, **trees.agreement(reader.trees(read_lines(file)))})
    else:
        write(_outputs(reader, file, picture))


def _outputs(reader: TreeReader, file: str, picture: bool) -> Iterator[bytes]:
    from nlpkit.encoders import trees
    from nlpkit.jsonl import read_lines

    for found in reader.trees(read_lines(file)):
        if picture:
            yield trees.picture(found.tokens, found.nodes).encode() + b"\n\n"
        else:
            yield found.output(trees.brackets(found.tokens, found.nodes)) + b"\n"
