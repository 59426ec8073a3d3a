"""The same line gives the same bytes whichever way it goes: through the filter, the service (as
JSON lines, as a list, among others' requests) and a shard; for every task, and where a task draws
at random."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_runs import records_of, save_run

from nlpkit import tasks
from nlpkit.inference.filter import Filter
from nlpkit.inference.line_predictor import LinePredictor
from nlpkit.inference.opening import Opening
from nlpkit.inference.shards.shard import ShardJob, ShardWorker, check_files
from nlpkit.jsonl import dumps, read_lines

WAYS = {name: (name, {}) for name in tasks.names()}
WAYS["cln, drawn"] = ("cln", {"top_k": None, "temperature": 2.0})


@pytest.mark.parametrize("way", WAYS)
def test_filter_service_and_shards_give_the_same_bytes(way, tmp_path):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from serving import ask, serving

    name, settings = WAYS[way]
    run = tmp_path / "run"
    save_run(name, run, **settings)
    lines = [dumps(record) for record in records_of(name)[:5]]
    lines = [*lines, b'{"x":1}', b"[", *lines[::-1]]
    path = tmp_path / "in" / "part.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(lines) + b"\n")

    opening = Opening(str(run), "cpu", batch_size=3)
    predictor = opening.predictor()
    expected = b"".join(Filter(predictor, "emit")(read_lines(path)))
    assert expected.count(b"\n") == 12
    assert expected.count(b'{"error":') >= 2

    job = ShardJob(opening, str(tmp_path / "out"), "", "emit")
    check_files(job, [str(path)])
    ShardWorker(job).do(str(path))
    assert (Path(job.out) / "part.jsonl").read_bytes() == expected

    with (
        serving({"run": LinePredictor(predictor)}) as port,
        ThreadPoolExecutor(3) as threads,
    ):
        answers = list(threads.map(lambda _: ask(port, path.read_bytes())[1], range(3)))
        assert answers == [expected] * 3
        good = [line for line in lines if line != b"["]
        as_list = ask(port, b"[" + b",\n".join(good) + b"]", kind="application/json")[1]
        path.write_bytes(b"\n".join(good))
        assert as_list == b"".join(Filter(predictor, "emit")(read_lines(path)))
