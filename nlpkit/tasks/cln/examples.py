"""Examples of conditional generation: what a record says, as tokens to learn or to go on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlpkit.errors import RecordError, shown
from nlpkit.tasks.cln.conditions import Condition
from nlpkit.tasks.cln.metrics import Gold
from nlpkit.tasks.cln.poem_forms import begins
from nlpkit.text.tokenizer import Encoding, Tokenizer

SPECIAL = 2  # [CLS] and [SEP], which stand before a text
UNKNOWN = "[UNK]"
WHITE_SPACE = {"\n": "a line break", " ": "a space", "\t": "a tab", "\u3000": "a wide space"}
_ENDS = "。！？!?…~～"
_PAUSES = "；;，,、："


@dataclass(frozen=True)
class Example:
    """A condition, how the text begins and what form it is to have, and the tokens to learn."""

    condition: Condition
    prefix: str
    prefix_ids: list[int]
    form: str
    gold: Gold | None
    target: list[int]
    between: list[list[int]]
    """Tokens of the two texts between which the latent vectors lie, if any."""
    is_cut: bool
    number: int = 0
    """Of the line, counted from 1; 0 for a record of no file."""
    noise: Any = None
    """What its latent vector is drawn with, as an array; None where it is not drawn yet."""

    def __len__(self) -> int:
        return 2 + max(len(self.prefix_ids), len(self.target))


def read_string(record: dict[str, Any], name: str) -> str:
    """A field that may be left out, "" then. Raises RecordError for another type."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError(f'field "{name}": expected a string, got {type(value).__name__}')
    return value or ""


def read_between(record: dict[str, Any], latent: int | None) -> list[str]:
    """The two texts of the field `between`, or none. Raises RecordError, also where there are no
    latent vectors."""
    texts = record.get("between")
    if texts is None:
        return []
    if latent is None:
        raise RecordError(
            'field "between": the run has no latent vectors', hint="train with --set cln.latent=32"
        )
    if (
        not isinstance(texts, list)
        or len(texts) != 2
        or not all(isinstance(t, str) and t.strip() for t in texts)
    ):
        raise RecordError(f'field "between": expected two texts, got {shown(texts)}')
    return texts


def begin(prefix: str, form: str, tokenizer: Tokenizer, most: int) -> list[int]:
    """The tokens of a prefix.

    Raises RecordError where it leaves no room for `most` tokens more, or is not the beginning of
    the form ("" for none), or where the rest of the form is longer than that.
    """
    prefix_ids = list(tokenizer.token_ids(prefix))
    if tokenizer.max_length is not None:
        room = tokenizer.max_length - SPECIAL - most
        if len(prefix_ids) > room:
            raise RecordError(
                f'field "prefix": expected at most {room} tokens, got {len(prefix_ids)}',
                hint="a smaller cln.max_length leaves more",
            )
    if form and (len(prefix_ids) != len(prefix) or not begins(prefix, form)):
        raise RecordError(f'field "prefix": expected the beginning of {form}, got "{prefix[:40]}"')
    if len(form) - len(prefix) > most:
        raise RecordError(
            f"the form of the label has {len(form)} characters, cln.max_length is {most}"
        )
    return prefix_ids


def cut_text(encoding: Encoding, most: int) -> list[int]:
    """The tokens of a text, up to the last end of a sentence (else pause) where there are more than
    `most`."""
    token_ids = encoding.token_ids_T[1:-1].tolist()
    if len(token_ids) <= most:
        return token_ids
    places = encoding.starts_T[1 : most + 1].tolist()
    for marks in (_ENDS, _PAUSES):
        for place in range(most - 1, most // 4, -1):
            if encoding.text[places[place]] in marks:
                return token_ids[: place + 1]
    return token_ids[:most]


def difference(text: str, written: str) -> str:
    """Where two texts begin to differ, in words."""
    shared = zip(text, written, strict=False)
    place = next((n for n, (a, b) in enumerate(shared) if a != b), min(len(text), len(written)))
    wanted = text[place : place + 1]
    got = UNKNOWN if written.startswith(UNKNOWN, place) else written[place : place + 1]
    if wanted.isspace() and got.isspace():
        name = WHITE_SPACE.get(wanted, repr(wanted))
        other = WHITE_SPACE.get(got, repr(got))
        return f"{name} at {place} will be written as {other}: white space is one token"
    return f"{wanted!r} at {place} is {got!r} to the tokenizer, and will be written so"
