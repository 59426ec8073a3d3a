"""Flipped bits in every file of a run, in a trie, in the knowledge base of entity linking and in its
link statistics: each is refused by name, or changes nothing. No crash, no other error, no silent
change of a prediction."""

import os
import random
import signal
from collections import Counter

import numpy as np
import pytest
from small_runs import predictions_of, records_of, save_run

from nlpkit import encoders, run, tasks
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import NlpkitError
from nlpkit.jsonl import dumps
from nlpkit.tasks.entity_linking.kb import EntityBase
from nlpkit.tasks.entity_linking.kb_file import KbEntity
from nlpkit.tasks.entity_linking.link_statistics import Counts, LinkStatistics
from nlpkit.text.backend import vocabulary_hash

pytestmark = pytest.mark.slow

AT_ONCE = 20  # flips that one child tries
SECONDS = 120  # of a child
HEADER = 600  # bytes at the beginning of a file, where every second flip is


def of_run(folder):
    """What a run says of a few lines."""
    loaded = run.load(folder / "run")
    records = records_of(loaded.config["task"])[:3]
    return dumps(predictions_of(loaded, records))


def of_trie(folder):
    """All keys and values of a trie."""
    trie = TokenTrie.load(folder / "keys.trie")
    keys = list(range(len(trie)))
    values = [] if trie.values is None else [trie.values.of(key) for key in keys]
    return dumps([trie.keys(keys), values, trie.bounds])


def flip(path, draw):
    """Changes a bit of the file; returns what undoes it."""
    whole = path.read_bytes()
    raw = bytearray(whole)
    most = HEADER if draw.random() < 0.5 else len(raw)
    raw[draw.randrange(min(most, len(raw)))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)
    return lambda: path.write_bytes(whole)


def outcome(load, folder, expected):
    """What came of a flip: "refused", "same", or what is wrong."""
    try:
        return "same" if load(folder) == expected else "another result"
    except NlpkitError as error:
        return "refused" if str(folder) in error.message else f"names no file: {error.message}"
    except BaseException as error:  # noqa: BLE001 - it is what the campaign looks for
        return f"{type(error).__name__}: {error}"


def try_flips(load, folder, files, expected, draw, count, report):
    """In a child: tries flips one after another, and writes a line to `report` before and after
    each."""
    for _ in range(count):
        path = draw.choice(files)
        state = draw.random()
        os.write(report, f"{path.name} {state}: ".encode())
        undo = flip(path, random.Random(state))
        os.write(report, outcome(load, folder, expected).replace("\n", " ").encode() + b"\n")
        undo()


def in_a_child(work):
    """Runs work(file handle) in a fork, so that a crash is its own. Returns (what it wrote to the
    handle, its exit status)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        code = 1
        try:
            work(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as stream:
        text = stream.read().decode()
    return text, os.waitpid(child, 0)[1]


def run_flips(load, folder, files, draw, flips):
    """Tries flips over the files. Returns the number of each outcome."""
    expected = load(folder)
    counts = {"refused": 0, "same": 0}
    wrong = []
    whole = {path: path.read_bytes() for path in files}
    while sum(counts.values()) < flips:
        some = random.Random(draw.random())
        text, status = in_a_child(
            lambda report, some=some: try_flips(
                load, folder, files, expected, some, AT_ONCE, report
            )
        )
        for line in text.splitlines():
            said = line.partition(": ")[2]
            if said in counts:
                counts[said] += 1
            else:
                wrong.append(line)
        if status:
            wrong.append(f"the child ended with {status}: {text[-200:]}")
            for path, content in whole.items():
                path.write_bytes(content)
        assert not wrong, wrong[:5]
    return counts


def make_trie(folder):
    """Writes a trie of a few hundred keys."""
    backend = encoders.load_tokenizer("tiny").backend
    keys = [[n, n * n % 50 + 1, 7, n % 3 + 1] for n in range(1, 400)]
    values = [f"value {n}" for n in range(1, 400)]
    trie = TokenTrie.from_sequences(
        keys, backend.get_vocab_size(), vocabulary_hash(backend), values
    )
    trie.save(folder / "keys.trie")


def make_entity_base(folder):
    """Writes a knowledge base of entities that share names."""
    entities = []
    for n in range(200):
        entity = KbEntity(str(n), f"雾灯{n % 40}", (f"雾灯{n % 40}", f"灯{n}"), f"第{n}盏")
        entities.append((f"line {n}", entity))
    EntityBase.build(entities, folder / "kb", "0" * 64)


def of_entity_base(folder):
    """All that a knowledge base knows."""
    base = EntityBase.open(folder / "kb")
    entities = [(base.id(row), base.name(row), base.description(row)) for row in range(len(base))]
    aliases = sorted((name, alias, base.entities_of(alias)) for name, alias in base.trie.items())
    told = [(name, alias, rows.tolist()) for name, alias, rows in aliases]
    return dumps([entities, told, base.matches("雾灯12和灯7"), base.source])


def make_link_statistics(folder):
    """Writes counts of some aliases."""
    counted = Counter({(key, key % 8): key % 5 + 1 for key in range(0, 300, 3)})
    LinkStatistics(Counts.of(counted), Counts.of(counted), Counts.of(counted)).save(folder)


def of_link_statistics(folder):
    """All counts, with every part and without each."""
    statistics = LinkStatistics.open(folder, aliases=300, pairs=300)
    keys = np.arange(300)
    told = []
    for without in (None, *range(8)):
        for counts in (statistics.matched, statistics.marked, statistics.linked):
            told.append(counts(keys, without).tolist())
    return dumps(told)


KINDS = {
    "trie": (make_trie, of_trie),
    "entity base": (make_entity_base, of_entity_base),
    "link statistics": (make_link_statistics, of_link_statistics),
}
"""Kind of file -> (what writes one into a folder, what tells all of its content)."""


def share(flips):
    """The flips of one test of all that there are."""
    return flips // (len(tasks.names()) + len(KINDS))


@pytest.mark.parametrize("name", tasks.names())
def test_flips_in_the_files_of_a_run(name, campaign, tmp_path):
    flips, campaign_seed = campaign("flips")
    save_run(name, tmp_path / "run")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    draw = random.Random(f"{campaign_seed} {name}")
    counts = run_flips(of_run, tmp_path, files, draw, share(flips))
    assert counts["refused"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_flips_in_a_file_of_arrays(kind, campaign, tmp_path):
    flips, campaign_seed = campaign("flips")
    make, load = KINDS[kind]
    make(tmp_path)
    draw = random.Random(f"{campaign_seed} {kind}")
    counts = run_flips(load, tmp_path, sorted(tmp_path.iterdir()), draw, share(flips))
    assert counts["refused"] > 0
