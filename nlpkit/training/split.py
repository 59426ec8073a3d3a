"""A tenth of the training data kept for evaluation, where no dev file is given; and dev in halves.

What belongs together stays on one side: lines that share a passage, context, text or group,
directly or through other lines. Otherwise a model would be evaluated on texts that it was trained
on.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlpkit.errors import DataError
from nlpkit.jsonl import dumps, read_lines
from nlpkit.training.dataset import Records, records_of

DEV_SHARE = 10  # one group of lines in ten
DEV_MOST = 2000  # lines


def split_by_content(paths: Sequence[str | Path]) -> tuple[Records, Records]:
    """(train, dev): a group of lines belongs to dev by the hash of what its lines share, so that it
    does so in every run, whatever other lines there are. Groups beyond DEV_MOST lines train.

    Raises DataError for a line that is no JSON object, and where a side stays empty.
    """
    lines = [line for path in paths for line in read_lines(path)]
    keys = [shared_keys(line.record_here()) or [line.raw] for line in lines]
    dev: set[int] = set()
    for hashed, members in sorted(groups_of(keys)):
        if hashed % DEV_SHARE:
            continue
        if len(dev) + len(members) > DEV_MOST:
            break
        dev.update(members)
    train_lines = [line for number, line in enumerate(lines) if number not in dev]
    dev_lines = [line for number, line in enumerate(lines) if number in dev]
    if not train_lines or not dev_lines:
        names = ", ".join(map(str, paths))
        few = f"{len(lines)} lines are too few, or share too much"
        raise DataError(
            f"{names}: {few}, to keep some for evaluation",
            hint="give --dev",
        )
    return records_of(train_lines), records_of(dev_lines)


def tuning_half(dev: Records) -> list[bool]:
    """Whether each line of dev is in the half to tune on. A group of lines stays together."""
    keys = []
    for _, record in dev.pairs:
        keys.append(shared_keys(record) or [dumps(record)])
    is_in = [False] * len(keys)
    for hashed, members in groups_of(keys):
        for number in members:
            is_in[number] = hashed // DEV_SHARE % 2 == 0  # dev may have multiples of it alone
    return is_in


def shared_keys(record: dict[str, Any]) -> list[bytes]:
    """What a record may have in common with others: its `group`, else its passages and texts."""
    if record.get("group") is not None:
        return [b"group " + dumps(record["group"])]
    passages = record.get("passages")
    texts = [*passages] if isinstance(passages, list) else []
    texts += [record.get(name) for name in ("context", "text", "text_a", "text_b")]
    return [b"text " + dumps(text) for text in texts if text]


def groups_of(keys: Sequence[Sequence[bytes]]) -> list[tuple[int, list[int]]]:
    """(hash, numbers of the lines) of every group.

    Lines that share a key are of one group; `keys` has those of every line. The hash is the least
    of the group's keys.
    """
    parents = list(range(len(keys)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]  # halves the way for the next one
            number = parents[number]
        return number

    first_with: dict[bytes, int] = {}
    for number, own in enumerate(keys):
        for key in own:
            parents[root(number)] = root(first_with.setdefault(key, number))
    members = defaultdict(list)
    for number in range(len(keys)):
        members[root(number)].append(number)
    hashes = [min(zlib.crc32(key) for key in own) for own in keys]
    hashed = []
    for numbers in members.values():
        least = min(hashes[number] for number in numbers)
        hashed.append((least, numbers))
    return hashed
