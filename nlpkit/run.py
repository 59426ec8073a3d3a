"""A run directory: a trained model with all that it needs, and the checkpoint that its training
resumes from.

    config.json              task, settings, encoder, versions, data hash, what was reached
    model.safetensors        the best weights so far and, in its header, the task's settings tuned with them
    tokenizer.json           and what the task prepared (schema, labels, KB)
    metrics.jsonl            one line for each evaluation
    README.md                model card
    checkpoint.safetensors   the last state of a training that is not finished

Every file is written to a temporary name, flushed and renamed; nothing is ever unpickled.

How the files are checked when a run is loaded: see `run_files`. A run whose encoder is an ONNX
graph, as `nlpkit export` writes it: see `inference.export`.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nlpkit import encoders, tasks
from nlpkit.config import Values, resolve, with_present_names
from nlpkit.encoders.checkpoint.files import check_finite
from nlpkit.encoders.tensor_file import load_tensors, save_tensors
from nlpkit.encoders.undrawn import Undrawn
from nlpkit.errors import SettingsError, shown
from nlpkit.formats.typed import read_json
from nlpkit.inference.precision import choose, has_bfloat16
from nlpkit.jsonl import write_atomic
from nlpkit.run_files import CHANGING, check_files, essence, file_sha256
from nlpkit.text.backend import read_backend, vocabulary_hash
from nlpkit.text.tokenizer import Tokenizer

PACKAGES = ("nlpkit", "torch", "transformers", "tokenizers", "jieba", "numpy")


@dataclass(frozen=True)
class Settings:
    """Settings, section `run`, of `predict` and `eval`."""

    check: bool = True
    """Refuse a run with a file that is not as its training wrote it."""


@dataclass
class Run:
    """A task with its model, as trained or to be trained, in a folder."""

    folder: Path
    config: dict[str, Any]
    task: Any
    tokenizer: Tokenizer
    model: nn.Module

    @property
    def is_export(self) -> bool:
        """Whether its encoder is an ONNX graph, for prediction alone."""
        return self.config["encoder"]["spec"].get("kind") == "onnx"

    @property
    def precision(self) -> str:
        """The precision to predict in: as set for the training.

        Where that was left open, the one that was chosen on this kind of device when the run was
        made, so that the same line gives the same bytes; elsewhere it is chosen anew.
        """
        wanted = self.config["settings"].get("train", {}).get("precision", "fp32")
        device = next(self.model.parameters()).device
        kept = self.config.get("precision_choice")
        if wanted == "auto" and kept is not None and self.config["device"] == device.type:
            wanted = kept["prediction"]["precision"] if has_bfloat16(device) else "fp32"
        return choose(wanted, device, "prediction").precision

    def save_config(self) -> None:
        """Writes `config.json`."""
        self._note_files()
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
        self._note_files()
        plain = {
            "settings": asdict(self.task.config),
            "metrics": metrics,
            "config_sha256": essence(self.config),
        }
        save_tensors(self.folder / "model.safetensors", self.model.state_dict(), plain)

    def _note_files(self) -> None:
        """Puts the hashes of the other files into the config: those that a continued training has
        noted at its start, or else those of the files as they are."""
        if "files" in self.config:
            return
        if (self.folder / "config.json").exists():
            self.config["files"] = read_config(self.folder).get("files", {})
            return
        names = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        known = [name for name in names if name not in CHANGING and not name.startswith(".")]
        self.config["files"] = {name: file_sha256(self.folder / name) for name in known}

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
    path = folder / "model.safetensors"
    if not path.exists():
        raise SettingsError(
            f"{folder}: no model yet", hint="the training was stopped before its first evaluation"
        )
    weights, plain = load_tensors(path)
    section = config["task"]
    task_class = _task_class(section, folder / "config.json")
    own = {section: with_present_names(_settings_in(plain, path), section)}
    check = values.get("run", {})
    if resolve({"run": Settings}, {"run": check})["run"].check:
        check_files(folder, config, plain)
    sections = {section: task_class.Config, "run": Settings}
    settings = resolve(sections, own, values, tasks.kb_values(section, kb))
    with Undrawn():
        encoder = _build_encoder(config["encoder"]["spec"], weights, folder / "config.json")
    encoder.open(folder)
    backend = read_backend(folder / "tokenizer.json")
    if vocabulary_hash(backend) != config.get("tokenizer_sha256"):
        raise SettingsError(
            f"{folder}/tokenizer.json: not the vocabulary this model was trained with"
        )
    task = task_class(settings[section], encoders.tokenizer_of(encoder, backend), folder)
    with Undrawn():
        model = task.build_model(encoder)
    _fill(model, weights, path)
    return Run(folder, config, task, task.tokenizer, model.to(device).eval())


def _task_class(name: str, path: Path) -> Any:
    try:
        return tasks.load(name)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}") from None


def _settings_in(plain: Any, path: Path) -> dict[str, Any]:
    """The settings in the header of the weights."""
    if not isinstance(plain, dict) or not isinstance(plain.get("settings"), dict):
        raise SettingsError(f"{path}: no settings of a task in its header")
    return plain["settings"]


def _build_encoder(spec: Any, weights: dict[str, torch.Tensor], path: Path) -> Any:
    """The encoder of a spec; what asks for sizes that the weights have not is refused before
    memory is taken for it."""
    largest = max([4096, *(size for tensor in weights.values() for size in tensor.shape)])
    values = {**spec, **spec["config"]} if isinstance(spec.get("config"), dict) else spec
    parts = values.get("parts")
    if isinstance(parts, dict):
        values = {**values, "features": parts.get("features")}
    for name, value in values.items():
        most = len(weights) if "layers" in name else largest
        takes_memory = name != "max_length"
        if takes_memory and type(value) in (int, float) and not abs(value) <= most:
            raise SettingsError(f"{path}: encoder: {name}: the weights have no such size: {value}")
    try:
        return encoders.build(spec)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}") from None
    except (AttributeError, ArithmeticError, RuntimeError) as error:
        raise SettingsError(f"{path}: encoder: {shown(error)}") from None


def _fill(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Puts the weights into the model. Raises SettingsError where names, shapes or types differ,
    or a number is not finite."""
    for name, tensor in model.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:
            found = str(weights[name].dtype).removeprefix("torch.")
            expected = str(tensor.dtype).removeprefix("torch.")
            raise SettingsError(f"{path}: {name}: expected {expected}, got {found}")
    for name, tensor in weights.items():
        check_finite(path, name, tensor)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip()
        raise SettingsError(f"{path}: does not fit the settings: {problem}") from None


