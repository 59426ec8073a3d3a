"""Flipped bits in every file of a run, of a trie and of a knowledge base: each is refused by name, or
changes nothing. No crash, no other error, no silent change of a prediction."""

import os
import random
import signal

import pytest
from small_runs import predictions_of, records_of, save_run

from nlpkit import encoders, run, tasks
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import NlpkitError
from nlpkit.jsonl import dumps
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


@pytest.mark.parametrize("name", tasks.names())
def test_flips_in_the_files_of_a_run(name, campaign, tmp_path):
    flips, campaign_seed = campaign("flips")
    save_run(name, tmp_path / "run")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    draw = random.Random(f"{campaign_seed} {name}")
    counts = run_flips(of_run, tmp_path, files, draw, flips // (len(tasks.names()) + 1))
    assert counts["refused"] > 0


def test_flips_in_a_trie(campaign, tmp_path):
    flips, campaign_seed = campaign("flips")
    backend = encoders.load_tokenizer("tiny").backend
    keys = [[n, n * n % 50 + 1, 7, n % 3 + 1] for n in range(1, 400)]
    trie = TokenTrie.from_sequences(keys, backend.get_vocab_size(), vocabulary_hash(backend))
    trie.save(tmp_path / "keys.trie")
    files = sorted(tmp_path.iterdir())
    draw = random.Random(f"{campaign_seed} trie")
    counts = run_flips(of_trie, tmp_path, files, draw, flips // (len(tasks.names()) + 1))
    assert counts["refused"] > 0
