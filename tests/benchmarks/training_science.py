"""What a technique, an optimizer, a wrapper or any other setting is worth: three small settings,
several seeds, the same for all.

    S=tests/benchmarks/training_science.py
    python $S --data DIR --technique "fgm(epsilon=0.5)"
    python $S --data DIR --wrapper lookahead --seeds 3 --settings cluener --encoder random
    python $S --data DIR --optimizer lamb --set train.learning_rate=0.01 --equal-time
    python $S --table training_science.jsonl

DIR has `cluener_train.jsonl`, `duie_train.jsonl` and `reviews_train.jsonl` (fields `text` and
`label`), and may have a `_dev.jsonl` of each, all as `nlpkit data convert` writes them. A training
takes 1,000 lines of it, at equal distances from the first to the last, and is judged once, at its
end, on at most 1,500 lines of dev (of the other lines of train where there is no dev).

The variant has all that `--technique`, `--wrapper` (both may be repeated, and compose in their
order), `--optimizer` and `--set` say; the base has none of it. Both are trained with each seed. A
result is one line appended to `--results`, and what is there already is not trained again: a long
run may be stopped and started at will. The time of a step is that of the variant over the base's,
in processor seconds, in turns within one process; it is measured once for all seeds.

`--table` prints what a file of results says: the mean and the standard deviation over the seeds,
and the mean of the differences to the base, seed by seed, with its 95 % confidence interval by
Student's t.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

TASKS = {"cluener": "ner", "duie": "gplinker", "reviews": "classification"}
"""Setting -> task."""
ENCODERS: dict[str, dict[str, Any]] = {"tiny": {}, "random": {"random": True}}
"""`--encoder` -> settings of `tiny`: as it was pretrained, or its shape with random weights."""
LINES, DEV_LINES = 1000, 1500
TIMED_STEPS, WARM_UP = 12, 2
BASE = "base"
QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Of Student's t at 0.975, for 1 to 20 degrees of freedom."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One training: where, with which seed, and what is changed of the base (settings as
    `section.key=value`)."""

    setting: str
    encoder: str
    epochs: int
    seed: int
    variant: str
    changes: tuple[str, ...] = ()
    equal_time: bool = False

    def key(self) -> Record:
        """What tells the case from the others in a file of results."""
        names = ("setting", "encoder", "epochs", "seed", "variant")
        return {name: getattr(self, name) for name in names}


