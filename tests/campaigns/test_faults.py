"""A matrix of what a machine may lack: streams, disk, file handles, memory, an environment. Whatever
it is, the output is whole or there is one line that says why; nothing half written is left."""

import contextlib
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from small_runs import records_of, save_run

import cli.app
import cli.main
from nlpkit.jsonl import dumps

pytestmark = pytest.mark.slow

TASK = "classification"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run and data, and the output that is right."""
    folder = tmp_path_factory.mktemp("faults")
    save_run(TASK, folder / "run")
    (folder / "data").write_bytes(b"".join(dumps(r) + b"\n" for r in records_of(TASK) * 20))
    code, out, error = command(folder, ["predict", "run", "data"], lambda: None)
    assert (code, error) == (0, "")
    (folder / "expected").write_bytes(out)
    return folder


def stream_of(number):
    """What the interpreter would make of a file handle at its start."""
    try:
        os.fstat(number)
    except OSError:
        return None
    return open(number, "w", buffering=1, closefd=False)


def command(folder, arguments, fault):
    """Runs a command in a fork, after `fault()`. Returns (exit code, stdout, stderr)."""
    out, error = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(folder)
            for number, path in enumerate((folder / "data", out, error)):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
                os.dup2(os.open(path, flags), number)
            os.closerange(3, 256)
            fault()
            sys.argv = ["nlpkit", *arguments]
            sys.stdout = stream_of(1)
            sys.stderr = stream_of(2)
            code = cli.main.run(cli.app.call)
        except BaseException:  # noqa: BLE001 - the interpreter would print it
            with contextlib.suppress(OSError):
                os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, out.read_bytes(), error.read_text()


def limited(what, most):
    def fault():
        resource.setrlimit(what, (most, most))

    return fault


def memory_for(more):
    """Little more address space than the process has."""

    def fault():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return fault


def closed(*numbers):
    def fault():
        for number in numbers:
            os.close(number)

    return fault


def redirected(number, path):
    def fault():
        os.dup2(os.open(path, os.O_WRONLY), number)

    return fault


def without(*names):
    def fault():
        for name in names or list(os.environ):
            os.environ.pop(name, None)

    return fault


FAULTS = {
    "nothing": (lambda: None, {0}),
    "closed stdin": (closed(0), {0}),
    "closed stdout": (closed(1), {0, 1}),
    "closed stderr": (closed(2), {0}),
    "all closed": (closed(0, 1, 2), {0, 1}),
    "full stdout": (redirected(1, "/dev/full"), {0, 1}),
    "full stderr": (redirected(2, "/dev/full"), {0}),
    "full disk": (limited(resource.RLIMIT_FSIZE, 2048), {1}),
    "few handles": (limited(resource.RLIMIT_NOFILE, 8), {0, 1, 2, 3}),
    "fewer handles": (limited(resource.RLIMIT_NOFILE, 4), {0, 1, 2, 3}),
    "little memory": (memory_for(2**26), {0, 1}),
    "no HOME and no TERM": (without("HOME", "TERM"), {0}),
    "no environment": (without(), {0}),
}
WAYS = {
    "to stdout": ["predict", "run", "data"],
    "to a file": ["predict", "run", "data", "-o", "written"],
    "from stdin": ["predict", "run", "-", "-o", "written"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_output_is_whole_or_one_line_says_why(place, fault, way):
    work, codes = FAULTS[fault]
    written = place / "written"
    written.unlink(missing_ok=True)
    before = sorted(os.listdir(place))
    code, out, told = command(place, WAYS[way], work)
    if fault == "closed stdin" and way == "from stdin":
        codes = {3}
    if fault == "all closed" and way == "from stdin":
        codes = {3}
    assert code in codes, told
    assert "Traceback" not in told
    expected = (place / "expected").read_bytes()
    found = written.read_bytes() if way != "to stdout" and written.exists() else out
    if code == 0 and "stdout" not in fault and fault != "all closed":
        assert found == expected
    if code:
        assert not written.exists()
        assert expected.startswith(out[: out.rfind(b"\n") + 1])
        assert told.count("error: ") == (0 if fault in ("all closed", "full stderr") else 1), told
    assert sorted(name for name in os.listdir(place) if name != "written") == before


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("no/written", "No such file or directory"),
        ("data/written", "Not a directory"),
        ("run", "Is a directory"),
        ("/proc/written", "No such file or directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_takes_no_file_is_told_before_the_run_is_read(place, output, why):
    code, _, told = command(place, ["predict", "no_run", "data", "-o", output], lambda: None)
    assert code == 1
    assert told.endswith(f"cannot be written: {why}\n")


def test_a_full_file_system(place, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only who may mount a file system can fill one")
    try:
        output = str(tmp_path / "written")
        code, _, told = command(place, ["predict", "run", "data", "-o", output], lambda: None)
        left = os.listdir(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (code, left) == (1, [])
    assert told == f"error: {output}: cannot be written: No space left on device\n"
