"""A run directory: a trained model with all that it needs, and the checkpoint that its training
resumes from.

    config.json              task, settings, encoder, versions, data hash, what was reached
    model.safetensors        the best weights so far and, in its header, the task's settings tuned with them
    tokenizer.json           and what the task prepared (schema, labels, KB)
    metrics.jsonl            one line for each evaluation
    README.md                model card
    checkpoint.safetensors   the last state of a training that is not finished

Every file is written to a temporary name, flushed and renamed; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from nlpkit import encoders, tasks
from nlpkit.config import Values, resolve
from nlpkit.errors import SettingsError
from nlpkit.inference.devices import resolve_precision
from nlpkit.jsonl import write_atomic
from nlpkit.text.tokenizer import Tokenizer, read_backend, vocabulary_hash

PACKAGES = ("nlpkit", "torch", "transformers", "tokenizers", "jieba", "numpy")


@dataclass
class Run:
    """A task with its model, as trained or to be trained, in a folder."""

    folder: Path
    config: dict[str, Any]
    task: Any
    tokenizer: Tokenizer
    model: nn.Module

    @property
    def precision(self) -> str:
        """The precision to predict in: as in training, where the device multiplies in it."""
        wanted = self.config["settings"].get("train", {}).get("precision", "fp32")
        return resolve_precision(wanted, next(self.model.parameters()).device)

    def save_config(self) -> None:
        """Writes `config.json`."""
        with write_atomic(self.folder / "config.json") as stream:
            stream.write(json.dumps(self.config, ensure_ascii=False, indent=1).encode() + b"\n")

    def save_new(self) -> None:
        """Writes what a run has before it has a model: config and tokenizer."""
        with write_atomic(self.folder / "tokenizer.json") as stream:
            stream.write(self.tokenizer.backend.to_str().encode())
        self.save_config()

    def save_model(self, metrics: dict[str, Any]) -> None:
        """Writes the weights with the task's settings as they are now (thresholds are tuned while
        training)."""
        plain = {"settings": asdict(self.task.config), "metrics": metrics}
        save_tensors(self.folder / "model.safetensors", self.model.state_dict(), plain)

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Writes `metrics.jsonl`."""
        with write_atomic(self.folder / "metrics.jsonl") as stream:
            stream.write(
                b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in history)
            )


def describe(
    task: str, encoder_name: str, settings: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """The `config.json` of a new run; `settings` are the sections as instances, `data` the files
    and their hashes."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    sections = {name: asdict(section) for name, section in settings.items()}
    return {
        "task": task,
        "encoder": {"name": encoder_name},
        "settings": sections,
        "data": data,
        "versions": versions,
    }


def load(
    folder: str | Path,
    device: str | torch.device = "cpu",
    kb: str | None = None,
    values: Values | None = None,
) -> Run:
    """A trained run, ready to decode; an encoder that ships, or the directory of a checkpoint,
    fills in masks.

    `kb` is a knowledge base to use in the place of the run's, whatever its content; `values` are
    settings of the task in the place of those it was trained with, as `parse_pairs` gives them.

    Raises SettingsError where it is neither, its parts do not fit together, or the weights do not
    fit the settings.
    """
    folder, values = Path(folder), values or {}
    if encoders.is_encoder(folder):
        return _bare_encoder(folder, device, values)
    config = read_config(folder)
    task_class = tasks.load(config["task"])
    encoder = encoders.build(config["encoder"]["spec"])
    backend = read_backend(folder / "tokenizer.json")
    if vocabulary_hash(backend) != config["tokenizer_sha256"]:
        raise SettingsError(
            f"{folder}/tokenizer.json: not the vocabulary this model was trained with"
        )
    if not (folder / "model.safetensors").exists():
        raise SettingsError(
            f"{folder}: no model yet", hint="the training was stopped before its first evaluation"
        )
    weights, plain = load_tensors(folder / "model.safetensors")
    tokenizer = encoders.tokenizer_of(encoder, backend)
    section = config["task"]
    kb_values = tasks.kb_values(section, kb)
    settings = resolve(
        {section: task_class.Config}, {section: plain["settings"]}, values, kb_values
    )[section]
    task = task_class(settings, tokenizer, folder)
    model = task.build_model(encoder)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip()
        raise SettingsError(
            f"{folder}/model.safetensors: does not fit the settings: {problem}"
        ) from None
    return Run(folder, config, task, tokenizer, model.to(device).eval())


def _bare_encoder(source: Path, device: str | torch.device, values: Values) -> Run:
    """An encoder with its masked-LM head as the run of a task."""
    encoder, tokenizer = encoders.load(str(source), encoders.settings_of(str(source))(), head=True)
    task_class = tasks.load("fill_mask")
    task = task_class(
        resolve({"fill_mask": task_class.Config}, values)["fill_mask"], tokenizer, None
    )
    config = {
        "task": "fill_mask",
        "encoder": {"name": str(source), "spec": encoder.spec()},
        "settings": {},
    }
    return Run(source, config, task, tokenizer, task.build_model(encoder).to(device).eval())


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a run. Raises SettingsError where there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["task"] and config["encoder"]["spec"]:
            return config
    except FileNotFoundError:
        pass
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SettingsError(f"{folder}/config.json: not the config of a run: {error}") from None
    raise SettingsError(
        f"{folder}: not a run directory: no config.json", hint="nlpkit train TASK makes one"
    )


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    """A safetensors file with plain values as JSON in its header."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with write_atomic(path) as stream:
        stream.write(safetensors.torch.save(own, {"plain": json.dumps(plain)}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `save_tensors` wrote. Raises SettingsError for a damaged file."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["plain"])
    except (safetensors.SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
