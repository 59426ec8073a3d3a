"""An encoder as `nlpkit export` wrote it: an ONNX graph in the folder of a run, for prediction
alone.

The graph is `forward` of another encoder, from tensors to tensors. The word vectors of a BERT
stay torch, since a task may add to them or read them, and so does its masked-LM head.

A graph of 8-bit weights rounds what comes in to 255 steps between the least and the largest number
of all rows. So it gets one row at a time, without its padding, and a line has the same prediction
whatever stands beside it. In float32 the rows of a batch do not touch.
B batch, T tokens (Q as queries, K as keys), H hidden, E embedding, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nlpkit.encoders import base
from nlpkit.encoders.language_head import LanguageHead
from nlpkit.errors import SettingsError, shown
from nlpkit.text.words import word_features

GRAPH = "encoder.onnx"
"""Its file in the folder of a run."""
HINT = "pip install 'nlpkit[onnx]'"


class Encoder(nn.Module, base.Encoder):
    """The encoder of a `spec_of`. It is no encoder before `open` was called; it cannot be trained."""

    def __init__(self, config: dict[str, Any], int8: bool, head: dict[str, Any] | None = None):
        super().__init__()
        self.config = config
        self.int8 = int8
        self.hidden_size: int = config["hidden_size"]
        self.max_length: int | None = config["max_length"]
        self.depth = 0  # that of the graph counts for training alone
        self.attentions = tuple(config["attentions"])
        self.extra_inputs = tuple(config["extra_inputs"])
        self.words = word_features if "word_ids_BT" in self.extra_inputs else None
        self.embedding_VE: nn.Parameter | None = None
        vocabulary = config["vocabulary"]
        size = config["embedding_size"]
        if vocabulary:
            self.vocabulary_size: int = vocabulary
            self.embedding_VE = nn.Parameter(torch.zeros(vocabulary, size))
        self.head_config = head
        self.head: LanguageHead | None = None
        if head is not None:
            self.head = LanguageHead(
                self.hidden_size, size, vocabulary, head["activation"], head["epsilon"]
            )
        self._session: Any = None

    def open(self, folder: Path) -> None:
        """Reads the graph. Raises SettingsError where it cannot, or where it is of another size."""
        path = folder / GRAPH
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # one would be kept for each shape there was
        options.log_severity_level = 3  # errors, which are raised too
        try:
            providers = ["CPUExecutionProvider"]
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # noqa: BLE001 - its errors have no other class in common
            why = str(error).splitlines()[0][:200]
            raise SettingsError(f"{path}: no graph that ONNX Runtime can read: {why}") from None
        found = self._session.get_outputs()[0].shape[-1]
        if found != self.hidden_size:
            expected = f"expected vectors of size {self.hidden_size}, got {shown(found)}"
            raise SettingsError(f"{path}: does not fit the config: {expected}")
        self._inputs = {one.name for one in self._session.get_inputs()}

    def forward(
        self,
        token_ids_BT: torch.Tensor,
        segment_ids_BT: torch.Tensor,
        attention_mask_BQK: torch.Tensor,
        words_BTE: torch.Tensor | None = None,
        **extra: torch.Tensor,
    ) -> torch.Tensor:
        """hidden_BTH of the graph, in float32, on the device of the tokens. `words_BTE` are read in
        place of the tokens' own `word_vectors`."""
        if words_BTE is None and self.embedding_VE is not None:
            words_BTE = self.word_vectors(token_ids_BT)
        if words_BTE is not None:
            extra = {**extra, "words_BTE": words_BTE.float()}
        tensors = {"token_ids_BT": token_ids_BT, "segment_ids_BT": segment_ids_BT, **extra}
        tensors["attention_mask_BQK"] = attention_mask_BQK
        tensors = {name: tensor.cpu() for name, tensor in tensors.items() if name in self._inputs}
        if not self.int8:
            return self._run(tensors).to(token_ids_BT.device)
        hidden_BTH = torch.zeros(*token_ids_BT.shape, self.hidden_size)
        for row, visible_QK in enumerate(attention_mask_BQK.cpu()):
            length = 1 + int(visible_QK.any(0).nonzero().max())
            own = {name: tensor[row : row + 1, :length] for name, tensor in tensors.items()}
            if "attention_mask_BQK" in own:  # what reads from the left alone needs none
                own["attention_mask_BQK"] = own["attention_mask_BQK"][:, :, :length]
            hidden_BTH[row, :length] = self._run(own)[0]
        return hidden_BTH.to(token_ids_BT.device)

    def _run(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
        return torch.from_numpy(self._session.run(None, arrays)[0])

    def word_vectors(self, token_ids_BT: torch.Tensor) -> torch.Tensor:
        """What the tokens are without segment and position: (B, T, E). Raises SettingsError for an
        encoder that has no such vectors."""
        if self.embedding_VE is None:
            raise SettingsError("encoder: has no word vectors")
        return nn.functional.embedding(token_ids_BT, self.embedding_VE)

    def token_logits(self, hidden_NH: torch.Tensor) -> torch.Tensor:
        """Scores of the tokens at some places, logits_NV. Raises SettingsError for an encoder
        without its head."""
        if self.head is None or self.embedding_VE is None:
            raise SettingsError("encoder: was built without its masked-LM head")
        return self.head(hidden_NH, self.embedding_VE)

    def depth_of(self, parameter_name: str) -> int:
        """1: all parameters are the head's."""
        return 1

    def spec(self) -> dict[str, Any]:
        """What `encoders.build` makes it from; the graph is in the folder of the run."""
        spec = {"kind": "onnx", "config": self.config, "int8": self.int8}
        return spec if self.head_config is None else {**spec, "head": self.head_config}


def spec_of(encoder: Any, int8: bool) -> dict[str, Any]:
    """The spec of the export of an encoder."""
    config = {
        "hidden_size": encoder.hidden_size,
        "max_length": encoder.max_length,
        "attentions": list(encoder.attentions),
        "extra_inputs": list(encoder.extra_inputs),
        "vocabulary": 0,
        "embedding_size": 0,
    }
    if hasattr(encoder, "word_vectors"):
        every_token_V = torch.arange(encoder.vocabulary_size)
        vocabulary, size = encoder.word_vectors(every_token_V).shape
        config |= {"vocabulary": vocabulary, "embedding_size": size}
    spec = {"kind": "onnx", "config": config, "int8": int8}
    if getattr(encoder, "head", None) is None:
        return spec
    settings = encoder.spec()["config"]
    head = {"activation": settings["hidden_act"], "epsilon": encoder.head.norm.eps}
    return {**spec, "head": head}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise SettingsError("an exported encoder needs onnxruntime", hint=HINT) from None
    return onnxruntime
