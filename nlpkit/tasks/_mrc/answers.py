r"""Answers to questions: as records give them, as predictions tell them, and how the two are
compared.

    {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说"], "answers": ["沈从文"]}

`answers` are all right, the first is the one to learn where a passage has several; `[]` says that
there is none. Answers are scored in two ways. The rules of CMRC 2018 (`cmrc_exact_match`,
`cmrc_f1`, see `cmrc_score`) mind the order of characters; `cmrc_f1` picks the best checkpoint.
Those of WebQA and SogouQA do not: strings are compared without punctuation and space, in half width
and lower case (`normalise`), and characters with their counts are what two answers have in common.

    bag_f1 = 2 |common| / (|gold| + |predicted|)      the best over the accepted answers
    final = (exact_match + bag_f1) / 2

Source: https://kexue.fm/archives/7115 and the evaluation tool of
github.com/bojone/dgcnn_for_reading_comprehension.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nlpkit.errors import RecordError, shown
from nlpkit.formats.typed import read_dataclass
from nlpkit.tasks._mrc.cmrc_score import cmrc_exact_match, cmrc_f1
from nlpkit.text.tokenizer import Span

_COUNTING = re.compile(r"[^\W_]|(?<=\d)\.(?=\d)|(?<=\d)[%‰]")
"""What is left of an answer: letters and digits; 3.5 is not 35, and 5% not 5."""


METRICS = (
    *("cmrc_exact_match", "cmrc_f1", "exact_match", "bag_f1", "final"),
    "no_answer_accuracy",
)


@dataclass(frozen=True)
class Answer:
    """An answer and where it first stands: the number of the passage and the span in it, in
    characters."""

    answer: str
    passage: int | None = None
    span: Span | None = None
    score: float | None = None


@dataclass(frozen=True)
class Prediction(Answer):
    """The best answer, an empty string where there is none; as gold, `alternatives` are right
    too."""

    alternatives: list[Answer] = field(default_factory=list)

    @property
    def accepted(self) -> list[str]:
        """Of gold, every right answer."""
        return [self.answer, *(other.answer for other in self.alternatives)]


class _Folding(dict[int, str]):
    """A character in half width and lower case, where that is one character, for
    `str.translate`."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKC", chr(code)).lower()
        self[code] = plain if len(plain) == 1 else chr(code)
        return self[code]


_FOLDING = _Folding()


def halfwidth_lower(text: str) -> str:
    """The text in half width and lower case, every character in its place."""
    return text.translate(_FOLDING)


def normalise(answer: str) -> str:
    """What of an answer is compared; of one that is nothing but punctuation, the punctuation."""
    folded = halfwidth_lower(answer)
    return "".join(_COUNTING.findall(folded)) or folded.strip()


def exact_match(gold: Prediction, answer: str) -> bool:
    """Whether an answer is one of the accepted."""
    return normalise(answer) in map(normalise, gold.accepted)


def bag_f1(gold: Prediction, answer: str) -> float:
    """The best F1 of characters in any order over the accepted answers; of two that are none, 1."""
    return max(_bag_f1(normalise(accepted), normalise(answer)) for accepted in gold.accepted)


def _bag_f1(gold: str, answer: str) -> float:
    if not gold or not answer:
        return float(gold == answer)
    return 2 * (Counter(gold) & Counter(answer)).total() / (len(gold) + len(answer))


def score_answers(pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
    """The means over all questions of both ways to score, and how often it is told rightly whether
    there is an answer."""
    totals = dict.fromkeys(METRICS, 0.0)
    questions = 0
    for gold, prediction in pairs:
        answer = prediction.answer
        exact = exact_match(gold, answer)
        overlap = bag_f1(gold, answer)
        questions += 1
        totals["cmrc_exact_match"] += cmrc_exact_match(gold.accepted, answer)
        totals["cmrc_f1"] += cmrc_f1(gold.accepted, answer)
        totals["exact_match"] += exact
        totals["bag_f1"] += overlap
        totals["final"] += (exact + overlap) / 2
        totals["no_answer_accuracy"] += bool(gold.answer) == bool(answer)
    shares = {name: round(totals[name] / max(1, questions), 6) for name in METRICS}
    return {**shares, "match": "cmrc_: script of CMRC 2018; others: normalised, in any order"}


def length_group(answer: str) -> str:
    """The group that `eval --by length` counts an answer under: its characters."""
    length = len(normalise(answer))
    bounds = ((0, "none"), (4, "1-4"), (8, "5-8"), (16, "9-16"), (32, "17-32"))
    return next((name for most, name in bounds if length <= most), "33 and more")


def read_answers(record: dict[str, Any]) -> Prediction | None:
    """The gold of a record, None where it does not say. Raises RecordError."""
    answers = record.get("answers")
    if answers is None:
        return None
    if not isinstance(answers, list) or not all(
        isinstance(answer, str) and answer.strip() for answer in answers
    ):
        raise RecordError(
            f'field "answers": expected a list of strings that are not blank, got {shown(answers)}',
            hint="[] says that there is no answer",
        )
    first, *others = dict.fromkeys(answers) or [""]
    return Prediction(first, alternatives=[Answer(other) for other in others])


def parse_prediction(value: dict[str, Any]) -> Prediction:
    """A prediction as found in a file. Raises RecordError."""
    return read_dataclass(Prediction, value)
