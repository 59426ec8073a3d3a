"""Checkpoints as people have them: each loads exactly, or is an error that says why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import safetensors.torch
import torch
import transformers
import typer.testing

from nlpkit.encoders import encode
from nlpkit.encoders.checkpoint import load as checkpoint
from nlpkit.encoders.checkpoint.load import inspect, load_encoder, load_tokenizer, save_encoder
from nlpkit.errors import SettingsError

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


@pytest.fixture
def save(tmp_path: Path) -> Save:
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


# The wrong class, and sets of tensors that are another model


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


# Tensors that are missing, do not fit, or have no place


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


# Forms of the same weights


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
        assert "pickle=True" in str(error.value.hint)
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


# Tokenizers


def test_vocab_txt_makes_the_tokenizer_of_transformers(save: Save) -> None:
    folder = save()
    tokenizer = load_tokenizer(folder)
    own = transformers.BertTokenizerFast.from_pretrained(folder)
    for text in ["中国人 in 北京", "AB abc\tÉ 1", "未知字 [MASK] ab", ""]:
        assert tokenizer.encode(text).ids == own(text)["input_ids"]
        assert tokenizer.encode("a", "b" + text).type_ids == own("a", "b" + text)["token_type_ids"]


def test_offsets_are_those_of_the_text_as_given(save: Save) -> None:
    text = "  中国\u3000ABC \x00É京"
    encoded = load_tokenizer(save()).encode(text, add_special_tokens=False)
    assert [text[start:end] for start, end in encoded.offsets] == ["中", "国", "AB", "C", "É", "京"]


def test_case_is_kept_where_the_settings_say_so(save: Save) -> None:
    folder = save()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(folder).encode("a A", add_special_tokens=False).tokens == ["a", "[UNK]"]


def test_tokenizer_json_without_truncation_and_padding(save: Save) -> None:
    folder = save()
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    plain = inspect(folder)
    assert len(load_tokenizer(folder).encode("中国人北京大学").ids) == 9
    assert len(load_tokenizer(folder).encode("中").ids) == 3
    assert plain.tokenizer == "tokenizer.json (WordPiece)"
    (folder / "tokenizer.json").unlink()
    assert inspect(folder).vocabulary_sha256 == plain.vocabulary_sha256


def test_more_tokens_than_embeddings(save: Save) -> None:
    folder = save()
    with (folder / "vocab.txt").open("a") as file:
        file.writelines(f"token{i}\n" for i in range(100))
    message = f"more tokens than embeddings: expected at most 60, got {len(VOCABULARY) + 100}"
    with pytest.raises(SettingsError, match=message):
        load_tokenizer(folder)
    report = inspect(folder)
    assert report.tokenizer is None
    assert message in report.disagreements[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("vocab.txt", b"[PAD]\n[CLS]\na\n", r"lacks \[UNK\], \[SEP\]"),
        ("vocab.txt", b"[PAD]\n\xff\xfe\n", "not UTF-8"),
        ("tokenizer.json", b"{}", 'missing field "model"'),
        ("tokenizer.json", b"{", "not valid JSON"),
    ],
)
def test_a_bad_tokenizer_is_named(save: Save, file: str, content: bytes, message: str) -> None:
    folder = save()
    (folder / file).write_bytes(content)
    with pytest.raises(SettingsError, match=f"{file}: .*{message}"):
        load_tokenizer(folder)


def test_a_token_that_comes_twice_is_told_with_its_lines(save: Save) -> None:
    folder = save()
    (folder / "vocab.txt").write_bytes(b"[PAD]\na\nb\na\n")
    with pytest.raises(SettingsError, match='vocab.txt:4: "a" is already on line 2'):
        load_tokenizer(folder)


def test_no_tokenizer_is_no_obstacle_to_the_report(save: Save) -> None:
    folder = save()
    (folder / "vocab.txt").unlink()
    with pytest.raises(SettingsError, match="expected tokenizer.json or vocab.txt"):
        load_tokenizer(folder)
    assert (inspect(folder).tokenizer, inspect(folder).problems) == (None, [])


# Sources


def test_a_hub_id_is_downloaded_without_pickles(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = save(), []

    def snapshot_download(repo_id: str, allow_patterns: list[str]) -> str:
        calls.append((repo_id, allow_patterns))
        return str(folder)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    load_encoder("owner/some-name")
    load_encoder("name", pickle=True)
    load_tokenizer("name")
    assert [repo_id for repo_id, _ in calls] == ["owner/some-name", "name", "name"]
    assert ["pytorch_model*.bin" in patterns for _, patterns in calls] == [False, True, False]
    assert ["model*.safetensors" in patterns for _, patterns in calls] == [True, True, False]


def test_an_unknown_or_unreachable_id_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for error in (
        LocalEntryNotFoundError("offline\nand so on"),
        HFValidationError("bad id"),
        OSError(),
    ):

        def snapshot_download(*_: Any, error: Exception = error, **__: Any) -> str:
            raise error

        monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
        with pytest.raises(
            SettingsError, match="^no/model: no such directory, and the hub does not give it: "
        ) as caught:
            load_encoder("no/model")
        assert "\n" not in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "a/b/c", "../x", "a b"])
def test_a_path_is_never_taken_for_an_id(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "snapshot_download", None)
    with pytest.raises(SettingsError, match="no such directory"):
        load_encoder(source)


def test_a_cached_model_loads_offline(
    save: Save, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client with its network switched off, over a cache laid out as the client lays it
    out."""
    folder, cache = save(), tmp_path_factory.mktemp("cache")
    model = cache / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0" * 40)
    (model / "snapshots").mkdir()
    folder.rename(model / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_encoder("owner/name").depth == 2
    with pytest.raises(
        SettingsError, match="^owner/other: no such directory, and the hub does not give it: "
    ):
        load_encoder("owner/other")


# The command


def run_info(*arguments: str) -> typer.testing.Result:
    from cli.encoder import app

    return typer.testing.CliRunner().invoke(app, ["info", *arguments])


def test_info_writes_one_json_object(save: Save) -> None:
    result = run_info(str(save("ErnieForMaskedLM")))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["architecture"] == "ernie"
    assert result.stdout.count("\n") == 1


def test_info_shows_people_a_table_on_stderr(
    save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from cli.encoder import info

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    info(str(save("BertForMaskedLM")))
    out, err = capsys.readouterr()
    assert out == ""
    assert "BertForMaskedLM" in err
    assert "hidden_size 32" in err


def test_info_of_nothing_is_a_settings_error(tmp_path: Path) -> None:
    assert isinstance(run_info(str(tmp_path / "none")).exception, SettingsError)


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("BertForMaskedLM", {}),
        ("ErnieForMaskedLM", {"use_task_id": True, "type_vocab_size": 4}),
        ("ElectraForMaskedLM", {"embedding_size": 16}),
        ("RoFormerForMaskedLM", {"embedding_size": 16}),
    ],
)
def test_the_masked_lm_head_gives_the_logits_of_transformers(
    save: Save, class_name: str, settings: dict
) -> None:
    folder = save(class_name, **settings)
    encoder = load_encoder(folder, head=True).eval()
    theirs = getattr(transformers, class_name).from_pretrained(folder).eval()
    token_ids_BT = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    whole_BT = torch.ones_like(token_ids_BT)
    with torch.no_grad():
        own_BTV = encoder.token_logits(
            encode(encoder, Tokens(token_ids_BT, 0 * whole_BT, whole_BT.bool()))
        )
        expected_BTV = theirs(token_ids_BT, attention_mask=whole_BT).logits
    torch.testing.assert_close(own_BTV, expected_BTV, rtol=0, atol=1e-5)
    assert encoder.spec()["head"] is True


def test_a_head_that_is_missing_or_not_tied_is_an_error(save: Save) -> None:
    folder = save("BertModel")
    with pytest.raises(SettingsError, match="no masked-LM head, which is needed here: no bias"):
        load_encoder(folder, head=True)
    with pytest.raises(SettingsError, match="built without its masked-LM head"):
        load_encoder(folder).token_logits(torch.zeros(1, 32))
    folder = save("BertForMaskedLM")
    edit_weights(
        folder, lambda weights: {**weights, "cls.predictions.decoder.weight": torch.ones(60, 32)}
    )
    with pytest.raises(SettingsError, match="is not the embeddings"):
        load_encoder(folder, head=True)


def test_a_saved_encoder_is_a_checkpoint_of_its_own(save: Save, tmp_path: Path) -> None:
    encoder, backend = load_encoder(save("BertForMaskedLM"), head=True), load_tokenizer(tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    save_encoder(again, encoder, backend)
    report = inspect(again)
    assert (report.problems, report.disagreements, report.dtype) == ([], [], "bfloat16")
    loaded = load_encoder(again, head=True)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(
            tensor, encoder.state_dict()[name].bfloat16().float(), rtol=0, atol=0
        )
