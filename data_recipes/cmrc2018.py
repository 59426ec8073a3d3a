"""CMRC 2018 to `mrc_seq2seq` and `mrc_mlm`: questions to paragraphs of Wikipedia, in the format of
SQuAD.

    in   {"data": [{"title": "雾灯", "paragraphs": [{"context": "《雾灯》是许蓁的小说", "qas": [{"id": "A_0",
          "question": "雾灯的作者是谁？", "answers": [{"text": "许蓁", "answer_start": 5}]}]}]}]}
    out  {"id": "A_0", "question": "雾灯的作者是谁？", "context": "《雾灯》是许蓁的小说", "answers": ["许蓁"]}

A file is one JSON object. An answer is taken by its text: 21 of the 10,142 of the training set
stand beside their offset. They are counted on stderr; a text that is not in its paragraph is an
error. Answers that repeat are given once; a question marked `is_impossible` has none (`[]`), and
one without `answers` has no gold.

Source: https://github.com/ymcui/cmrc2018 (squad-style-data).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, field, name_of, parse_whole, run
from nlpkit.errors import RecordError
from nlpkit.jsonl import read_lines


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The questions of the raw files (none, or `-`, is stdin), in order.

    Raises DataError with the file and the question, or what is above it, at the first one that is
    not in the format.
    """
    moved = questions = 0
    for where, context, raw in (found for path in paths or ["-"] for found in _questions(path)):
        try:
            answers = _answers(context, raw)
            record = {**_id(raw), "question": field(raw, "question", str), "context": context}
        except RecordError as error:
            raise error.at(where) from None
        questions += 1
        moved += any(context[start : start + len(text)] != text for text, start in answers or ())
        yield (
            record
            if answers is None
            else {**record, "answers": list(dict.fromkeys(text for text, _ in answers))}
        )
    if moved:
        sys.stderr.write(
            f"{moved} of {questions} questions have an answer beside its offset; its text is taken\n"
        )


def _questions(path: str) -> Iterator[tuple[str, str, Any]]:
    """(place, context, question) of every question of a file."""
    name = where = name_of(path)
    try:
        for a, article in enumerate(field(parse_whole(read_lines(path), path), "data", list)):
            where = f"{name}: data[{a}]"
            for p, paragraph in enumerate(field(article, "paragraphs", list)):
                where = f"{name}: data[{a}].paragraphs[{p}]"
                context = field(paragraph, "context", str)
                for q, question in enumerate(field(paragraph, "qas", list)):
                    yield f"{where}.qas[{q}]", context, question
    except RecordError as error:
        raise error.at(where) from None


def _id(raw: Any) -> Record:
    return {"id": raw["id"]} if isinstance(raw, dict) and "id" in raw else {}


def _answers(context: str, raw: Any) -> list[tuple[str, int]] | None:
    """The (text, offset) of the answers, None where there is no gold."""
    field(raw, "question", str)
    if raw.get("is_impossible"):
        return []
    if "answers" not in raw:
        return None
    answers = [
        (field(a, "text", str), field(a, "answer_start", int)) for a in field(raw, "answers", list)
    ]
    for text, _ in answers:
        if text not in context:
            raise RecordError(f'answer "{text}" is not in its paragraph')
    return answers


if __name__ == "__main__":
    sys.exit(run(convert))
