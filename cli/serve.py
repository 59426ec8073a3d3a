"""`nlpkit serve`: runs behind HTTP, with the same JSON lines and errors as `predict`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.options import BatchSize, Device, TaskSettings
from cli.tasks import read_task
from nlpkit.errors import SettingsError

Option = typer.Option
TOKEN = "NLPKIT_TOKEN"


def serve(
    runs: Annotated[list[str], typer.Argument(help="Runs, RUN or NAME=RUN; see predict.")],
    host: Annotated[str, Option(help="Beyond this machine only with a token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, Option(help=f"Its text is asked of every request; or the variable {TOKEN}.")
    ] = None,
    set_: TaskSettings = None,
    only_output: Annotated[bool, Option(help="Answer with the predictions alone.")] = False,
    kb: Annotated[
        str | None, Option(help="Another knowledge base than that of the training.")
    ] = None,
    batch_size: BatchSize = 64,
    long: Annotated[
        Literal["fail", "split", "cut"], Option(help="What to do with a text too long.")
    ] = "split",
    queue_capacity: Annotated[
        int, Option(min=1, help="Lines that wait, at most; then 503 with Retry-After.")
    ] = 1024,
    batch_wait_timeout_ms: Annotated[
        float, Option(min=0, max=1000, help="How long a batch waits for lines of other requests.")
    ] = 5.0,
    request_timeout_s: Annotated[
        float, Option(min=0.1, help="For a body to come, and for each answer.")
    ] = 60.0,
    max_body_mb: Annotated[float, Option(min=0.001, help="Of a request.")] = 16.0,
    max_line_kb: Annotated[float, Option(min=0.1, help="Of a line; longer ones are bad.")] = 256.0,
    device: Device = "auto",
) -> int:
    """Serve runs over HTTP: POST JSON or JSON lines to /predict (/predict/NAME of several runs) and
    get JSON lines back in order. / is a page to try it, /health and /metrics watch it. SIGTERM or
    Ctrl-C ends it when what it has taken is done."""
    token = read_token(token_file)
    named = names_of(runs)
    server = imported()
    from nlpkit.config import parse_pairs
    from nlpkit.inference.opening import Opening

    place = server.bind(host, port, token is not None)
    values = parse_pairs(set_ or [])
    served = {}
    for name, run in named.items():
        opening = Opening(run, device, kb, values, batch_size, long)
        served[name] = server.served(opening, only_output, lambda task: read_task(task)["in"])
    limits = server.Limits(
        queue_capacity,
        batch_wait_timeout_ms / 1000,
        request_timeout_s,
        body=round(max_body_mb * 2**20),
        line=round(max_line_kb * 2**10),
    )
    listening = f"listening on {server.address_of(place)} for {', '.join(named)}"
    server.listen(
        server.Service(served, limits, token),
        place,
        lambda: print(listening, file=sys.stderr, flush=True),
    )
    return 0


def imported() -> Any:
    """The service. Raises SettingsError where what it needs is not installed."""
    try:
        from nlpkit.inference import server
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in ("starlette", "uvicorn", "anyio"):
            raise
        raise SettingsError(
            f"nlpkit serve needs {missing}", hint="pip install 'nlpkit[serve]'"
        ) from None
    return server


def names_of(runs: list[str]) -> dict[str, str]:
    """Name -> run; without one of its own a run has the name of its folder. Raises SettingsError
    where two have the same."""
    named: dict[str, str] = {}
    for given in runs:
        name, equals, run = given.partition("=")
        if not equals or Path(given).exists():
            run = given
            name = Path(given).resolve().name
        if name in named:
            raise SettingsError(
                f"{run}: another run is called {name} too", hint=f"{name}-2={run} gives it a name"
            )
        named[name] = run
    return named


def read_token(path: Path | None) -> str | None:
    """The token of the file, else of the environment; None for none. Raises SettingsError for an
    empty one, or a file that cannot be read."""
    where = TOKEN if path is None else str(path)
    token = os.environ.get(TOKEN)
    if path is not None:
        from nlpkit.jsonl import read_text

        token = read_text(path, SettingsError).strip()
    if token is not None and (not token or not token.isascii() or not token.isprintable()):
        raise SettingsError(f"{where}: expected a token of printable ASCII characters")
    return token