def pick(lines: list[bytes], count: int) -> list[bytes]:
    """`count` lines at equal distances, all where there are no more."""
    if len(lines) <= count:
        return lines
    return [lines[number * len(lines) // count] for number in range(count)]


def prepare(data: Path, setting: str, folder: Path) -> tuple[str, str]:
    """(training file, dev file): the lines of a setting, in `folder`."""
    lines = (data / f"{setting}_train.jsonl").read_bytes().splitlines(keepends=True)
    dev_path = data / f"{setting}_dev.jsonl"
    if dev_path.exists():
        dev = dev_path.read_bytes().splitlines(keepends=True)
    else:
        dev = lines[1::2]
        lines = lines[::2]
    paths = []
    for name, kept in (("train", pick(lines, LINES)), ("dev", pick(dev, DEV_LINES))):
        path = folder / f"{setting}_{name}.jsonl"
        path.write_bytes(b"".join(kept))
        paths.append(str(path))
    return paths[0], paths[1]


def plan_of(case: Case, epochs: int, files: tuple[str, str]) -> Any:
    """The plan of a case; it is evaluated once, at its end."""
    from nlpkit.config import parse_pairs
    from nlpkit.training.plan import Plan

    fixed = {
        "train": {"epochs": epochs, "evaluate_every": epochs, "seed": case.seed},
        "encoder": ENCODERS[case.encoder],
    }
    train, dev = files
    return Plan(
        TASKS[case.setting],
        (train,),
        Path(),
        dev=(dev,),
        values=(fixed, parse_pairs(case.changes)),
        device="cpu",
    )


def fit_of(case: Case, epochs: int, files: tuple[str, str], folder: Path) -> Any:
    """The training of a case, in a folder of its own."""
    from nlpkit.inference.devices import accelerator_for
    from nlpkit.training.fit import new_fit

    folder.mkdir(parents=True)
    return new_fit(plan_of(case, epochs, files), accelerator_for("cpu", "fp32"), folder)


def time_ratio(case: Case, files: tuple[str, str], folder: Path) -> float:
    """Processor seconds of some steps of a case over those of its base, taken in turns."""
    from nlpkit.training.step import TrainingStep

    base = replace(case, changes=())
    fits = [
        fit_of(base, case.epochs, files, folder / "time_base"),
        fit_of(case, case.epochs, files, folder / "time_variant"),
    ]
    steps = [TrainingStep(fit.state) for fit in fits]
    spent = [0.0, 0.0]
    for number in range(WARM_UP + TIMED_STEPS):
        for which, (fit, step) in enumerate(zip(fits, steps, strict=True)):
            fit.state.model.train()
            started = time.process_time()
            step(partial(fit.micro_batches, number))
            if number >= WARM_UP:
                spent[which] += time.process_time() - started
    return spent[1] / spent[0]


def known_ratio(case: Case, records: list[Record]) -> float | None:
    """The time ratio of a case as the results of another seed have it; 1 for the base."""
    if case.variant == BASE:
        return 1.0
    place = {name: value for name, value in case.key().items() if name not in ("seed", "epochs")}
    for record in records:
        if place.items() <= record.items():
            return float(record["time_ratio"])
    return None


def measure(case: Case, files: tuple[str, str], ratio: float | None) -> Record:
    """Trains a case to its end; its record. `ratio` is its time ratio, None to measure it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if ratio is None:
            ratio = time_ratio(case, files, folder)
        epochs = max(1, round(case.epochs / ratio)) if case.equal_time else case.epochs
        started = time.process_time()
        fit = fit_of(case, epochs, files, folder / "run")
        for _ in fit.events():
            pass
        metric = fit.run.task.monitor
        return {
            **case.key(),
            "metric": metric,
            "value": fit.state.history[-1][metric],
            "seconds": round(time.process_time() - started, 1),
            "time_ratio": round(ratio, 3),
            "trained_epochs": epochs,
        }


def read_results(path: Path) -> list[Record]:
    """The records of a file; none where there is no file. A line that a kill cut short is left
    out."""
    records = []
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def append(path: Path, record: Record) -> None:
    """Adds a record to a file, on a line of its own whatever the file ends with."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps(record, ensure_ascii=False) + "\n")


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """The cases that the arguments ask for: of each seed the base, then the variant."""
    changes = [f"train.techniques={json.dumps(arguments.technique)}"] if arguments.technique else []
    if arguments.wrapper:
        changes.append(f"train.wrappers={json.dumps(arguments.wrapper)}")
    if arguments.optimizer:
        changes.append(f"train.optimizer={arguments.optimizer}")
    changes += arguments.set
    names = [*arguments.technique, *arguments.wrapper, *filter(None, [arguments.optimizer])]
    variant = " + ".join([*names, *arguments.set])
    if arguments.equal_time:
        variant += " (equal time)"
    for setting in arguments.settings.split(","):
        for seed in range(1, arguments.seeds + 1):
            base = Case(setting, arguments.encoder, arguments.epochs, seed, BASE)
            yield base
            if changes:
                own = {"variant": variant, "equal_time": arguments.equal_time}
                yield replace(base, changes=tuple(changes), **own)


def run(arguments: argparse.Namespace) -> None:
    """Trains what has no result yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[str, tuple[str, str]] = {}
        for case in cases(arguments):
            key = case.key()
            records = read_results(arguments.results)
            if any(key.items() <= known.items() for known in records):
                continue
            if case.setting not in files:
                files[case.setting] = prepare(arguments.data, case.setting, folder)
            record = measure(case, files[case.setting], known_ratio(case, records))
            append(arguments.results, record)
            print(json.dumps(record, ensure_ascii=False), flush=True)


def interval(differences: list[float]) -> tuple[float, float]:
    """(mean, half the width of its 95 % confidence interval); infinite for a single difference."""
    freedom = len(differences) - 1
    mean = statistics.fmean(differences)
    if freedom == 0:
        return mean, math.inf
    quantile = QUANTILES[freedom - 1] if freedom <= len(QUANTILES) else 1.96 + 2.4 / freedom
    return mean, quantile * statistics.stdev(differences) / math.sqrt(len(differences))


def table(records: list[Record]) -> Iterator[str]:
    """The lines of the Markdown table."""
    groups: dict[tuple[Any, ...], dict[str, dict[int, Record]]] = defaultdict(dict)
    for record in records:
        place = (record["setting"], record["encoder"], record["epochs"], record["metric"])
        groups[place].setdefault(record["variant"], {})[record["seed"]] = record
    yield "| setting | variant | seeds | mean | sd | difference (95 %) | time of a step |"
    yield "|---|---|---|---|---|---|---|"
    for (setting, encoder, epochs, metric), variants in sorted(groups.items()):
        base = variants.get(BASE, {})
        for variant in sorted(variants, key=lambda name: (name != BASE, name)):
            yield row(
                f"{setting}, {encoder}, {epochs} epochs, {metric}", variant, variants[variant], base
            )


def row(place: str, variant: str, found: dict[int, Record], base: dict[int, Record]) -> str:
    """One line of the table: the results of a variant and of its base, by seed."""
    values = [record["value"] for record in found.values()]
    spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    shared = sorted(found.keys() & base.keys())
    difference, ratio = "", ""
    if variant != BASE and shared:
        mean, half = interval([found[seed]["value"] - base[seed]["value"] for seed in shared])
        width = f" ± {half:.4f}" if math.isfinite(half) else ""
        difference = f"{mean:+.4f}{width}"
    if variant != BASE:
        ratio = f"{statistics.median(record['time_ratio'] for record in found.values()):.2f}"
    mean_value = f"{statistics.fmean(values):.4f}"
    cells = [place, f"`{variant}`", str(len(values)), mean_value, spread, difference, ratio]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Trains, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--technique", action="append", default=[], help="of train.techniques")
    parser.add_argument("--wrapper", action="append", default=[], help="of train.wrappers")
    parser.add_argument("--optimizer")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--equal-time", action="store_true", help="fewer epochs for slower steps")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", default=",".join(TASKS))
    parser.add_argument("--encoder", choices=ENCODERS, default="tiny")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("training_science.jsonl"))
    parser.add_argument("--table", type=Path, metavar="RESULTS")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.table:
        print("\n".join(table(read_results(arguments.table))))
        return
    if arguments.data is None:
        sys.exit("error: --data: expected a folder of JSONL files")
    import torch

    torch.set_num_threads(arguments.threads)
    run(arguments)


if __name__ == "__main__":
    main()
