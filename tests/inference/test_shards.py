"""Many files: one output each, done ones not done again, lost workers, bad lines."""

import gzip
import json
import lzma
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import nlpkit, write_lines
from small_runs import records_of, save_run

from cli.shards import follow
from nlpkit.errors import DataError, NlpkitError, SettingsError
from nlpkit.inference.opening import Opening
from nlpkit.inference.shards.on_ray import ray_engine
from nlpkit.inference.shards.processes import by_processes
from nlpkit.inference.shards.shard import ShardJob, ShardWorker, check_files
from nlpkit.jsonl import dumps


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "reviews"
    save_run("classification", folder)
    return folder


def write_parts(folder, count):
    """Files of some lines each, plain and compressed; their names."""
    folder.mkdir()
    texts = [record["text"] for record in records_of("classification")]
    names = []
    for part in range(count):
        lines = [
            dumps({"id": [part, line], "text": texts[(part + line) % len(texts)]}) + b"\n"
            for line in range(part % 4 + 1)
        ]
        name, opened = [("{}.jsonl", open), ("{}.jsonl.gz", gzip.open), ("{}.jsonl.xz", lzma.open)][
            part % 3
        ]
        with opened(folder / name.format(part), "wb") as stream:
            stream.writelines(lines)
        names.append(str(folder / name.format(part)))
    return names


def read(path):
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(Path(path).suffix, open)
    with opened(path, "rb") as stream:
        return stream.read()


def job_of(run, out, **settings):
    opening = Opening(str(run), "cpu")
    return ShardJob(opening, str(out), opening.sha256(), **settings)


def ids_of(path):
    return [json.loads(line)["id"] for line in read(path).splitlines()]


