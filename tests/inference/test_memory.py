"""Batches of a task that writes are as large as memory allows."""

from types import SimpleNamespace

import pytest
import torch

from nlpkit.inference import memory
from nlpkit.inference.batching import cheapest
from nlpkit.inference.memory import rows_in_memory
from nlpkit.inference.predictor import Predictor
from nlpkit.task import Writes
from nlpkit.text.tokenizer import padded_length


class Writer(Writes):
    """Writes as many beams and steps as an example says."""

    def beams_and_steps(self, example):
        return example


def model_of(layers, hidden, vocabulary):
    model = torch.nn.Linear(1, 1)
    model.encoder = SimpleNamespace(depth=layers, hidden_size=hidden, vocabulary_size=vocabulary)
    return model


def test_the_rows_by_hand(monkeypatch):
    # a token: 2 * 2 * 4 * 3 * 10 = 480 bytes; 20 + 4 * 5 of them; logits: 2 * 4 * 4 * 100 = 3,200
    monkeypatch.setattr(memory, "DECODING_BYTES", 5 * (480 * 40 + 3200) + 100)
    rows_of = rows_in_memory(Writer(), model_of(3, 10, 100), [(4, 5), (2, 6)])
    assert rows_of(20) == 5
    assert rows_of(19) == 5
    assert rows_of(21) == 4
    assert rows_of(10**6) == 1


def test_a_small_encoder_is_not_held_back_and_a_large_one_is():
    example = (3, 64)
    assert rows_in_memory(Writer(), model_of(4, 256, 10_000), [example])(100) >= 64
    base = rows_in_memory(Writer(), model_of(12, 768, 21_128), [example])(100)
    assert 32 <= base < 64
    assert rows_in_memory(Writer(), model_of(12, 768, 21_128), [(40, 64)])(100) < 8


def test_a_task_that_does_not_write_has_no_such_limit():
    assert rows_in_memory(object(), model_of(12, 768, 21_128), [(3, 64)]) is None
    assert rows_in_memory(Writer(), model_of(12, 768, 21_128), []) is None


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pieces_have_no_more_rows(limit):
    pieces = cheapest([3, 9, 4, 700, 8, 5], 4, 8192, lambda width: 1 if width > 100 else limit)
    assert sorted(place for piece in pieces for place in piece) == list(range(6))
    assert max(map(len, pieces)) == limit
    assert [3] in pieces


def test_a_predictor_decodes_no_more_together(monkeypatch):
    sizes = []

    class Task(Writer):
        windows = staticmethod(lambda example: [example])

        @staticmethod
        def merge(example, predictions):
            return predictions[0]

        @staticmethod
        def collate(examples, targets):
            return torch.zeros(len(examples))

        @staticmethod
        def decode(model, batch):
            sizes.append(len(batch))
            return list(range(len(batch)))

    examples = [(4, 5)] * 7
    model = model_of(3, 10, 100)
    Predictor(Task(), model).of_examples(examples)
    row = 480 * (padded_length(2) + 20) + 3200
    monkeypatch.setattr(memory, "DECODING_BYTES", 3 * row)
    Predictor(Task(), model).of_examples(examples)
    assert sizes[0] == 7
    assert max(sizes[1:]) == 3
    assert sum(sizes[1:]) == 7


def test_what_torch_holds_without_a_use_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    assert memory.budget_of(torch.device("cuda")) == 300
