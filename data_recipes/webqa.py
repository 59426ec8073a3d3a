"""WebQA and SogouQA to `mrc_seq2seq` and `mrc_mlm`: questions with several passages, of which some
hold the answer.

    in   {"q_key": "Q_1", "question_tokens": ["雾灯", "的", "作者"],
          "evidences": [
          {"evidence_tokens": ["许蓁", "写"], "golden_answers": [["许蓁"]]},
          {"evidence_tokens": ["今天"], "golden_answers": [["no_answer"]]}]}
    out  {"id": "Q_1", "question": "雾灯的作者", "passages": ["许蓁写", "今天"], "answers": ["许蓁"]}

Three formats are told apart by what they hold: Baidu's, an object a line as above; and two that are
one JSON value,

    me_*.json                      {"Q_1": {"question": "…", "evidences": {"…":
                                   {"evidence": "…", "answer": ["…"]}}}}
    WebQA.json and SogouQA.json    [{"id": …, "question": "…", "passages": [
                                   {"passage": "…", "answer": "…"}]}]

The answers are those of all passages, each once; a question of which all passages have none has
none (`[]`). Which passage was annotated with the answer is not kept: wherever the string stands, it
can be learnt. Tokens are joined with a space between two Latin words only.

Source: http://idl.baidu.com/WebQA.html; https://kexue.fm/archives/4338 (me_*.json) and
https://github.com/bojone/dgcnn_for_reading_comprehension (WebQA.json, SogouQA.json).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, field, name_of, parse_whole, run
from data_recipes._raw import join_tokens
from nlpkit.errors import DataError, RecordError, shown
from nlpkit.jsonl import read_lines

NO_ANSWER = "no_answer"


def convert(paths: Sequence[str]) -> Iterator[Record]:
    """The questions of the raw files (none, or `-`, is stdin), in order.

    Raises DataError with the place of the first one that is in none of the formats.
    """
    for where, raw in (found for path in paths or ["-"] for found in _questions(path)):
        try:
            yield _record(raw)
        except RecordError as error:
            raise error.at(where) from None


def _questions(path: str) -> Iterator[tuple[str, Any]]:
    """(place, question) of a file in any of the formats, the question's id in it."""
    lines = read_lines(path)
    first = list(itertools.islice(lines, 1))
    if first and b'"question_tokens"' in first[0].raw:
        yield from ((line.where, line.record_here()) for line in itertools.chain(first, lines))
        return
    whole = parse_whole(itertools.chain(first, lines), path)
    if isinstance(whole, dict):
        for key, raw in whole.items():
            yield f"{name_of(path)}: {key}", {"id": key, **raw} if isinstance(raw, dict) else raw
    elif isinstance(whole, list):
        yield from ((f"{name_of(path)}: [{number}]", raw) for number, raw in enumerate(whole))
    else:
        raise DataError(
            f"{name_of(path)}: expected a list of questions, got {type(whole).__name__}"
        )


def _record(raw: Any) -> Record:
    if isinstance(raw, dict) and "question_tokens" in raw:
        evidences = field(raw, "evidences", list)
        passages = [_join(field(evidence, "evidence_tokens", list)) for evidence in evidences]
        answers = [_join(tokens) for e in evidences for tokens in field(e, "golden_answers", list)]
        question = _join(field(raw, "question_tokens", list))
        name = raw.get("q_key")
    elif isinstance(raw, dict) and "evidences" in raw:
        evidences = list(field(raw, "evidences", dict).values())
        passages = [field(evidence, "evidence", str) for evidence in evidences]
        answers = [answer for evidence in evidences for answer in field(evidence, "answer", list)]
        question = field(raw, "question", str)
        name = raw.get("id")
    else:
        told = field(raw, "passages", list)
        passages = [field(passage, "passage", str) for passage in told]
        answers = [field(passage, "answer", str) for passage in told]
        question = field(raw, "question", str)
        name = raw.get("id")
    accepted = [
        answer for answer in dict.fromkeys(answers) if answer.strip() and answer != NO_ANSWER
    ]
    return {"id": name, "question": question, "passages": passages, "answers": accepted}


def _join(tokens: Any) -> str:
    """Tokens as a text. Raises RecordError where they are no tokens."""
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise RecordError(f"expected a list of tokens, got {shown(tokens)}")
    return join_tokens(tokens)


if __name__ == "__main__":
    sys.exit(run(convert))
