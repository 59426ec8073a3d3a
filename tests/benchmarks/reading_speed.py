"""Prediction speed of reading comprehension: questions a second of some runs on one file, in turns.

    python tests/benchmarks/reading_speed.py --data trial.jsonl RUN_OF_MRC_MLM RUN_OF_MRC_SEQ2SEQ RUN:beam_size=1 ...

`RUN:key=value` is the run with a setting of its task changed. The runs are loaded once, take turns,
and medians are told with the score, since speed depends on the length of what is answered. Reading
the lines is not counted. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from nlpkit.config import parse_pairs
from nlpkit.inference.predictor import predict_examples
from nlpkit.run import Run, load, read_config
from nlpkit.training.dataset import read_examples, read_records


def opened(name: str) -> Run:
    """The run of `RUN` or `RUN:key=value`."""
    folder, _, setting = name.partition(":")
    values = parse_pairs([f"{read_config(Path(folder))['task']}.{setting}"]) if setting else {}
    return load(folder, values=values)


def measured(run: Run, examples: list[Any]) -> tuple[float, list[Any]]:
    """(seconds, predictions)."""
    started = time.perf_counter()
    predictions = predict_examples(run.task, run.model, examples, precision=run.precision)
    return time.perf_counter() - started, predictions


def main() -> None:
    """Prints one JSON object a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pairs = read_records([arguments.data]).pairs[: arguments.lines]
    runs = {name: opened(name) for name in arguments.runs}
    examples = {name: read_examples(run.task, pairs) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    scores = {}
    for name, run in runs.items():
        _, predictions = measured(run, examples[name])  # to warm up
        scores[name] = run.task.score(
            zip([e.gold for e in examples[name]], predictions, strict=True)
        )
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            seconds[name].append(measured(run, examples[name])[0])
    for name in runs:
        speed = round(len(pairs) / statistics.median(seconds[name]), 1)
        score = {key: scores[name][key] for key in ("cmrc_exact_match", "cmrc_f1")}
        print(json.dumps({"run": name, "questions_per_second": speed, **score}))


if __name__ == "__main__":
    main()
