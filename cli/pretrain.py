"""`nlpkit encoder pretrain`: from options to a plan, and from events to lines on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import Device, Processes

if TYPE_CHECKING:
    from nlpkit.pretraining.pretrain import Pretraining
    from nlpkit.pretraining.settings import PretrainPlan

Option = typer.Option


def pretrain(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT",
            help="Plain text, a paragraph a line, .gz, .xz; FILE:0.2 takes a fifth of it.",
        ),
    ],
    out: Annotated[Path, Option(help="The directory of the encoder.")],
    start: Annotated[
        str | None, Option(help="An encoder to go on from; default: random weights.")
    ] = None,
    encoder: Annotated[
        str | None, Option(help="An encoder to begin at random: on_lstm; default: a transformer.")
    ] = None,
    teacher: Annotated[
        str | None,
        Option(
            help="An encoder of the BERT family with a tokenizer.json, of any tokens, whose vectors "
            "are learned besides."
        ),
    ] = None,
    tokens: Annotated[int | None, Option(help="Tokens to train on.")] = None,
    seed: Annotated[int | None, Option(help="Of weights, order and masks.")] = None,
    corpus: Annotated[
        Path | None, Option(help="Keep the encoded texts in this folder, to use them again.")
    ] = None,
    config: Annotated[Path | None, Option(help="Settings as TOML.")] = None,
    set_: Annotated[
        list[str] | None, Option("--set", help="A setting: section.key=value; may be repeated.")
    ] = None,
    resume: Annotated[
        Literal["auto", "never"], Option(help="Continue the unfinished pretraining in --out.")
    ] = "auto",
    force: Annotated[bool, Option(help="Overwrite what is in --out.")] = False,
    device: Device = "auto",
    processes: Processes = 1,
) -> int:
    """Train an encoder on plain text to fill in masked words, continue prefixes and, if asked, find
    replaced tokens; or, as on_lstm does, to tell the next token."""
    from nlpkit.config import parse_pairs, read_toml, resolve
    from nlpkit.encoders import shape_settings
    from nlpkit.errors import SettingsError
    from nlpkit.pretraining.settings import PretrainConfig, PretrainPlan

    flags = {
        name: value for name, value in (("tokens", tokens), ("seed", seed)) if value is not None
    }
    values = [read_toml(config) if config else {}, parse_pairs(set_ or []), {"pretrain": flags}]
    if start is not None and encoder is not None:
        raise SettingsError("--encoder: expected none with --start, which has its own")
    sections = resolve({"pretrain": PretrainConfig, "encoder": shape_settings(encoder)}, *values)
    plan = PretrainPlan(
        tuple(texts),
        out,
        sections["pretrain"],
        sections["encoder"],
        start,
        corpus,
        resume=resume,
        force=force,
        teacher=teacher,
        encoder=encoder,
    )
    if processes > 1:
        from cli.processes import launch

        return launch(device, processes)
    return perform(plan, device)


def perform(plan: PretrainPlan, device: str) -> int:
    """Pretrains; on Ctrl-C the encoder and a checkpoint are saved once and the exit code is 130."""
    from cli.console import TrainingDisplay, finish, follow
    from nlpkit.encoders import RECORD
    from nlpkit.folder_lock import claimed
    from nlpkit.inference.devices import accelerator_for
    from nlpkit.pretraining.resume import finished_summary, open_pretraining
    from nlpkit.training.folder import refuse_separate_disks

    record = plan.out / RECORD if plan.may_resume else None
    accelerator = accelerator_for(device, plan.config.precision, record)
    is_main = accelerator.is_main_process
    with claimed(plan.out, is_main):
        refuse_separate_disks(plan.out, accelerator)
        done = finished_summary(plan, is_main)
        if done is not None:
            return finish(accelerator, done)
        made = open_pretraining(plan, accelerator)
        per_step = (plan.config.batch_tokens, "tokens")
        return follow(made, TrainingDisplay(made.state, _opening(made), is_main, per_step))


def _opening(made: Pretraining) -> list[str]:
    """What a pretraining says of its texts."""
    total = sum(text["tokens"] for text in made.record["texts"])
    lines = [
        f"{total:,} tokens of text, {made.tokens_per_pass:,} a pass; "
        f"{made.config.tokens:,} to train on"
    ]
    if made.plan.start is not None and getattr(made.encoder, "head_is_new", False):
        lines.append(f"{made.plan.start} has no masked-LM head; a new one starts at random")
    for path in made.too_short:
        lines.append(f"{path}: less than {made.lengths[1]} tokens; the long steps leave it out")
    return lines
