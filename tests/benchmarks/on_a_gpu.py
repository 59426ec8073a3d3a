"""What there is to run where a GPU is at hand, in one go and in a given time.

    python tests/benchmarks/on_a_gpu.py --out DIR --text FILE... --train duie_train.jsonl [--start ENCODER]
        [--teacher DIR] [--peer-python PEER/bin/python] [--minutes 8]

    tests       the tests that need a GPU
    trie        a step under a trie (decoding.py)
    shape       pretraining of BERT-base's shape: its tokens a second, and an encoder for the next two
    training    that encoder trained for `gplinker`, beside bert4torch (training_speed.py)
    run         a training of a few steps with it, for the next one
    prediction  bare decoding and the filter with that run, beside bert4torch (prediction_speed.py)
    pretrain    pretraining of --start until the time is up; its weights lie in DIR/encoder, and in
                parts of 16 MB beside it

Each has a share of the time, after which it is interrupted as by Ctrl-C: pretraining then saves what
it has. A part that fails does not stop the others. DIR/figures.jsonl has a line for each: its exit
code, its seconds, and the last line that it printed; DIR/NAME.log has the rest. `--device cpu` goes
through the same motions on a processor with less of everything, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
GRACE = 120  # seconds to save after an interruption
PART = 16 * 10**6  # bytes
SHARES = {
    "tests": 0.12,
    "trie": 0.12,
    "shape": 0.1,
    "training": 0.16,
    "run": 0.08,
    "prediction": 0.16,
    "pretrain": 0.22,
}
"""Of the whole time; the rest is for starting and saving."""


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> command, in order."""
    on_gpu = arguments.device == "cuda"
    python, out = sys.executable, arguments.out
    nlpkit = [python, "-m", "cli.main"]
    device = ["--device", arguments.device]
    layers, size = (12, 768) if on_gpu else (2, 128)
    shape = {"family": "bert", "layers": layers, "hidden_size": size, "heads": size // 64}
    shape["intermediate_size"] = 4 * size
    settings = [f"--set=encoder.{name}={value}" for name, value in shape.items()]
    many, few = ("400000000", "65536") if on_gpu else ("65536", "16384")
    batch = ["--set=pretrain.batch_tokens=" + ("65536" if on_gpu else "4096")]
    base, run, encoder = str(out / "base"), str(out / "run"), str(out / "encoder")
    pretrain = [*nlpkit, "encoder", "pretrain", *arguments.text, "--corpus"]
    teacher = ["--teacher", arguments.teacher] if arguments.teacher else []
    speed = [python, str(HERE / "training_speed.py"), "--data", arguments.train, *device]
    speed += ["--encoder", base, "--repeats", "1", "--peer-shape", f"{layers}x{size}"]
    speed += [] if on_gpu else ["--steps", "5", "--warmup-steps", "1"]
    predicted = [python, str(HERE / "prediction_speed.py"), "--run", run, "--data", arguments.train]
    predicted += [*device, "--repeats", "1", "--peer-shape", f"{layers}x{size}", "--memory-lines"]
    predicted += ["--peer-modes", "tuned"]
    predicted += [] if on_gpu else ["--lines", "2048", "--peer-lines", "20"]
    if arguments.peer_python:
        speed += ["--peer-python", arguments.peer_python]
        predicted += ["--peer-python", arguments.peer_python]
    return {
        "tests": [python, "-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "decoding")],
        "trie": [
            *[python, str(HERE / "decoding.py"), "--json", *device],
            *["--entries", "1000000" if on_gpu else "10000"],
        ],
        "shape": [
            *[*pretrain, str(out / "corpus_base"), "--out", base, *device, *settings, *batch],
            *["--tokens", few if not on_gpu else "20000000"],
        ],
        "training": speed,
        "run": [
            *[*nlpkit, "train", "gplinker", "--data", arguments.train, "--encoder", base, *device],
            *["--out", run, "--epochs", "1"],
        ],
        "prediction": predicted,
        "pretrain": [
            *[*pretrain, str(out / "corpus"), "--out", encoder, "--start", arguments.start],
            *[*teacher, *batch, *device, "--tokens", many],
        ],
    }


def perform(name: str, command: list[str], seconds: float, out: Path) -> dict[str, object]:
    """Runs one command, interrupts it when its time is up, and says what came of it."""
    started = time.monotonic()
    log = out / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = lines[-1] if lines else ""
    spent = round(time.monotonic() - started, 1)
    return {"name": name, "exit": process.returncode, "seconds": spent, "last": last}


def in_parts(path: Path) -> None:
    """Writes a file anew in parts of PART bytes, beside its folder: NAME.000, NAME.001, ..."""
    content = path.read_bytes()
    for number, start in enumerate(range(0, len(content), PART)):
        part = path.parent.parent / f"{path.parent.name}.{path.name}.{number:03}"
        part.write_bytes(content[start : start + PART])


def main() -> None:
    """Runs all parts in order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--start", default="tiny")
    parser.add_argument("--teacher")
    parser.add_argument("--peer-python")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="*", choices=SHARES, default=list(SHARES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "figures.jsonl").open("a", encoding="utf-8") as stream:
        for name, command in commands(arguments).items():
            if name not in arguments.only:
                continue
            seconds = 60 * arguments.minutes * SHARES[name]
            figures = perform(name, command, seconds, arguments.out)
            print(json.dumps(figures, ensure_ascii=False), file=stream, flush=True)
            print(json.dumps(figures, ensure_ascii=False), flush=True)
    weights = arguments.out / "encoder" / "model.safetensors"
    if weights.exists():
        in_parts(weights)


if __name__ == "__main__":
    main()
