"""Checkpoints made out of others: characters from pieces, layers, positions, bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from checkpoints import SMALL, Save, edit_weights, saver
from conftest import nlpkit

from nlpkit import encoders
from nlpkit.encoders import catalogue
from nlpkit.encoders.checkpoint.convert import Conversion, convert
from nlpkit.encoders.checkpoint.load import inspect, load_encoder, load_tokenizer, save_encoder
from nlpkit.encoders.checkpoint.pieces import characters_of
from nlpkit.encoders.checkpoint.positions import more_positions
from nlpkit.errors import SettingsError
from nlpkit.pretraining.resume import carry_notice
from nlpkit.text.coverage import coverage

save = pytest.fixture(saver)

PIECES = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES += ["▁", ",", ".", "。", "...", "▁北京", "北京", "▁北", "北", "京", "▁我", "▁是", "是", "人"]
PIECES += ["a", "▁a", "b", "c", "▁ab", "bc", "▁2019", "20", "2", "▁1", "é", "の", "я", "▁я"]
PIECES += ["▁...", "▁我们", "学生", "ing"]
TEXTS = ["我是北京人。", "北京,我", "ab bc 2019, a1", "人の北я…，。"]


def write_pieces(folder: Path) -> None:
    """A tokenizer.json as XLM-R has it."""
    scores = [(piece, -float(number)) for number, piece in enumerate(PIECES)]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, unk_id=3, byte_fallback=False))
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.add_special_tokens([*PIECES[:4], "<mask>"])
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))


def source(folder: Path, class_name: str = "XLMRobertaModel", **settings: Any) -> tuple[Path, Any]:
    """(a checkpoint of pieces, transformers' own model of it)."""
    write_pieces(folder)
    shape = {**SMALL, "vocab_size": len(PIECES) + 1, "max_position_embeddings": 66}
    shape |= {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5, **settings}
    torch.manual_seed(3)
    model_class = getattr(transformers, class_name)
    model = model_class(model_class.config_class(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder, model


def made(old: Path, new: Path, **asked: Any) -> dict[str, Any]:
    new.mkdir()
    report, _ = convert(str(old), new, Conversion(**asked))
    return report


def hidden(folder: Path, text: str) -> torch.Tensor:
    encoder = load_encoder(folder).eval()
    ids = torch.tensor([load_tokenizer(folder).encode(text).ids])
    visible = torch.ones(1, 1, ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        return encoder(ids, torch.zeros_like(ids), visible)[0]


def piece_ids(folder: Path, text: str, old: Path) -> torch.Tensor:
    """The ids of the pieces whose vectors the tokens of a text have."""
    rows = list(characters_of(old).rows.values())
    return torch.tensor([[rows[number] for number in load_tokenizer(folder).encode(text).ids]])


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("XLMRobertaModel", {}),
        ("XLMRobertaForMaskedLM", {}),
        ("BertModel", {"max_position_embeddings": 64, "type_vocab_size": 2}),
        ("BertModel", {"max_position_embeddings": 64}),
    ],
)
def test_the_vectors_of_characters_are_those_of_their_pieces(
    tmp_path: Path, class_name: str, settings: dict[str, Any]
) -> None:
    old, model = source(tmp_path / "old", class_name, **settings)
    new = tmp_path / "new"
    report = made(old, new)
    assert inspect(new).problems == inspect(new).disagreements == inspect(new).limits == []
    assert (report["architecture"], report["layers"], report["positions"]) == ("bert", [0, 1], 64)
    assert report["tokens"] == load_tokenizer(new).get_vocab_size()
    body = getattr(model, "roberta", model)
    for text in TEXTS:
        with torch.no_grad():
            expected = body(piece_ids(new, text, old))[0][0]
        torch.testing.assert_close(hidden(new, text), expected, rtol=0, atol=1e-5)


def test_the_two_segments_are_equal(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old")
    made(old, tmp_path / "new")
    encoder = load_encoder(tmp_path / "new")
    segments = encoder.model.embeddings.token_type_embeddings.weight
    assert segments.shape[0] == 2
    assert torch.equal(segments[0], segments[1])
    assert encoder.attentions == ("full", "prefix")


def test_the_head_of_xlm_r_comes_along(tmp_path: Path) -> None:
    old, model = source(tmp_path / "old", "XLMRobertaForMaskedLM")
    new = tmp_path / "new"
    assert made(old, new)["language_head"] is True
    encoder = load_encoder(new, head=True).eval()
    ids = piece_ids(new, "我是北京人", old)
    rows = list(characters_of(old).rows.values())
    with torch.no_grad():
        expected = model(ids).logits[0][:, rows]
        found = encoder.token_logits(hidden(new, "我是北京人"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_transformers_reads_it_too(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old")
    made(old, tmp_path / "new")
    model = transformers.AutoModel.from_pretrained(tmp_path / "new").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    for text in TEXTS:
        assert tokenizer(text).input_ids == load_tokenizer(tmp_path / "new").encode(text).ids
    ids = torch.tensor([load_tokenizer(tmp_path / "new").encode("我是北京人。").ids])
    with torch.no_grad():
        theirs = model(ids)[0][0]
    torch.testing.assert_close(hidden(tmp_path / "new", "我是北京人。"), theirs, rtol=0, atol=1e-5)


def test_the_tokens_of_a_text(tmp_path: Path) -> None:
    write_pieces(tmp_path)
    characters = characters_of(tmp_path)
    tokenizer = characters.tokenizer()
    assert list(characters.rows)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    piece_of = {token: ([*PIECES, "<mask>"])[row] for token, row in characters.rows.items()}
    # a character has the piece without the mark of a start, a letter or digit that with it
    wanted = {"北": "北", "我": "▁我", "я": "я", "a": "▁a", "##a": "a", "b": "b", "ab": "▁ab"}
    wanted |= {"##bc": "bc", "2019": "▁2019", "##20": "20", "1": "▁1", "，": ",", "…": "..."}
    wanted |= {"[MASK]": "<mask>", "##ing": "ing", "²": "2", "##1": "▁1"}
    assert {token: piece_of[token] for token in wanted} == wanted
    assert not {"北京", "我们", "▁", "bc", "##の", "..."} & characters.rows.keys()
    tokens = tokenizer.encode("北京，我のя人é…ab1 az", add_special_tokens=False).tokens
    assert tokens == [*"北京，我のя人é…", "ab", "##1", "[UNK]"]
    tokens = tokenizer.encode("ab abc 2019 aing", add_special_tokens=False).tokens
    assert tokens == ["ab", "ab", "##c", "2019", "a", "##ing"]


def test_pieces_without_a_special_one_are_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SettingsError, match="lacks <pad>, <s>, </s>, <mask>"):
        characters_of(tmp_path)


def test_more_pieces_than_embeddings_are_refused(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old", vocab_size=20)
    with pytest.raises(SettingsError, match="more pieces than embeddings: expected at most 20"):
        made(old, tmp_path / "new")


def test_coverage_counts_characters(tmp_path: Path) -> None:
    write_pieces(tmp_path)
    (tmp_path / "text").write_text("我是龍 龍人。\n\n虎a\n", encoding="utf-8")
    told = coverage(characters_of(tmp_path).tokenizer(), tmp_path / "text")
    assert told == {"characters": 8, "covered": 0.625, "uncovered": {"龍": 2, "虎": 1}}
    (tmp_path / "text").write_text("\n")
    told = coverage(characters_of(tmp_path).tokenizer(), tmp_path / "text")
    assert (told["characters"], told["covered"]) == (0, None)


def test_positions_are_those_of_the_formula() -> None:
    known = torch.randn(5, 8, dtype=torch.float64)
    more = more_positions(known, 25)
    assert torch.equal(more[:5], known)
    base = (known - 0.4 * known[0]) / 0.6
    for i in range(5):
        for j in range(5):
            expected = 0.4 * base[i] + 0.6 * base[j]
            torch.testing.assert_close(more[i * 5 + j], expected, rtol=0, atol=1e-12)
    assert torch.equal(more_positions(known, 5), known)
    for count in (4, 26):
        with pytest.raises(SettingsError, match=f"from 5, which there are, to 25, got {count}"):
            more_positions(known, count)


def test_a_bert_keeps_its_vocabulary_and_the_rest(save: Save, tmp_path: Path) -> None:
    old = save("BertForMaskedLM", num_hidden_layers=3)
    new = tmp_path / "new"
    report = made(old, new, layers="0,2", positions=130 + 62)
    assert (report["layers"], report["positions"], report["language_head"]) == ([0, 2], 192, True)
    before, after = load_encoder(old, head=True), load_encoder(new, head=True)
    assert load_tokenizer(old).get_vocab() == load_tokenizer(new).get_vocab()
    for index, layer in enumerate((0, 2)):
        ours = after.model.encoder.layer[index].state_dict()
        for name, tensor in before.model.encoder.layer[layer].state_dict().items():
            assert torch.equal(tensor, ours[name]), name
    for name, tensor in before.head.state_dict().items():
        assert torch.equal(tensor, after.head.state_dict()[name]), name
    known = before.model.embeddings.position_embeddings.weight
    assert torch.equal(after.model.embeddings.position_embeddings.weight[:64], known)


def test_what_is_asked_for_and_cannot_be(save: Save, tmp_path: Path) -> None:
    old = save(num_hidden_layers=3)
    wrong = [
        ({"layers": "0"}, "--layers: expected 1 to 3 layers, got 0"),
        ({"layers": "4"}, "--layers: expected 1 to 3 layers, got 4"),
        ({"layers": "0,3"}, "--layers: expected ascending numbers below 3, got 0,3"),
        ({"layers": "1,0"}, "--layers: expected ascending numbers below 3, got 1,0"),
        ({"layers": "all"}, "--layers: expected 0,2,4 or a number of layers, got all"),
        ({"positions": 63}, "--positions: expected from 64, which there are, to 4096, got 63"),
        ({"positions": 130}, "--positions: 130: two above a multiple of 64"),
    ]
    for number, (asked, message) in enumerate(wrong):
        with pytest.raises(SettingsError, match=message):
            made(old, tmp_path / str(number), **asked)


def test_rotary_positions_need_no_extension(save: Save, tmp_path: Path) -> None:
    old = save("RoFormerModel")
    with pytest.raises(SettingsError, match="--positions: .* has none to extend: it computes them"):
        made(old, tmp_path / "new", positions=128)
    assert made(old, tmp_path / "less", layers="1", bits=8)["layers"] == [0]
    assert inspect(tmp_path / "less").problems == []


def test_an_own_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"format": "nlpkit", "model_type": "on_lstm", "vocab_size": 5, "config": {}})
    )
    with pytest.raises(SettingsError, match="own format: only the BERT family is converted"):
        made(tmp_path, tmp_path / "new")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old")

    def spoil(weights: dict) -> dict:
        weights["encoder.layer.0.output.dense.weight"][1, 1] = float("nan")
        return weights

    edit_weights(old, spoil)
    with pytest.raises(
        SettingsError, match="output.dense.weight: not all of its numbers are finite"
    ):
        made(old, tmp_path / "new")


def test_bits_and_what_goes_along(tmp_path: Path) -> None:
    """A pretraining's record, card and notice; the same encoder but for its last digits."""
    encoder, backend = encoders.for_pretraining(
        None, encoders.ShapeConfig(layers=3, hidden_size=32, heads=2, intermediate_size=64)
    )
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    save_encoder(old, encoder, backend)
    record = {"shape": encoders.shape_of(encoder), "tokens": 5, "start": None}
    (old / "pretraining.json").write_text(json.dumps(record))
    (old / "README.md").write_bytes(b"# A card\nof a caf\xe9\n")  # not UTF-8
    (old / "NOTICE").write_text("Somebody's, MIT\n")
    report = made(old, new, layers="2", bits=4)
    assert (report["bits"], report["layers"]) == (4, [0, 1])
    kept = json.loads((new / "pretraining.json").read_text())
    assert (kept["tokens"], kept["shape"]["num_hidden_layers"]) == (5, 2)
    assert kept["converted"] == {"source": "old", "layers": [0, 1], "bits": 4, "positions": None}
    card = (new / "README.md").read_text()
    assert card.startswith("# A card\nof a caf\ufffd\n")
    assert "its layers 0, 1, weights in 4 bits" in card
    assert (new / "NOTICE").read_text() == "Somebody's, MIT\n"
    again = encoders.for_pretraining(str(new), encoders.ShapeConfig())[0]
    weight, coarse = (made.model.encoder.layer[0].output.dense.weight for made in (encoder, again))
    assert 0 < (coarse - weight).norm() / weight.norm() < 0.1


def test_the_command(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old")
    new = tmp_path / "new"
    text = tmp_path / "text"
    text.write_text("我是龍。\n", encoding="utf-8")
    done = nlpkit(
        "encoder", "convert", old, "--out", new, "--bits", "8", "--layers", "1", "--text", text
    )
    told = json.loads(done.stdout)
    assert (told["encoder"], told["bits"], told["layers"]) == (str(new), 8, [0])
    assert (told["covered"], told["uncovered"]) == (0.75, {"龍": 1})
    info = json.loads(nlpkit("encoder", "info", new).stdout)
    assert (info["bits"], info["problems"], info["parameters"]) == (8, [], told["parameters"])
    refused = nlpkit("encoder", "convert", old, "--out", new, check=False)
    assert refused.returncode == 2
    assert "holds an encoder" in refused.stderr.decode()
    assert json.loads(nlpkit("encoder", "info", new).stdout) == info
    nlpkit("encoder", "convert", old, "--out", new, "--force")
    assert json.loads(nlpkit("encoder", "info", new).stdout)["bits"] is None
    within, _ = source(new / "within")
    own = nlpkit("encoder", "convert", within, "--out", new, "--force", check=False)
    assert "within: lies in" in own.stderr.decode()
    assert (within / "model.safetensors").exists()
    other = nlpkit("encoder", "convert", old, "--out", text.parent, "--force", check=False)
    assert "holds something that is no encoder" in other.stderr.decode()
    wrong = nlpkit("encoder", "convert", old, "--out", tmp_path / "x", "--bits", "5", check=False)
    assert "--bits: expected 4 or 8, got 5" in wrong.stderr.decode()


def test_a_pickle_is_opened_only_when_asked_for(tmp_path: Path) -> None:
    old, _ = source(tmp_path / "old")
    weights = safetensors.torch.load_file(old / "model.safetensors")
    torch.save(weights, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match="no weights: expected model.safetensors"):
        made(old, tmp_path / "no")
    (tmp_path / "new").mkdir()
    report, _ = convert(str(old), tmp_path / "new", Conversion(), pickle=True)
    assert report["layers"] == [0, 1]


def test_an_encoder_that_ships_may_lie_in_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a record of pretraining and without; its licence is what its notice says."""
    old, _ = source(tmp_path / "old", "XLMRobertaForMaskedLM")
    (old / "NOTICE").write_text("Somebody's, MIT\n")
    made(old, tmp_path / "small", bits=8)
    found = {"tiny": encoders.TINY, "small": tmp_path / "small"}
    for module in ("shipped", "catalogue", "by_name"):
        monkeypatch.setattr(f"nlpkit.encoders.{module}.checkpoints", lambda: found)
    told = catalogue.shipped()
    assert told["small"] == {
        "what": "bert, 2 layers of 32, characters; converted",
        "licence": "Somebody's, MIT",
        "bits": 8,
        "bytes": (tmp_path / "small" / "model.safetensors").stat().st_size,
    }
    assert (told["tiny"]["licence"], told["tiny"]["bits"]) == ("that of nlpkit (MIT)", None)
    described = catalogue.describe("small")
    assert described["what"] == told["small"]["what"]
    assert encoders.load("small", encoders.settings_of("small")(), head=True)[0].head is not None
    record = json.loads((encoders.TINY / "pretraining.json").read_text())
    (tmp_path / "small" / "pretraining.json").write_text(json.dumps(record))
    told = catalogue.shipped()["small"]
    assert told["what"] == "bert, 2 layers of 32, characters; pretrained"
    assert (told["licence"], told["bits"]) == ("Somebody's, MIT", 8)
    assert told["tokens"] == encoders.tokens_of(record)


def test_a_pretraining_carries_the_notice(tmp_path: Path) -> None:
    start, new = tmp_path / "start", tmp_path / "new"
    start.mkdir()
    new.mkdir()
    (start / "NOTICE").write_text("Somebody's, MIT\n")
    carry_notice(str(start), new)
    assert (new / "NOTICE").read_text() == "Somebody's, MIT\n"
    carry_notice(None, new)
    carry_notice("tiny", new)
    assert (new / "NOTICE").read_text() == "Somebody's, MIT\n"
