"""Decoding under a trie, against what exists: one step of a beam search, building, memory.

    python tests/benchmarks/decoding.py --entries 10000 1000000 --rows 1 8 64 512
    python tests/benchmarks/decoding.py --entries 10000 --rows 8 --json
    # see decoding_gpu.py
    python tests/benchmarks/decoding.py --entries 1000000 --rows 512 --device cuda

Every row is a ratio of two timings of this run, with the target it is held to. Times are the
processor's. Those of steps are the mean over the six steps of one decode, the median of `--repeats`
decodes, the ways in turns; all ways get the same logits and states and must find the same
candidates.

    floor       log_softmax, beam scores and topk without any constraint, into buffers that are there already
    dict        transformers' PrefixConstrainedLogitsProcessor over a trie of dicts, as in GENRE
    marisa      the same over a marisa trie of code points whose children are found by listing all keys below
    padded      children gathered as many as the widest node of the level has, as in STATIC

The entries are made up: names of 2 to 12 of 6500 characters, the first by Zipf's law, the next by a
mix of the law and of one that each character has for itself. Logits are normal (deviation 2), with
11 more on the token of an entry.
Legend: B rows, K beams, N = B * K, V vocabulary, F widest node of a level.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
import torch
from transformers.generation.logits_process import PrefixConstrainedLogitsProcessor

from nlpkit.decoding.passage import PassageConstraint
from nlpkit.decoding.trie.arrays import read_arrays
from nlpkit.decoding.trie.csr import checked, compile_csr
from nlpkit.decoding.trie.file import KEPT, from_marisa
from nlpkit.decoding.trie.hf_processor import TrieLogitsProcessor
from nlpkit.decoding.trie.table import TrieTable
from nlpkit.decoding.trie.token_trie import TokenTrie

VOCABULARY, CHARACTERS, FIRST, EOS, STEPS = 21128, 6500, 670, 102, 6


def zipf(generator: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Ranks below CHARACTERS by Zipf's law."""
    weights = np.arange(1, CHARACTERS + 1) ** -exponent
    return np.searchsorted(np.cumsum(weights / weights.sum()), generator.random(size)).clip(
        max=CHARACTERS - 1
    )


def names(count: int, seed: int = 1) -> np.ndarray:
    """`count` different names in any order, -1 behind their ends: (count, 12) int16."""
    generator = np.random.default_rng(seed)
    found = np.zeros((0, 12), np.int16)
    while len(found) < count:
        size = count - len(found) + count // 4 + 16
        length = 2 + generator.binomial(10, 0.335, size)
        rows = np.full((size, 12), -1, np.int16)
        rows[:, 0] = zipf(generator, size, 1.0)
        for place in range(1, 12):
            own = (
                rows[:, place - 1].astype(np.int64) * 2654435761
                + zipf(generator, size, 1.15) * 40503
            ) % CHARACTERS
            token = np.where(generator.random(size) < 0.6, own, zipf(generator, size, 1.0))
            rows[:, place] = np.where(place < length, token, -1)
        found = np.unique(np.concatenate([found, rows]), axis=0)
    return np.where(found >= 0, found + FIRST, -1)[generator.permutation(len(found))[:count]]


