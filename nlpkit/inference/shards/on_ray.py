"""Files spread over the machines of a Ray cluster.

The item of work is the path of a whole file, which all machines must see under the same name, as
they must see the run and the output folder. An actor loads the run once. For one that is lost another is
started, here or elsewhere, and its file is done again; lines never pass through Ray.

Ray writes of lost workers to stdout, whatever it is told: the caller keeps stdout free of data.

Source: https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from nlpkit.errors import NlpkitError, SettingsError
from nlpkit.inference.shards.shard import TRIES, Engine, Shard, ShardJob, ShardWorker, lost


def ray_engine(address: str | None) -> Engine:
    """An engine on the cluster at an address, `auto` for the one that this machine belongs to; None
    starts one on this machine, which ends with the process.

    Raises SettingsError where Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise SettingsError("--engine ray needs Ray", hint="pip install 'nlpkit[ray]'") from None
    return partial(_by_ray, ray, address)


def _by_ray(
    ray: Any, address: str | None, job: ShardJob, paths: Sequence[str], workers: int
) -> Iterator[Shard]:
    """An `Engine`, but for its first arguments."""
    here = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="error", **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(f"--address {address}: {error}") from None
    try:
        yield from _spread(ray, job, paths, workers)
    finally:
        ray.shutdown()


def _spread(ray: Any, job: ShardJob, paths: Sequence[str], workers: int) -> Iterator[Shard]:
    on_gpu = {"num_gpus": 1} if job.opening.device == "cuda" else {}
    # Ray would try the same file again at once, and so lose it to what kills workers just then
    actor_class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, **on_gpu)(ShardWorker)
    waiting = deque(paths)
    tries = dict.fromkeys(paths, 0)
    busy: dict[Any, tuple[Any, str]] = {}

    def begin(actor: Any) -> None:
        path = waiting.popleft()
        tries[path] += 1
        busy[actor.do.remote(path)] = (actor, path)

    for _ in range(min(workers, len(paths))):
        begin(actor_class.remote(job))
    failure: Exception | None = None
    while busy:
        (answered, *_), _ = ray.wait(list(busy), num_returns=1)
        actor, path = busy.pop(answered)
        try:
            yield ray.get(answered)
        except ray.exceptions.RayTaskError as error:
            failure = failure or _cause(error, path)
        except ray.exceptions.RayError:
            actor = actor_class.remote(job)
            waiting.append(path)  # last, so that others get done
            if tries[path] == TRIES:
                failure = failure or lost(path)
        if waiting and failure is None:
            begin(actor)
    if failure is not None:
        raise failure


def _cause(error: Any, path: str) -> Exception:
    """The error of our own that Ray has wrapped; else one with its traceback."""
    if isinstance(error.cause, NlpkitError):
        return error.cause
    return RuntimeError(f"{path}: {error}")
