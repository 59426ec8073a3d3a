"""A run whose encoder is an ONNX graph: the folder that `nlpkit export` writes, a run like others.

    encoder.onnx        the encoder
    model.safetensors   word vectors and the heads of the task, with its settings
    config.json         as of a run, with `export`: from what, how, and what it scored
    README.md           the same for people; tokenizer.json, and what the task prepared

Reading, heads and decoding stay ours and stay torch, so `predict` and `eval` take the folder as
they take any run, and check its files like those of any. It names no place outside itself.

A task that writes one token after another asks its encoder for `extend`, with the keys and values
of all tokens before. It is not exported: a graph would hand all of them in and out at each step,
and ONNX Runtime is no faster than torch in float32; in 8 bits the lines of a batch would mix.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nlpkit import encoders
from nlpkit.encoders.onnx import spec_of
from nlpkit.encoders.onnx_graph import OPSET, check_installed, write_graph
from nlpkit.encoders.tensor_file import load_tensors
from nlpkit.errors import SettingsError
from nlpkit.jsonl import write_atomic
from nlpkit.run import Run
from nlpkit.run_files import CHANGING, file_sha256
from nlpkit.task import KnowledgeBase
from nlpkit.text.backend import vocabulary_hash


def check_exportable(run: Run) -> None:
    """Raises SettingsError for a run that cannot be exported, with the reason."""
    check_installed()
    if run.is_export:
        raise SettingsError(
            f"{run.folder}: is an export", hint="export the run that it was made of"
        )
    if run.task.needs_extend(run.task.config):
        raise SettingsError(
            f"{run.folder}: a run of {run.config['task']} cannot be exported: it writes one token "
            "after another, each from the keys and values of all before"
        )


def export(run: Run, folder: Path, int8: bool) -> None:
    """Writes the export of a run, on the CPU and in evaluation mode, to an empty folder.

    Raises SettingsError as `check_exportable` and `write_graph` do.
    """
    check_exportable(run)
    for name in _files_of_task(run):
        shutil.copyfile(run.folder / name, folder / name)
    encoder: Any = run.model.encoder
    write_graph(encoder, folder, int8)
    spec = spec_of(encoder, int8)
    task = copy.copy(run.task)
    task.config = _without_places(task)
    model = task.build_model(encoders.build(spec))
    weights = run.model.state_dict()
    if spec["config"]["vocabulary"]:
        every_token_V = torch.arange(encoder.vocabulary_size)
        weights["encoder.embedding_VE"] = encoder.word_vectors(every_token_V)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    exported = Run(folder, _config(run, task.config, spec), task, run.tokenizer, model)
    exported.save_new()
    exported.save_model(_metrics_of(run))
    write_card(exported)


def note_scores(exported: Run, scores: dict[str, Any]) -> None:
    """Puts what run and export scored on the same data into the config and the card of the export:
    `data`, `data_sha256`, `metric`, and its values `run_score` and `score`."""
    exported.config["export"]["scores"] = scores
    exported.save_config()
    write_card(exported)


def write_card(exported: Run) -> None:
    """Writes `README.md`."""
    with write_atomic(exported.folder / "README.md") as stream:
        stream.write(_card(exported.config).encode())


def _files_of_task(run: Run) -> list[str]:
    """The names of the files in a run's folder that its task prepared."""
    if "tokenizer_sha256" not in run.config:  # an encoder alone
        return []
    known = run.config.get("files")
    if known is None:  # a run of an earlier version
        files = [path.name for path in run.folder.iterdir() if path.is_file()]
        known = [name for name in files if name not in CHANGING and not name.startswith(".")]
    return [name for name in known if name != "tokenizer.json"]


def _metrics_of(run: Run) -> dict[str, Any]:
    path = run.folder / "model.safetensors"
    if "tokenizer_sha256" not in run.config:
        return {}
    return load_tensors(path)[1].get("metrics", {})


def _without_places(task: Any) -> Any:
    """The settings of a task; of an absolute path the name alone stays, and of the knowledge base
    nothing, since a copy of it is in the folder."""
    changes = {}
    for name, value in vars(task.config).items():
        if isinstance(value, str) and Path(value).is_absolute():
            changes[name] = Path(value).name
    if isinstance(task, KnowledgeBase):
        changes["kb"] = ""
    return replace(task.config, **changes)


def _config(run: Run, task_config: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """The config of the export. Of the path of a file the name alone stays."""
    old = run.config
    section = old["task"]
    train = {**old["settings"].get("train", {}), "precision": "fp32"}
    data = dict(old.get("data", {}))
    for part in ("train", "dev"):
        paths = data.get(part)
        if isinstance(paths, list):
            data[part] = [Path(path).name for path in paths]
    made_of: dict[str, Any] = {"run": run.folder.name, "encoder": old["encoder"]["spec"]}
    weights = run.folder / "model.safetensors"
    if weights.exists():
        made_of["weights_sha256"] = file_sha256(weights)
    versions = {name: version(name) for name in ("nlpkit", "torch", "onnx", "onnxruntime")}
    kept = {name: value for name, value in old.items() if name not in ("files", "precision_choice")}
    return {
        **kept,
        "encoder": {"name": Path(old["encoder"]["name"]).name, "spec": spec},
        "settings": {**old["settings"], section: asdict(task_config), "train": train},
        "data": data,
        "tokenizer_sha256": vocabulary_hash(run.tokenizer.backend),
        "export": {"int8": spec["int8"], "opset": OPSET, "of": made_of, "versions": versions},
    }


def _card(config: dict[str, Any]) -> str:
    """Markdown from the `config.json` of an export."""
    about = config["export"]
    weights = "8-bit integers" if about["int8"] else "float32"
    scores = about.get("scores")
    told = "It was not scored again."
    if scores is not None:
        told = f"""Scored again on {scores["data"]} (sha256 {scores["data_sha256"]}):

| {scores["metric"]} of the run | {scores["metric"]} of the export |
|---|---|
| {scores["run_score"]} | {scores["score"]} |"""
    return f"""# {config["task"]} on {config["encoder"]["name"]}, exported

The run `{about["of"]["run"]}` with its encoder as an ONNX graph (opset {about["opset"]}, weights \
in {weights}).
{told}

    pip install 'nlpkit[onnx]'
    nlpkit predict DIR FILE
    nlpkit eval DIR --data FILE

```json
{json.dumps(about, ensure_ascii=False, indent=1)}
```
"""
