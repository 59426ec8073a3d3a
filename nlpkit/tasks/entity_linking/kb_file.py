"""Knowledge bases as they come: CCKS2019 and CCKS2020 (JSON lines), or plain columns; read as a
stream.

    {"alias": ["雾灯"], "subject_id": "7", "subject": "雾灯", "type": ["Work"],
     "data": [{"predicate": "作者", "object": "许蓁"}]}
    7 <TAB> 雾灯 <TAB> 夜雾里的灯|雾中灯 <TAB> 许蓁的小说

The columns are id and name; then, if wanted, aliases and a description.

Which of the two a file is its first character says. A name is an alias of itself.

Source: https://www.biendata.xyz/competition/ccks_2019_el/ and /ccks_2020_el/ (`type` a list, or a
string with bars).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError, shown
from nlpkit.json_value import decoded
from nlpkit.jsonl import Line, open_binary, read_lines
from nlpkit.text.folding import casefold

SHORTENED = (
    64,
    32,
    16,
    8,
)  # characters that the objects are cut to in turn, until a description fits
MOST_CHARACTERS = 4096  # of a name: no text mentions a longer one
SHOWN = 20  # characters of a name that is refused
PLAIN_TYPES = {"Thing", "Other", ""}  # say nothing


@dataclass(frozen=True)
class KbEntity:
    """An entity: the names it goes by, and what tells it from others of that name, in one line."""

    id: str
    name: str
    aliases: tuple[str, ...]
    description: str


def read_kb(path: str | Path, longest: int) -> Iterator[tuple[str, KbEntity]]:
    """(place, entity) of every line, descriptions of at most `longest` characters. Raises DataError
    with the place."""
    for line in read_lines(path):
        try:
            yield (
                line.where,
                parse_entity(line.record(), longest)
                if line.raw[:1] == b"{"
                else _columns(line, longest),
            )
        except RecordError as error:
            raise error.at(line.where) from None


def file_hash(path: str | Path) -> str:
    """sha256 of the file's content, unpacked. Raises DataError where it cannot be read."""
    digest = hashlib.sha256()
    with open_binary(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_entity(record: dict[str, Any], longest: int) -> KbEntity:
    """An entity of a JSON line. Raises RecordError that names the field."""
    id_ = record.get("subject_id")
    if not isinstance(id_, (str, int)) or isinstance(id_, bool) or str(id_).strip() == "":
        raise RecordError(f'field "subject_id": expected an id, got {shown(id_)}')
    name = record.get("subject")
    aliases = record.get("alias", [])
    if not isinstance(name, str):
        raise RecordError(f'field "subject": expected a string, got {shown(name)}')
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise RecordError(f'field "alias": expected a list of strings, got {shown(aliases)}')
    types = record.get("type") or []
    types = types.split("|") if isinstance(types, str) else types
    facts = record.get("data") or []
    if not isinstance(facts, list) or not all(isinstance(fact, dict) for fact in facts):
        raise RecordError('field "data": expected a list of objects with "predicate" and "object"')
    told = [(str(fact.get("predicate", "")), str(fact.get("object", ""))) for fact in facts]
    return _entity(str(id_), name, aliases, describe([str(t) for t in types], told, longest))


def _columns(line: Line, longest: int) -> KbEntity:
    columns = decoded(line.raw).split("\t")
    if not 2 <= len(columns) <= 4 or not columns[0]:
        raise RecordError(
            f"expected id, name, aliases and description by tabs, got {len(columns)} columns"
        )
    id_, name, aliases, description = (*columns, "", "")[:4]
    return _entity(
        id_, name, aliases.split("|") if aliases else [], " ".join(description.split())[:longest]
    )


def _entity(id_: str, name: str, aliases: Iterable[str], description: str) -> KbEntity:
    distinct = tuple(dict.fromkeys([name, *aliases]))
    for alias in distinct:
        if len(alias) > MOST_CHARACTERS:
            raise RecordError(
                f'entity "{id_[:SHOWN]}": the name "{alias[:SHOWN]}..." is too long: '
                f"expected at most {MOST_CHARACTERS} characters, got {len(alias)}"
            )
        if not casefold(alias).text:
            raise RecordError(
                f'entity "{id_}": an alias is empty', hint="leave it out, or give the entity a name"
            )
    if "\n" in id_ + name:
        raise RecordError(f'entity "{id_}": expected an id and a name of one line')
    return KbEntity(id_, name, distinct, description)


def describe(types: list[str], facts: Iterable[tuple[str, str]], longest: int) -> str:
    """Types, and what each predicate says, first objects first; objects are cut where that makes
    all of it fit."""
    objects: dict[str, str] = {}
    for predicate, object_ in facts:
        objects.setdefault(" ".join(predicate.split()), " ".join(object_.split()))
    words = [kind for kind in types if kind not in PLAIN_TYPES]
    for most in SHORTENED:
        told = "；".join([*words, *(f"{p}：{o[:most]}" for p, o in objects.items())])
        if len(told) <= longest:
            break
    return told[:longest]


def repeated(where: str, id_: str, first: str) -> DataError:
    """The error of an id that two entities have."""
    return DataError(
        f'{where}: entity "{id_}" is there already, at {first}', hint="an id stands for one entity"
    )
