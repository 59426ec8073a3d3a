"""An encoder written as an ONNX graph, which takes any number of rows and tokens.

The graph is traced from one small batch. Whatever a trace freezes, as the length of a text or a
branch on it, shows on other batches: the graph is compared with the encoder on such before it
counts. For 8-bit weights its matrices are then rounded, each column by itself, to 7 bits: without
VNNI a processor adds two products of 8 bits in 16, and they would overflow.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
B batch, T tokens (Q as queries, K as keys), H hidden.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nlpkit.encoders.onnx import GRAPH, HINT, Encoder, spec_of
from nlpkit.errors import SettingsError

OPSET = 17
MOST_BYTES = 2**31 - 2**20
"""Of the weights: a file of this format holds no more."""
FAR = 1e-3
"""A graph may not be farther from the encoder, in shares of the largest number. In float32 the
encoders that ship are 1e-6 off."""


def check_installed() -> None:
    """Raises SettingsError where what writes a graph is not installed."""
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"an export needs {name}", hint=HINT)


@torch.no_grad()
def write_graph(encoder: Any, folder: Path, int8: bool) -> None:
    """Writes the graph of an encoder in evaluation mode, on the CPU, to the folder.

    Raises SettingsError for an encoder that is too large, or whose graph would be another function.
    """
    size = sum(4 * parameter.numel() for parameter in encoder.parameters())
    if size > MOST_BYTES:
        raise SettingsError(
            f"encoder: too large for a graph: expected at most {MOST_BYTES} bytes, got {size}"
        )
    path = folder / GRAPH
    batch = _batch(encoder, 3, 12)
    names = list(batch)
    axes = {name: {0: "B", 1: "T"} for name in (*names, "hidden_BTH")}
    axes["attention_mask_BQK"] = {0: "B", 1: "Q", 2: "K"}
    with _quiet():
        torch.onnx.export(
            encoder,
            tuple(batch.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["hidden_BTH"],
            dynamic_axes=axes,
        )
    _check_graph(encoder, folder)
    if int8:
        _round(path)


def _check_graph(encoder: Any, folder: Path) -> None:
    """Raises SettingsError where the graph in the folder gives other vectors than the encoder."""
    spec = spec_of(encoder, int8=False)
    graph = Encoder(spec["config"], int8=False)
    graph.open(folder)
    longest = 70 if encoder.max_length is None else min(70, encoder.max_length)
    for rows, length in ((1, 3), (4, longest)):
        batch = _batch(encoder, rows, length)
        mask_BT1 = batch["attention_mask_BQK"][:, 0, :, None]
        expected_BTH = encoder(*batch.values()) * mask_BT1
        far = (graph(**batch) * mask_BT1 - expected_BTH).abs().max()
        if not far <= FAR * expected_BTH.abs().max():
            raise SettingsError(
                "encoder: cannot be exported: its graph gives other vectors on "
                f"{rows} x {length} tokens, by up to {far:.2g}"
            )


def _batch(encoder: Any, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Arguments of `forward`, by name in its order: texts of different lengths, the first `length`
    tokens long."""
    position_T = torch.arange(length)
    row_B1 = torch.arange(rows)[:, None]
    length_B1 = (length - 2 * row_B1).clamp_min(1)
    mask_BT = position_T < length_B1
    token_ids_BT = (5 + position_T + row_B1) * mask_BT
    batch = {
        "token_ids_BT": token_ids_BT,
        "segment_ids_BT": torch.zeros_like(token_ids_BT),
        "attention_mask_BQK": mask_BT[:, None],
    }
    for name in encoder.extra_inputs:
        batch[name] = (1 + position_T % 3 + row_B1) * mask_BT
    if hasattr(encoder, "word_vectors"):
        batch["words_BTE"] = encoder.word_vectors(token_ids_BT)
    return batch


def _round(path: Path) -> None:
    """Rounds the matrices of a graph to 8-bit integers, in place."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".whole")
    path.rename(whole)
    with _quiet():
        quantize_dynamic(
            str(whole),
            str(path),
            op_types_to_quantize=["Gather", "Gemm", "LSTM", "MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    whole.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of tracing, of which `_check_graph` finds what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
