"""The launcher of `--processes`: whose error is told, and what a signal reaches."""

import subprocess
import sys
import threading
import time

from cli.processes import wait_for_all


def script(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_all_that_end_well():
    assert wait_for_all([script("pass"), script("pass")]) is None


def test_the_first_to_fail_is_named_and_the_others_are_ended():
    started = [script("import time; time.sleep(600)"), script("raise SystemExit(3)")]
    begun = time.monotonic()
    assert wait_for_all(started) == 1
    assert started[0].poll() is not None
    assert time.monotonic() - begun < 60


def test_a_signal_to_end_is_passed_on():
    waiting = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys; from cli.processes import wait_for_all;"
        f"started = [subprocess.Popen([sys.executable, '-c', {waiting!r}]) for _ in range(2)];"
        "print(*(p.pid for p in started), flush=True); sys.exit(wait_for_all(started) is None)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    children = launcher.stdout.readline().split()
    threading.Timer(1, launcher.terminate).start()
    assert launcher.wait(timeout=60) == 0
    launcher.stdout.close()
    assert len(children) == 2
    assert not any(is_running(int(child)) for child in children)


def is_running(process):
    """Whether there is such a process, a zombie not counted."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")
