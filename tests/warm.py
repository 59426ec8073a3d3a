"""A warm `nlpkit`: one process imports everything once, and forks for every command.

Seconds of every command are the import of torch and transformers. Here a server pays them once.
A client (`python -S -I warm.py SOCKET ARGUMENTS...`) hands it the arguments, the folder, the
environment and its own three streams. The server forks; the child puts them in place and runs the
command, and ends as a process ends. The client waits, passes signals on, and exits as the child
did. So arguments, streams, signals and exit codes are those of a real process; what differs is
that nothing is imported anew, and that the seed of hashes is the server's. The processes of
`--processes` are forks of the server too.

The server ends when its stdin is closed, as it is when the process that started it dies.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys

PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def client(path, arguments):
    """Runs a command on the server at `path`; ends as the command ends.

    The variable `BEFORE` may hold Python code that the command's process runs first."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile()
        process = int(answers.readline())
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: os.kill(process, number))
        code = int(answers.readline())
    if code >= 0:
        os._exit(code)
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)


def serve(path):
    """Listens at `path`. Returns in a child alone, which then has a command to run."""
    preload()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                os._exit(0)
            reap()
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return become_command(connection)


def preload():
    """Imports what commands import."""
    import gc
    import importlib
    import pkgutil

    import accelerate  # noqa: F401
    from transformers import BertModel, RoFormerModel  # noqa: F401

    import cli.main
    import nlpkit

    for package in (cli, nlpkit):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    importlib.import_module("nlpkit.text.words").word_features("词")  # opens jieba's dictionary
    gc.freeze()  # so that forks share it


def reap():
    """Forgets the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def accompany(process, connection, ended):
    """Tells the client the number of the process, waits for its end and tells its exit code."""
    connection.sendall(f"{process}\n".encode())
    if connection in select.select([ended, connection], [], [])[0]:
        os.kill(process, signal.SIGKILL)  # the client was killed
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become_command(connection):
    """In a child of the server: forks once more, to a process that becomes the command and returns,
    and to one that waits for it and tells the client how it ended."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    ended, running = (
        os.pipe()
    )  # `ended` can be read once the command's process has closed `running`
    process = os.fork()
    if process:
        os.close(running)
        try:
            accompany(process, connection, ended)
        finally:
            os._exit(0)
    connection.close()
    os.close(ended)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["nlpkit", *request["arguments"]]


def run_command(path):
    """Runs the command and ends as the interpreter would, without taking its memory apart: a fork
    would copy all of it."""
    import threading
    import traceback

    from cli import processes
    from cli.main import main

    processes.COMMAND = (sys.executable, "-S", "-I", __file__, path)
    code = 1
    try:
        exec(os.environ.get("BEFORE", ""), {})
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - the interpreter would do the same
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        client(sys.argv[1], sys.argv[2:])
    socket_path = sys.argv[2]
    serve(socket_path)
    run_command(socket_path)
