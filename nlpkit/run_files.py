"""Whether the files of a run are those that its training wrote.

What a prediction depends on is checked when a run is loaded, from one file to the next: the header
of the weights has a hash of them and of the rest of the header, which has a hash of what counts in
`config.json`, which has the hashes of all other files. So a checkpoint that is written in the midst
of a training always fits, and a damaged file is refused by its name. Who changed a file on purpose
says so with `--set run.check=false`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nlpkit.errors import SettingsError

CHANGING = {
    "config.json",
    "model.safetensors",
    "metrics.jsonl",
    "README.md",
    "checkpoint.safetensors",
}
"""Files of a run that a training writes more than once, or that no prediction depends on."""


def check_files(folder: Path, config: dict[str, Any], plain: dict[str, Any]) -> None:
    """Raises SettingsError that names a file which is not as it was when the model was saved. A run
    of an earlier version has no hashes, and is not checked."""
    hint = "if it was changed on purpose: --set run.check=false"
    expected = plain.get("config_sha256")
    if expected is None:
        return
    if essence(config) != expected:
        raise SettingsError(f"{folder}/config.json: not as the training wrote it", hint)
    for name, sha256 in config["files"].items():
        path = folder / name
        if not path.exists():
            raise SettingsError(f"{path}: missing")
        if file_sha256(path) != sha256:
            raise SettingsError(f"{path}: not as the training wrote it", hint)


def essence(config: dict[str, Any]) -> str:
    """A hash of what counts in a config when the run predicts."""
    parts = {name: config.get(name) for name in ("task", "tokenizer_sha256", "files")}
    parts["encoder"] = config["encoder"]["spec"]
    parts["precision"] = config["settings"].get("train", {}).get("precision")
    if "precision_choice" in config:
        parts["precision_choice"] = config["precision_choice"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Of its bytes. Raises SettingsError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()
