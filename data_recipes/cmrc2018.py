"""CMRC 2018 to `mrc_seq2seq` and `mrc_mlm`: questions to paragraphs of Wikipedia, in the format of
SQuAD.

    in   {"data": [{"title": "雾灯", "paragraphs": [{"context": "《雾灯》是许蓁的小说", "qas": [{"id": "A_0",
          "question": "雾灯的作者是谁？", "answers": [{"text": "许蓁", "answer_start": 5}]}]}]}]}
    out  {"id": "A_0", "question": "雾灯的作者是谁？", "context": "《雾灯》是许蓁的小说", "answers": ["许蓁"]}

The list that CMRC 2018 was first published as is read too, an item a paragraph:

    in   [{"context_id": "A", "context_text": "《雾灯》是许蓁的小说", "qas": [{"query_id": "A_0",
          "query_text": "雾灯的作者是谁？", "answers": ["许蓁"]}]}]

An answer is taken by its text: 21 of the 10,142 of the training set stand beside their offset. They
are counted; a text that is not in its paragraph is an error. Answers that repeat are given once. A
question has none (`[]`) where `is_impossible` says so, as a flag or as the string "true", or where
all its answers are empty. One without `answers` has no gold. Questions that are answered by YES or
NO, at offset -1, are left out and counted: these are no pieces of a paragraph.

Source: https://github.com/ymcui/cmrc2018 (squad-style-data; data, the list).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, counting, field, name_of, objects, parse_whole, run
from data_recipes._signs import hint_for, recipe_of
from nlpkit.errors import RecordError, shown
from nlpkit.jsonl import read_lines

FLAGS = {"true": True, "false": False, "1": True, "0": False}
NOWHERE = -1
"""The offset of an answer that is no piece of its paragraph."""

Question = tuple[str, str, Any]
"""The place of a question, its paragraph and the question in the form of SQuAD."""


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The questions of the raw files (none, or `-`, is stdin), in order.

    Raises DataError with the file and the question, or what is above it, at the first one that is
    not in the format.
    """
    with counting() as counts:
        for path in paths or ["-"]:
            for where, context, raw in _questions(path):
                try:
                    record = _record(context, raw, counts)
                except RecordError as error:
                    raise error.at(where) from None
                if record is not None:
                    yield record


def _questions(path: str) -> Iterator[Question]:
    """The questions of a file."""
    whole = parse_whole(read_lines(path), path)
    try:
        is_list = isinstance(whole, list) and bool(whole) and isinstance(whole[0], dict)
        if is_list and "context_text" in whole[0]:
            yield from _of_the_list(whole, name_of(path))
        else:
            yield from _of_articles(whole, name_of(path))
    except RecordError as error:
        first = whole[0] if isinstance(whole, list) and whole else whole
        hint = error.hint or hint_for(recipe_of(first), "cmrc2018")
        raise RecordError(error.message, hint).at(name_of(path)) from None


def _of_articles(whole: Any, name: str) -> Iterator[Question]:
    for a, article in enumerate(field(whole, "data", list)):
        for p, paragraph in enumerate(_inside(article, "paragraphs", f"data[{a}]")):
            place = f"data[{a}].paragraphs[{p}]"
            questions = _inside(paragraph, "qas", place)
            context = _inside(paragraph, "context", place, str)
            for q, question in enumerate(questions):
                yield f"{name}: {place}.qas[{q}]", context, question


def _of_the_list(whole: list[Any], name: str) -> Iterator[Question]:
    for p, paragraph in enumerate(whole):
        context = _inside(paragraph, "context_text", f"[{p}]", str)
        for q, raw in enumerate(_inside(paragraph, "qas", f"[{p}]")):
            place = f"[{p}].qas[{q}]"
            question: Record = {"question": _inside(raw, "query_text", place, str)}
            if "query_id" in raw:
                question["id"] = raw["query_id"]
            if "answers" in raw:
                texts = _inside(raw, "answers", place)
                question["answers"] = [{"text": text} for text in texts]
            yield f"{name}: {place}", context, question


def _inside(holder: Any, name: str, place: str, kind: type = list) -> Any:
    """`field`, with the place of the holder in the error."""
    try:
        return field(holder, name, kind)
    except RecordError as error:
        raise RecordError(f"{place}: {error.message}") from None


def _record(context: str, raw: Any, counts: Counter[str]) -> Record | None:
    """A question with its answers, None where it is left out."""
    question = field(raw, "question", str)
    record: Record = {"id": raw["id"]} if "id" in raw else {}
    record |= {"question": question, "context": context}
    if _is_impossible(raw):
        return {**record, "answers": []}
    if "answers" not in raw:
        return record
    told = [
        (field(answer, "text", str), answer.get("answer_start"))
        for answer in objects(raw, "answers")
    ]
    given = [(text, start) for text, start in told if text.strip()]
    if any(start == NOWHERE and text.upper() in ("YES", "NO") for text, start in given):
        counts["questions answered by YES or NO: left out"] += 1
        return None
    for text, _ in given:
        if text not in context:
            raise RecordError(f'answer "{text:.60}" is not in its paragraph')
    if any(_is_beside(context, text, start) for text, start in given):
        counts["questions with an answer beside its offset: its text is taken"] += 1
    return {**record, "answers": list(dict.fromkeys(text for text, _ in given))}


def _is_impossible(raw: Record) -> bool:
    """The flag of a question without an answer, also as a string."""
    value = raw.get("is_impossible", False)
    flag = FLAGS.get(str(value).lower())
    if flag is None:
        raise RecordError(f'field "is_impossible": expected true or false, got {shown(value)}')
    return flag


def _is_beside(context: str, text: str, start: Any) -> bool:
    """Whether an answer does not stand at its offset. Raises RecordError where that is none."""
    if start is None:
        return False
    if type(start) is not int:
        raise RecordError(f'field "answer_start": expected int, got {shown(start)}')
    return context[max(0, start) :][: len(text)] != text


if __name__ == "__main__":
    sys.exit(run(convert))
