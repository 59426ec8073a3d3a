"""`nlpkit serve` as a process: what it says, what it answers, how it ends."""

import http.client
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import nlpkit, warm_server
from small_runs import save_run

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

LINES = '{"text":"送得很快"}\n{"no":1}\n'.encode()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "reviews"
    save_run("classification", folder)
    return folder


def test_it_answers_as_the_filter_and_ends_well(small_run):
    expected = nlpkit("predict", small_run, "--on-error=emit", stdin=LINES, check=False).stdout
    server = subprocess.Popen(
        [*warm_server()[1], "serve", f"a={small_run}", str(small_run), "--port=0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    said = server.stderr.readline().decode()
    found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+) for a, reviews\n", said)
    assert found, said
    client = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    for name in ("a", "reviews"):
        client.request("POST", f"/predict/{name}", LINES)
        assert client.getresponse().read() == expected
    server.send_signal(signal.SIGTERM)
    out, said = server.communicate(timeout=60)
    assert (server.returncode, out, said) == (0, b"", b"")
    client.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{run}"], "another run is called reviews too"),
        (["{run}", "--host=0.0.0.0"], "there is no token"),
        (["{run}", "--token-file=/dev/null"], "expected a token"),
        (["{run}/nothing"], "not a run directory"),
    ],
)
def test_what_is_wrong_is_said_before_it_listens(small_run, arguments, message):
    filled = [argument.format(run=small_run) for argument in arguments]
    done = nlpkit("serve", *filled, "--port=0", check=False)
    assert done.returncode == 2
    assert message in done.stderr.decode()


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(small_run, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(small_run)],
        capture_output=True,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 2
    hint = f"error: nlpkit serve needs {missing}\nhint: pip install 'nlpkit[serve]'\n"
    assert done.stderr.decode() == hint
