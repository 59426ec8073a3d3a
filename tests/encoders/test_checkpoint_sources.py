"""Where a checkpoint comes from, and `nlpkit encoder info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from checkpoints import (
    Save,
    saver,
)

from nlpkit.encoders.checkpoint.load import load_encoder, load_tokenizer
from nlpkit.errors import SettingsError

save = pytest.fixture(saver)


def test_a_hub_id_is_downloaded_without_pickles(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = save(), []

    def snapshot_download(repo_id: str, allow_patterns: list[str]) -> str:
        calls.append((repo_id, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
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

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(
            SettingsError, match="^no/model: no such directory, and the hub does not give it: "
        ) as caught:
            load_encoder("no/model")
        assert "\n" not in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "a/b/c", "../x", "a b"])
def test_a_path_is_never_taken_for_an_id(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # so that none of these paths is there
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
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
