"""Triples as relation extraction reads, compares and checks them: the JSONL of DuIE 1.0, 2.0 and
plain lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError, RecordError, did_you_mean, shown
from nlpkit.formats.finding import Finding
from nlpkit.formats.typed import read_value
from nlpkit.jsonl import read_lines, write_atomic
from nlpkit.text.replacement import Pool, build_pool, draw, replace_all
from nlpkit.text.tokenizer import Encoding, Span, occurrences

Schema = dict[str, list[list[str]]]
"""Predicate -> the [subject type, object type] pairs it may have."""


@dataclass(frozen=True)
class Triple:
    """A subject, a predicate and an object as strings of the text, with their characters where they
    are known."""

    subject: str
    predicate: str
    object: str
    subject_span: Span | None = None
    object_span: Span | None = None
    score: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two triples the same under the strict rule."""
        return self.subject, self.predicate, self.object


@dataclass(frozen=True)
class Prediction:
    """The triples of a text, each once."""

    spo_list: list[Triple]


def parse_triples(value: dict[str, Any]) -> Prediction:
    """The triples of `spo_list`, each once, in the order given. Raises RecordError."""
    triples = value.get("spo_list")
    if not isinstance(triples, list):
        raise RecordError(f"spo_list: expected a list, got {type(triples).__name__}")
    parsed = [_parse(triple, f"spo_list[{index}]") for index, triple in enumerate(triples)]
    return Prediction(best_of(parsed))


def best_of(triples: Iterable[Triple]) -> list[Triple]:
    """Each triple once, with its best score, in the order of first sight."""
    best: dict[tuple[str, str, str], Triple] = {}
    for triple in triples:
        known = best.setdefault(triple.key, triple)
        if (triple.score or 0.0) > (known.score or 0.0):
            best[triple.key] = triple
    return list(best.values())


def _parse(triple: Any, where: str) -> Triple:
    """A triple from DuIE's object form or from a list of three strings."""
    if isinstance(triple, list) and len(triple) == 3:
        triple = dict(zip(("subject", "predicate", "object"), triple, strict=True))
    if not isinstance(triple, dict):
        raise RecordError(
            f"{where}: expected an object or a list of three strings, got {shown(triple)}"
        )
    subject, predicate, object_ = (
        _string(triple, name, where) for name in ("subject", "predicate", "object")
    )
    score = read_value(float | None, triple.get("score"), f"{where}.score")
    subject_span = read_value(Span | None, triple.get("subject_span"), f"{where}.subject_span")
    object_span = read_value(Span | None, triple.get("object_span"), f"{where}.object_span")
    return Triple(subject, predicate, object_, subject_span, object_span, score)


def annotated_predicates(record: dict[str, Any]) -> tuple[str, ...] | None:
    """The relations a line was annotated for (its field `predicates`), None for all. Raises
    RecordError."""
    value = record.get("predicates")
    if value is not None and not (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    ):
        raise RecordError(f"predicates: expected a list of strings, got {shown(value)}")
    return None if value is None else tuple(value)


def _string(triple: dict[str, Any], name: str, where: str) -> str:
    if name not in triple:
        raise RecordError(f'{where}: missing field "{name}"')
    value = triple[name]
    if isinstance(value, dict):  # DuIE 2.0: {"@value": the object, other slots...}
        value = value.get("@value")
    if not isinstance(value, str) or not value:
        raise RecordError(f"{where}: {name}: expected a non-empty string, got {shown(value)}")
    return value


def collect_schema(records: Iterable[tuple[str, dict[str, Any]]], path: str | None) -> Schema:
    """The predicates of a schema file, to which the data must keep, or else those of the data,
    sorted.

    Raises DataError where the data has a predicate, or types of it, that the file has not.
    """
    schema = read_schema(path) if path else {}
    for where, record in records:
        try:
            relations = _relations(record)
            annotated = annotated_predicates(record)
        except RecordError as error:
            raise error.at(where) from None
        for predicate, types in relations:
            if path:
                _check_against(schema, predicate, types, where)
            elif annotated is None or predicate in annotated:
                _add_types(schema, predicate, types)
            # else a stray one, which its line can't teach
    if not schema:
        raise DataError("no line has a triple in spo_list: there is no relation to learn")
    return {predicate: sorted(pairs) for predicate, pairs in sorted(schema.items())}


