"""What limits a solver of math word problems: accuracy by kinds of problems, and what the wrong
equations get wrong.

    nlpkit predict RUN dev.jsonl | python tests/benchmarks/equation_errors.py

Reads lines with gold and `prediction`. The first table has the share of right answers by properties
of the problem and its gold equation, the second the wrong ones by the first thing that differs, in
this order:

    no value        the equation is no arithmetic or divides by zero
    other numbers   it uses other numbers of the problem, or one of them more or less often
    constants       the same numbers, but other constants (1, 3.14, 100, ...)
    structure       the same numbers and constants, but other operators or brackets

and, besides, how many of them another beam solves, and how many answers are negative.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import Any

import orjson

from nlpkit.tasks.ape210k.arithmetic import EquationError, Number, parse
from nlpkit.tasks.ape210k.equations import (
    exact_answer,
    operators_of,
    parse_prediction,
    read_gold,
    rounded,
)
from nlpkit.tasks.ape210k.numbers import copied, find_numbers

NAMES = [chr(0x4E00 + index) for index in range(100)]


def leaves(equation: str, numbers: list[Number]) -> tuple[Counter[str], Counter[str]]:
    """How often an equation uses each number of the problem, and each constant."""
    texts = [
        item.text for item in copied(parse(equation), numbers, NAMES) if isinstance(item, Number)
    ]
    return Counter(t for t in texts if t in NAMES), Counter(t for t in texts if t not in NAMES)


def properties(gold: str, numbers: list[Number]) -> dict[str, str]:
    """What a problem counts under in the first table."""
    operators = operators_of(gold)
    try:
        used, constants = leaves(gold, numbers)
    except EquationError:
        return {"operators": operators}
    unused = len(set(NAMES[: len(numbers)]) - set(used))
    kinds = [("%", "percent"), (")", "fraction"), (".", "decimal")]
    return {
        "operators": operators if int(operators) < 6 else "6 or more",
        "constants": ", ".join(sorted(constants)) if constants.total() < 3 else "3 or more",
        "numbers in the text": str(min(len(numbers), 6)),
        "of them unused": str(min(unused, 3)),
        "kind": next(
            (name for sign, name in kinds if any(sign in number.text for number in numbers)),
            "whole",
        ),
    }


def difference(gold: str, found: str, numbers: list[Number]) -> str:
    """The first thing that is wrong."""
    if exact_answer(found) is None:
        return "no value"
    try:
        (numbers_1, constants_1), (numbers_2, constants_2) = (
            leaves(equation, numbers) for equation in (gold, found)
        )
    except EquationError:
        return "gold is no arithmetic"
    if numbers_1 != numbers_2:
        return "other numbers"
    return "constants" if constants_1 != constants_2 else "structure"


def main(lines: Any) -> None:
    """Counts and prints."""
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    wrong: Counter[str] = Counter()
    for line in lines:
        record = orjson.loads(line)
        gold, prediction = read_gold(record), parse_prediction(record["prediction"])
        assert gold is not None
        numbers = [number for _, number in find_numbers(record["text"])]
        answers = [beam.answer for beam in prediction.beams]
        hits = [
            a is not None and rounded(a) == rounded(gold.answer or "")
            for a in (prediction.answer, *answers)
        ]
        right["all", ""].append(hits[0])
        for name, value in properties(gold.equation, numbers).items():
            right[name, value].append(hits[0])
        if not hits[0]:
            wrong[difference(gold.equation, prediction.equation, numbers)] += 1
            wrong["  solved by another beam"] += any(hits)
            wrong["  negative"] += (prediction.answer or "").startswith("-")
    for (name, value), hits in sorted(right.items(), key=lambda item: (item[0][0], -len(item[1]))):
        if len(hits) >= max(1, len(right["all", ""]) // 200):
            print(f"{name:20} {value:12} {len(hits):6} {sum(hits) / len(hits):.3f}")
    print()
    for name, count in wrong.most_common():
        print(f"{name:33} {count:6} {count / len(right['all', '']):.3f} of all")


if __name__ == "__main__":
    main(sys.stdin.buffer)
