"""Tensors that are missing, do not fit, have no place, or are no numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from checkpoints import (
    WORDS,
    Save,
    assert_same_hidden,
    auto_model,
    edit_config,
    edit_weights,
    saver,
)

from nlpkit.encoders.checkpoint.load import inspect, load_encoder
from nlpkit.errors import SettingsError

save = pytest.fixture(saver)


def test_a_missing_tensor_is_named(save: Save) -> None:
    folder = save()
    name = "encoder.layer.1.output.dense.bias"
    edit_weights(folder, lambda w: {key: tensor for key, tensor in w.items() if key != name})
    assert inspect(folder).missing == [name]
    with pytest.raises(SettingsError, match=f"tensors of the bert are missing: {name}$"):
        load_encoder(folder)


def test_a_wrong_hidden_size_is_named(save: Save) -> None:
    folder = save()
    edit_config(folder, hidden_size=64)
    assert inspect(folder).disagreements == ["config.json says hidden_size 64, the weights have 32"]
    with pytest.raises(
        SettingsError, match=rf"not fit .*{WORDS}: expected \(60, 64\), got \(60, 32\).* more$"
    ):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("layers", "message"),
    [(1, "no place in .*encoder.layer.1"), (3, "are missing: encoder.layer.2")],
)
def test_a_wrong_number_of_blocks(save: Save, layers: int, message: str) -> None:
    folder = save()
    edit_config(folder, num_hidden_layers=layers)
    with pytest.raises(SettingsError, match=message):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "multiple of the 5 heads"),
        ({"hidden_act": "gellu"}, "unknown hidden_act"),
        ({"hidden_size": "32"}, "make no bert"),
    ],
)
def test_settings_that_make_no_model(save: Save, change: dict, message: str) -> None:
    folder = save()
    edit_config(folder, **change)
    with pytest.raises(SettingsError, match=message):
        load_encoder(folder)


def test_the_number_of_heads_must_be_given(save: Save) -> None:
    folder = save()
    config = json.loads((folder / "config.json").read_text())
    del config["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match="lacks num_attention_heads"):
        load_encoder(folder)


def test_roformer_positions_tell_the_heads(save: Save) -> None:
    folder = save("RoFormerModel")
    edit_config(folder, num_attention_heads=4)
    with pytest.raises(SettingsError, match="do not fit .*embed_positions"):
        load_encoder(folder)


def test_roformer_positions_are_computed_where_left_out(save: Save) -> None:
    folder = save("RoFormerModel")
    reference = auto_model(folder)
    edit_weights(
        folder, lambda w: {key: tensor for key, tensor in w.items() if "embed_positions" not in key}
    )
    assert inspect(folder).problems == []
    assert_same_hidden(folder, reference)


def test_integers_are_no_weights(save: Save) -> None:
    folder = save()
    edit_weights(folder, lambda w: {key: tensor.to(torch.int8) for key, tensor in w.items()})
    with pytest.raises(SettingsError, match=r"not floating point: .* \(int8\)"):
        load_encoder(folder)


def test_a_tensor_of_an_unknown_head_is_reported_and_left_out(save: Save) -> None:
    folder = save("BertForMaskedLM")
    edit_weights(folder, lambda w: w | {"crf.transitions": torch.zeros(3, 3)})
    report = inspect(folder)
    assert (report.unexpected, report.problems) == (["crf.transitions"], [])
    assert_same_hidden(folder, auto_model(folder))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(
    save: Save, number: float, dtype: torch.dtype
) -> None:
    folder = save()
    name = "encoder.layer.1.output.dense.weight"

    def spoil(weights: dict) -> dict:
        weights = {key: tensor.to(dtype) for key, tensor in weights.items()}
        weights[name][3, 5] = number
        return weights

    edit_weights(folder, spoil)
    with pytest.raises(SettingsError, match=f"model.safetensors: {name}: not all .* finite"):
        load_encoder(folder)


@pytest.mark.parametrize("places", [[], 5, {"a": 5}, None])
def test_an_index_of_shards_that_names_no_files(save: Save, places: Any) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(SettingsError, match="expected an object of file names"):
        load_encoder(folder)
