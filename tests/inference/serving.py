"""A service in the test's own process, and a client."""

import contextlib
import http.client
import json
import threading
import time

from nlpkit.inference.line_predictor import LinePredictor
from nlpkit.inference.predictor import Predictor
from nlpkit.inference.server import Limits, Served, Service, address_of, bind
from nlpkit.inference.server.listen import server_of

JSON_LINES = "application/x-ndjson"


@contextlib.contextmanager
def serving(cores, token=None, **limits):
    """The port of a service of some (name -> LinePredictor)."""
    runs = {name: Served(core, "toy") for name, core in cores.items()}
    place = bind("127.0.0.1", 0, has_token=False)
    port = int(address_of(place).rpartition(":")[2])
    started = threading.Event()
    service = Service(runs, Limits(**limits), token)
    server = server_of(service, started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    assert started.wait(30)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(60)
        place.close()
        assert not thread.is_alive()
        assert service.bodies.held == 0


def core_of(task, model, **settings):
    return LinePredictor(Predictor(task, model, **settings))


def ask(port, body, path="/predict", kind=JSON_LINES, method="POST", headers=None):
    """(status, body, headers) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": kind, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def get(port, path, **headers):
    return ask(port, None, path, method="GET", headers=headers)


def error_of(answer):
    """(status, message) of an answer that is an error as a whole."""
    return answer[0], json.loads(answer[1])["error"]


def until(condition, seconds=30):
    """Waits for something that happens elsewhere."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
