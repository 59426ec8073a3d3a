"""JSON lines: bytes in, the same bytes out."""

import gzip
import json
import lzma
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.errors import DataError, NlpkitError, RecordError
from nlpkit.json_value import parse_json
from nlpkit.jsonl import (
    Line,
    dumps,
    read_jsonl,
    read_lines,
    read_text,
    with_field,
    write_atomic,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_a_field_is_added_and_every_other_stays(record, ascii_only, indent):
    raw = (
        json.dumps(record, ensure_ascii=ascii_only, indent=indent)
        .replace("\n", " ")
        .encode("utf-8", "replace")
    )
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:  # lone surrogates are no JSON for orjson
        return
    out = with_field(raw, parsed, "prediction", {"a": [1]})
    assert json.loads(out) == {
        **{k: v for k, v in json.loads(raw).items() if k != "prediction"},
        "prediction": {"a": [1]},
    }


def test_an_old_value_of_the_field_is_replaced_and_the_rest_kept_as_written():
    raw = b'{"big":123456789012345678901, "prediction" : {"}":1} ,"f":1.50,"s":"\\u4e2d,\\"}"}'
    out = with_field(raw, json.loads(raw), "prediction", 2)
    assert out == b'{"big":123456789012345678901,"f":1.50,"s":"\\u4e2d,\\"}","prediction":2}'


def test_an_empty_object_gets_no_comma():
    assert with_field(b"{ }", {}, "prediction", 1) == b'{"prediction":1}'


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_files_are_read_as_they_are(tmp_path, suffix):
    raw = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":2}'
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix](raw))
    assert list(read_jsonl(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": 2})]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_damaged_archive_is_an_error_of_the_data(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    whole = {".gz": gzip.compress, ".xz": lzma.compress}[suffix](b'{"a":1}\n' * 1000)
    flipped = whole[: len(whole) // 2] + bytes(255 - byte for byte in whole[len(whole) // 2 :])
    for damaged in (whole[: len(whole) // 2], b"nonsense", flipped):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged|cannot be read"):
            list(read_lines(path))


@pytest.mark.parametrize("raw", [b"{", b"[1]", b'"x"', b"nan", b'{"a":NaN}', b"\xff"])
def test_what_is_no_object_is_an_error(raw):
    with pytest.raises(RecordError):
        Line("x:1", 1, raw).record()


def test_deep_values_stay_and_are_no_reason_to_fail():
    for depth in (500, 1000):
        deep = b"[" * depth + b"]" * depth
        raw = b'{"a":' + deep + b', "prediction" : ' + deep + b' ,"b":{"prediction":1}}'
        record = Line("x:1", 1, raw).record()
        out = with_field(raw, record, "prediction", 2)
        assert out == b'{"a":' + deep + b',"b":{"prediction":1},"prediction":2}'
    for raw in (b"[" * 1000 + b"9" * 20 + b"]" * 1000, b"[" * 5000 + b"]" * 5000):
        with pytest.raises(RecordError, match="not valid JSON"):
            parse_json(raw)


def test_what_predict_writes_may_hold_large_numbers():
    assert (
        dumps({"a": 10**30, "b": ("中",)})
        == b'{"a": 1000000000000000000000000000000, "b": ["\\u4e2d"]}'
    )


def test_a_directory_and_a_missing_file_are_errors(tmp_path):
    for path in (tmp_path, tmp_path / "no"):
        with pytest.raises(DataError):
            list(read_lines(path))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with write_atomic(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    pytest.raises(RuntimeError, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with write_atomic(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(NlpkitError, match="cannot be written"), write_atomic(tmp_path / "no" / "x"):
        pass


def test_what_a_link_points_to_is_written_and_a_pipe_is_written_as_it_is(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with write_atomic(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
    with write_atomic("/dev/null") as stream:
        stream.write(b"gone")
    assert not Path("/dev/null").is_file()


GBK = "云泽".encode("gb18030")


def test_bytes_that_are_no_utf8_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"name\r\n" + GBK + b"\r\n")
    for read in (
        lambda: [line.text() for line in read_lines(path)],
        lambda: read_text(path),
    ):
        with pytest.raises(DataError, match=r"windows.txt:2: not UTF-8: byte 0xd4") as caught:
            read()
        assert "iconv -f GB18030" in caught.value.hint
    with pytest.raises(RecordError, match="not UTF-8"):
        Line("f:1", 1, b'{"text":"' + GBK + b'"}').record()
    with pytest.raises(NlpkitError, match="cannot be read"):
        read_text(tmp_path / "none.txt")


def test_a_whole_text_has_plain_line_ends_and_no_byte_order_mark(tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n\r\nb = 2\r\n")
    assert read_text(path) == "a = 1\n\nb = 2\n"
