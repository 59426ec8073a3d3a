"""Math word problems: the problem is read, an equation is written, and its value computed exactly.

    in   {"text": "小明有12颗糖，吃了(1/4)，还剩几颗？", "equation": "x=12*(1-(1/4))", "answer": "9"}
    out  {..., "prediction": {"equation": "12*(1-(1/4))", "answer": "9", "decimal": 9.0,
          "score": -0.12, "beams": [{"equation": "12*(1-(1/4))", "answer": "9", ...}, ...]}}

`answer` is an exact fraction ("7/3"); in gold it may be any arithmetic, such as 93.75% or 2(1/3).
Where a line has only an equation, its answer is the equation's. The answer is that of the first
beam with a value: one that divides by zero or (without the constraint) is no arithmetic is passed
over. So is, without `negative`, a value below 0 where another beam has one that is not: problems
ask for quantities (1 of the 20,760 answers of Math23K is negative).

With `numbers = "marked"` a token that stands for nothing else goes before every number of the
problem, and an equation copies a number by that one token; the digits stay readable (see
`numbers`):

    [CLS] 小 明 有 [a] 1 2 颗 糖 ， 吃 了 [b] 1 / 4 ， 还 剩 几 颗 ？ [SEP] [a] * ( 1 - [b] ) [SEP]

Numbers that are not in the text (1, 3.14) are written in digits. Equations lose redundant brackets
before they are learned. One that has no value, or another than the gold answer, is not learned at
all (`nlpkit data check` names it), but its answer counts when scoring.

Source: https://kexue.fm/archives/7809; published 0.7235 on the test set of Ape210K with BERT-base
and beam 3 (200k lines), all items counted, values compared to 6 decimals.
Differs from /7809: numbers are marked; percent stays as it is written; brackets see `arithmetic`;
the search writes only complete arithmetic and numbers of the problem (`constraint`), and a token is
scored by its probability among the legal ones; a long problem is cut to windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nlpkit import task
from nlpkit.config import Length, Share, Size
from nlpkit.errors import SettingsError
from nlpkit.formats.finding import Finding
from nlpkit.formats.text import read_text
from nlpkit.layers.prefix_lm import (
    Pair,
    PrefixLM,
    Seq2SeqBatch,
    collate_pairs,
    collate_sources,
    disturbed,
)
from nlpkit.tasks.ape210k.arithmetic import EquationError, Number, evaluate
from nlpkit.tasks.ape210k.equations import (
    Beam,
    Choice,
    Prediction,
    choose,
    exact_answer,
    operators_of,
    parse_prediction,
    read_gold,
    rounded,
    score_answers,
    worth,
)
from nlpkit.tasks.ape210k.numbers import NumberTokens
from nlpkit.tasks.ape210k.search import Found, any_tokens, equations
from nlpkit.text.tokenizer import Encoding, Tokenizer


@dataclass(frozen=True)
class Settings:
    """Settings, section `ape210k`."""

    numbers: Literal["marked", "digits"] = "marked"
    """A number of the problem is copied by one token, or digit by digit."""
    ordered: bool = True
    """Equations are learned with sums and products in the order of the problem's numbers: 4*x/2,
    not x/2*4."""
    beam_size: Size = 3
    """Equations that the search writes side by side; all of them are listed."""
    choose: Choice = "beam"
    """The answer is that of the likeliest equation, or (`value`) the one that is likeliest over all
    equations with this value; then more beams may help."""
    constraint: bool = True
    """Whether the search writes only complete arithmetic; without it, any tokens."""
    negative: bool = False
    """Whether an answer below 0 is as good as any."""
    max_length: Length = 384
    """Longer problems are cut to overlapping windows of so many tokens, marks included; the surest
    equation counts."""
    max_equation: Size = 64
    """Most tokens of an equation."""
    disturb: Share = 0.0
    """Chance that training shows an equation with three tenths of its tokens replaced by others of
    its own."""
    passes: Size = 1
    """N of TeaForN: each further pass reads the model's own guesses, and takes as long as the
    first."""


@dataclass(frozen=True)
class Example:
    """A problem as the model reads it, its numbers, and the tokens of its equation if that can be
    learned."""

    encoding: Encoding
    numbers: list[Number]
    gold: Prediction | None
    target: list[int] | None
    shown: list[int] | None = None

    def __len__(self) -> int:
        return len(self.encoding)


Batch = Seq2SeqBatch[Example]


class Task(task.Writes, task.Task[Example, Batch, Prediction]):
    """See the module docstring.

    Raises SettingsError where `max_equation` leaves no tokens of the encoder for a problem.
    """

    Config = Settings
    monitor = "accuracy"
    group = "operators"
    parse = staticmethod(parse_prediction)

    @classmethod
    def prepare(
        cls, config: Settings, records: Iterable[tuple[str, dict[str, Any]]], folder: Path
    ) -> Settings:
        """Nothing: symbols and marks are the vocabulary's."""
        return config

    def __init__(self, config: Settings, tokenizer: Tokenizer, folder: Path | None):
        self.config = config
        self.tokenizer = tokenizer
        self.tokens = NumberTokens(tokenizer, config.numbers == "marked")
        room = (
            config.max_length
            if tokenizer.max_length is None
            else tokenizer.max_length - config.max_equation
        )
        self.max_length = min(config.max_length, room)
        if self.max_length < 8:
            raise SettingsError(
                f"ape210k.max_equation: {config.max_equation} tokens leave no room for a problem"
            )

    def read(self, record: dict[str, Any]) -> Example:
        """`text` and, where there is gold, `equation`, `answer` (a number or arithmetic), or
        both. Raises RecordError for a field of another form."""
        encoding, numbers = self.tokens.problem(read_text(record))
        example = Example(encoding, numbers, read_gold(record), None)
        try:
            return replace(example, target=self._target(example))
        except EquationError:
            return example

    def _target(self, example: Example) -> list[int] | None:
        """The tokens to learn, None without gold. Raises EquationError where they would teach
        something wrong."""
        gold = example.gold
        if gold is None:
            return None
        if not gold.equation:
            raise EquationError("there is none")
        tokens = self.tokens.equation(gold.equation, example.numbers, self.config.ordered)
        exact = evaluate(gold.equation)
        if rounded(str(exact)) != rounded(gold.answer or ""):
            raise EquationError(f"its value is {exact}, the answer {gold.answer}")
        if len(tokens) > self.config.max_equation:
            raise EquationError(
                f"it has {len(tokens)} tokens, max_equation is {self.config.max_equation}"
            )
        return tokens

    def augmenter(self, examples: Sequence[Example]) -> Callable[[Example, Any], Example] | None:
        """Shows equations with tokens replaced."""
        if not self.config.disturb:
            return None

        def augment(example: Example, random: Any) -> Example:
            if example.target is None:
                return example
            return replace(example, shown=disturbed(example.target, random, self.config.disturb))

        return augment

    def windows(self, example: Example) -> list[Example]:
        """Overlapping windows of a long problem; one that lacks a number of the equation learns
        nothing."""
        pieces = example.encoding.windows(self.max_length)
        if len(pieces) == 1:
            return [example]
        needed = set(self.tokens.copies(example.target or ()))
        windows = []
        for piece in pieces:
            has_all = needed <= set(piece.token_ids_T.tolist())
            target = example.target if has_all else None
            windows.append(replace(example, encoding=piece, target=target))
        return windows

    def collate(self, examples: Sequence[Example], *, targets: bool = True) -> Batch:
        """Pads problems, and with targets also problems with their equations."""
        sources = [example.encoding.token_ids_T[1:-1].tolist() for example in examples]
        pairs = [Pair(s, e.target, e.shown) for s, e in zip(sources, examples, strict=True)]
        with_targets = collate_pairs(pairs, self.tokenizer) if targets else None
        return Seq2SeqBatch(list(examples), collate_sources(sources, self.tokenizer), with_targets)

    def build_model(self, encoder: nn.Module) -> PrefixLM:
        """The encoder as it is."""
        return PrefixLM(encoder, self.config.passes)

    def beams_and_steps(self, example: Example) -> tuple[int, int]:
        """See `task.Writes`."""
        return self.config.beam_size, self.config.max_equation

    def decode(self, model: PrefixLM, batch: Batch, *, loose: bool = False) -> list[Prediction]:
        """The beams of every problem, and the first of them that has a value."""
        predictions = []
        for example, beams in zip(batch.examples, self._found(model, batch), strict=True):
            predictions.append(self._prediction(example, beams))
        return predictions

    def _found(self, model: PrefixLM, batch: Batch) -> Found:
        beam_size = self.config.beam_size
        longest = self.config.max_equation
        if not self.config.constraint:
            end_id = self.tokenizer.sep_id
            return any_tokens(model.encoder, batch.sources, end_id, beam_size, longest)
        problems = [example.encoding.token_ids_T.tolist() for example in batch.examples]
        return equations(model.encoder, batch.sources, problems, self.tokens, beam_size, longest)

    def _prediction(self, example: Example, found: list[tuple[list[int], float]]) -> Prediction:
        """The prediction of (equation in tokens, score) pairs, best first."""
        beams = []
        for token_ids, score in found:
            equation = self.tokens.text(token_ids, example.numbers)
            beams.append(Beam(equation, exact_answer(equation), round(score, 4)))
        return choose(beams, self.config.negative, self.config.choose)

    def merge(self, example: Example, predictions: Sequence[Prediction]) -> Prediction:
        """Of the windows of a long problem the surest equation, of those with an answer if there
        are such."""
        return max(predictions, key=lambda p: (worth(p.answer, self.config.negative), p.score))

    def facts(self, prediction: Prediction) -> dict[Any, str]:
        """The answer, rounded, under the number of operators of its equation."""
        if prediction.answer is None:
            return {}
        return {rounded(prediction.answer): operators_of(prediction.equation)}

    def score(self, pairs: Iterable[tuple[Prediction, Prediction]]) -> dict[str, Any]:
        """Shares of all problems: the answer right; that of any beam right; the equation complete
        arithmetic."""
        return score_answers(pairs)

    def report(self, example: Example) -> Iterator[Finding]:
        """Equations that are not learned, and problems cut to windows."""
        try:
            self._target(example)
        except EquationError as error:
            yield Finding("equation not learned", str(error), "equation")
        if len(self.windows(example)) > 1:
            yield Finding("cut to windows", f"{len(example)} tokens, {self.max_length} fit")
