"""What a checkpoint is, is read from its tensors; each family loads exactly."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
import transformers
from checkpoints import (
    SMALL,
    VOCABULARY,
    Save,
    assert_same_hidden,
    auto_model,
    edit_config,
    edit_weights,
    saver,
)

from nlpkit.encoders.checkpoint.load import inspect, load_encoder
from nlpkit.errors import SettingsError
from nlpkit.layers.prefix_lm import PrefixLM

save = pytest.fixture(saver)


@pytest.mark.parametrize(
    ("class_name", "architecture", "settings"),
    [
        ("BertModel", "bert", {}),
        ("BertForMaskedLM", "bert", {}),
        ("BertForPreTraining", "bert", {}),
        ("ErnieModel", "ernie", {}),
        ("ErnieForMaskedLM", "ernie", {"use_task_id": True, "type_vocab_size": 4}),
        ("ElectraForPreTraining", "electra", {"embedding_size": 32}),
        ("ElectraForMaskedLM", "electra", {"embedding_size": 16}),
        ("ElectraModel", "electra", {"embedding_size": 32}),
        ("RoFormerModel", "roformer", {}),
        ("RoFormerForMaskedLM", "roformer", {"embedding_size": 16}),
    ],
)
def test_every_family_loads_exactly(
    save: Save, class_name: str, architecture: str, settings: dict
) -> None:
    folder = save(class_name, **settings)
    report = inspect(folder)
    assert report.architecture == architecture
    assert (report.problems, report.disagreements, report.missing, report.unexpected) == (
        [],
        [],
        [],
        [],
    )
    assert bool(report.heads) == (class_name not in ("ElectraModel", "RoFormerModel"))
    assert report.sizes == {**report.sizes, **SMALL}
    encoder = load_encoder(folder)
    assert report.parameters == sum(parameter.numel() for parameter in encoder.parameters())
    assert_same_hidden(folder, auto_model(folder))


def test_the_report_in_full(save: Save) -> None:
    folder = save("BertForMaskedLM")
    report = inspect(folder)
    assert report.claimed == {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    assert report.sizes == {**SMALL, "embedding_size": 32, "type_vocab_size": 2}
    assert report.dtype == "float32"
    assert report.bytes == (folder / "model.safetensors").stat().st_size
    assert report.tokenizer == "vocab.txt (WordPiece)"
    assert report.vocabulary_size == len(VOCABULARY)
    assert all(name.startswith("cls.") for name in report.heads)
    assert json.loads(orjson.dumps(report))["architecture"] == "bert"


def test_inspect_reads_no_tensor(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save()
    monkeypatch.setattr("nlpkit.encoders.checkpoint.load.tensors", None)
    assert inspect(folder).problems == []


@pytest.mark.parametrize("class_name", ["BertModel", "BertForMaskedLM"])
def test_a_bert_that_claims_to_be_a_roberta_is_a_bert(save: Save, class_name: str) -> None:
    folder = save(class_name, max_position_embeddings=512)
    reference = auto_model(folder)
    edit_config(folder, model_type="roberta", architectures=["RobertaModel"], pad_token_id=1)
    report = inspect(folder)
    assert report.architecture == "bert"
    assert report.disagreements == [
        "config.json says model_type roberta, the weights are bert",
        "config.json names the class RobertaModel, the weights are bert",
    ]
    assert_same_hidden(folder, reference)


@pytest.mark.parametrize("class_name", ["RobertaModel", "RobertaForMaskedLM"])
def test_a_real_roberta_is_refused(save: Save, class_name: str) -> None:
    folder = save(class_name, max_position_embeddings=514, type_vocab_size=1)
    assert inspect(folder).architecture == "roberta"
    with pytest.raises(SettingsError, match="another family: .*got roberta"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("GPT2Model", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
        ("T5EncoderModel", {"d_model": 32, "num_layers": 2, "d_ff": 32, "d_kv": 16}),
        ("DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
        ("AlbertModel", {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2}),
    ],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, class_name: str, settings: dict) -> None:
    model_class = getattr(transformers, class_name)
    model_class(model_class.config_class(vocab_size=60, **settings)).save_pretrained(tmp_path)
    assert inspect(tmp_path).architecture is None
    with pytest.raises(SettingsError, match="no BERT-family encoder: expected .*, got ") as error:
        load_encoder(tmp_path)
    assert error.value.hint == f"nlpkit encoder info {tmp_path}"


def test_two_encoders_in_one_file_are_refused(save: Save) -> None:
    folder = save("BertForMaskedLM")
    edit_weights(
        folder,
        lambda w: w | {name.replace("bert.", "teacher."): t.clone() for name, t in w.items()},
    )
    with pytest.raises(
        SettingsError, match="expected one encoder in the weights, got 2: bert., teacher."
    ):
        load_encoder(folder)


def test_a_megatron_bert_is_refused(save: Save) -> None:
    with pytest.raises(SettingsError, match="missing|no place"):
        load_encoder(save("MegatronBertModel"))


POSITIONS = "embeddings.position_embeddings.weight"


@pytest.mark.parametrize("claim", ["bert", "nezha", None])
def test_an_encoder_without_position_tensors_is_no_roformer(save: Save, claim: str | None) -> None:
    """NEZHA's positions are relative and have no tensor; a BERT may have lost its own."""
    folder = save()
    edit_weights(folder, lambda w: {name: t for name, t in w.items() if name != POSITIONS})
    edit_config(folder, model_type=claim)
    message = "another family.*got nezha" if claim == "nezha" else f"bert are missing: {POSITIONS}"
    assert inspect(folder).problems
    with pytest.raises(SettingsError, match=message):
        load_encoder(folder)


def test_a_roformer_without_its_computed_positions_is_still_one(save: Save) -> None:
    folder = save("RoFormerForMaskedLM")
    rotary = "roformer.encoder.embed_positions.weight"
    edit_weights(folder, lambda w: {name: t for name, t in w.items() if name != rotary})
    edit_config(folder, model_type=None)  # its tensors say so alone
    report = inspect(folder)
    assert (report.architecture, report.problems) == ("roformer", [])


def test_one_segment_type_is_told_and_no_task_that_writes_takes_it(save: Save) -> None:
    folder = save("BertForMaskedLM", type_vocab_size=1)
    report = inspect(folder)
    assert report.problems == []
    assert "one segment type" in report.limits[0]
    encoder = load_encoder(folder, head=True)
    assert encoder.attentions == ("full",)
    with pytest.raises(SettingsError, match="cannot tell a source from a target"):
        PrefixLM(encoder)