def _relations(record: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The predicate and the types of every triple of a record, in order. Raises RecordError."""
    if record.get("spo_list") is None:
        return []
    parse_triples(record)
    given = enumerate(record["spo_list"])
    return [(_parse(raw, f"spo_list[{index}]").predicate, _types(raw)) for index, raw in given]


def _add_types(schema: Schema, predicate: str, types: list[str]) -> None:
    known = schema.setdefault(predicate, [])
    if types and types not in known:
        known.append(types)


def _types(value: Any) -> list[str]:
    """[subject type, object type] of a triple or schema line as given, [] where it has not both."""
    given = (
        [value.get(f"{role}_type") for role in ("subject", "object")]
        if isinstance(value, dict)
        else []
    )
    types = [t.get("@value") if isinstance(t, dict) else t for t in given]  # DuIE 2.0
    strings = [t for t in types if isinstance(t, str)]
    return strings if len(strings) == 2 else []


def _check_against(schema: Schema, predicate: str, types: list[str], where: str) -> None:
    if predicate not in schema:
        near = did_you_mean(predicate, schema)
        raise DataError(f'{where}: predicate "{predicate}" is not in the schema{near}')
    if schema[predicate] and types and types not in schema[predicate]:
        allowed = " or ".join("-".join(pair) for pair in schema[predicate])
        clash = f'types of "{predicate}" clash with the schema'
        raise DataError(f"{where}: {clash}: expected {allowed}, got {'-'.join(types)}")


def read_schema(path: str | Path) -> Schema:
    """One relation a line: a bare name, or DuIE's {"predicate", "subject_type", "object_type"}.
    Raises DataError."""
    schema: Schema = {}
    for line in read_lines(path):
        if not line.raw.startswith(b"{"):
            schema.setdefault(line.text(), [])
            continue
        try:
            record = line.record()
            predicate = _string(record, "predicate", "schema")
        except RecordError as error:
            raise error.at(line.where) from None
        _add_types(schema, predicate, _types(record))
    return schema


def write_schema(schema: Schema, path: Path) -> None:
    """A JSON file from predicate to its type pairs."""
    with write_atomic(path) as stream:
        stream.write(json.dumps(schema, ensure_ascii=False, indent=1).encode() + b"\n")


def check_triples(
    triples: Iterable[Triple], windows: list[Encoding], known: dict[str, int]
) -> Iterator[Finding]:
    """What a model cannot see of the triples: no such predicate, a string not in the text, not of
    whole tokens, both strings in no common window; and, losing nothing, strings that occur more
    than once."""
    for triple in triples:
        if known and triple.predicate not in known:
            near = did_you_mean(triple.predicate, known)
            yield Finding("unknown predicate", f'"{triple.predicate}"{near}', triple.key)
        here = True
        for role, string in (("subject", triple.subject), ("object", triple.object)):
            count = len(occurrences(windows[0].text, string))
            whole = any(window.find(string) for window in windows)
            if not whole:
                kind = (
                    "not of whole tokens, or longer than a window" if count else "not in the text"
                )
                yield Finding(kind, f'{role} "{string}"', triple.key)
            elif count > 1:
                yield Finding("occurs more than once", f'{role} "{string}", {count} times')
            here = here and whole
        if here and not any(
            window.find(triple.subject) and window.find(triple.object) for window in windows
        ):
            yield Finding(
                "in no common window", f'"{triple.subject}" and "{triple.object}"', triple.key
            )


def triple_pool(triples: Iterable[Iterable[Triple]]) -> Pool:
    """The strings seen as subject and as object of every predicate."""
    every = chain.from_iterable(triples)
    return build_pool(pair for triple in every for pair in _roles(triple))


def replace_strings(
    text: str, triples: list[Triple], pool: Pool, rate: float, random: Any
) -> tuple[str, list[Triple]]:
    """Another text and its triples: some subjects and objects are others that were seen in the same
    role."""
    strings: dict[str, tuple[str, str]] = {}
    for triple in triples:
        strings |= {string: role for role, string in _roles(triple)}
    chosen = draw(text, strings, pool, rate, random)
    renamed = [
        Triple(chosen.get(t.subject, t.subject), t.predicate, chosen.get(t.object, t.object))
        for t in triples
    ]
    return replace_all(text, chosen), renamed


def _roles(triple: Triple) -> list[tuple[tuple[str, str], str]]:
    return [
        ((triple.predicate, "subject"), triple.subject),
        ((triple.predicate, "object"), triple.object),
    ]
