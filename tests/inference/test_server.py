"""The service: order, errors, limits, back-pressure, clients that go away or are slow, a graceful
stop."""

import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from serving import JSON_LINES, ask, core_of, error_of, get, serving, until  # noqa: E402
from test_filter import Echo  # noqa: E402

from nlpkit.errors import SettingsError  # noqa: E402
from nlpkit.inference.server import bind  # noqa: E402
from nlpkit.jsonl import dumps  # noqa: E402

MODEL = torch.nn.Linear(1, 1)


class Gate(Echo):
    """An echo that decodes when it is let through."""

    def __init__(self):
        super().__init__([])
        self.is_open = threading.Event()

    def decode(self, model, batch, *, loose=False):
        assert self.is_open.wait(60)
        return super().decode(model, batch, loose=loose)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture(scope="module")
def port():
    """Of an echo."""
    with serving({"echo": core_of(Echo([]), MODEL)}, line=1000, body=10_000) as port:
        yield port


def waiting(port):
    """Lines in the queue."""
    return int(re.search(rb'queue_lines\{run="echo"\} (\d+)', get(port, "/metrics")[1])[1])


def body_of(texts):
    return b"".join(dumps({"text": text}) + b"\n" for text in texts)


def test_lines_come_back_in_order_with_their_errors(port):
    body = (
        b'\xef\xbb\xbf{"text":"ab", "n":1.10}\r\n\n[1]\n{"text":"c"}\n{"no":1}\n{"text":"'
        + b"x" * 1000
        + b'"}'
    )
    status, answer, headers = ask(port, body)
    assert status == 200
    assert headers["content-type"] == JSON_LINES
    assert answer.splitlines() == [
        b'{"text":"ab", "n":1.10,"prediction":"ab"}',
        b'{"error":"expected a JSON object, got list","line":3}',
        b'{"text":"c","prediction":"c"}',
        b'{"error":"missing field \\"text\\"","line":5}',
        b'{"error":"line: expected at most 1000 bytes, got 1011","line":6}',
    ]


def test_json_is_an_object_or_a_list(port):
    value = b'{"text":\n "a",\r\n "big": 123456789012345678901234567890}'
    _, answer, _ = ask(port, value, kind="application/json; charset=utf-8")
    assert answer == b'{"text":  "a",   "big": 123456789012345678901234567890,"prediction":"a"}\n'
    _, answer, _ = ask(port, b'[{"text":"a,]"} ,\n {"text":[1]}, 5]', kind="application/json")
    first, second, third = answer.splitlines()
    assert first == b'{"text":"a,]","prediction":"a,]"}'
    assert json.loads(third) == {"error": "expected a JSON object, got int", "line": 3}
    assert json.loads(second)["line"] == 2


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", JSON_LINES, 400, "no lines"),
        (b" \n\n", JSON_LINES, 400, "no lines"),
        (b"[]", "application/json", 400, "no lines"),
        (b'{"text":"a"}\n{"text":"b"}', "application/json", 400, "application/x-ndjson"),
        (b"x" * 10_001, JSON_LINES, 413, "at most 10000 bytes"),
        (iter([b"x" * 6000, b"x" * 6000]), JSON_LINES, 413, "at most 10000 bytes"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole(port, body, kind, status, message):
    found, said = error_of(ask(port, body, kind=kind))
    assert found == status
    assert message in said


def test_too_many_lines_are_refused(monkeypatch):
    monkeypatch.setattr("nlpkit.inference.server.requests.MOST_LINES", 3)
    with serving({"echo": core_of(Echo([]), MODEL)}) as port:
        assert ask(port, body_of("abc"))[0] == 200
        assert error_of(ask(port, b"\n" * 4)) == (413, "body: expected at most 3 lines")
        assert error_of(ask(port, b"[1,2,3,4]", kind="application/json"))[0] == 413


def test_runs_are_asked_for_by_name():
    cores = {name: core_of(Echo([]), MODEL) for name in ("a", "b")}
    with serving(cores) as port:
        assert ask(port, body_of("x"), "/predict/b")[0] == 200
        assert error_of(ask(port, body_of("x"))) == (
            400,
            "/predict: which run? expected /predict/NAME of a, b",
        )
        assert error_of(ask(port, body_of("x"), "/predict/c"))[0] == 404
        assert [run["name"] for run in json.loads(get(port, "/runs")[1])] == ["a", "b"]
        assert get(port, "/predict")[0] == 405


def test_a_token_is_asked_of_all_but_health_and_the_page():
    with serving({"echo": core_of(Echo([]), MODEL)}, token="secret") as port:
        for path in ("/metrics", "/runs", "/predict"):
            assert get(port, path)[0] == 401
            assert get(port, path, Authorization="Bearer secreT")[0] == 401
        assert ask(port, body_of("x"))[0] == 401
        assert ask(port, body_of("x"), headers={"Authorization": "Bearer secret"})[0] == 200
        assert json.loads(get(port, "/health")[1]) == {"status": "ok"}
        assert b"<textarea" in get(port, "/")[1]


def test_only_a_token_opens_it_to_others():
    for host in ("0.0.0.0", "::"):
        with pytest.raises(SettingsError, match="no token"):
            bind(host, 0, has_token=False)
    bind("0.0.0.0", 0, has_token=True).close()
    taken = bind("localhost", 0, has_token=False)
    taken.listen()
    with pytest.raises(SettingsError, match="cannot listen"):
        bind(*taken.getsockname()[:2], has_token=False)
    taken.close()


def test_lines_of_many_requests_are_decoded_together(gate):
    with serving({"echo": core_of(gate, MODEL)}) as port, ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, port, body_of([f"t{n}"])) for n in range(8)]
        until(lambda: sum(gate.batches) + waiting(port) == 8)
        gate.is_open.set()
        for number, answer in enumerate(answers):
            assert json.loads(answer.result()[1])["prediction"] == f"t{number}"
        assert sum(gate.batches) == 8
        assert len(gate.batches) <= 3
        metrics = get(port, "/metrics")[1].decode()
        assert 'nlpkit_requests_total{status="200"}' in metrics
        assert 'nlpkit_lines_total{run="echo"} 8\n' in metrics


