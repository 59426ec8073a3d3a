"""Small random checkpoints as people have them, for the tests of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers

from nlpkit.encoders import encode
from nlpkit.encoders.checkpoint.load import load_encoder

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"中国人北京大学的是在",
    "a",
    "b",
    "ab",
    "##c",
    "##b",
    "1",
    "é",
]
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
WORDS = "embeddings.word_embeddings.weight"


@dataclass
class Tokens:
    token_ids_BT: torch.Tensor
    segment_ids_BT: torch.Tensor
    mask_BT: torch.Tensor


Save = Callable[..., Path]


def saver(tmp_path: Path) -> Save:
    """Saves a small model of the class with a vocab.txt; the keyword arguments are settings of its
    config."""

    def save(class_name: str = "BertModel", shard_size: str = "1GB", **settings: Any) -> Path:
        torch.manual_seed(0)
        model_class = getattr(transformers, class_name)
        model_class(model_class.config_class(**{**SMALL, **settings})).save_pretrained(
            tmp_path, max_shard_size=shard_size
        )
        (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        return tmp_path

    return save


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(edit(safetensors.torch.load_file(path)), path)


def to_pickle(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(safetensors.torch.load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def assert_same_hidden(folder: Path, reference: Any, **options: Any) -> None:
    """The loaded encoder gives the hidden states of transformers' own model, padding and segments
    included."""
    encoder = load_encoder(folder, **options).eval()
    token_ids_BT = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    mask_BT = torch.arange(9) < torch.tensor([9, 6])[:, None]
    segment_ids_BT = (torch.arange(9) > 4).long().expand(2, 9)
    with torch.no_grad():
        own_BTH = reference.eval()(
            token_ids_BT, attention_mask=mask_BT.long(), token_type_ids=segment_ids_BT
        )[0]
        hidden_BTH = encode(encoder, Tokens(token_ids_BT, segment_ids_BT, mask_BT))
    torch.testing.assert_close(hidden_BTH[mask_BT], own_BTH[mask_BT], rtol=0, atol=1e-5)


def auto_model(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder)
