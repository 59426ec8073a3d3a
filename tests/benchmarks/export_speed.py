"""Speed and score of an exported run against the run itself: torch in float32 (and in bfloat16, where
the processor has it, or with `--bf16`), ONNX Runtime in float32 and in 8-bit integers, on the same
lines.

    python tests/benchmarks/export_speed.py --run RUN --data dev.jsonl

`RUN` is a run of ner with `--encoder tiny`. BERTs of 12 x 384 and 12 x 768 with random weights and
the same heads are measured too, on the first `--base-lines` lines; their scores mean nothing. The
ways take turns and medians are compared. A way reads, predicts and writes as the filter of `nlpkit predict`
does; seconds are those of the processor on one thread, so that other programs count little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nlpkit import encoders
from nlpkit.evaluation.scoring import Scoring, predicted_pairs
from nlpkit.inference.export import export
from nlpkit.inference.filter import Filter
from nlpkit.inference.precision import has_bfloat16
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import read_lines
from nlpkit.run import Run, load

SHAPES = {
    "12 x 384": encoders.ShapeConfig(
        family="bert", layers=12, hidden_size=384, heads=12, intermediate_size=1536, max_length=512
    ),
    "BERT-base": encoders.ShapeConfig(
        family="bert", layers=12, hidden_size=768, heads=12, intermediate_size=3072, max_length=512
    ),
}


def random_run(like: Run, shape: Any, folder: Path) -> Run:
    """A run of the same task with an encoder of another shape and random weights."""
    encoder, backend = encoders.for_pretraining(None, shape)
    encoder.head = None
    folder.mkdir()
    (folder / "labels.json").write_bytes((like.folder / "labels.json").read_bytes())
    tokenizer = encoders.tokenizer_of(encoder, backend)
    task = type(like.task)(like.task.config, tokenizer, folder)
    config = {**like.config, "encoder": {"name": "random", "spec": encoder.spec()}}
    config.pop("files", None)
    run = Run(folder, config, task, tokenizer, task.build_model(encoder).eval())
    run.save_new()
    run.save_model({})
    return load(folder)


def ways_of(run: Run, folder: Path, bf16: bool) -> dict[str, tuple[Run, str]]:
    """Way -> the run to predict with and its precision."""
    ways = {"torch fp32": (run, "fp32")}
    if bf16:
        ways["torch bf16"] = (run, "bf16")
    for name, int8 in (("ONNX fp32", False), ("ONNX int8", True)):
        out = folder / name.replace(" ", "-")
        out.mkdir(parents=True)
        export(run, out, int8)
        ways[name] = (load(out), "fp32")
    return ways


def seconds_of(run: Run, precision: str, data: Path, written: Path) -> float:
    """Processor seconds of the filter over the data; the output goes to a file."""
    predictor = Predictor(run.task, run.model, precision)
    started = time.process_time()
    with written.open("wb") as stream:
        stream.writelines(Filter(predictor)(read_lines(data)))
    return time.process_time() - started


def measure(run: Run, data: Path, repeats: int, bf16: bool, folder: Path) -> dict[str, Any]:
    """Way -> lines a second, how many times as fast as torch in float32, and the score."""
    ways = ways_of(run, folder, bf16)
    lines = sum(1 for _ in read_lines(data))
    turns: list[dict[str, float]] = []
    for _ in range(repeats):
        turn = {}
        for name, (one, precision) in ways.items():
            turn[name] = seconds_of(one, precision, data, folder / f"{name}.jsonl")
        turns.append(turn)
        print(json.dumps({name: round(seconds, 2) for name, seconds in turn.items()}), flush=True)
    figures = {}
    for name, (one, _) in ways.items():
        pairs = predicted_pairs(one.task, str(folder / f"{name}.jsonl"))
        faster = [turn["torch fp32"] / turn[name] for turn in turns]
        figures[name] = {
            "lines_per_second": round(lines / statistics.median(turn[name] for turn in turns), 1),
            "times_as_fast": round(statistics.median(faster), 2),
            "f1": round(Scoring(one.task).score(pairs)["f1"], 4),
        }
    return figures


def main() -> None:
    """Measures all shapes and prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--base-lines", type=int, default=64, help="0: `RUN` alone")
    parser.add_argument("--bf16", action="store_true", help="on any processor")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = load(arguments.run)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bf16 = arguments.bf16 or has_bfloat16(torch.device("cpu"))
        repeats = arguments.repeats
        measured = {"RUN": measure(run, arguments.data, repeats, bf16, folder / "given")}
        some = folder / "some.jsonl"
        lines = [line.raw for line in read_lines(arguments.data)][: arguments.base_lines]
        some.write_bytes(b"".join(raw + b"\n" for raw in lines))
        for number, (name, shape) in enumerate(SHAPES.items() if lines else ()):
            other = random_run(run, shape, folder / f"random-{number}")
            measured[name] = measure(other, some, repeats, bf16, folder / str(number))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
