"""Pretraining speed: `nlpkit encoder pretrain` and a plain `transformers` Trainer on the same model
and text.

    python tests/benchmarks/pretraining_speed.py --text FILE

The plain way is that of the library's examples: lines cut at 128 tokens, batches of 64 random lines
padded to their longest, tokens masked by its collator, AdamW; in float32 as it comes, and with
`bf16`. Counted are tokens of text: padding is none. Every measurement is a process of its own; they
take turns and medians are compared. Run it on an idle machine.
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

LENGTH, LINES = 128, 64


def nlpkit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps of a pretraining after the first ones."""
    from nlpkit.inference.devices import accelerator_for
    from nlpkit.pretraining.resume import open_pretraining
    from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan
    from nlpkit.training.loop import Step

    config = PretrainConfig(tokens=10**9, optimizer=arguments.optimizer, evaluate_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        plan = PretrainPlan(
            (arguments.text,), Path(folder) / "out", config, corpus=Path(arguments.corpus)
        )
        made = open_pretraining(plan, accelerator_for("auto", config.precision))
        started = 0.0
        for event in made.events():
            if isinstance(event, Step) and event.step == arguments.warmup:
                started = time.perf_counter()
            if event.step == arguments.warmup + arguments.steps:
                break
        seconds = time.perf_counter() - started
    return {"tokens_per_second": round(arguments.steps * config.batch_tokens / seconds)}


def roformer(vocabulary: int) -> Any:
    """A masked LM of transformers, of the shape that `pretrain` starts from."""
    import transformers

    from nlpkit.encoders import ShapeConfig

    shape = ShapeConfig()
    config = transformers.RoFormerConfig(
        vocab_size=vocabulary,
        embedding_size=shape.hidden_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_length,
    )
    return transformers.RoFormerForMaskedLM(config)


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same number of steps of a Trainer."""
    import torch
    import transformers

    from nlpkit.encoders import TOKENIZER

    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), **special)
    lines = Path(arguments.text).read_text(encoding="utf-8").splitlines()
    encoded = tokenizer(lines, truncation=True, max_length=LENGTH)["input_ids"]
    dataset: Any = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.25)
    tokens: list[int] = []
    times: list[float] = []

    def collate(rows: list[dict[str, Any]]) -> Any:
        tokens.append(sum(len(row["input_ids"]) for row in rows))
        return collator(rows)

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    settings = {
        "per_device_train_batch_size": LINES,
        "learning_rate": 1e-3,
        "bf16": arguments.bf16,
        "report_to": [],
    }
    settings |= {
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    settings |= {"max_steps": arguments.warmup + arguments.steps, "remove_unused_columns": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer_settings: Any = transformers.TrainingArguments(output_dir=folder, **settings)
        trainer = transformers.Trainer(
            roformer(len(tokenizer)), trainer_settings, collate, dataset, callbacks=[Clock()]
        )
        trainer.train()
    counted = sum(tokens[arguments.warmup : arguments.warmup + arguments.steps])
    return {"tokens_per_second": round(counted / (times[-1] - times[arguments.warmup - 1]))}


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    options = {
        "nlpkit": [],
        "nlpkit adamw": ["--optimizer=adamw"],
        "Trainer": [],
        "Trainer bf16": ["--bf16"],
    }[name]
    kind = "nlpkit" if name.startswith("nlpkit") else "plain"
    command = [
        sys.executable,
        __file__,
        "--child",
        kind,
        "--text",
        arguments.text,
        "--corpus",
        arguments.corpus,
    ]
    command += [f"--steps={arguments.steps}", f"--warmup={arguments.warmup}", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures = {"name": name, **json.loads(done.stdout.splitlines()[-1])}
    print(json.dumps(figures), flush=True)
    return figures


def main() -> None:
    """Takes turns and prints the medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", required=True, help="plain text, some megabytes")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--optimizer", default="muon", help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps({"nlpkit": nlpkit, "plain": plain}[arguments.child](arguments)))
        return
    names = ["nlpkit", "nlpkit adamw", "Trainer", "Trainer bf16"]
    with tempfile.TemporaryDirectory() as folder:
        arguments.corpus = str(Path(folder) / "corpus")
        turns = [[measure(name, arguments) for name in names] for _ in range(arguments.repeats)]
    speed = {
        n: statistics.median(turn[i]["tokens_per_second"] for turn in turns)
        for i, n in enumerate(names)
    }
    ratios = {f"nlpkit / {name}": round(speed["nlpkit"] / speed[name], 2) for name in names[1:]}
    print(json.dumps({"tokens_per_second": speed, **ratios}))


if __name__ == "__main__":
    main()