def _bare_encoder(source: Path, device: str | torch.device, values: Values) -> Run:
    """An encoder with its masked-LM head as the run of a task."""
    task_class = tasks.load("fill_mask")
    sections = {"fill_mask": task_class.Config, "encoder": encoders.settings_of(str(source))}
    settings = resolve(sections, values)
    encoder, tokenizer = encoders.load(str(source), settings["encoder"], head=True)
    task = task_class(settings["fill_mask"], tokenizer, None)
    config = {
        "task": "fill_mask",
        "encoder": {"name": str(source), "spec": encoder.spec()},
        "settings": {},
    }
    return Run(source, config, task, tokenizer, task.build_model(encoder).to(device).eval())


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a run. Raises SettingsError where there is none."""
    path = folder / "config.json"
    if not path.exists():
        inside = sorted(one.parent.name for one in folder.glob("*/config.json"))
        hint = f"runs in it: {', '.join(inside)}" if inside else "nlpkit train TASK makes one"
        raise SettingsError(f"{folder}: not a run directory: no config.json", hint)
    config = read_json(dict[str, Any], path)
    for name, kind in (("task", str), ("encoder", dict), ("settings", dict)):
        if not isinstance(config.get(name), kind):
            raise SettingsError(f'{path}: not the config of a run: no "{name}"')
    if not isinstance(config["encoder"].get("spec"), dict):
        raise SettingsError(f'{path}: not the config of a run: no "encoder.spec"')
    for name in ("train", *(["files"] if "files" in config else [])):
        inner = config["settings"].get(name, {}) if name == "train" else config[name]
        if not isinstance(inner, dict):
            raise SettingsError(f'{path}: "{name}": expected an object, got {shown(inner)}')
    return config
