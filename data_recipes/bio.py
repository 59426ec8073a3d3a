r"""Files of tagged tokens (BIO, BIOES, BMES) to `ner`: a token a line, a blank line between texts.

    in   许 B-人物           out  {"text": "许蓁到云泽", "entities": [{"start": 0, "end": 2, "label": "人物"},
         蓁 I-人物                 {"start": 3, "end": 5, "label": "地点"}]}
         到 O
         云 B-地点
         泽 I-地点

The first column is the token, the last its tag; columns between them (CoNLL 2003) are left out. A
tag is O, or a letter, `-` or `_`, and a label: B and S begin an entity, I and M and E go on with
it. An entity that goes on where none of its label began begins there, as in IOB1; such are counted.
A line with a tag alone is a token that was a space. Tokens are joined with nothing between them;
in a text with Latin words of several letters a space parts two Latin words.

Source: the files of MSRA, Weibo NER, Resume NER, CLUENER in BIO; Ramshaw and Marcus 1995,
https://aclanthology.org/W95-0107 (tags).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from data_recipes import Record, counting, run
from data_recipes._raw import is_latin
from data_recipes._signs import hint_for, recipe_of_line
from nlpkit.errors import DataError, shown
from nlpkit.jsonl import Line, read_lines

BEGIN = "BSU"
"""Tags that begin an entity."""
DOCUMENT = "-DOCSTART-"

_TAG = re.compile(r"([BSUIMEL])[-_](.+)")

Token = tuple[str, str]  # the token and its tag


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The texts of the raw files (none, or `-`, is stdin) as `ner` records, in order.

    Raises DataError with `file:line` at the first line that has no tag.
    """
    with counting() as counts:
        for path in paths or ["-"]:
            for tokens in _texts(read_lines(path), counts):
                yield _record(tokens, counts)


def _texts(lines: Iterator[Line], counts: Counter[str]) -> Iterator[list[Token]]:
    """The tokens of every text. `read_lines` leaves blank lines out: their numbers are missing."""
    tokens: list[Token] = []
    last = 0
    for line in lines:
        if line.number > last + 1 and tokens:
            yield tokens
            tokens = []
        last = line.number
        token = _token(line, counts)
        if token is not None:
            tokens.append(token)
    if tokens:
        yield tokens


def _token(line: Line, counts: Counter[str]) -> Token | None:
    """The token of a line and its tag, None for the line that begins a document."""
    columns = line.text().split()
    if columns[0] == DOCUMENT:
        counts["lines that begin a document: left out"] += 1
        return None
    tag = columns[-1]
    if tag != "O" and not _TAG.fullmatch(tag):
        message = f"{line.where}: expected a token and a tag such as O or B-PER, got {shown(tag)}"
        raise DataError(message, hint_for(recipe_of_line(line.text())))
    if len(columns) == 1:
        counts["lines with a tag alone: the token is a space"] += 1
        return " ", tag
    return columns[0], tag


def _record(tokens: Sequence[Token], counts: Counter[str]) -> Record:
    """The text of some tokens with its entities."""
    has_words = any(len(token) > 1 and is_latin(token[0]) for token, _ in tokens)
    text = ""
    entities: list[Record] = []
    label = ""  # of the entity that the next token may go on with
    for token, tag in tokens:
        if has_words and is_latin(text[-1:]) and is_latin(token[0]):
            text += " "
        start = len(text)
        text += token
        letter = tag[0]
        kind = tag[2:]
        if letter == "O":
            label = ""
            continue
        if letter in BEGIN or kind != label:
            if letter not in BEGIN:
                counts["entities that no tag begins: they begin where they go on"] += 1
            entities.append({"start": start, "end": len(text), "label": kind})
        entities[-1]["end"] = len(text)
        label = "" if letter in "SUEL" else kind
    return {"text": text, "entities": entities}


if __name__ == "__main__":
    sys.exit(run(convert))
