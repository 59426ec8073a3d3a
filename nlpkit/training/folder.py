"""The folder of a training: what may be done to what it holds, and that one training alone does
it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError
from nlpkit.training.checkpoints import CHECKPOINT


@contextlib.contextmanager
def claimed(folder: Path, is_main: bool) -> Iterator[None]:
    """Within the block no other training may write the folder, on this machine.

    A lock on a file beside the folder says so; the system drops it when the process ends, however
    it ends. With several processes the main one holds it for all. Raises SettingsError where
    another training has it, or where nothing can be written.
    """
    if not is_main:
        yield
        return
    path = _beside(folder, "lock")
    with _open_locked(path, folder):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_locked(path: Path, folder: Path) -> Any:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("wb")
        except OSError as error:
            raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return stream  # a file system without locks
            stream.close()
            raise SettingsError(
                f"{folder}: another training is writing it",
                hint="wait for it, or choose another --out",
            ) from None
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
        stream.close()  # its last owner removed it between the two calls


def is_to_resume(
    folder: Path, what: str, known: bool, finished: bool, wanted: bool, force: bool
) -> bool:
    """Whether what is in the folder is to be continued. Raises SettingsError where it may not be
    overwritten.

    Args:
        folder: the user's `--out`.
        what: "run" or "pretraining", for the messages.
        known: whether the folder holds one.
        finished: whether that is done.
        wanted: --resume auto.
        force: --force.
    """
    has_checkpoint = known and not finished and (folder / CHECKPOINT).exists()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder", hint="choose another --out")
    if not known and folder.exists() and any(not is_scrap(path) for path in folder.iterdir()):
        raise SettingsError(
            f"{folder}: holds something that is no {what}", hint="choose another --out"
        )
    if finished and not force:
        raise SettingsError(
            f"{folder}: holds a finished {what}", hint="--force overwrites it, --out names another"
        )
    if has_checkpoint and not wanted and not force:
        raise SettingsError(
            f"{folder}: holds an unfinished {what}",
            hint="--resume auto continues it, --force overwrites it",
        )
    return has_checkpoint and wanted and not force


def is_scrap(path: Path) -> bool:
    """Whether a file was being written under a temporary name (`write_atomic`)."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_scraps(folder: Path) -> None:
    """Removes what a process left, in the folder and beside it, that was killed while it wrote."""
    for path in folder.iterdir():
        if is_scrap(path):
            path.unlink(missing_ok=True)
    shutil.rmtree(_beside(folder, "new"), ignore_errors=True)
    shutil.rmtree(_beside(folder, "old"), ignore_errors=True)


def _beside(folder: Path, what: str) -> Path:
    place = Path(os.path.realpath(folder))
    return place.with_name(f".{place.name}.{what}")


def new_folder(out: Path) -> Path:
    """An empty folder beside `out`, to be put in its place when it is whole. Raises SettingsError
    where there cannot be one."""
    new = _beside(out, "new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written: {error.strerror}") from None
    return new


def put_in_place(new: Path, out: Path) -> None:
    """Gives a new folder its name; what had it goes, whole. Raises SettingsError where it cannot.

    A process that is killed meanwhile leaves the old folder, the new one, or none of that name.
    """
    old = _beside(out, "old")
    place = os.path.realpath(out)
    try:
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.rename(place, old)
        os.rename(new, place)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)


def refuse_differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> None:
    """Raises SettingsError with the first thing in which a plan differs from the run to go on with.

    `old` and `new` are their configs, as read from JSON; versions may differ. `path` is where in
    the config they lie.
    """
    for key in new:
        where = f"{path}.{key}" if path else key
        if key == "versions" or old.get(key) == new[key]:
            continue
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            refuse_differences(old[key], new[key], where)
        else:
            raise SettingsError(
                f"cannot resume: {where} is now {new[key]!r}, the run has {old.get(key)!r}",
                hint="--force starts anew, --out names another folder",
            )