def test_a_full_queue_turns_requests_away_and_those_taken_get_on(gate):
    core = core_of(gate, MODEL, batch_size=2)
    with serving({"echo": core}, queue_capacity=4) as port, ThreadPoolExecutor(1) as threads:
        taken = threads.submit(ask, port, body_of(map(str, range(50))))
        threads_of_more = ThreadPoolExecutor(4)
        more = [threads_of_more.submit(ask, port, body_of(["x", "y"])) for _ in range(4)]
        until(lambda: any(answer.done() for answer in more))
        status, said = error_of(next(answer.result() for answer in more if answer.done()))
        assert (status, said) == (503, "too many lines wait")
        _, _, headers = ask(port, body_of("z"))
        assert int(headers["Retry-After"]) >= 1
        gate.is_open.set()
        lines = [json.loads(line) for line in taken.result()[1].splitlines()]
        assert [line["prediction"] for line in lines] == [str(n) for n in range(50)]
        threads_of_more.shutdown()
        assert ask(port, body_of("z"))[0] == 200


def test_a_bug_is_one_line_s_error_and_the_thread_goes_on(port):
    texts = ["a", "bug when read", "bug.", "b"]
    _, answer, _ = ask(port, body_of(texts))
    lines = [json.loads(line) for line in answer.splitlines()]
    assert [line.get("prediction") for line in lines] == ["a", None, None, "b"]
    assert lines[1] == {"error": "internal error", "line": 2}
    assert lines[2] == {"error": "internal error", "line": 3}
    assert ask(port, body_of("x"))[0] == 200


def test_lines_of_a_client_that_went_away_are_not_predicted(gate):
    core = core_of(gate, MODEL, batch_size=2)
    with serving({"echo": core}) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/predict", body_of(map(str, range(1000))))
        until(lambda: waiting(port) == 2)
        connection.close()
        until(lambda: b'requests_total{status="499"} 1' in get(port, "/metrics")[1])
        gate.is_open.set()
        assert ask(port, body_of("z"))[0] == 200
        assert sum(gate.batches) == 3
        assert b"nlpkit_body_bytes 0\n" in get(port, "/metrics")[1]


def test_a_slow_body_is_given_up_and_keeps_nobody_waiting(port):
    with serving({"echo": core_of(Echo([]), MODEL)}, request_timeout=0.5) as port:
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert ask(port, body_of("x"))[0] == 200
        assert b" 408 " in slow.recv(1000)
        slow.close()


def test_lines_without_an_answer_in_time_get_errors(gate):
    core = core_of(gate, MODEL, batch_size=2)
    with serving({"echo": core}, request_timeout=0.3) as port:
        _, answer, _ = ask(port, body_of("abcdefg"))
        gate.is_open.set()
        lines = [json.loads(line) for line in answer.splitlines()]
        assert lines == [{"error": "no answer in time", "line": n} for n in range(1, 8)]


def test_a_client_that_does_not_read_is_cut_off():
    with serving({"echo": core_of(Echo([]), MODEL)}, request_timeout=1.5) as port:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        body = dumps({"text": "a", "more": "x" * 200_000}) + b"\n"
        body *= 60
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        deaf.sendall(head.encode() + body)
        until(lambda: b'requests_total{status="499"} 1' in get(port, "/metrics")[1])
        deaf.close()


def test_what_was_taken_is_finished_before_the_end(gate):
    with ThreadPoolExecutor(1) as threads:
        with serving({"echo": core_of(gate, MODEL)}) as port:
            answer = threads.submit(ask, port, body_of(map(str, range(300))))
            until(lambda: waiting(port) == 64)
            threading.Timer(0.3, gate.is_open.set).start()
        assert len(answer.result()[1].splitlines()) == 300
    with pytest.raises(OSError, match="refused"):
        ask(port, body_of("x"))


def test_idle_connections_take_nothing_from_the_others(port):
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    started = time.monotonic()
    assert ask(port, body_of("x"))[0] == 200
    assert time.monotonic() - started < 5
    for connection in idle:
        connection.close()
