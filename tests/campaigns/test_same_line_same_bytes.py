"""The same line gives the same bytes, whatever stands beside it: alone, in a batch of any size, in
another order, in another window of lines, by one thread or by two; for every task, in fp32 and in
bf16.

The models have random weights: their scores lie close together, so that a difference shows. Nothing
is rounded here, so that every bit of a score counts. Processors with instructions for bf16 take
other kernels for it, which nobody has looked at yet: there bf16 is not promised.
"""

import builtins
import random

import pytest
import torch
from test_contract import GIVEN, GIVEN_OF, WAYS, Case, bare

from nlpkit.inference.precision import has_bfloat16
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import dumps

pytestmark = pytest.mark.slow

TEXTS = [
    "雾灯是谁写的？",
    "桐溪的长度",
    "小明有3个苹果，又买了12个，每个5元，一共花了多少元？",
    "好",
]
TEXTS += ["今天下雨，" * times + "桐溪镇有多少人口？" for times in (1, 7, 22, 40)]


def records_of(case):
    """(number, record) of the sample without its gold, and of texts of other lengths."""
    given = GIVEN | GIVEN_OF.get(case.name, set())
    records = []
    for _, record in case.records:
        records.append({name: value for name, value in record.items() if name in given})
    for text in TEXTS:
        records.append(bare(case.name, text))
    return list(enumerate(records, 1))


def outputs(case, records, precision, batch_size):
    """Line number -> the bytes of its prediction, or its error."""
    predictor = Predictor(case.task, case.model, precision, batch_size)
    outcomes = predictor(records)
    found = {}
    for (number, _), outcome in zip(records, outcomes, strict=True):
        error = outcome.error
        found[number] = dumps(outcome.prediction) if error is None else error.message.encode()
    return found


def whole(number, digits=None):
    """`round`, but for a number of decimals, which stay."""
    return int(number + 0.5) if digits is None else number


@pytest.fixture(autouse=True)
def one_thread_afterwards():
    """The threads are as they were."""
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS)
def test_a_line_gives_the_same_bytes_beside_any_others(way, precision, tmp_path, monkeypatch):
    if precision == "bf16" and has_bfloat16(torch.device("cpu")):
        pytest.skip("not promised on a processor with instructions for bf16")
    monkeypatch.setattr(builtins, "round", whole)
    torch.manual_seed(0)
    case = Case(way.split(",")[0], tmp_path, **WAYS[way])
    case.model.eval()
    records = records_of(case)
    alone = {}
    for record in records:
        alone |= outputs(case, [record], precision, 1)
    seeded = random.Random(f"{way} {precision}")
    for batch_size in (2, 5, 64):
        torch.set_num_threads(2 - batch_size % 2)
        shuffled = seeded.sample(records, len(records))
        window = shuffled[: seeded.randint(2, len(shuffled))]
        for some in (shuffled, window):
            found = outputs(case, some, precision, batch_size)
            differing = [number for number in found if found[number] != alone[number]]
            assert not differing, (batch_size, found[differing[0]], alone[differing[0]])
