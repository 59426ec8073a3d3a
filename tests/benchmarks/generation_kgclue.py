"""The part of the generation benchmark that writes keys of a knowledge base, the same BERT in every
way, 3 beams.

    nlpkit train kgclue --encoder BERT --data train.json --dev dev.json --kb kb.tsv --epochs 1 --out RUN
    python tests/benchmarks/generation_speed.py --part kgclue --kb kb.tsv --data dev.json --run RUN --peer-python PYTHON

and with a knowledge base of a million triples, to see what constraints cost:

    python tests/benchmarks/generation_speed.py --part kgclue --kb kb_dense.tsv --data dev.json --run RUN \
        --ways sum power off "free sum" "free off" --repeats 5

    sum, power, off      nlpkit by batches of 32, cached, under the trie, with each kind of look-ahead
    free sum, free off   any tokens, no constraint, no end: as many steps for each batch as `sum` and `off` take
    transformers         `generate` by batches of 32, cached, with prefix_allowed_tokens_fn over nested dictionaries
    bert4torch           one by one, uncached, nested dictionaries, with look-ahead (bert4torch_kgclue_peer.py)
    bert4torch off       the same without look-ahead

`RUN` has a BERT, best one of 4 layers of 256, since all three read that. Where there is no run its
weights are random: then keys have nothing to do with the question, and look-ahead has less to do
than it has otherwise. `off` and `transformers` score in the same way and must write the same. With
bert4torch equality is only counted: it cannot end a key that another goes on from, and drops
finished beams that are not the best at that moment. What is timed goes from token ids to token ids;
tokens per second are those of the best keys, their ends counted.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from generation_equations import PrefixBert, random_bert, save_bert

from nlpkit import encoders
from nlpkit.decoding.constraint import Candidates
from nlpkit.decoding.search import beam_search
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.run import load
from nlpkit.tasks.kgclue.knowledge_base import KnowledgeBase
from nlpkit.tasks.kgclue.lookahead import LookAhead
from nlpkit.tasks.kgclue.search import decided_by
from nlpkit.tasks.kgclue.task import Settings

BATCH, CHUNK, MOST_QUESTION = 32, 65536, 64
PEER = Path(__file__).parent / "bert4torch_kgclue_peer.py"
OWN, PEERS = (
    ["sum", "power", "off", "free sum", "free off", "transformers"],
    ["bert4torch", "bert4torch off"],
)
EQUAL = [("off", "transformers"), ("off", "bert4torch off"), ("power", "bert4torch")]
RATIOS = [(own, other) for own in OWN[:3] for other in ("transformers", "bert4torch")]
RATIOS += [("off", "bert4torch off"), ("sum", "free sum"), ("off", "free off")]
LENGTHS = [None]  # as they come


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Writes the BERT, the trie, its keys in words of token ids, and the token ids of questions."""
    if not (arguments.kb and arguments.data):
        raise SystemExit("kgclue: expected --kb and --data")
    if arguments.run:
        run = load(arguments.run, kb=arguments.kb)
        tokenizer = save_bert(folder, run.model.encoder, run.tokenizer.backend)
    else:
        tokenizer = save_bert(folder, *random_bert())
    trie = KnowledgeBase.open(arguments.kb, tokenizer).trie
    trie.save(folder / "kb.trie")
    with (folder / "keys.txt").open("w") as stream:
        for first in range(0, len(trie), CHUNK):
            keys = trie.keys(range(first, min(first + CHUNK, len(trie))))
            stream.writelines(" ".join(map(str, key)) + "\n" for key in keys)
    with open(arguments.data, "rb") as lines:
        texts = [json.loads(line)["question"] for line in islice(lines, arguments.problems)]
    sources = [tokenizer.token_ids(text)[:MOST_QUESTION] for text in texts]
    ids = {
        "start": tokenizer.cls_id,
        "sep": tokenizer.sep_id,
        "end": tokenizer.cls_id,
        "depth": trie.depth,
    }
    (folder / "sources.json").write_text(json.dumps({**ids, "sources": sources}))


