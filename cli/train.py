"""`nlpkit train`: from options to a plan, and from events to lines on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import Device, Processes
from cli.seeds import train_seeds
from cli.tasks import task_names

if TYPE_CHECKING:
    from nlpkit.training.plan import Plan

Option = typer.Option


def train(
    task: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(task_names())}; several with one encoder: gplinker+ner."
        ),
    ],
    data: Annotated[
        list[str],
        Option(
            help="Training data, JSONL; may be given several times. Of several tasks: TASK=FILE."
        ),
    ],
    dev: Annotated[
        list[str] | None, Option(help="Data to evaluate on; default: a tenth of --data.")
    ] = None,
    out: Annotated[Path | None, Option(help="The run directory; default: runs/TASK.")] = None,
    encoder: Annotated[
        str | None, Option(help="tiny (default), dgcnn, gru, or a BERT-family directory or hub id.")
    ] = None,
    epochs: Annotated[int | None, Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, Option(help="Examples of a step.")] = None,
    accumulate: Annotated[
        int | None, Option(help="Cut every batch into so many pieces; same result.")
    ] = None,
    learning_rate: Annotated[float | None, Option(help="Top of the schedule.")] = None,
    seed: Annotated[int | None, Option(help="Of weights, batches and dropout.")] = None,
    seeds: Annotated[
        int, Option(min=1, help="Train so many runs, OUT/seed-1 ..., one after another.")
    ] = 1,
    kb: Annotated[str | None, Option(help="The knowledge base of a task that has one.")] = None,
    config: Annotated[Path | None, Option(help="Settings as TOML.")] = None,
    set_: Annotated[
        list[str] | None,
        Option(
            "--set",
            help="A setting: section.key=value; may be repeated. nlpkit settings lists them.",
        ),
    ] = None,
    resume: Annotated[
        Literal["auto", "never"], Option(help="Continue the unfinished run in --out.")
    ] = "auto",
    force: Annotated[bool, Option(help="Overwrite the run in --out.")] = False,
    dry_run: Annotated[
        bool, Option(help="Show data, groups of parameters and peak memory; write nothing.")
    ] = False,
    device: Device = "auto",
    processes: Processes = 1,
) -> int:
    """Train a task on JSONL and write a run directory; the last line on stdout says where and how
    good. nlpkit tasks says what every task takes and gives."""
    flags: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "accumulate": accumulate}
    flags |= {"learning_rate": learning_rate, "seed": seed, "kb": kb}

    plan = make_plan(
        task, data, dev, out, encoder, config, set_ or [], flags, device, resume, force
    )
    plan.settings()  # what is wrong with the plan is told once

    def one(plan: Plan, *changes: str) -> int:
        if processes > 1:
            from cli.processes import launch

            return launch(device, processes, *changes)
        return rehearse(plan) if dry_run else perform(plan)

    if seeds == 1 or dry_run:
        return one(plan)
    return train_seeds(plan, seeds, one)


def make_plan(
    task: str,
    data: list[str],
    dev: list[str] | None,
    out: Path | None,
    encoder: str | None,
    config: Path | None,
    pairs: list[str],
    flags: dict[str, Any],
    device: str,
    resume: str,
    force: bool,
) -> Plan:
    """The plan of the options: flag > --set > --config > default."""
    from nlpkit import tasks
    from nlpkit.config import fit, parse_pairs, read_toml
    from nlpkit.training.multitask.plan import PLUS, MultiPlan, kb_values
    from nlpkit.training.plan import Plan

    values = [read_toml(config) if config else {}, parse_pairs(pairs)]
    kb = flags.pop("kb")
    named = "tiny"
    values.append({"train": {name: value for name, value in flags.items() if value is not None}})
    values.append(kb_values(task, kb))
    for section in values:
        name = section.get("encoder", {}).pop("name", None)
        named = named if name is None else fit(name, str, "encoder.name")
    kind = MultiPlan if PLUS in task else Plan
    return kind(
        task=task,
        data=tuple(data),
        dev=tuple(dev or ()),
        out=out or Path("runs") / tasks.section_name(task),
        encoder=encoder or named,
        values=tuple(values),
        device=device,
        resume=resume,
        force=force,
    )


def perform(plan: Plan) -> int:
    """Trains; on Ctrl-C a checkpoint is saved once and the exit code is 130."""
    from cli.console import TrainingDisplay, finish, follow, opening_lines
    from nlpkit.folder_lock import claimed
    from nlpkit.inference.devices import accelerator_for
    from nlpkit.training.folder import refuse_separate_disks
    from nlpkit.training.resume import finished_summary, open_fit

    record = plan.record if plan.may_resume else None
    accelerator = accelerator_for(plan.device, plan.settings()["train"].precision, record)
    is_main = accelerator.is_main_process
    with claimed(plan.out, is_main):
        refuse_separate_disks(plan.out, accelerator)
        done = finished_summary(plan, accelerator)
        if done is not None:
            return finish(accelerator, done)
        fit = open_fit(plan, accelerator)
        return follow(fit, TrainingDisplay(fit.state, opening_lines(fit), is_main))


def rehearse(plan: Plan) -> int:
    """What `--dry-run` shows: the data, the groups of parameters, and the memory of the longest
    batch."""
    import tempfile

    from cli.console import show_rehearsal
    from nlpkit.inference.devices import accelerator_for
    from nlpkit.training.resume import start_fit

    with tempfile.TemporaryDirectory() as folder:
        accelerator = accelerator_for(plan.device, plan.settings()["train"].precision)
        fit = start_fit(plan, accelerator, Path(folder))
        figures = fit.rehearse()
        if accelerator.is_main_process:
            show_rehearsal(fit, *figures)
    return 0
