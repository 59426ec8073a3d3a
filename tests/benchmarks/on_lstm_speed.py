"""Time of a layer of ordered neurons in shares of that of `torch.nn.LSTM`, training and prediction.

    OMP_NUM_THREADS=1 python tests/benchmarks/on_lstm_speed.py

Processor time, so that what else runs counts little; the least of several rounds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

from nlpkit.layers.ordered_neurons import OrderedNeurons, run

STEPS, ROWS, SIZE, CHUNK, ROUNDS = 128, 64, 256, 8, 5


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The least processor time of a call, after one to warm up."""
    work()
    least = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        work()
        least = min(least, time.process_time() - started)
    return least


def main() -> None:
    """Prints milliseconds as a line of JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs_TBH = torch.randn(STEPS, ROWS, SIZE, requires_grad=True)
    ordered = OrderedNeurons(SIZE, SIZE, CHUNK)
    plain = torch.nn.LSTM(SIZE, SIZE)

    def states() -> torch.Tensor:
        return torch.nn.functional.linear(inputs_TBH, ordered.input_weight, ordered.bias)

    def by_autograd() -> None:
        run(states(), ordered.weight, CHUNK)[0].sum().backward()

    found = {
        "on_lstm_train": seconds(lambda: ordered(states())[0].sum().backward()),
        "lstm_train": seconds(lambda: plain(inputs_TBH)[0].sum().backward()),
        "on_lstm_train_by_autograd": seconds(by_autograd, 1),
    }
    with torch.no_grad():
        found["on_lstm_predict"] = seconds(lambda: ordered(states()))
        found["lstm_predict"] = seconds(lambda: plain(inputs_TBH))
    print(json.dumps({name: round(1000 * value, 1) for name, value in found.items()}))


if __name__ == "__main__":
    main()
