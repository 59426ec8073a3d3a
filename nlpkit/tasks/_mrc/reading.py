r"""Reading comprehension: what its tasks do alike, which is all but the model, its batches and its
decoding.

    in   {"question": "长河的作者是谁？", "passages": ["《长河》是沈从文的小说", ...], "answers": ["沈从文"]}
         `context` in the place of `passages` is a single passage; `answers` is for training and
         evaluation
    out  {..., "prediction": {"answer": "沈从文", "passage": 0, "span": [5, 8], "score": 0.43,
         "alternatives": []}}

A passage is read in overlapping windows, and the windows of a question are decoded together: each
is a source of its own, whatever passage it belongs to, and `predict --long` has nothing to do. The
overlap is at least the longest answer, so that an answer is whole in some window. What a window is
to answer are the accepted answers that it holds, cut to the longest, or nothing. Training meets one
window of a question at a time, drawn anew in every epoch (`drawing`). An answer is a string: where
it stands several times, every place is as right. All unknown characters are one token: where a
model tells its answer by tokens, one whose tokens are other text elsewhere in the windows is not
given, since the model cannot have meant it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from nlpkit.errors import RecordError, SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.tasks._mrc.answers import (
    Prediction,
    exact_match,
    halfwidth_lower,
    length_group,
    normalise,
    parse_prediction,
    read_answers,
    score_answers,
)
from nlpkit.tasks._mrc.cmrc_score import cmrc_exact_match
from nlpkit.tasks._mrc.drawing import drawer
from nlpkit.tasks._mrc.settings import LONG, LONG_SHARE, SHORT, ReadingSettings
from nlpkit.tasks._mrc.windows import Example, Place, Window, is_told_apart, windows_of
from nlpkit.text.tokenizer import Encoding, Span, Tokenizer, occurrences

SPECIAL = 5  # at most: [CLS], three [SEP], and the end of the answer
UNKNOWN = "of unknown characters, like other text of the passage"


class Reading:
    """The methods of all tasks; their `config` is a `ReadingSettings`.

    Raises SettingsError where the encoder takes fewer tokens than the settings ask for.
    """

    monitor = "cmrc_f1"
    group = "length"
    points: ClassVar[bool] = False
    """Whether the answer is pointed at; else it is told by its tokens, which stand in the row."""

    @classmethod
    def needs_head(cls, config: Any) -> bool:
        """Whether answers are written, or read off masks."""
        return not cls.points

    @classmethod
    def prepare(
        cls, config: ReadingSettings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> ReadingSettings:
        """Looks whether the data has questions without an answer, and how long the answers are,
        where the settings do not say; what a new run has is on."""
        if config.match_features is None:
            config = replace(config, match_features=True)
        if config.no_answer is not None and config.max_answer is not None:
            return config
        lengths: list[int] = []
        unanswered = 0
        for where, record in records:
            try:
                gold = read_answers(record)
            except RecordError as error:
                raise error.at(where) from None
            if gold is not None and gold.answer:
                lengths.append(len(gold.answer))
            elif gold is not None:
                unanswered += 1
        are_long = sum(length > SHORT for length in lengths) > LONG_SHARE * len(lengths)
        widest = min(config.max_passage, config.train_passage)
        longest = min(LONG, widest // 2) if are_long else SHORT
        no_answer = unanswered > 0 if config.no_answer is None else config.no_answer
        return replace(config, no_answer=no_answer, max_answer=config.max_answer or longest)

    def __init__(self, config: Any, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.max_answer = config.max_answer or SHORT
        self.beside = SPECIAL + (0 if self.points else self.max_answer)
        needed = config.max_question + self.beside + 2 * self.max_answer
        if tokenizer.max_length and tokenizer.max_length < needed:
            message = (
                f"the encoder takes {tokenizer.max_length} tokens, the settings ask for {needed}"
            )
            raise SettingsError(message, hint="set a smaller max_question or max_answer")

    def read(self, record: dict[str, Any]) -> Example:
        """`question`, `passages` or `context`, and where there is gold `answers`.

        Raises RecordError for a field of another form, or a question over `max_question` tokens.
        """
        question = self.tokenizer.encode(_question(record))
        length = len(question) - 2
        if length > self.config.max_question:
            limit = f"expected at most {self.config.max_question} tokens, got {length}"
            raise RecordError(
                f'field "question": {limit}', hint="the setting max_question is the limit"
            )
        gold = read_answers(record)
        passages = [self.tokenizer.encode(text) for text in _passages(record) or [""]]
        places = []
        for passage in passages:
            found = self._places(passage, gold)
            places.append(sorted(found, key=lambda place: place.is_cut))
        size = self._window_size(length)
        windows = windows_of(passages, places, size, self.max_answer)
        lost = self._lost(gold, passages, places)
        beside = self.beside + length
        return Example(question, passages, places, windows, gold, beside, size, lost)

    def _window_size(self, question_length: int) -> int:
        """Most tokens of a window beside a question."""
        size = self.config.max_passage
        if self.tokenizer.max_length:
            size = min(size, self.tokenizer.max_length - self.beside - question_length)
        return size

    def _places(self, passage: Encoding, gold: Prediction | None) -> Iterator[Place]:
        """Where the accepted answers stand in a passage, cut to the longest."""
        text = halfwidth_lower(passage.text)
        for answer in gold.accepted if gold else ():
            for characters in occurrences(text, halfwidth_lower(answer.strip())):
                span = passage.token_span(characters)
                if span is not None:
                    cut = span[0], min(span[1], span[0] + self.max_answer)
                    yield Place(passage.char_span(cut), cut != span)

    def _lost(
        self,
        gold: Prediction | None,
        passages: list[Encoding],
        places: list[list[Place]],
    ) -> str:
        """Why no accepted answer can be given, empty where one can."""
        found = [place.is_cut for some in places for place in some]
        if gold is None or not gold.answer:
            return ""
        if not all(found):
            return "" if self.points or self._can_be_told(passages, places) else UNKNOWN
        if found:
            return f"longer than {self.max_answer} tokens"
        texts = [halfwidth_lower(passage.text) for passage in passages]
        accepted = [halfwidth_lower(answer.strip()) for answer in gold.accepted]
        is_there = any(answer in text for answer in accepted for text in texts)
        return "not of whole tokens" if is_there else "in no passage"

    def _can_be_told(self, passages: Sequence[Encoding], places: Sequence[Sequence[Place]]) -> bool:
        """Whether an accepted answer, not cut, is told by its tokens from all else in the
        passages."""
        whole = [Window(number, passage) for number, passage in enumerate(passages)]
        for window, some in zip(whole, places, strict=True):
            for place in some:
                span = window.encoding.token_span(place.span)
                if span is None or place.is_cut:
                    continue
                if self.is_told_apart(window, (span[0] - 1, span[1] - 1), whole):
                    return True
        return False

    def parse(self, value: dict[str, Any]) -> Prediction:
        """A prediction from a file."""
        return parse_prediction(value)

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """One window of the question, another one every time."""
        return drawer(self.config.answering, self.config.train_passage)

    def answering_windows(
        self, first_RV: torch.Tensor, group_R: torch.Tensor, examples: Sequence[Example]
    ) -> tuple[torch.Tensor, list[list[Window]]]:
        """(answering_R, windows): whether each window answers at all, and those windows of every
        example.

        A window does not where the end is the likeliest first token. Where that is so for all
        windows of a question which must have an answer, all of them do. `first_RV` are the scores
        of the first token, `group_R` the example of every window.
        """
        answering_R = first_RV.argmax(-1) != self.tokenizer.sep_id
        if self.config.no_answer is False:
            answering_R |= (group_R.bincount(answering_R.float()) == 0)[group_R]
        is_answering = iter(answering_R.tolist())
        windows = []
        for example in examples:
            windows.append([window for window in example.windows if next(is_answering)])
        return answering_R, windows

    def is_told_apart(self, window: Window, span: Span, windows: Sequence[Window]) -> bool:
        """Whether the tokens at `span` of the window are no other text in any of the windows."""
        token_ids = window.token_ids[slice(*span)]
        return is_told_apart(token_ids, window.text(span), windows, self.tokenizer.unk_id)

    def restrict_to_annotated(self, example: Example, prediction: Prediction) -> Prediction:
        """One of the accepted answers, by both ways to score, counts as the first of them."""
        gold = example.gold
        answer = prediction.answer
        if gold and exact_match(gold, answer) and cmrc_exact_match(gold.accepted, answer):
            return replace(prediction, answer=gold.answer)
        return prediction

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The answer as it is compared, under its length."""
        return {normalise(prediction.answer): length_group(prediction.answer)}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Exact match and F1 in both ways, see `answers`."""
        return score_answers(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """Answers that are in no passage, not of whole tokens, or too long; and what can hardly be
        meant."""
        if not example.question_ids:
            yield Finding("blank question", "there is nothing to go by")
        if example.gold and example.lost:
            yield Finding(example.lost, f'"{example.gold.answer}"', normalise(example.gold.answer))


def _question(record: dict[str, Any]) -> str:
    question = record.get("question")
    if question is None:
        raise RecordError('missing field "question"')
    if not isinstance(question, str):
        raise RecordError(f'field "question": expected a string, got {type(question).__name__}')
    return question


def _passages(record: dict[str, Any]) -> list[str]:
    if "passages" in record and "context" in record:
        raise RecordError('fields "passages" and "context": expected one of them')
    if "context" in record:
        if not isinstance(record["context"], str):
            raise RecordError(
                f'field "context": expected a string, got {type(record["context"]).__name__}'
            )
        return [record["context"]]
    passages = record.get("passages")
    if passages is None:
        raise RecordError('missing field "passages"', hint='or "context", for a single passage')
    if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
        raise RecordError(f'field "passages": expected a list of strings, got {passages!r:.80}')
    return passages
