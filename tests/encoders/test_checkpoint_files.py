"""Forms of the same weights: old names, half precision, shards, pickles, damaged files."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from checkpoints import (
    Save,
    assert_same_hidden,
    auto_model,
    edit_config,
    edit_weights,
    saver,
    to_pickle,
)

from nlpkit.encoders.checkpoint.load import inspect, load_encoder
from nlpkit.errors import SettingsError

save = pytest.fixture(saver)


def test_gamma_and_beta_of_old_exports(save: Save) -> None:
    folder = save("BertForMaskedLM")
    reference = auto_model(folder)

    def as_in_tensorflow(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            weights = {key.replace(new, name): tensor for key, tensor in weights.items()}
        return weights | {"bert.embeddings.position_ids": torch.arange(64)[None]}

    edit_weights(folder, as_in_tensorflow)
    assert (inspect(folder).problems, inspect(folder).unexpected) == ([], [])
    assert_same_hidden(folder, reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_as_float32(save: Save, dtype: torch.dtype) -> None:
    folder = save()
    edit_weights(folder, lambda w: {key: tensor.to(dtype) for key, tensor in w.items()})
    edit_config(
        folder,
        dtype=str(dtype).removeprefix("torch."),
        torch_dtype=str(dtype).removeprefix("torch."),
    )
    assert inspect(folder).dtype == str(dtype).removeprefix("torch.")
    assert {parameter.dtype for parameter in load_encoder(folder).parameters()} == {torch.float32}
    assert_same_hidden(folder, auto_model(folder).float())


def test_shards(save: Save) -> None:
    folder = save("BertForMaskedLM", shard_size="20KB")
    shards = list(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert inspect(folder).bytes == sum(shard.stat().st_size for shard in shards)
    assert_same_hidden(folder, auto_model(folder))
    shards[0].unlink()
    with pytest.raises(SettingsError, match=f"{shards[0].name}: damaged or missing"):
        load_encoder(folder)


def test_a_pickle_is_read_only_when_asked_for(save: Save) -> None:
    folder = save("BertForMaskedLM")
    reference = auto_model(folder)
    to_pickle(folder)
    for function in (inspect, load_encoder):
        with pytest.raises(SettingsError, match="no weights: expected model.safetensors") as error:
            function(folder)
        assert "--set encoder.pickle=true" in str(error.value.hint)
    assert inspect(folder, pickle=True).problems == []
    assert_same_hidden(folder, reference, pickle=True)


def test_a_pickle_with_code_in_it_runs_nothing(save: Save) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(trap),)

    folder = save()
    trap = folder / "sprung"
    to_pickle(folder)
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="more than tensors"):
        load_encoder(folder, pickle=True)
    assert not trap.exists()


@pytest.mark.parametrize("value", [{"state": {"a": torch.zeros(1)}}, [torch.zeros(1)]])
def test_a_pickle_of_something_else(save: Save, value: Any) -> None:
    folder = save()
    to_pickle(folder)
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="expected a dict of tensors"):
        load_encoder(folder, pickle=True)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("size", [0, 5, 2000])
def test_a_truncated_file_is_named(save: Save, name: str, size: int) -> None:
    folder = save()
    if name.endswith(".bin"):
        to_pickle(folder)
    os.truncate(folder / name, size)
    for function in (inspect, load_encoder):
        with pytest.raises(SettingsError, match=f"{name}: damaged") as error:
            function(folder, pickle=True)
        assert "\n" not in error.value.message


def test_a_config_that_cannot_be_read(save: Save) -> None:
    folder = save()
    for content, message in [("{", "not valid JSON"), ("[]", "expected a JSON object, got list")]:
        (folder / "config.json").write_text(content)
        with pytest.raises(SettingsError, match=message):
            load_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(SettingsError, match=r"config.json: cannot be read: No such file"):
        inspect(folder)
