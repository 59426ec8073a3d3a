"""Mutated lines through the filter, over all tasks: every line has its output or its error in its
place, good lines between them come out as if they were alone, and nothing ends in a traceback."""

import json
import random

import pytest
from conftest import nlpkit
from small_runs import records_of, save_run

from nlpkit import tasks
from nlpkit.inference.filter import Filter
from nlpkit.inference.predictor import Predictor
from nlpkit.jsonl import dumps, read_lines

pytestmark = pytest.mark.slow

PER_FILE = 120
ODD_TEXTS = [
    *(
        "",
        " ",
        "\u0000",
        "\u200b",
        "\ufeff",
        "😀",
        "é",
        "ﬁ",
        "א",
        "𠮷",
        "\u2028",
        "[MASK]",
        "[SEP]",
    ),
    *("NaN", "-0", "1e999", "１２３", "%", '"', "\\", "null", "{}", "a" * 3000, "中" * 2000),
]
ODD_VALUES = [
    *(None, True, 0, -1, 2**63, 10**30, 10**400, 1e308, 0.5, "", [], {}, [[]], [None], {"": {}}),
    *({"text": 1}, ["a", 1], [0, 1], [5, 2], "a", ODD_TEXTS[-1]),
]
ODD_TOKENS = [
    b"NaN",
    b"1" * 5000,
    b"1e400",
    b"-",
    b"01",
    b'"\\ud800"',
    b"[" * 900 + b"]" * 900,
    b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
]


def places(value, path=()):
    """Every place inside a value, as the keys that lead to it."""
    if path:
        yield path
    inside = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    for key, inner in inside:
        yield from places(inner, (*path, key))


def mutated(record, draw):
    """The bytes of a line made of the record."""
    copy = json.loads(json.dumps(record))
    place = draw.choice(list(places(copy)))
    parent = copy
    for key in place[:-1]:
        parent = parent[key]
    old = parent[place[-1]]
    kind = draw.randrange(7)
    if kind == 0:
        parent[place[-1]] = draw.choice(ODD_VALUES)
    elif kind == 1:
        del parent[place[-1]]
    elif kind == 2 and isinstance(old, str):
        at = draw.randint(0, len(old))
        parent[place[-1]] = old[:at] + draw.choice(ODD_TEXTS) + old[at + draw.randint(0, 2) :]
    elif kind == 3:
        parent[place[-1]] = [old] * draw.randint(0, 3)
    elif kind == 4:
        copy["prediction"] = draw.choice(ODD_VALUES)
    elif kind == 5:
        parent[place[-1]] = "\u0001here"
    raw = json.dumps(copy, ensure_ascii=draw.random() < 0.5).encode()
    raw = raw.replace(b'"\\u0001here"', draw.choice(ODD_TOKENS))
    return damaged(raw, draw) if kind == 6 else raw.replace(b"\n", b" ")


def damaged(raw, draw):
    """The line with some bytes changed, lost or more."""
    line = bytearray(raw)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(line))
        kind = draw.randrange(3)
        if kind == 0:
            line[at] = draw.randrange(256)
        elif kind == 1:
            del line[at : at + draw.randint(1, 20)]
        else:
            line[at:at] = draw.randbytes(2)
        line = line or bytearray(b" ")
    return bytes(line).replace(b"\n", b" ")


def check(run, good, alone, folder, draw):
    """Puts mutated lines between good ones through the filter. Returns how many lines gave no
    prediction."""
    rows = []
    for _ in range(PER_FILE):
        index = draw.randrange(len(good))
        rows.append((good[index], alone[index]))
        rows.append((mutated(records_of(run.config["task"])[index], draw), None))
    file = folder / "lines.jsonl"
    file.write_bytes(b"\r\n".join(raw for raw, _ in rows))
    lines = list(read_lines(file))
    filter_ = Filter(Predictor(run.task, run.model), on_error="emit")
    # a lone \r is white space to JSON, and stays inside its line
    out = b"".join(filter_(iter(lines))).removesuffix(b"\n").split(b"\n")
    assert len(out) == len(lines) == filter_.lines
    errors = 0
    for line, output in zip(lines, out, strict=True):
        expected = rows[line.number - 1][1]
        if expected is not None:
            assert output == expected, (line.number, output, expected)
            continue
        if output.startswith(b'{"error":'):
            errors += 1
            assert json.loads(output)["line"] == line.number
            assert len(output) < 20_000
        else:
            assert b'"prediction":' in output
            if b"prediction" not in line.raw:
                kept = line.raw[: line.raw.rindex(b"}")].rstrip()
                assert output.startswith(kept)
    assert errors == filter_.skipped
    return errors


@pytest.mark.parametrize("name", tasks.names())
def test_every_line_has_its_output_or_its_error_in_its_place(name, campaign, tmp_path):
    lines, campaign_seed = campaign("lines")
    run = save_run(name, tmp_path / "run")
    good = [dumps(record) for record in records_of(name)]
    alone = []
    for raw in good:
        (tmp_path / "one.jsonl").write_bytes(raw)
        filter_ = Filter(Predictor(run.task, run.model), on_error="emit")
        alone.append(b"".join(filter_(read_lines(tmp_path / "one.jsonl"))).strip())
    wanted = max(1, lines // len(tasks.names()) // PER_FILE)
    errors = 0
    for number in range(wanted):
        draw = random.Random(f"{campaign_seed} {name} {number}")
        errors += check(run, good, alone, tmp_path, draw)
    assert errors > 0


@pytest.mark.parametrize("on_error", ["fail", "skip", "emit"])
def test_the_exit_code_tells_whether_lines_were_left_out(on_error, campaign, tmp_path):
    run = save_run("classification", tmp_path / "run")
    draw = random.Random(campaign("lines")[1])
    good = dumps(records_of("classification")[0]) + b"\n"
    assert nlpkit("predict", run.folder, "--on-error", on_error, stdin=good).returncode == 0
    bad = b'{"text": ' + draw.choice(ODD_TOKENS) + b"}\n"
    done = nlpkit("predict", run.folder, "--on-error", on_error, stdin=good + bad, check=False)
    assert done.returncode == (3 if on_error == "fail" else 4)
    assert b"Traceback" not in done.stderr
    assert done.stdout.startswith(good[:-2])