def facts(count: int) -> np.ndarray:
    """Subject [SEP] predicate [SEP] meaning, eight a subject, of which a quarter has a meaning:
    (count, 24) int16."""
    generator = np.random.default_rng(2)
    size = -(-count // 8)
    subjects, meanings, predicates = names(size), names(size, 3)[:, :6], names(2048, 4)[:, :4]
    meanings[generator.random(size) < 0.75] = -1
    separator = np.full((count, 1), EOS + 1, np.int16)
    of = np.arange(count) // 8
    predicate = (of * 37 + np.arange(count) % 8 * 211 + generator.integers(0, 64, size)[of]) % len(
        predicates
    )
    return np.concatenate(
        [subjects[of], separator, predicates[predicate], separator, meanings[of]], 1
    )


def trie_of(rows: np.ndarray) -> TokenTrie:
    """The trie of such rows."""
    return TokenTrie.from_arrays(rows[rows >= 0].astype(np.int32), (rows >= 0).sum(1), VOCABULARY)


def dict_trie(keys: list[tuple[int, ...]]) -> dict:
    """A trie of dicts; an end is the key EOS."""
    root: dict = {}
    for key in keys:
        node = root
        for token in key:
            child = node.get(token)
            if child is None:
                child = node[token] = {}
            node = child
        node[EOS] = {}
    return root


def children_in_dicts(root: dict) -> Callable[[int, torch.Tensor], list[int]]:
    """What transformers asks for at each step; it walks from the root, as there is no state."""

    def allowed(row: int, input_ids: torch.Tensor) -> list[int]:
        node = root
        for token in input_ids.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [EOS]

    return allowed


def children_in_marisa(trie: marisa_trie.Trie) -> Callable[[int, torch.Tensor], list[int]]:
    """The same from a trie that can only list the keys below a prefix; the first tokens are kept,
    as in GENRE."""
    first = [*{ord(key[0]) for key in trie.iterkeys()}]

    def allowed(row: int, input_ids: torch.Tensor) -> list[int]:
        prefix = "".join(map(chr, input_ids.tolist()[1:]))
        if not prefix:
            return first
        return [
            *{ord(key[len(prefix)]) for key in trie.keys(prefix) if len(key) > len(prefix)}
        ] or [EOS]

    return allowed


@dataclass
class Moment:
    """A step of the decode. The first has one beam a row for us, and for the others K, of which one
    is alive."""

    logits_BKV: torch.Tensor
    score_BK: torch.Tensor
    state_BK: torch.Tensor
    input_ids_NT: torch.Tensor
    logits_NV: torch.Tensor
    wide_score_BK: torch.Tensor

    @classmethod
    def of(
        cls, logits: torch.Tensor, score: torch.Tensor, state: torch.Tensor, input_ids: torch.Tensor
    ) -> Moment:
        """The moment as both want it."""
        rows, beams = len(score), len(input_ids) // len(score)
        wide_score = score
        if score.shape[1] < beams:
            wide_score = torch.full((rows, beams), -1e9)
            wide_score[:, 0] = 0
        wide_logits = logits.expand(rows, beams, -1).reshape(rows * beams, -1).contiguous()
        return cls(logits, score, state, input_ids, wide_logits, wide_score)


def decode(trie: TokenTrie, table: TrieTable, rows: int, beams: int) -> list[Moment]:
    """STEPS moments of a search, one beam of every row on its way to an entry."""
    generator = torch.Generator().manual_seed(rows)
    targets = trie.keys(torch.randint(len(trie), (rows,), generator=generator).numpy())
    state_BK, score_BK = table.start(rows), torch.zeros(rows, 1)
    input_ids = torch.zeros(rows * beams, 1, dtype=torch.int64)
    moments = []
    for step in range(STEPS):
        logits = torch.randn(rows, state_BK.shape[1], VOCABULARY, generator=generator) * 2
        for row, target in enumerate(targets):
            logits[row, :, target[step] if step < len(target) else EOS] += 11
        moments.append(Moment.of(logits, score_BK, state_BK, input_ids))
        found = table.step(logits, score_BK, state_BK, 2 * beams)
        going_BC = found.score_BC.masked_fill(found.token_BC == EOS, float("-inf"))
        score_BK, chosen_BK = going_BC.topk(beams)
        state_BK = table.follow(state_BK, found, chosen_BK).masked_fill(
            score_BK == float("-inf"), -1
        )
        row_BK = torch.arange(rows)[:, None] * beams + found.beam_BC.gather(1, chosen_BK)
        token_BK = found.token_BC.gather(1, chosen_BK).masked_fill(state_BK < 0, EOS)
        input_ids = torch.cat([input_ids[row_BK.flatten()], token_BK.flatten()[:, None]], 1)
    return moments


class Floor:
    """A step without a constraint."""

    def __init__(self, moments: list[Moment]):
        count = len(moments[0].input_ids_NT)
        self.log_probs = torch.empty(count, VOCABULARY)

    def __call__(self, moment: Moment) -> torch.Tensor:
        torch.log_softmax(moment.logits_NV, 1, out=self.log_probs)
        self.log_probs.add_(moment.wide_score_BK.reshape(-1, 1))
        return best_of(self.log_probs, moment.wide_score_BK)


def best_of(score_NV: torch.Tensor, score_BK: torch.Tensor) -> torch.Tensor:
    """The 2K best scores of every row."""
    rows, beams = score_BK.shape
    return score_NV.view(rows, -1).topk(2 * beams).values


def with_processor(processor: Callable) -> Callable[[Moment], torch.Tensor]:
    """A step as `generate` does it."""

    def step(moment: Moment) -> torch.Tensor:
        scores = processor(moment.input_ids_NT, torch.log_softmax(moment.logits_NV, 1))
        return best_of(scores + moment.wide_score_BK.reshape(-1, 1), moment.wide_score_BK)

    return step


def padded(table: TrieTable, trie: TokenTrie) -> Callable[[Moment], torch.Tensor]:
    """A step that looks at as many children of every beam as the widest node of its level has."""
    first = trie.csr.first_child >> 1
    widest = [int(np.diff(first[a : b + 1]).max()) for a, b in pairwise(trie.bounds)] + [0] * STEPS

    def step(moment: Moment) -> torch.Tensor:
        beams = len(moment.input_ids_NT) // len(moment.score_BK)
        score_BK, state_BK = moment.score_BK, moment.state_BK
        log_probs_NV = torch.log_softmax(moment.logits_BKV.flatten(0, 1), 1)
        nodes = table.nodes(state_BK.flatten())
        slot_F = torch.arange(widest[moment.input_ids_NT.shape[1] - 1], dtype=torch.int32)
        child_NF = (nodes.first_N[:, None] + slot_F).clamp_max(len(table.label) - 1)
        score_NF = log_probs_NV.gather(1, table.label[child_NF].long()) + score_BK.reshape(-1, 1)
        score_NF = torch.where(slot_F < nodes.fan_N[:, None], score_NF, float("-inf"))
        end_N1 = torch.where(
            nodes.is_end_N, log_probs_NV[:, EOS] + score_BK.flatten(), float("-inf")
        )[:, None]
        board_BW = torch.cat([score_NF, end_N1], 1).view(len(score_BK), -1)
        return board_BW.topk(min(2 * beams, board_BW.shape[1])).values

    return step


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Of the processor: the least of `repeats` timings."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return best


def timed(
    steps: dict[str, Callable[[Moment], Any]], moments: list[Moment], repeats: int
) -> dict[str, float]:
    """Processor milliseconds of a step of each way, mean over the moments: the median of `repeats`
    decodes, the ways in turns after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            started = time.process_time()
            for moment in moments:
                step(moment)
            times[name].append(1000 * (time.process_time() - started) / len(moments))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def check_equal(step: Callable, reference: Callable, moments: list[Moment]) -> bool:
    """Whether both find the same scores at all moments."""
    for moment in moments:
        ours, theirs = step(moment), reference(moment)
        theirs = theirs.masked_fill(theirs < -1e8, float("-inf"))
        if not torch.allclose(ours, theirs[:, : ours.shape[1]], atol=1e-4):
            return False
    return True


MILLION = 10**6


def at_a_million(targets: dict[int, str]) -> dict[int, dict[int, str]]:
    """Targets by rows that hold from a million entries on."""
    return {rows: {MILLION: target} for rows, target in targets.items()}


TARGETS: dict[
    str, dict[int, dict[int, str]]
] = {  # rows of a step (0: none) -> entries from which it holds
    "dict / ours": at_a_million({1: ">= 2", 8: ">= 8", 64: ">= 16", 512: ">= 30"}),
    "ours / floor": at_a_million({1: "<= 2.8", 8: "<= 0.8", 64: "<= 0.85", 512: "<= 0.55"}),
    "ours renorm / floor": at_a_million({64: "<= 0.45", 512: "<= 0.15"}),
    "marisa / ours": {64: {MILLION: ">= 40"}, 512: {MILLION: ">= 40", 5 * MILLION: ">= 120"}},
    "padded / ours": {512: {0: ">= 2.5"}},
    "processor of transformers / ours": at_a_million({8: ">= 2.5", 64: ">= 8", 512: ">= 7"}),
    "ours, most entries / fewest": {512: {0: "<= 1.35"}},
    "dict build / compile": {0: {MILLION: ">= 4", 5 * MILLION: ">= 8"}},
    "compile from file / marisa build": {0: {MILLION: "<= 0.5", 5 * MILLION: "<= 0.6"}},
    "dict bytes / compiled bytes": {0: {0: ">= 25"}},
    "compiled bytes / file bytes": {0: {0: "<= 3"}},
    "file bytes per entry": {0: {MILLION: "<= 10", 5 * MILLION: "<= 9"}},
    "passage: n-grams / ours": {64: {0: ">= 8"}, 512: {0: ">= 13"}},
    "GPU: us a step": {},
    "GPU: us a step, renorm": {512: {0: "<= 8"}},
    "GPU: ours / bare logsumexp": {512: {0: "<= 1.6"}},
    "GPU: ours / log_softmax and topk": {512: {0: "<= 0.35"}},
    "GPU: ragged layout / ours": {},
    "GPU: ways of ours that wait": {rows: {0: "<= 0"} for rows in (1, 8, 64, 512)},
    "facts: seconds to build": {},
    "facts: ms a step of 64 rows": {},
    "facts: seconds to compile from file": {0: {20 * MILLION: "<= 25"}},
    "facts: compiled bytes per entry": {0: {20 * MILLION: "<= 45"}},
    "facts: file bytes per entry": {0: {20 * MILLION: "<= 6.5"}},
}


def row(what: str, entries: int, rows: int, figure: float) -> dict[str, Any]:
    """A line of the report; no target, and `met` None, where none was set for so few entries or
    such rows."""
    targets = [
        aim for least, aim in sorted(TARGETS[what].get(rows, {}).items()) if entries >= least
    ]
    target = targets[-1] if targets else None
    way, _, limit = (target or "").partition(" ")
    met = (
        None
        if target is None
        else figure <= float(limit)
        if way == "<="
        else figure >= float(limit)
    )
    return {
        "what": what,
        "entries": entries,
        "rows": rows,
        "figure": round(figure, 3),
        "target": target,
        "met": met,
    }


def step_rows(
    trie: TokenTrie, rows: int, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """The report on the steps with one trie and number of rows, and the milliseconds of ours."""
    table, keys, beams = (
        TrieTable.of(trie, EOS),
        trie.keys(range(len(trie))),
        min(rows, arguments.beams),
    )
    moments = decode(trie, table, rows // beams, beams)
    dicts = PrefixConstrainedLogitsProcessor(children_in_dicts(dict_trie(keys)), beams)
    lists = children_in_marisa(marisa_trie.Trie("".join(map(chr, (*key, EOS))) for key in keys))
    shim = TrieLogitsProcessor(table, beams, in_place=True)  # as beam search allows

    def ours(norm: Any) -> Callable[[Moment], torch.Tensor]:
        return lambda m: table.step(m.logits_BKV, m.score_BK, m.state_BK, 2 * beams, norm).score_BC

    steps = {
        "floor": Floor(moments),
        "dict": with_processor(dicts),
        "marisa": with_processor(PrefixConstrainedLogitsProcessor(lists, beams)),
        "padded": padded(table, trie),
        "full": ours("full"),
        "renorm": ours("renorm"),
    }
    for name in ("dict", "marisa", "padded"):
        assert check_equal(steps["full"], steps[name], moments), f"{name} finds other candidates"
    ms = timed(steps, moments, arguments.repeats)
    processors = {"transformers": dicts, "ours": shim}
    # last of all, as ours overwrites the logits
    alone = timed(
        {
            name: lambda m, p=processor: p(m.input_ids_NT, m.logits_NV)
            for name, processor in processors.items()
        },
        moments,
        arguments.repeats,
    )
    print(
        f"{len(trie)} entries, {rows} rows, ms a step: {ms}, processors alone: {alone}",
        file=sys.stderr,
    )
    figures = {
        "dict / ours": ms["dict"] / ms["full"],
        "ours / floor": ms["full"] / ms["floor"],
        "ours renorm / floor": ms["renorm"] / ms["floor"],
        "marisa / ours": ms["marisa"] / ms["full"],
        "padded / ours": ms["padded"] / ms["full"],
        "processor of transformers / ours": alone["transformers"] / alone["ours"],
    }
    return [row(what, len(trie), rows, figure) for what, figure in figures.items()], ms["full"]


def gpu_rows(trie: TokenTrie, rows: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The report on the steps on a GPU."""
    from decoding_gpu import figures  # beside this file

    table, beams = TrieTable.of(trie, EOS), min(rows, arguments.beams)
    moments = decode(trie, table, rows // beams, beams)
    wanted = [table.step(m.logits_BKV, m.score_BK, m.state_BK, 2 * beams).score_BC for m in moments]
    found = figures(trie, EOS, moments, wanted, arguments.repeats)
    return [row(what, len(trie), rows, figure) for what, figure in found.items()]


def build_rows(trie: TokenTrie) -> list[dict[str, Any]]:
    """The report on building and on memory."""
    keys = trie.keys(range(len(trie)))
    flat, length = np.concatenate(list(map(np.array, keys))), np.array(list(map(len, keys)))
    tracemalloc.start()
    kept = dict_trie(keys)
    dict_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "names.trie"
        trie.save(file)
        file_bytes, data = file.stat().st_size, read_arrays(file, KEPT)[1]["keys"]
        compiled = seconds(lambda: compile_csr(checked(flat, length, VOCABULARY), VOCABULARY), 3)
        from_file = seconds(lambda: compile_csr(from_marisa(data, VOCABULARY), VOCABULARY), 3)
    compiled_bytes = trie.csr.first_child.nbytes + trie.csr.label.nbytes
    figures = {
        "dict build / compile": seconds(lambda: dict_trie(keys), 1) / compiled,
        "compile from file / marisa build": from_file
        / seconds(lambda: marisa_trie.Trie("".join(map(chr, (*key, EOS))) for key in keys), 1),
        "dict bytes / compiled bytes": dict_bytes / compiled_bytes,
        "compiled bytes / file bytes": compiled_bytes / file_bytes,
        "file bytes per entry": file_bytes / len(trie),
    }
    return [row(what, len(trie), 0, figure) for what, figure in figures.items()]


def passage_row(rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report on the steps in passages."""
    from decoding_passage import PLACES, NGrams, moments_of  # beside this file

    beams = min(rows, arguments.beams)
    passages = (
        zipf(np.random.default_rng(5), rows // beams * PLACES, 1.0).reshape(-1, PLACES) + FIRST
    )
    constraint = PassageConstraint([[passage] for passage in passages.tolist()], EOS)
    moments = moments_of(constraint, passages, beams, EOS, VOCABULARY, Moment.of)
    ngrams = NGrams(passages, EOS)
    with_ngrams = with_processor(PrefixConstrainedLogitsProcessor(ngrams, beams))

    def reference(m: Moment) -> torch.Tensor:
        ngrams.clear()
        return with_ngrams(m)

    def ours(m: Moment) -> torch.Tensor:
        return constraint.step(m.logits_BKV, m.score_BK, m.state_BK, 2 * beams).score_BC

    def whole(m: Moment) -> torch.Tensor:
        found = constraint.step(m.logits_BKV, m.score_BK, m.state_BK, 2 * beams)
        return constraint.follow(m.state_BK, found, torch.arange(beams).expand(len(m.score_BK), -1))

    assert check_equal(ours, reference, moments), "the n-grams find other candidates"
    ms = timed({"ours": whole, "n-grams": reference}, moments, arguments.repeats)
    print(f"passages of {PLACES}, {rows} rows, ms a step: {ms}", file=sys.stderr)
    return row("passage: n-grams / ours", 0, rows, ms["n-grams"] / ms["ours"])


def facts_rows(count: int) -> list[dict[str, Any]]:
    """The report on a knowledge base."""
    rows = facts(count)
    started = time.process_time()
    trie = trie_of(rows)
    building = time.process_time() - started
    del rows
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "facts.trie"
        trie.save(file)
        data = read_arrays(file, KEPT)[1]["keys"]
        figures = {
            "facts: seconds to compile from file": seconds(
                lambda: compile_csr(from_marisa(data, VOCABULARY), VOCABULARY), 1
            ),
            "facts: compiled bytes per entry": (trie.csr.first_child.nbytes + trie.csr.label.nbytes)
            / len(trie),
            "facts: file bytes per entry": file.stat().st_size / len(trie),
        }
    table = TrieTable.of(trie, EOS)
    moments = decode(trie, table, 8, 8)
    steps = {"ours": lambda m: table.step(m.logits_BKV, m.score_BK, m.state_BK, 16)}
    figures["facts: seconds to build"] = building
    figures["facts: ms a step of 64 rows"] = timed(steps, moments, 10)["ours"]
    return [row(what, len(trie), 0, figure) for what, figure in figures.items()]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1, 8, 64, 512],
        help="beams of all sentences together",
    )
    parser.add_argument("--beams", type=int, default=8)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cuda: the steps on a GPU alone"
    )
    parser.add_argument("--facts", type=int, help="also build a knowledge base of so many facts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU")
    torch.set_num_threads(arguments.threads)

    def report(rows: list[dict[str, Any]]) -> None:
        for line in rows:
            verdict = {True: "met", False: "NOT MET", None: ""}[line["met"]]
            text = f"{line['what']:36} {line['entries']:>10,} entries {line['rows']:>4} rows {line['figure']:>10}"
            print(
                json.dumps(line)
                if arguments.json
                else f"{text}  {line['target'] or '':8} {verdict}",
                flush=True,
            )

    ours: dict[int, list[float]] = {rows: [] for rows in arguments.rows}
    for entries in sorted(arguments.entries):
        trie = trie_of(names(entries))
        if arguments.device == "cuda":
            for rows in arguments.rows:
                report(gpu_rows(trie, rows, arguments))
            continue
        report(build_rows(trie))
        for rows in arguments.rows:
            lines, ms = step_rows(trie, rows, arguments)
            report(lines)
            ours[rows].append(ms)
    for rows, values in ours.items():
        if len(values) > 1:
            report(
                [
                    row(
                        "ours, most entries / fewest",
                        max(arguments.entries),
                        rows,
                        values[-1] / values[0],
                    )
                ]
            )
    if arguments.device == "cpu":
        report([passage_row(rows, arguments) for rows in arguments.rows])
    if arguments.facts:
        report(facts_rows(arguments.facts))


if __name__ == "__main__":
    main()
