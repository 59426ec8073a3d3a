"""The filter on a task made for the test: order, windows, errors of the reader, lines that come
slowly."""

import time
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.errors import DataError, RecordError
from nlpkit.inference.filter import Filter
from nlpkit.inference.predictor import Predictor, predict_examples
from nlpkit.inference.windows import WINDOW, line_windows
from nlpkit.jsonl import Line, dumps

MODEL = torch.nn.Linear(1, 1)


@dataclass
class Echo:
    """Predicts the text it was given, in windows of four characters; notes the sizes of its
    batches."""

    batches: list

    def read(self, record):
        if "text" not in record:
            raise RecordError('missing field "text"')
        if record["text"] == "bug when read":
            raise RuntimeError("a bug when read")
        return record["text"]

    def numbered(self, text, number):
        return text

    def windows(self, text):
        return [text[i : i + 4] for i in range(0, len(text), 4)] or [""]

    def collate(self, pieces, *, targets):
        assert not targets
        self.batches.append(len(pieces))
        return Pieces(pieces)

    def decode(self, model, batch, *, loose=False):
        if len(batch.pieces) > 1 and "much" in batch.pieces:
            raise MemoryError
        if "bug." in batch.pieces:
            raise RuntimeError("a bug when decoded")
        return list(batch.pieces)

    def merge(self, text, predictions):
        assert "".join(predictions) == text[: sum(map(len, predictions))]
        return "".join(predictions)


@dataclass
class Pieces:
    pieces: list

    def to(self, device):
        return self


def lines_of(texts):
    return [Line(f"x:{n}", n, dumps({"text": text})) for n, text in enumerate(texts, 1)]


@settings(max_examples=60)
@given(st.lists(st.text("abc", max_size=30), max_size=40), st.integers(1, 5))
def test_pieces_find_back_to_their_examples(texts, batch_size):
    task = Echo([])
    assert predict_examples(task, MODEL, texts, batch_size=batch_size) == texts
    assert max(task.batches, default=0) <= batch_size


def test_outputs_come_in_order_over_many_windows():
    texts = ["a" * (n % 13) for n in range(2 * WINDOW + 7)]
    out = b"".join(Filter(Predictor(Echo([]), MODEL), only_output=True)(lines_of(texts)))
    assert out.splitlines() == [dumps(text) for text in texts]


@pytest.mark.parametrize("error", [DataError("gone"), OSError("gone"), RuntimeError("gone")])
def test_an_error_of_the_reader_comes_after_the_lines_before_it(error):
    def reader():
        yield from lines_of(["a", "b"])
        raise error

    out = []
    with pytest.raises(type(error), match="gone"):
        out.extend(Filter(Predictor(Echo([]), MODEL), only_output=True)(reader()))
    assert b"".join(out) == b'"a"\n"b"\n'


def test_a_steady_slow_producer_is_not_kept_waiting():
    """A line every 50 ms: none may wait for the end of the input, nor for a window to fill."""
    seen = []

    def reader():
        for line in lines_of("abcdefghijklmnopqrst"):
            time.sleep(0.05)
            seen.append(line.number)
            yield line

    first = next(iter(Filter(Predictor(Echo([]), MODEL), only_output=True)(reader())))
    assert first.count(b"\n") < 15
    assert len(seen) < 20


def test_the_window_of_a_bad_line_keeps_its_place():
    lines = lines_of(["a", "b", "c"])
    lines[1] = Line("x:2", 2, b'{"no":1}')
    filter_ = Filter(Predictor(Echo([]), MODEL), on_error="emit", only_output=True)
    assert b"".join(filter_(lines)) == b'"a"\n{"error":"missing field \\"text\\"","line":2}\n"c"\n'
    assert (filter_.lines, filter_.skipped) == (3, 1)


@pytest.mark.parametrize("bug", ["bug when read", "bug."])
def test_what_is_finished_is_written_before_any_failure_ends_the_filter(bug):
    out = []
    with pytest.raises(RuntimeError, match="a bug when"):
        out.extend(Filter(Predictor(Echo([]), MODEL), only_output=True)(lines_of(["a", bug, "c"])))
    assert b"".join(out) == b'"a"\n'


def test_a_batch_that_is_too_much_is_predicted_record_by_record():
    out = Filter(Predictor(Echo([]), MODEL), only_output=True)(lines_of(["a", "much", "c"]))
    assert b"".join(out) == b'"a"\n"much"\n"c"\n'


def test_a_predictor_gives_an_outcome_for_every_record_and_counts_batches():
    seen = []
    predictor = Predictor(
        Echo([]), MODEL, batch_size=2, long="cut", on_batch=lambda *done: seen.append(done)
    )
    outcomes = predictor([(1, {"text": "abcdef"}), (2, {}), (3, {"text": "g"}), (4, {"text": "h"})])
    assert [outcome.prediction for outcome in outcomes] == ["abcd", None, "g", "h"]
    assert [outcome.is_cut for outcome in outcomes] == [True, False, False, False]
    assert outcomes[1].error.message == 'missing field "text"'
    assert seen == [(1, 3), (3, 3)]


def test_windows_of_long_lines_are_bounded_in_bytes():
    seen = []

    def reader():
        for number in range(1, 101):
            seen.append(number)
            yield Line(f"x:{number}", number, dumps({"text": "a", "x": "b" * 2**20}))

    filter_ = Filter(Predictor(Echo([]), MODEL))
    chunks = filter_(reader())
    sizes = [next(chunks).count(b"\n")]
    assert len(seen) <= 8  # two windows and a line: one at work, one read ahead
    sizes += [chunk.count(b"\n") for chunk in chunks]
    assert sum(sizes) == 100
    assert max(sizes) == 2
    assert [len(window) for window in line_windows(reader())] == [2] * 50