def test_every_file_gives_what_the_filter_gives(small_run, tmp_path):
    parts = write_parts(tmp_path / "in", 7)
    out = tmp_path / "out"
    done = nlpkit("predict", small_run, *parts, "--out", out, "--workers", 2)
    assert done.stdout == b""
    assert b"7 files done, 16 lines" in done.stderr
    for part in parts:
        expected = nlpkit("predict", small_run, part).stdout
        assert read(out / Path(part).name) == expected
    done = nlpkit("predict", small_run, *parts, "--out", out)
    assert b"7 files done, 7 of them before, 16 lines" in done.stderr
    left = [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    assert not left


def test_what_is_not_as_the_manifest_says_is_done_again(small_run, tmp_path):
    parts = write_parts(tmp_path / "in", 3)
    job = job_of(small_run, tmp_path / "out")
    check_files(job, parts)
    worker = ShardWorker(job)
    first = [worker.do(part) for part in parts]
    bytes_of = {part: (tmp_path / "out" / Path(part).name).read_bytes() for part in parts}
    assert all(worker.do(part).is_old for part in parts)
    write_lines(parts[0], [{"id": 0, "text": "很好"}])
    (tmp_path / "out" / Path(parts[1]).name).write_bytes(b"half")
    (tmp_path / "out" / "_manifests" / f"{Path(parts[2]).name}.json").write_bytes(b"{")
    half = tmp_path / "out" / f".{Path(parts[2]).name}.1.tmp"
    half.write_bytes(b"half")
    again = [worker.do(part) for part in parts]
    assert not any(shard.is_old for shard in again)
    assert not half.exists()
    assert again[0].input_sha256 != first[0].input_sha256
    for part in parts[1:]:
        assert (tmp_path / "out" / Path(part).name).read_bytes() == bytes_of[part]
    for other in (job_of(small_run, tmp_path / "out", on_error="emit"), other_run(job)):
        assert not ShardWorker(other).do(parts[1]).is_old


def other_run(job):
    """The job with another setting of the run."""
    opening = Opening(job.opening.run, "cpu", long="cut")
    assert opening.sha256() != job.run_sha256
    return ShardJob(opening, job.out, opening.sha256())


def test_a_run_s_hash_follows_its_files(small_run, tmp_path):
    opening = Opening(str(small_run))
    before = opening.sha256()
    (small_run / "metrics.jsonl").write_text("{}\n")
    assert opening.sha256() == before
    (small_run / "labels.json").write_bytes((small_run / "labels.json").read_bytes() + b"\n")
    assert opening.sha256() != before
    (small_run / "labels.json").write_bytes((small_run / "labels.json").read_bytes()[:-1])
    assert opening.sha256() == before
    assert Opening("tiny").sha256() != before


def test_killed_workers_cost_no_line(small_run, tmp_path):
    parts = write_parts(tmp_path / "in", 24)
    job = job_of(small_run, tmp_path / "out")
    check_files(job, parts)
    seen = []
    for shard in by_processes(job, parts, 2):
        seen.append(shard.input)
        if len(seen) in (3, 8, 13):
            os.kill(worker_of(os.getpid()), signal.SIGKILL)
    assert sorted(seen) == sorted(parts)
    for number, part in enumerate(parts):
        expected = [[number, line] for line in range(number % 4 + 1)]
        assert ids_of(tmp_path / "out" / Path(part).name) == expected


def worker_of(parent):
    """The number of some worker."""
    import multiprocessing

    return multiprocessing.active_children()[-1].pid


class Poison(ShardWorker):
    """A worker that a certain file kills."""

    def do(self, path):
        if "1.jsonl" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().do(path)


def test_a_file_that_kills_its_workers_is_given_up(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr("nlpkit.inference.shards.processes.ShardWorker", Poison)
    monkeypatch.setattr("nlpkit.inference.shards.processes.get_context", forking)
    parts = write_parts(tmp_path / "in", 3)
    job = job_of(small_run, tmp_path / "out")
    check_files(job, parts)
    with pytest.raises(NlpkitError, match="1.jsonl.gz: 4 workers were lost over it"):
        list(by_processes(job, parts, 1))
    assert (tmp_path / "out" / "0.jsonl").exists()
    assert not (tmp_path / "out" / "1.jsonl.gz").exists()


def forking(kind):
    """A context whose workers have what the test has changed."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    context.set_forkserver_preload = lambda names: None
    return context


def test_a_bad_line_under_every_on_error(small_run, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("nlpkit.inference.shards.processes.get_context", forking)
    (tmp_path / "in").mkdir()
    names = [str(tmp_path / "in" / f"{n}.jsonl") for n in range(4)]
    for name in names:
        write_lines(name, [{"text": "好"}])
    Path(names[1]).write_bytes(b'{"text":"a"}\n{"no":1}\n')

    job = job_of(small_run, tmp_path / "fail")
    check_files(job, names)
    with pytest.raises(DataError) as found:
        list(by_processes(job, names, 1))
    assert found.value.message == f'{names[1]}:2: missing field "text"'
    assert {path.name for path in (tmp_path / "fail").iterdir()} == {"0.jsonl", "_manifests"}
    for on_error, count in (("skip", 1), ("emit", 2)):
        job = job_of(small_run, tmp_path / on_error, on_error=on_error)
        check_files(job, names)
        for _ in range(2):  # the second time all is done
            assert follow(by_processes(job, names, 2), 4) == 4
            out, said = capfd.readouterr()
            assert out == ""
            assert "4 files done" in said
            assert "1 of 5 lines gave no prediction\n" in said
        assert read(tmp_path / on_error / "1.jsonl").count(b"\n") == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "{a}", "--out", "{out}"], "a.jsonl: given 2 times"),
        (["{a}", "--out", "{a}/.."], "cannot be written"),
        (["{a}", "--out", "{folder}"], "the output would overwrite it"),
        (["-", "--out", "{out}"], "expected files, got stdin"),
        (["--out", "{out}"], "--out: expected files"),
        (["{a}", "{a}"], "expected one file, got 2"),
        (["{a}", "--workers", "2"], "expected --out DIR"),
        (["{a}", "--out", "{out}", "-o", "x"], "--out: expected files, without --output"),
    ],
)
def test_what_cannot_be_asked_for(small_run, tmp_path, arguments, message):
    a = write_lines(tmp_path / "a.jsonl", [{"text": "好"}])
    places = {"a": a, "out": tmp_path / "out", "folder": tmp_path}
    filled = [argument.format(**places) for argument in arguments]
    done = nlpkit("predict", small_run, *filled, check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr.decode()


def test_two_jobs_do_not_write_one_folder(small_run, tmp_path):
    from nlpkit.folder_lock import claimed

    a = write_lines(tmp_path / "a.jsonl", [{"text": "好"}])
    with claimed(tmp_path / "out", what="prediction"):
        done = nlpkit("predict", small_run, a, "--out", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert b"another prediction is writing it" in done.stderr


def test_a_file_that_changes_meanwhile_is_told(small_run, tmp_path, monkeypatch):
    a = write_lines(tmp_path / "a.jsonl", [{"text": "好"}])
    job = job_of(small_run, tmp_path / "out")
    check_files(job, [str(a)])

    def changing(path):
        yield from original(path)
        write_lines(path, [{"text": "不好"}])

    from nlpkit.inference.shards import shard

    original = shard.read_lines
    monkeypatch.setattr(shard, "read_lines", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        ShardWorker(job).do(str(a))
    assert not (tmp_path / "out" / "a.jsonl").exists()


def test_workers_end_with_the_process_that_started_them(small_run, tmp_path):
    """Also where that one is killed."""
    import subprocess
    import sys

    parts = write_parts(tmp_path / "in", 2)
    os.mkfifo(tmp_path / "in" / "waits.jsonl")
    code = (
        "import sys, multiprocessing; from nlpkit.inference.opening import Opening;"
        "from nlpkit.inference.shards.processes import by_processes;"
        "from nlpkit.inference.shards.shard import ShardJob, check_files;"
        "job = ShardJob(Opening(sys.argv[1], 'cpu'), sys.argv[2], '');"
        "check_files(job, sys.argv[3:]);"
        "shards = by_processes(job, sys.argv[3:], 1);"
        "next(shards); print(multiprocessing.active_children()[0].pid, flush=True);"
        "list(shards)"
    )
    waits = str(tmp_path / "in" / "waits.jsonl")
    command = [sys.executable, "-c", code, str(small_run), str(tmp_path / "out"), *parts, waits]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE)
    worker = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SettingsError) as found:
        ray_engine(None)
    assert found.value.hint == "pip install 'nlpkit[ray]'"


@pytest.mark.slow
def test_ray_does_the_same_with_killed_workers(small_run, tmp_path):
    pytest.importorskip("ray")
    parts = write_parts(tmp_path / "in", 12)
    job = job_of(small_run, tmp_path / "out", on_error="emit")
    check_files(job, parts)
    seen = []
    for shard in ray_engine(None)(job, parts, 2):
        seen.append(shard.input)
        if len(seen) in (2, 6):
            threading.Thread(target=kill_an_actor).start()
    assert sorted(seen) == sorted(parts)
    for number, part in enumerate(parts):
        expected = [[number, line] for line in range(number % 4 + 1)]
        assert ids_of(tmp_path / "out" / Path(part).name) == expected


def kill_an_actor():
    """The processes of actors have their class in their title."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        if b"ray::ShardWorker" in place.read_bytes():
            os.kill(int(place.parent.name), signal.SIGKILL)
            return