def command(way: str, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """What measures a way, in a process of its own."""
    options = [str(folder), "--beams=3", f"--threads={arguments.threads}"]
    if way in PEERS:
        off = ["--off"] if way.endswith("off") else []
        return [
            arguments.peer_python,
            str(PEER),
            *options,
            f"--problems={arguments.peer_problems}",
            *off,
        ]
    return [arguments.python, __file__, way, *options, f"--problems={arguments.problems}"]


class Unconstrained:
    """`Constraint` without any: the best of all tokens, and no end; a step does what no search can
    do without."""

    eos_id = -1

    def start(self, rows: int) -> torch.Tensor:
        """See `Constraint`."""
        return torch.zeros((rows, 1), dtype=torch.int64)

    def step(
        self, logits_BKV: torch.Tensor, score_BK: torch.Tensor, state_BK: Any, count: int, *_: Any
    ) -> Candidates:
        """See `Constraint`."""
        score_BKV = logits_BKV.log_softmax(-1).add_(score_BK[..., None])
        score_BC, place_BC = score_BKV.flatten(1).topk(count)
        beam_BC, token_BC = place_BC // logits_BKV.shape[2], place_BC % logits_BKV.shape[2]
        return Candidates(score_BC, beam_BC, token_BC, token_BC)

    def follow(
        self, state_BK: torch.Tensor, candidates: Candidates, chosen_BK: torch.Tensor
    ) -> torch.Tensor:
        """See `Constraint`."""
        return chosen_BK


class Counting(CachedDecoder):
    """Counts its steps."""

    count = 0

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """See `Model`."""
        self.count += 1
        return super().next(token_BK, beam_BK)


def ours(folder: Path, given: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """decode(sources, steps) -> (keys, steps) by nlpkit, under the trie where steps is None, else
    free."""
    encoder, tokenizer = encoders.load(str(folder), encoders.settings_of(str(folder))(), head=True)
    encoder.eval()
    table = TrieTable.of(
        KnowledgeBase.open(folder / "kb.trie", tokenizer).trie, given["end"], key_ranges=True
    )
    kind = arguments.way.split()[-1]

    def decode(sources: list[list[int]], steps: int | None = None) -> tuple[list[list[int]], int]:
        decoder = Counting(encoder, collate_sources(sources, tokenizer))
        if steps is not None:
            constraint: Any = Unconstrained()
        elif kind == "off":
            constraint = table
        else:
            constraint = LookAhead(
                table, sources, given["sep"], Settings.coverage if kind == "sum" else None
            )
        most = given["depth"] if steps is None else steps
        rows = beam_search(
            decoder,
            constraint,
            len(sources),
            arguments.beams,
            most,
            norm="renorm",
            is_decided=decided_by(constraint) if steps is None else None,
        ).lists()
        return [row[0][0] if row else [] for row in rows], decoder.count

    return decode


def theirs(folder: Path, given: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """As `ours`, by transformers."""
    model = PrefixBert.from_pretrained(folder, is_decoder=True, dtype=torch.float32).eval()
    model.renorm, root = True, {}
    with (folder / "keys.txt").open() as keys:
        for key in keys:
            node: dict[int, Any] = root
            for token in map(int, key.split()):
                node = node.setdefault(token, {})
            node[given["end"]] = {}

    def legal(written: list[int]) -> list[int]:
        node = root
        for token in written:
            node = node[token]
        return list(node)

    return lambda sources, _: (
        model.write(sources, given, arguments.beams, given["depth"] + 1, legal),
        0,
    )


def main() -> None:
    """Measures one way and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=OWN)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # one thread's seconds are the processor's, so that other programs do not count
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    given = json.loads((arguments.folder / "sources.json").read_text())
    decode = (theirs if arguments.way == "transformers" else ours)(
        arguments.folder, given, arguments
    )
    sources = given["sources"][: arguments.problems]
    batches = [sources[first : first + BATCH] for first in range(0, len(sources), BATCH)]
    with torch.inference_mode():
        is_free = arguments.way.startswith("free")
        steps = [decode(batch)[1] if is_free else None for batch in batches]
        decode(batches[0], steps[0])
        started = clock()
        done = [decode(batch, count) for batch, count in zip(batches, steps, strict=True)]
        seconds = clock() - started
    written = [key for keys, _ in done for key in keys]
    figures: dict[str, Any] = {"problems_per_second": round(len(sources) / seconds, 2)}
    if not is_free:
        figures["tokens_per_second"] = round(sum(len(key) + 1 for key in written) / seconds, 1)
    print(json.dumps({**figures, "steps": sum(count for _, count in done), "written": written}))


if __name__ == "__main__":
    main()
