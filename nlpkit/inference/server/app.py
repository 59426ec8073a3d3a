"""The routes of the service.

    POST /predict, /predict/NAME   JSON or JSON lines in, JSON lines out, in their order
    GET  /runs                     the runs by name
    GET  /health                   whether it works
    GET  /metrics                  counts, for Prometheus
    GET  /                         a page to try it

A bad line is an error object with its number within an answer of status 200; a request that is
wrong as a whole gets another status and `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nlpkit.inference.line_predictor import LinePredictor
from nlpkit.inference.opening import Opening
from nlpkit.inference.server.answers import Answers, deliver_to
from nlpkit.inference.server.batches import Batches
from nlpkit.inference.server.metrics import Metrics
from nlpkit.inference.server.requests import Bodies, lines_of

PAGE = Path(__file__).parent / "page.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
OPEN = {"/", "/health"}  # paths that need no token
JSON_LINES = "application/x-ndjson"
CLIENT_GONE = 499  # as nginx counts it; nobody gets it


@dataclass(frozen=True)
class Served:
    """A run to serve."""

    core: LinePredictor
    task: str
    example: str = ""
    """A line that it takes, for the page."""


def served(
    opening: Opening, only_output: bool = False, example_of: Callable[[str], str] = lambda task: ""
) -> Served:
    """Loads a run; `example_of` gives a line that its task takes. Raises SettingsError."""
    predictor = opening.predictor()
    module = type(predictor.task).__module__  # nlpkit.tasks.NAME
    task = module.split(".")[2]
    return Served(LinePredictor(predictor, only_output), task, example_of(task))


@dataclass(frozen=True)
class Limits:
    """What a request may take; sizes in bytes."""

    queue_capacity: int = 1024
    """Lines of a run that wait, at most."""
    batch_wait: float = 0.005
    """Seconds that a batch waits for lines of other requests."""
    request_timeout: float = 60.0
    """Seconds for a body to come, for each answer, and for the client to take it."""
    body: int = 2**24
    line: int = 2**18
    held: int = 2**28
    """Bodies in memory, all together."""


class Service:
    """The runs at work; `app` is the ASGI application."""

    def __init__(self, runs: Mapping[str, Served], limits: Limits, token: str | None = None):
        self.runs = runs
        self.limits = limits
        self.bodies = Bodies(limits.body, limits.held, limits.request_timeout)
        self.metrics = Metrics()
        self.batches: dict[str, Batches] = {}
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/predict/{name:path}", self.predict, methods=["POST"]),
            Route("/runs", self.names),
            Route("/health", self.health),
            Route("/metrics", self.metrics_text),
            Route("/", self.page),
        ]
        starlette = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _told, ClientDisconnect: _gone},
        )
        self.app: ASGIApp = partial(self._counted, partial(_guarded, starlette, token))

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        """Starts the threads of the runs; at the end they finish what they have taken."""
        deliver = partial(deliver_to, asyncio.get_running_loop())
        limits = self.limits
        for name, run in self.runs.items():
            self.batches[name] = Batches(
                run.core, limits.queue_capacity, limits.batch_wait, deliver
            )
        yield
        for batches in self.batches.values():
            batches.close()

    async def predict(self, request: Request) -> Any:
        """Answers a request of lines."""
        batches = self.batches[self._name(request)]
        self._turn_away(batches)
        body = await self.bodies.read(request)
        try:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            lines = await lines_of(body, kind == "application/json")
            self._turn_away(batches)
            limits = self.limits
            answers = Answers(
                lines,
                batches,
                limits.line,
                limits.request_timeout,
                JSON_LINES,
                partial(self.bodies.release, body),
            )
            if not answers.jobs:
                raise HTTPException(400, "no lines")
        except BaseException:
            self.bodies.release(body)
            raise
        return answers

    def _name(self, request: Request) -> str:
        name = request.path_params.get("name")
        known = ", ".join(self.runs)
        if name is None:
            if len(self.runs) > 1:
                raise HTTPException(400, f"/predict: which run? expected /predict/NAME of {known}")
            return next(iter(self.runs))
        if name not in self.runs:
            raise HTTPException(404, f"/predict/{name}: no such run: expected one of {known}")
        return name

    def _turn_away(self, batches: Batches) -> None:
        """Raises HTTPException 503 where the queue is full."""
        if not batches.has_room():
            wait = min(60, max(1, math.ceil(batches.seconds_to_wait())))
            raise HTTPException(503, "too many lines wait", {"Retry-After": str(wait)})

    async def names(self, request: Request) -> Response:
        """The runs."""
        return JSONResponse(
            [
                {"name": name, "task": run.task, "example": run.example}
                for name, run in self.runs.items()
            ]
        )

    async def health(self, request: Request) -> Response:
        """200 while all threads work, else 503."""
        is_well = all(batches.is_alive() for batches in self.batches.values())
        return JSONResponse({"status": "ok" if is_well else "failed"}, 200 if is_well else 503)

    async def metrics_text(self, request: Request) -> Response:
        """See `Metrics`."""
        text = self.metrics.text(self.batches, self.bodies.held)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """A page to try it."""
        headers = {"Content-Security-Policy": POLICY}
        return Response(PAGE.read_bytes(), media_type="text/html", headers=headers)

    async def _counted(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts requests on their way through `app`."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.monotonic()
        status = CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                begun = message["status"]
                status = begun if begun != 200 else CLIENT_GONE
            elif not message.get("more_body", False) and status == CLIENT_GONE:
                status = 200

        self.metrics.open += 1
        try:
            await app(scope, receive, noted)
        finally:
            self.metrics.open -= 1
            self.metrics.done(status, time.monotonic() - started)


async def _guarded(
    app: ASGIApp, token: str | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Passes on what has the token, where there is one."""
    is_open = scope["type"] != "http" or token is None or scope["path"] in OPEN
    if not is_open and token is not None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + token.encode()):
            refusal = JSONResponse(
                {"error": "expected Authorization: Bearer TOKEN"},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
    await app(scope, receive, send)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=400)
