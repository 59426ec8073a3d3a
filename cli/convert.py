"""`nlpkit encoder convert`: a checkpoint in, another one out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cli.report_table import show
from nlpkit.errors import SettingsError

Option = typer.Option


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A directory, a hub id, or what ships: the BERT family, or e5, MiniLM, bge-m3 "
            "and others of the XLM-R vocabulary."
        ),
    ],
    out: Annotated[Path, Option(help="The directory to make.")],
    layers: Annotated[
        str | None, Option(help="0,2,4: these, from 0; 6: the first six; default: all.")
    ] = None,
    bits: Annotated[
        int | None, Option(help="Store a weight in 4 or 8 bits; default: as it is.")
    ] = None,
    positions: Annotated[
        int | None, Option(help="Extend the learned positions to so many.")
    ] = None,
    text: Annotated[
        Path | None, Option(help="Plain text: say what share of its characters has tokens.")
    ] = None,
    pickle: Annotated[
        bool, Option("--pickle", help="Read pytorch_model.bin too (tensors only).")
    ] = False,
    force: Annotated[bool, Option(help="Overwrite the encoder in --out.")] = False,
) -> None:
    """Make an encoder out of another one: fewer layers, fewer bits, more positions, and of
    SentencePiece pieces one token a Chinese character.

    --encoder and pretrain --start take it; without --bits transformers too.
    """
    from nlpkit.encoders.checkpoint.convert import Conversion
    from nlpkit.encoders.checkpoint.convert import convert as converted
    from nlpkit.folder_lock import claimed
    from nlpkit.jsonl import check_readable
    from nlpkit.text.coverage import coverage
    from nlpkit.training.folder import new_folder, put_in_place

    if bits not in (None, 4, 8):
        raise SettingsError(f"--bits: expected 4 or 8, got {bits}")
    check_out(out, force)
    for path in [Path(source), *([text] if text else [])]:
        if path.exists() and path.resolve().is_relative_to(out.resolve()):
            raise SettingsError(
                f"{path}: lies in {out}, which is overwritten", "name another --out"
            )
    if text is not None:
        check_readable(text)
    with claimed(out, what="conversion"):
        new = new_folder(out)
        try:
            asked = Conversion(layers, bits, positions)
            report, tokenizer = converted(source, new, asked, pickle)
            if text is not None:
                report |= coverage(tokenizer, text)
            put_in_place(new, out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    show({"encoder": str(out), **report})


def check_out(out: Path, force: bool) -> None:
    """Raises SettingsError where a folder may not be written: one with something in it, unless that
    is an encoder and `force` is given."""
    from nlpkit.encoders import is_encoder

    if not out.exists():
        return
    if not out.is_dir():
        raise SettingsError(f"{out}: is no folder", hint="choose another --out")
    if not any(out.iterdir()):
        return
    if not is_encoder(out):
        raise SettingsError(f"{out}: holds something that is no encoder", "choose another --out")
    if not force:
        hint = "--force overwrites it, --out names another"
        raise SettingsError(f"{out}: holds an encoder", hint)
