"""Training speed of GPLinker or CasRel: nlpkit against bert4torch, the same encoder shape (BERT
4 x 256) and sentences a step.

    python tests/benchmarks/training_speed.py --data duie_train.jsonl --peer-python PEER/bin/python
    python tests/benchmarks/training_speed.py --task casrel ...

`PEER` is a virtual environment with torch and bert4torch (see bert4torch_peer.py for what else that
needs). Every measurement is a process of its own; they take turns, and medians over the turns are
compared. Run it on an idle machine. One JSON line a measurement, then one with the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = {
    "gplinker": HERE / "bert4torch_peer.py",
    "casrel": HERE / "bert4torch_casrel_peer.py",
}


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times the trainer's own steps; data reading and warm-up steps are not counted."""
    import torch

    torch.set_num_threads(arguments.threads)
    from nlpkit.inference.devices import accelerator_for, peak_memory
    from nlpkit.training.fit import new_fit
    from nlpkit.training.loop import Step, train
    from nlpkit.training.plan import Plan

    values = {
        "train": {"batch_size": arguments.batch_size, "evaluate_every": 1e9},
        arguments.task: {"replace": 0.0},
    }
    plan = Plan(
        arguments.task,
        (arguments.data,),
        Path(),
        encoder=arguments.encoder,
        values=(values,),
        device=arguments.device,
    )
    sentences, started = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        fit = new_fit(plan, accelerator_for(arguments.device, arguments.precision), Path(folder))
        steps = train(fit.state, fit.micro_batches, dict, "f1", fit.batches.per_epoch)
        for step in steps:
            assert isinstance(step, Step)
            if step.step > arguments.warmup_steps:
                sentences += step.examples
            if step.step == arguments.warmup_steps:
                started = time.perf_counter()
            if step.step == arguments.warmup_steps + arguments.steps:
                break
    seconds = time.perf_counter() - started
    return {
        "sentences_per_second": round(sentences / seconds, 2),
        "peak_rss_mb": round(peak_memory(torch.device("cpu")), 1),
        "sentences": sentences,
    }


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    shared = [
        "--data",
        arguments.data,
        "--batch-size",
        str(arguments.batch_size),
        "--threads",
        str(arguments.threads),
    ]
    if arguments.task == "gplinker":
        shared += ["--device", arguments.device]
    if name.startswith("bert4torch"):
        mode = name.partition(" ")[2]
        steps = arguments.steps if mode == "tuned" else max(5, arguments.steps // 4)
        command = [
            arguments.peer_python,
            str(PEERS[arguments.task]),
            "train",
            "--mode",
            mode,
            "--steps",
            str(steps),
            *shared,
        ]
        if arguments.task == "gplinker":
            command += ["--shape", arguments.peer_shape]
    else:
        command = [sys.executable, __file__, "--child", "--steps", str(arguments.steps), *shared]
        command += ["--encoder", arguments.encoder, "--precision", arguments.precision]
        command += ["--task", arguments.task]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    figures = {"name": name, **json.loads(done.stdout)}
    print(json.dumps(figures), flush=True)
    return figures


def main() -> None:
    """Takes turns and prints the medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--peer-python", help="interpreter with bert4torch; without it only nlpkit is measured"
    )
    parser.add_argument("--peer-shape", default="4x256", help="LAYERSxSIZE of the peer's encoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", default="gplinker", choices=PEERS)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--warmup-steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    of_gplinker = (arguments.device, arguments.peer_shape) != ("cpu", "4x256")
    if of_gplinker and arguments.task != "gplinker":
        parser.error("--device, --peer-shape: of --task gplinker alone")
    if arguments.child:
        print(json.dumps(ours(arguments)))
        return
    names = [
        "nlpkit",
        *(["bert4torch tuned", "bert4torch example"] if arguments.peer_python else []),
    ]
    turns = [[measure(name, arguments) for name in names] for _ in range(arguments.repeats)]
    speed, memory = (
        {name: statistics.median(turn[i][key] for turn in turns) for i, name in enumerate(names)}
        for key in ("sentences_per_second", "peak_rss_mb")
    )
    ratios = {name: round(speed["nlpkit"] / speed[name], 2) for name in names[1:]}
    shares = {name: round(memory["nlpkit"] / memory[name], 2) for name in names[1:]}
    print(
        json.dumps(
            {
                "sentences_per_second": speed,
                "faster_than": ratios,
                "peak_rss_mb": memory,
                "memory_of": shares,
            }
        )
    )


if __name__ == "__main__":
    main()
