"""The socket of the service, and its graceful stop."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import signal
import socket
from collections.abc import Callable

import uvicorn

from nlpkit.errors import SettingsError
from nlpkit.inference.server.app import Service


def bind(host: str, port: int, has_token: bool) -> socket.socket:
    """A socket at this address that does not listen yet; port 0 takes a free one.

    Raises SettingsError where it cannot be had, or where others could reach it and no token keeps
    them out.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"--host {host}: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    if not has_token and not ipaddress.ip_address(address[0]).is_loopback:
        raise SettingsError(
            f"--host {host}: others can reach it, and there is no token",
            hint="NLPKIT_TOKEN=SECRET in the environment, or --token-file FILE",
        )
    place = socket.socket(family, kind, protocol)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except OSError as error:
        place.close()
        raise SettingsError(f"{host}:{port}: cannot listen: {error.strerror}") from None
    return place


def address_of(place: socket.socket) -> str:
    """As a URL has it."""
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(service: Service, place: socket.socket, on_start: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C, then takes no more requests, finishes those that it has, and
    returns; a second Ctrl-C ends at once. `on_start` is called when it listens."""
    _raise_open_files()
    server = server_of(service, on_start)
    before = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.run(sockets=[place])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_of(service: Service, on_start: Callable[[], None]) -> uvicorn.Server:
    """Its `run(sockets=[...])` serves until `should_exit` is set."""
    config = uvicorn.Config(
        service.app,
        interface="asgi3",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(service.limits.request_timeout)),
    )
    return _Server(config, on_start)


class _Server(uvicorn.Server):
    """One that says when it listens."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]):
        super().__init__(config)
        self.on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_start()


def _raise_open_files() -> None:
    """As many open files as are allowed: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
