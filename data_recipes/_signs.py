"""Which recipe reads a raw record: told from its fields, so that a file given to another recipe
gets an error that names the right one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nlpkit.errors import RecordError
from nlpkit.json_value import parse_json

Record = dict[str, Any]


def _first(record: Record, name: str) -> Any:
    """The first element of a list in the record, None where there is none."""
    values = record.get(name)
    return values[0] if isinstance(values, list) and values else None


def _has_part(record: Record, name: str, key: str) -> bool:
    """Whether the objects of a list in the record have a field."""
    first = _first(record, name)
    return isinstance(first, dict) and key in first


def _is_label_studio(record: Record) -> bool:
    is_task = isinstance(record.get("data"), dict)
    return (is_task and ("annotations" in record or "completions" in record)) or _has_part(
        record, "label", "labels"
    )


def _is_doccano(record: Record) -> bool:
    given = record.get("label", record.get("labels"))
    return isinstance(given, list) or _has_part(record, "entities", "start_offset")


SIGNS: dict[str, Callable[[Record], bool]] = {
    "duie": lambda record: bool({"spo_list", "triple_list", "relation_list"} & record.keys()),
    "news_sro": lambda record: "sro_list" in record,
    "cluener": lambda record: isinstance(record.get("label"), dict),
    "ccks_el": lambda record: "mention_data" in record,
    "cmeee": lambda record: _has_part(record, "entities", "start_idx"),
    "label_studio": _is_label_studio,
    "doccano": _is_doccano,
    "ape210k": lambda record: "original_text" in record,
    "webqa": lambda record: "question_tokens" in record,
    "cmrc2018": lambda record: _has_part(record, "data", "paragraphs") or "context_text" in record,
    "afqmc": lambda record: {"sentence1", "sentence2"} <= record.keys(),
    "kgclue": lambda record: "|||" in str(record.get("answer"))[:1000],
}
"""Recipe -> whether a raw record is of its kind; the first that says so counts."""

TAGGED = ("B-", "I-", "M-", "E-", "S-", "B_", "I_")


def recipe_of(value: Any) -> str | None:
    """The recipe that reads a raw JSON value, None where no recipe knows it."""
    if not isinstance(value, dict):
        return None
    return next((recipe for recipe, is_known in SIGNS.items() if is_known(value)), None)


def recipe_of_line(text: str) -> str | None:
    """The recipe that reads a file with this line, JSON or not; None where no recipe knows it."""
    if text.startswith(("{", "[")):
        return _recipe_of_json(text)
    if text.startswith(("<question id=", "<triple id=")):
        return "nlpcc_kbqa"
    if text.count("|||") >= 2:
        return "nlpcc_kb"
    columns = text.split()
    is_tagged = len(columns) > 1 and (columns[-1] == "O" or columns[-1].startswith(TAGGED))
    return "bio" if is_tagged else None


def _recipe_of_json(text: str) -> str | None:
    try:
        value = parse_json(text.encode())
    except RecordError:
        return None
    return recipe_of(value[0] if isinstance(value, list) and value else value)


def hint_for(recipe: str | None, own: str | None = None) -> str | None:
    """The next step where a raw file is of another recipe than `own`; None where it is not."""
    if recipe is None or recipe == own:
        return None
    return f"it looks like a file for another recipe: nlpkit data convert {recipe}"


def has_gold(raw: Record, name: str) -> bool:
    """Whether a line has its gold field; a test line has none. Raises RecordError where it has
    another data set's."""
    if name in raw:
        return True
    other = recipe_of(raw)
    if other is not None and not _is_test_line(raw, other):
        raise RecordError(f'missing field "{name}"', hint=hint_for(other))
    return False


def _is_test_line(raw: Record, recipe: str) -> bool:
    """Whether a line is known by its text alone."""
    return recipe == "ape210k" and "equation" not in raw
