"""The commands through a real shell: streams, order, fields, bad lines, pipes, exit codes."""

import gzip
import json
import os
import shlex
import subprocess
import sys
import time

import pytest
from conftest import SMALL_FLAGS, nlpkit, warm_server, write_lines

from nlpkit import samples


def lines_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def odd_lines():
    """Fields and numbers that must survive, and texts of very different lengths."""
    lines = [
        f'{{"id": {n}, "text": "{"他写了《长夜》。" * (n % 7)}", "x": {{"y": [1.10, 1e5]}}}}'
        for n in range(40)
    ]
    return [*lines, '{"text":"a","big":123456789012345678901234567890,"prediction":0,"f":-0.0}']


def test_predict_keeps_order_fields_and_numbers(run, odd_lines):
    done = nlpkit("predict", run, stdin="\n".join(odd_lines).encode())
    out = done.stdout.decode().splitlines()
    assert len(out) == len(odd_lines)
    for given, got in zip(odd_lines[:-1], out[:-1], strict=True):
        assert got.startswith(given[:-1] + ',"prediction":')
    assert '"big":123456789012345678901234567890' in out[-1]
    assert '"f":-0.0' in out[-1]
    assert list(json.loads(out[-1])) == ["text", "big", "f", "prediction"]


def test_predict_gives_the_same_by_file_pipe_gz_and_batch_size(run, data, tmp_path):
    expected = nlpkit("predict", run, data).stdout
    raw = data.read_bytes()
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(raw))
    assert nlpkit("predict", run, "-", stdin=raw).stdout == expected
    assert nlpkit("predict", run, tmp_path / "data.jsonl.gz").stdout == expected
    assert nlpkit("predict", run, data, "--batch-size", 1, "--unbuffered").stdout == expected
    nlpkit("predict", run, data, "--output", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_only_output(run):
    (line,) = lines_of(
        nlpkit("predict", run, "--only-output", stdin='{"text": "他写了《长夜》"}'.encode())
    )
    assert list(line) == ["spo_list"]


def test_a_bom_and_crlf_are_accepted_and_the_output_has_neither(run):
    done = nlpkit("predict", run, stdin=b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    assert [line["text"] for line in lines_of(done)] == ["a", "b"]
    assert b"\r" not in done.stdout
    assert not done.stdout.startswith(b"\xef")


BAD = b'{"text": "a"}\n{"text": "b"\n{"text": 3}\n{"x": 1}\n[]\n{"text": "c"}\n'


def test_a_bad_line_comes_after_the_good_ones_and_exits_3(run):
    done = nlpkit("predict", run, stdin=BAD, check=False)
    assert done.returncode == 3
    assert [line["text"] for line in lines_of(done)] == ["a"]
    assert done.stderr.decode().startswith("error: stdin:2: not valid JSON")


def test_bad_lines_are_skipped_and_counted(run):
    done = nlpkit("predict", run, "--on-error", "skip", stdin=BAD, check=False)
    assert done.returncode == 4
    assert [line["text"] for line in lines_of(done)] == ["a", "c"]
    assert "4 of 6 lines" in done.stderr.decode()
    assert 'skipped: stdin:4: missing field "text"' in done.stderr.decode()


def test_bad_lines_leave_their_error_in_place(run):
    done = nlpkit("predict", run, "--on-error", "emit", stdin=BAD, check=False)
    assert done.returncode == 4
    lines = lines_of(done)
    assert [line.get("line") for line in lines] == [None, 2, 3, 4, 5, None]
    assert lines[3]["error"] == 'missing field "text"'


def test_a_long_text_is_split_cut_or_refused(run, data):
    text = "".join(json.loads(line)["text"] for line in data.read_text().splitlines()[:150])
    assert len(text) > 5000
    line = json.dumps({"text": text}).encode()
    (split,) = lines_of(nlpkit("predict", run, stdin=line))
    assert split["prediction"]["spo_list"]
    for triple in split["prediction"]["spo_list"]:
        assert split["text"][slice(*triple["subject_span"])] == triple["subject"]
    cut = nlpkit("predict", run, "--long", "cut", stdin=line)
    assert "1 of 1 texts were cut short" in cut.stderr.decode()
    refused = nlpkit("predict", run, "--long", "fail", stdin=line, check=False)
    assert refused.returncode == 3
    assert "stdin:1: too long: " in refused.stderr.decode()


def test_an_empty_file_gives_an_empty_file(run):
    done = nlpkit("predict", run, stdin=b"")
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_closed_pipe_is_silent_and_141(run, data, tmp_path):
    def into_head(command, file):
        program = f'{command} predict {run} {file} | head -1; echo "${{PIPESTATUS[0]}}" >&2'
        return subprocess.run(["bash", "-c", program], capture_output=True, timeout=300)

    done = into_head(shlex.join(warm_server()[1]), data)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.decode().split() in (
        ["141"],
        ["0"],
    )  # 0 where all went into the pipe before head went away
    many = write_lines(tmp_path / "many.jsonl", list(samples.records("gplinker", 500, seed=1)) * 3)
    done = into_head(f'"{sys.executable}" -m cli.main', many)
    told = [line for line in done.stderr.decode().splitlines() if not line.endswith("lines/s")]
    assert told == ["141"]  # and how fast it is, where the machine is busy


def test_a_slow_producer_sees_its_lines(run):
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "predict", str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    for text in ("first", "second"):
        process.stdin.write(json.dumps({"text": text}).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == text  # before the next line is sent
    process.stdin.close()
    assert process.wait(timeout=300) == 0


def test_ctrl_c_in_predict_keeps_what_is_finished(run):
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "predict", str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(b'{"text": "first"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "first"
    process.send_signal(2)
    assert process.wait(timeout=300) == 130
    assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("redirected", "code", "says"),
    [
        ("2>&-", 0, ""),
        ("<&- >out 2>err", 3, "error: stdin: cannot be read: Bad file descriptor\n"),
        ("< data >&- 2>err", 1, "error: output: Bad file descriptor\n"),
        ("<&- >&- 2>&-", 3, ""),
        ("< data > /dev/full 2> /dev/full", 1, ""),
    ],
)
def test_closed_and_full_streams(run, data, tmp_path, redirected, code, says):
    (tmp_path / "data").write_bytes(data.read_bytes())
    (tmp_path / "err").write_bytes(b"")
    program = f'"{sys.executable}" -m cli.main predict {run} {redirected}'
    program = program.replace(" 2>&-", " < data > out 2>&-") if redirected == "2>&-" else program
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == code
    assert (tmp_path / "err").read_text() == says
    if code == 0:
        lines = (tmp_path / "out").read_bytes().splitlines()
        assert len(lines) == len(data.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["predict", "no_run", "-o", "no/out"], 1, "no/out: cannot be written: No such file"),
        (["predict", "no_run", "no.jsonl"], 3, "no.jsonl: cannot be read"),
        (["predict", "no_run", "."], 3, ".: cannot be read: Is a directory"),
        (["eval", "no_run", "--data", "no.jsonl"], 3, "no.jsonl: cannot be read"),
        (["eval", "no_run", "--errors", "no/out"], 1, "no/out: cannot be written"),
    ],
)
def test_files_are_tried_before_the_run_is_loaded(tmp_path, arguments, code, says):
    done = nlpkit(*arguments, check=False, env={"PYTHONPATH": os.getcwd()}, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr.decode()


def test_a_full_disk_is_one_line(run, data):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "cli.main", "predict", str(run), str(data)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1
    assert done.stderr.decode() == "error: output: No space left on device\n"


def test_eval_scores_a_run_and_its_predictions_alike(run, data, tmp_path):
    by_run = json.loads(nlpkit("eval", run, "--data", data, "--by", "predicate").stdout)
    predicted = tmp_path / "predicted.jsonl"
    predicted.write_bytes(nlpkit("predict", run, data).stdout)
    by_file = json.loads(
        nlpkit("eval", "--task", "gplinker", "--data", predicted, "--by", "predicate").stdout
    )
    assert by_run.pop("run") == str(run)
    by_run.pop("data"), by_file.pop("data")
    assert by_run == by_file
    assert by_run["match"] == "strict"
    assert 0 < by_run["correct"] < by_run["predicted"]
    assert sum(group["gold"] for group in by_run["by"].values()) == by_run["gold"]


def test_eval_gates_errors_and_rules(run, data, tmp_path):
    missed = tmp_path / "errors.jsonl"
    done = nlpkit("eval", run, "--data", data, "--min", "f1=1.1", "--errors", missed, check=False)
    assert done.returncode == 5
    assert "gate not met: f1" in done.stderr.decode()
    wrong = [json.loads(line) for line in missed.read_text().splitlines()]
    metrics = json.loads(done.stdout)
    assert sum(len(line["missed"]) for line in wrong) == metrics["gold"] - metrics["correct"]
    assert sum(len(line["extra"]) for line in wrong) == metrics["predicted"] - metrics["correct"]
    assert nlpkit("eval", run, "--data", data, "--min", "f1=0").returncode == 0
    tolerant = json.loads(
        nlpkit("eval", run, "--data", data, "--set", "gplinker.match=tokens").stdout
    )
    assert tolerant["match"] == "tokens"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian"], 2, "Did you mean 'train'"),
        (
            ["train", "gplinkr", "--data", "x"],
            2,
            'unknown task "gplinkr"; did you mean "gplinker"?',
        ),
        (["train", "gplinker"], 2, "--data"),
        (["train", "gplinker", "--data", "x", "--epoch", "3"], 2, "--epoch"),
        (["train", "gplinker", "--data", "no.jsonl"], 3, "no.jsonl: cannot be read: No such file"),
        (
            ["train", "gplinker", "--data", "{data}", "--set", "train.epoch=3"],
            2,
            'did you mean "epochs"',
        ),
        (
            ["train", "gplinker", "--data", "{data}", "--set", "trian.epochs=3"],
            2,
            'did you mean "train"',
        ),
        (
            ["train", "gplinker", "--data", "{data}", "--set", "train.epochs=many"],
            2,
            "expected int, got 'many'",
        ),
        (
            ["train", "gplinker", "--data", "{data}", "--set", "gplinker.head=efficent"],
            2,
            'did you mean "efficient"',
        ),
        (["train", "gplinker", "--data", "{data}", "--encoder", "no/such"], 2, "no/such"),
        (
            ["train", "gplinker", "--data", "{data}", "--device", "tpu"],
            2,
            "expected auto, cpu or cuda",
        ),
        (["predict", "no_run"], 2, "no_run: not a run directory"),
        (["predict", "{run}", "no.jsonl"], 3, "no.jsonl: cannot be read"),
        (["predict", "{run}", "--on-error", "ignore"], 2, "--on-error"),
        (["eval", "{run}", "--data", "{data}", "--by", "label"], 2, "groups by predicate"),
        (["eval", "{run}", "--data", "{data}", "--min", "f2=1"], 2, 'no number "f2"'),
        (["eval", "{run}", "--data", "{data}", "--min", "f1=nan"], 2, "expected metric=number"),
        (["train", "gplinker", "--data", "{data}", "--processes", "0"], 2, "--processes"),
        (["train", "gplinker", "--data", "{data}", "--learning-rate", "nan"], 2, "learning_rate"),
        (
            ["predict", "{run}", "{data}", "-o", "/tmp"],
            1,
            "/tmp: cannot be written: Is a directory",
        ),
        (["eval", "--task", "gplinker", "--data", "{data}"], 3, 'missing field "prediction"'),
        (["eval", "--data", "{data}"], 2, "a run directory or --task"),
        (["data", "convert", "duei"], 2, "duie"),
        (["data", "sample", "no"], 2, "no"),
        (["encoder", "info", "no_folder"], 2, "no_folder"),
    ],
)
def test_wrong_usage_is_one_clear_line(run, data, tmp_path, arguments, code, says):
    filled = [a.format(run=run, data=data) for a in arguments]
    out = ["--out", tmp_path / "new"] if filled[0] == "train" else []
    done = nlpkit(*filled, *out, check=False, env={"PYTHONPATH": os.getcwd()}, cwd=tmp_path)
    assert done.returncode == code, done.stderr.decode()
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ('{"text": "a"}', "no gold"),
        ('{"spo_list": []}', 'missing field "text"'),
        (
            '{"text": "a", "spo_list": [{"subject": "a", "object": "a"}]}',
            'spo_list[0]: missing field "predicate"',
        ),
        ('{"text": "a", "spo_list": [["a", "p"]]}', "a list of three strings"),
        ('{"text": "a", "spo_list": {}}', "spo_list"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_training_line_is_named(tmp_path, record, says):
    good = '{"text": "a b", "spo_list": [["a", "p", "b"]]}\n'
    file = tmp_path / "train.jsonl"
    file.write_text(good * 20 + record + "\n" + good)
    arguments = [
        "train",
        "gplinker",
        "--data",
        file,
        "--dev",
        file,
        "--out",
        tmp_path / "run",
        *SMALL_FLAGS,
    ]
    done = nlpkit(*arguments, check=False)
    assert done.returncode == 3, done.stderr.decode()
    assert f"error: {file}:21: " in done.stderr.decode()
    assert says in done.stderr.decode()
    assert not (tmp_path / "run").exists()


def test_data_check_reports_by_file_and_line(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text(
        '{"text": "甲写了乙", "spo_list": [["乙", "作者", "甲"], ["丙", "作者", "甲"]]}\n'
        '{"text": "甲和甲写了乙", "spo_list": [["乙", "作者", "甲"]]}\n'
        "oops\n"
        '{"text": "甲写了乙", "spo_list": []}\n'
    )
    done = nlpkit("data", "check", "gplinker", file, check=False)
    assert done.returncode == 3
    told = done.stderr.decode()
    assert f'{file}:1: not in the text: subject "丙"' in told
    assert f'{file}:2: occurs more than once: object "甲", 2 times' in told
    assert f"{file}:3: unreadable: not valid JSON" in told
    assert f"{file}:4: duplicate: the same text as {file}:1" in told
    summary = json.loads(done.stdout)
    assert (summary["facts"], summary["lost"], summary["unreadable"]) == (3, 1, 1)


def test_a_schema_file_closes_the_schema(tmp_path):
    schema, file = tmp_path / "schema.jsonl", tmp_path / "data.jsonl"
    schema.write_text('{"subject_type": "书", "predicate": "作者", "object_type": "人"}\n出版社\n')
    triple = {
        "subject": "乙",
        "predicate": "作者",
        "object": "甲",
        "subject_type": "书",
        "object_type": "地点",
    }
    write_lines(file, [{"text": "甲写了乙", "spo_list": [triple]}])
    arguments = [
        "train",
        "gplinker",
        "--data",
        file,
        "--dev",
        file,
        "--out",
        tmp_path / "run",
        *SMALL_FLAGS,
    ]
    done = nlpkit(*arguments, "--set", f"gplinker.schema={schema}", check=False)
    assert done.returncode == 3
    assert (
        f'{file}:1: types of "作者" clash with the schema: expected 书-人, got 书-地点'
        in done.stderr.decode()
    )


def test_no_permission_to_write_is_one_line(data, tmp_path):
    file = tmp_path / "file"
    file.write_text("")  # a folder cannot be made below a file, whoever asks
    done = nlpkit(
        "train", "gplinker", "--data", data, "--out", file / "run", *SMALL_FLAGS, check=False
    )
    assert done.returncode == 2, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_dry_run_shows_groups_and_writes_nothing(data, tmp_path):
    done = nlpkit(
        "train", "gplinker", "--data", data, "--out", tmp_path / "run", "--dry-run", *SMALL_FLAGS
    )
    told = done.stderr.decode()
    assert "parameter groups" in told
    assert "peak memory" in told
    assert not (tmp_path / "run").exists()


def test_help_is_quick_and_imports_no_torch():
    started = time.monotonic()
    done = nlpkit("--help")
    assert (
        time.monotonic() - started < 5
    )  # the figure is in the README; this only catches an import of torch
    assert b"Usage" in done.stdout
    program = (
        "import sys; import cli.app; print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program]).strip() == b"False"


PARTS = """
import sys
from cli import output

class Bare:  # takes at most three bytes at once, as a bare file may
    taken = b""

    def write(self, part):
        self.taken += bytes(part[:3])
        return min(3, len(part))

    def flush(self):
        pass

class Stdout:
    buffer = Bare()

sys.stdout, real = Stdout(), sys.stdout
output.write([b"0123456789", b"", b"ab"])
sys.stdout, found = real, sys.stdout.buffer.taken
assert found == b"0123456789ab", found
"""


def test_a_chunk_that_stdout_takes_in_parts_is_written_whole():
    subprocess.run([sys.executable, "-c", PARTS], check=True)


def test_a_reader_that_goes_away_within_a_chunk_is_told_by_141():
    program = (
        "import sys; from cli import output\n"
        "try: output.write([b'x' * 1_000_000])\n"
        "except output.ClosedPipe: sys.exit(141)"
    )
    for unbuffered in ("", "1"):
        shell = (
            f'"{sys.executable}" -c "$PROGRAM" | head -c 1 >/dev/null; echo "${{PIPESTATUS[0]}}"'
        )
        done = subprocess.run(
            ["bash", "-c", shell],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PROGRAM": program},
            stdout=subprocess.PIPE,
            check=True,
        )
        assert done.stdout == b"141\n"
