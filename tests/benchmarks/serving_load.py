"""Load on `nlpkit serve`: throughput against the filter, latency at half load, memory, and clients
that behave badly.

    python tests/benchmarks/serving_load.py --run RUN --data LINES.jsonl [--lines 10000]

Each client sends a line, waits for its answer, and sends the next; every answer is compared with
the filter's. Server, clients and filter are processes of their own, one after another; since the
machine may have other work, seconds of processor time are told beside those of the clock. The bad
clients, all at once beside the half load: 1,000 connections that say nothing, one that sends a byte
a second, one that sends 100 MB, and one that is killed (SIGKILL) in the middle of its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLIENTS = 64
TICKS = os.sysconf("SC_CLK_TCK")
NLPKIT = [sys.executable, "-m", "cli.main"]


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


async def request(reader: Any, writer: Any, body: bytes) -> tuple[int, bytes]:
    """(status, body) of a request whose answer is chunked."""
    writer.write(head("/predict", len(body)) + body)
    start = await reader.readuntil(b"\r\n\r\n")
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return int(start.split()[1]), b"".join(parts)


async def clients(
    port: int, lines: list[bytes], expected: list[bytes], rate: float | None
) -> dict[str, Any]:
    """All lines by CLIENTS connections, as fast as they are answered or so many a second."""
    latencies: list[float] = []
    numbers = iter(range(len(lines)))
    started = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            if rate is not None:
                due = started + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            status, answer = await request(reader, writer, lines[number])
            latencies.append(time.perf_counter() - begun)
            assert (status, answer) == (200, expected[number] + b"\n"), (number, status, answer)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    seconds = time.perf_counter() - started
    ordered = sorted(latencies)
    return {
        "lines": len(lines),
        "lines_per_second": round(len(lines) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[int(0.99 * len(ordered))], 1),
        "client_cpu_s": round(time.process_time(), 1),
    }


def load(arguments: argparse.Namespace, port: int, count: int, rate: float | None) -> Any:
    """The figures of `clients`, which run in a process of their own."""
    command = [
        sys.executable,
        __file__,
        "--run",
        "",
        "--data",
        arguments.data,
        "--client",
        str(port),
    ]
    command += ["--lines", str(count), "--expected", arguments.expected]
    command += ["--rate", str(rate)] if rate else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def filtered(arguments: argparse.Namespace, raw: list[bytes]) -> dict[str, float]:
    """The filter on the same lines: lines a second from its first output to its last."""
    command = [*NLPKIT, "predict", arguments.run, arguments.data]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    count = first = 0
    begun = ended = 0.0
    with open(arguments.expected, "wb") as stream:
        while chunk := process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
            stream.write(chunk)
            count += chunk.count(b"\n")
            ended = time.perf_counter()
            if not begun and count >= 1024:
                begun = ended
                first = count
    process.wait()
    assert count == len(raw)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    speed = (count - first) / (ended - begun)
    return {"lines_per_second": round(speed, 1), "cpu_s": round(cpu, 1)}


def state_of(process: int) -> tuple[float, float]:
    """(seconds of processor time, MiB of memory) of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    status = Path(f"/proc/{process}/status").read_text()
    return cpu, int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def bad_clients(port: int, lines: list[bytes]) -> tuple[list[socket.socket], list[Any]]:
    """Starts them; what keeps them alive."""
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
    place = f"('127.0.0.1', {port})"
    slow = (
        f"import socket, time; s = socket.create_connection({place})\n"
        f"for byte in {head('/predict', 400)!r}: s.sendall(bytes([byte])); time.sleep(1)"
    )
    large = (
        f"import socket; s = socket.create_connection({place})\n"
        f"s.sendall({head('/predict', 100 * 2**20)!r})\n"
        "try:\n  [s.sendall(bytes(2**20)) for _ in range(100)]\nexcept OSError: pass\n"
        "print(s.recv(100))"
    )
    many = b"".join(lines[:5000])
    killed = (
        f"import socket, sys; s = socket.create_connection({place})\n"
        f"s.sendall({head('/predict', len(many))!r} + sys.stdin.buffer.read())\n"
        "s.recv(1000); print('begun', flush=True); s.recv(1 << 30, socket.MSG_WAITALL)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for code in (slow, large, killed)
    ]
    victim = started[2]
    assert victim.stdin
    assert victim.stdout
    victim.stdin.write(many)
    victim.stdin.close()
    victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    return idle, started


def measure(arguments: argparse.Namespace) -> None:
    raw = Path(arguments.data).read_bytes().splitlines(keepends=True)[: arguments.lines]
    report = {"filter": filtered(arguments, raw)}
    server = subprocess.Popen(
        [*NLPKIT, "serve", arguments.run, "--port", "0"], stderr=subprocess.PIPE
    )
    assert server.stderr
    found = re.search(rb":(\d+) ", server.stderr.readline())
    assert found
    port = int(found[1])
    load(arguments, port, 200, None)
    for name in ("full_load", "full_load_again"):
        cpu = state_of(server.pid)[0]
        report[name] = load(arguments, port, len(raw), None)
        after, memory = state_of(server.pid)
        report[name] |= {"server_cpu_s": round(after - cpu, 1), "memory_mib": round(memory, 1)}
    speed = report["full_load"]["lines_per_second"]
    report["ratio_to_the_filter"] = round(speed / report["filter"]["lines_per_second"], 2)
    half = len(raw) // 4
    report["half_load"] = load(arguments, port, half, speed / 2)
    kept = bad_clients(port, raw)
    report["half_load_beside_bad_clients"] = load(arguments, port, half, speed / 2)
    report["half_load_beside_bad_clients"]["memory_mib"] = round(state_of(server.pid)[1], 1)
    report["answer_to_100_mb"] = kept[1][1].communicate()[0].decode()[:40]
    kept[1][0].kill()
    server.send_signal(signal.SIGTERM)
    report["exit_code"] = server.wait(120)
    print(json.dumps(report, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--expected", help=argparse.SUPPRESS)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client is None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with tempfile.NamedTemporaryFile() as expected:
            arguments.expected = expected.name
            measure(arguments)
        return
    given = Path(arguments.data).read_bytes().splitlines()[: arguments.lines]
    expected = Path(arguments.expected).read_bytes().splitlines()
    print(json.dumps(asyncio.run(clients(arguments.client, given, expected, arguments.rate))))


if __name__ == "__main__":
    main()
