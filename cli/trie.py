"""`nlpkit trie`: sets of strings, or a knowledge base, as what a decoder may generate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.report_table import show

if TYPE_CHECKING:
    from nlpkit.decoding.trie.token_trie import TokenTrie
    from nlpkit.text.tokenizer import Tokenizer

Option = typer.Option
app = typer.Typer(
    help="Build and inspect tries for constrained decoding.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
COMPLETIONS = 100


@app.command()
def build(
    keys: Annotated[str, typer.Argument(help="Text, a key a line, also .gz and .xz; - is stdin.")],
    output: Annotated[
        Path, Option("--output", "-o", help="The file to write; FILE.csr is kept beside it.")
    ],
    tokenizer: Annotated[str, Option(help="Of which run or encoder the tokens are.")] = "tiny",
    task: Annotated[
        str | None, Option(help="The file is the knowledge base of this task, e.g. kgclue.")
    ] = None,
) -> None:
    """Write the trie of all keys of a file; equal ones are one key.

    Of a knowledge base (--task) the keys are what the task writes, for kgclue `subject [SEP]
    predicate [SEP] meaning`, and their values the triples.
    """
    from nlpkit.decoding.trie.token_trie import TokenTrie
    from nlpkit.encoders import load_tokenizer
    from nlpkit.inference.trie_keys import TextKeys

    own = load_tokenizer(tokenizer)
    if task is not None:
        from nlpkit import tasks

        trie = tasks.load_with_kb(task).build_trie(keys, own)
    else:
        text_keys = TextKeys(keys, own)
        trie = text_keys.trie()
        if text_keys.empty:
            count = len(text_keys.empty)
            first = text_keys.empty[0]
            typer.echo(
                f"lines without visible text, left out: {count}, the first {first}", err=True
            )
    trie.save(output)
    show(_describe(output, TokenTrie.load(output)))


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="What `nlpkit trie build` wrote.")],
    complete: Annotated[
        str | None, Option(help="The keys that begin with this text, at most 100.")
    ] = None,
    tokenizer: Annotated[
        str, Option(help="For --complete: of which run or encoder the tokens are.")
    ] = "tiny",
) -> None:
    """What a trie holds, or how a prefix goes on in it; JSON when piped, else a table."""
    from nlpkit.decoding.trie.token_trie import TokenTrie
    from nlpkit.encoders import load_tokenizer
    from nlpkit.text.backend import vocabulary_hash

    if complete is None:
        show(_describe(file, TokenTrie.load(file)))
    else:
        own = load_tokenizer(tokenizer)
        show(_completions(TokenTrie.load(file, vocabulary_hash(own.backend)), complete, own))


def _describe(file: Path, trie: TokenTrie) -> dict[str, Any]:
    from nlpkit.decoding.trie.file import compiled_path

    compiled = compiled_path(file)
    return {
        "file": str(file),
        "keys": len(trie),
        "nodes": trie.bounds[-1],
        "most_tokens": trie.depth,
        "values": None if trie.values is None else int((trie.values.text == ord("\n")).sum()),
        "vocabulary_size": trie.vocabulary_size,
        "vocabulary_sha256": trie.vocabulary_hash,
        "bytes": file.stat().st_size,
        "compiled_bytes": compiled.stat().st_size if compiled.exists() else None,
    }


def _completions(trie: TokenTrie, prefix: str, tokenizer: Tokenizer) -> dict[str, Any]:
    from nlpkit.inference.trie_keys import texts_of

    keys = trie.key_range(trie.find(tokenizer.token_ids(prefix)))
    shown = keys[:COMPLETIONS]
    texts = texts_of(trie.keys(shown), tokenizer)
    found: list[str] | dict[str, list[str]] = texts
    if trie.values is not None:
        found = {text: trie.values.of(key) for text, key in zip(texts, shown, strict=True)}
    return {"prefix": prefix, "keys": len(keys), "completions": found}
