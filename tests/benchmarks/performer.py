"""The length from which Performer pays: seconds and memory of one text of so many characters,
beside full attention and beside windows.

    python tests/benchmarks/performer.py
    python tests/benchmarks/performer.py --lengths 512,2048 --features 64,256 --threads 2

The encoder has the shape of `tiny` and random weights. Each kind reads the text once as in
prediction, and once as in a training step (forward and backward):

    full           softmax attention over the whole text, as nlpkit runs it on the device
    fused          the same by torch's fused kernel, in training; in prediction on a CPU a row does
                   not depend on its neighbours, for which there is no such kernel
    windows        full attention within windows of 512 that do not overlap, all in one batch
    performer M    M random features

Each measurement is a process of its own, whose address space ends at `--memory`; what does not fit
is left out (`-`). Seconds are the least of `--repeats`; memory is what the passes need at most
beside the encoder.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

WINDOW = 512
GIB = 2**30


def build(kind: str, length: int) -> Any:
    """The encoder of a kind, for texts of a length."""
    from nlpkit.encoders import TINY
    from nlpkit.encoders.parts import Parts, with_parts
    from nlpkit.encoders.transformer import Encoder

    config = json.loads((TINY / "config.json").read_bytes())
    config["max_position_embeddings"] = max(WINDOW, length)
    name, _, features = kind.partition(" ")
    if name == "performer":
        config = with_parts(config, Parts(attention="performer", features=int(features)))
    return Encoder(config, {"full": "eager", "windows": "eager"}.get(name, "sdpa"))


def batch(kind: str, length: int, device: str) -> tuple[Any, Any, Any]:
    """(token_ids_BT, segment_ids_BT, mask_B1T) of one text; of windows there are several rows, the
    last one padded."""
    import torch

    width = min(length, WINDOW) if kind == "windows" else length
    rows = -(-length // width)
    token_ids_BT = torch.randint(5, 10_000, (rows, width))
    mask_BT = (torch.arange(rows * width) < length).reshape(rows, width)
    tensors = (token_ids_BT * mask_BT, torch.zeros_like(token_ids_BT), mask_BT[:, None])
    ids, segments, mask = (tensor.to(device) for tensor in tensors)
    return ids, segments, mask


def passes(kind: str, length: int, device: str, mode: str) -> Callable[[], None]:
    """One pass over the text, in prediction or in training."""
    import torch

    from nlpkit.layers.steady_products import steady

    torch.manual_seed(1)
    encoder = build(kind, length).to(device)
    tensors = batch(kind, length, device)
    if mode == "predict":
        encoder.eval()
        steady(encoder)

    def one() -> None:
        if mode == "predict":
            with torch.inference_mode():
                encoder(*tensors)
        else:
            encoder.zero_grad(set_to_none=True)
            encoder(*tensors).square().sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return one


def measure(kind: str, length: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds and bytes of a pass; of this process, which has done nothing before."""
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        most = int(arguments.memory * GIB)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    passes(kind, 16, arguments.device, arguments.mode)()  # what is loaded and kept at first use
    one = passes(kind, length, arguments.device, arguments.mode)
    before = memory(arguments.device)
    times = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        one()
        times.append(time.perf_counter() - started)
    return {"seconds": min(times), "bytes": memory(arguments.device) - before}


def memory(device: str) -> int:
    """Most bytes in use until now."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def results(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for each kind, length and mode; one that did not fit has no figures."""
    kinds = ["full", "fused", "windows"]
    kinds += [f"performer {features}" for features in arguments.features.split(",")]
    for length in map(int, arguments.lengths.split(",")):
        for mode in ("predict", "train"):
            for kind in kinds:
                if kind == "fused" and mode == "predict":
                    continue
                command = [sys.executable, __file__, "--one", kind, "--lengths", str(length)]
                command += ["--mode", mode, "--device", arguments.device]
                for name in ("repeats", "threads", "memory"):
                    command += [f"--{name}", str(getattr(arguments, name))]
                done = subprocess.run(command, capture_output=True, text=True)
                found = json.loads(done.stdout) if done.returncode == 0 else {}
                if done.returncode != 0 and "memory" not in done.stderr:
                    sys.exit(done.stderr)
                yield {"length": length, "mode": mode, "kind": kind, **found}


def row(record: dict[str, Any]) -> str:
    """A line of the Markdown table."""
    seconds = f"{record['seconds']:.3f}" if "seconds" in record else "-"
    megabytes = f"{record['bytes'] / 2**20:.0f}" if "bytes" in record else "-"
    cells = [str(record["length"]), record["mode"], record["kind"], seconds, megabytes]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192,16000")
    parser.add_argument("--features", default="256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=float, default=16, help="GiB of address space")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", choices=("predict", "train"), default="predict", help="of --one")
    parser.add_argument("--one", metavar="KIND", help="measure this kind at the first length")
    arguments = parser.parse_args()
    if arguments.one:
        length = int(arguments.lengths.split(",")[0])
        print(json.dumps(measure(arguments.one, length, arguments)))
        return
    print("| characters | pass | attention | seconds | MiB |\n|---|---|---|---|---|")
    for record in results(arguments):
        print(row(record), flush=True)


if __name__ == "__main__":
    main()
