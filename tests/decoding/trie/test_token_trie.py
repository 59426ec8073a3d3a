"""The host side: a trie holds exactly its keys, whatever they look like, and files are read back or
refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_trie import key_lists

from nlpkit.decoding.trie.arrays import read_arrays, write_arrays
from nlpkit.decoding.trie.csr import Csr, checked, compile_csr, problem_of
from nlpkit.decoding.trie.file import COMPILED, KEPT, compiled_path, from_marisa
from nlpkit.decoding.trie.token_trie import TokenTrie
from nlpkit.errors import DataError, SettingsError


def prefixes(keys):
    return {key[:end] for key in keys for end in range(len(key) + 1)}


@settings(max_examples=300)
@given(key_lists())
def test_a_trie_holds_its_keys_and_nothing_else(case):
    size, sequences = case
    trie, keys = TokenTrie.from_sequences(iter(sequences), size), sorted(set(sequences))
    assert len(trie) == len(keys)
    assert trie.keys(range(len(trie))) == keys
    assert trie.depth == max(map(len, keys), default=0)
    assert trie.bounds[-1] == len(prefixes(keys) | {()})
    for prefix in prefixes(keys):
        node = trie.find(prefix)
        below = [rank for rank, key in enumerate(keys) if key[: len(prefix)] == prefix]
        assert list(trie.key_range(node)) == below
        assert trie.is_end(node) == (prefix in keys)
        assert trie.find((*prefix, 1)) == -1 or (*prefix, 1) in prefixes(keys)
    assert trie.key_range(-1) == range(0)


@settings(max_examples=100)
@given(key_lists())
def test_arrays_give_the_same_trie_as_sequences(case):
    size, sequences = case
    flat = np.array([token for key in sequences for token in key], np.int64)
    ours = TokenTrie.from_arrays(flat, np.array([len(key) for key in sequences], np.int64), size)
    for one, other in zip(ours.csr, TokenTrie.from_sequences(sequences, size).csr, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=100)
@given(key_lists(), st.integers(0, 2))
def test_a_key_has_the_values_of_all_its_sequences_in_order(case, seed):
    size, sequences = case
    values = [f"值{place}" * (place * seed % 3) for place in range(len(sequences))]
    trie = TokenTrie.from_sequences(sequences, size, values=values)
    for rank, key in enumerate(trie.keys(range(len(trie)))):
        given = [
            value for sequence, value in zip(sequences, values, strict=True) if sequence == key
        ]
        assert trie.values.of(rank) == given


def test_what_is_no_key_is_named():
    with pytest.raises(DataError, match=r"key 1: expected token ids in \[0, 9\), got 9"):
        TokenTrie.from_sequences([(1, 2), (3, 9)], 9)
    with pytest.raises(DataError, match=r"key 0: expected token ids in \[0, 9\), got -1"):
        TokenTrie.from_sequences([(-1,), (3, 8)], 9)
    with pytest.raises(DataError, match="key 1: expected token ids below"):
        TokenTrie.from_sequences([(), (3, 1 << 40)], 9)
    with pytest.raises(DataError, match="add up to 3 tokens, got 2"):
        TokenTrie.from_arrays(np.arange(3), np.array([1, 1]), 9)
    with pytest.raises(DataError, match="one for each of 2 keys, got 1"):
        TokenTrie.from_sequences([(1,), (2,)], 9, values=["a"])
    with pytest.raises(DataError, match="value 0: expected one line"):
        TokenTrie.from_sequences([(1,)], 9, values=["a\nb"])
    with pytest.raises(IndexError):
        TokenTrie.from_sequences([(1,)], 9).keys([1])


@settings(max_examples=60)
@given(case=key_lists(), with_values=st.booleans())
def test_a_file_gives_the_trie_back_compiled_or_not(case, with_values, tmp_path_factory):
    size, sequences = case
    file = tmp_path_factory.mktemp("trie") / "keys.trie"
    values = list(map(str, range(len(sequences)))) if with_values else None
    saved = TokenTrie.from_sequences(sequences, size, "hash", values)
    saved.save(file)
    assert not compiled_path(file).exists()
    for _ in ("compiles", "maps what was compiled"):
        loaded = TokenTrie.load(file, "hash")
        assert compiled_path(file).exists()
        assert (loaded.vocabulary_size, loaded.vocabulary_hash) == (size, "hash")
        for one, other in zip(loaded.csr, saved.csr, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        assert (loaded.values is not None) == with_values
        for key in range(len(saved) if with_values else 0):
            assert loaded.values.of(key) == saved.values.of(key)


@pytest.fixture
def file(tmp_path):
    TokenTrie.from_sequences([(2, 3), (2,)], 9, "ours", ["x", "y"]).save(tmp_path / "keys.trie")
    return tmp_path / "keys.trie"


def test_another_tokenizer_is_refused(file):
    with pytest.raises(
        SettingsError, match="made with another tokenizer: expected vocabulary theirs, got ours"
    ):
        TokenTrie.load(file, "theirs")
    assert len(TokenTrie.load(file)) == 2


def flipped(content, bit):
    """The bytes with one bit turned over."""
    place, of_byte = divmod(bit, 8)
    return content[:place] + bytes([content[place] ^ 1 << of_byte]) + content[place + 1 :]


@pytest.mark.parametrize("suffix", ["", ".csr"])
def test_any_bit_that_flips_is_refused_or_changes_nothing(file, suffix):
    sound = TokenTrie.load(file)
    expected = sound.keys([0, 1]), [sound.values.of(0), sound.values.of(1)]
    damaged = file.with_name(file.name + suffix)
    whole = damaged.read_bytes()
    messages = []
    bits = range(3, 8 * len(whole), 29)
    for bit in bits:
        damaged.write_bytes(flipped(whole, bit))
        try:
            trie = TokenTrie.load(file)
        except SettingsError as error:
            messages.append(error.message)
        else:
            assert (trie.keys([0, 1]), [trie.values.of(0), trie.values.of(1)]) == expected
    assert all(str(damaged) in message for message in messages)
    assert len(messages) > 0.9 * len(bits)


def test_a_truncated_file_is_refused(file):
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 5, header - 3, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(
            SettingsError, match=r"keys\.trie: damaged, truncated, or no trie at all"
        ):
            TokenTrie.load(file)


NONSENSE = [
    ("first_child", 0, 4, "children out of range"),
    ("first_child", 1, 1 << 30, "children out of range"),
    ("first_child", 1, -2, "children out of range"),
    ("first_child", 2, 4, "children out of range|a node above its parent|a branch"),
    ("first_child", 2, 6, "a branch without a key"),
    ("label", 1, 9, "tokens outside the vocabulary"),
    ("label", 2, -1, "tokens outside the vocabulary"),
    ("first_key", 0, 1, "another number of keys"),
    ("first_key", 2, 7, "keys"),
    ("first_key", 1, -1, "keys"),
]


@pytest.mark.parametrize(("name", "place", "value", "why"), NONSENSE)
def test_arrays_that_make_no_sense_are_refused_whatever_their_hash(file, name, place, value, why):
    TokenTrie.load(file)
    header, arrays = read_arrays(compiled_path(file), COMPILED)
    crafted = {key: array.copy() for key, array in arrays.items()}
    crafted[name][place] = value
    plain = {key: header[key] for key in COMPILED.plain}
    write_arrays(compiled_path(file), COMPILED, plain, crafted)
    with pytest.raises(SettingsError, match=rf"keys\.trie\.csr: damaged: ({why})"):
        TokenTrie.load(file)


@settings(max_examples=200)
@given(key_lists(), st.sampled_from(["first_child", "label", "first_key"]), st.data())
def test_a_changed_array_is_refused_or_can_be_walked_through(case, name, data):
    size, sequences = case
    csr = TokenTrie.from_sequences(sequences, size).csr
    assert problem_of(csr, size) is None
    changed = {key: array.copy() for key, array in csr._asdict().items()}
    place = data.draw(st.integers(0, len(csr.label) - 1))
    changed[name][place] = data.draw(st.integers(-3, 40))
    crafted = Csr(**changed)
    if problem_of(crafted, size) is None:
        trie = TokenTrie(crafted, size, "")
        keys = trie.keys(range(len(trie)))
        assert all(0 <= token < size for key in keys for token in key)
        assert trie.key_range(0) == range(len(trie))


def test_values_that_make_no_sense_are_refused(file):
    header, arrays = read_arrays(file, KEPT)
    plain = {key: header[key] for key in KEPT.plain}
    for change, why in (
        ({"value_ends": np.array([2, 5])}, "values out of range"),
        ({"value_ends": np.array([2])}, "values of 1 keys, not of 2"),
        ({"value_ends": np.array([1, 4])}, "values that do not end where a line ends"),
        ({"values": np.frombuffer(b"x\n\xff\n", np.uint8)}, "values that are not UTF-8"),
        ({"keys": np.frombuffer(b"nonsense", np.uint8)}, ""),
    ):
        write_arrays(file, KEPT, plain, arrays | change)
        with pytest.raises(SettingsError, match=rf"keys\.trie: damaged: {why}"):
            TokenTrie.load(file)
    write_arrays(file, KEPT, plain | {"keys": 3}, {"keys": arrays["keys"]})
    with pytest.raises(SettingsError, match="damaged: expected 3 keys, got 2"):
        TokenTrie.load(file)


def test_a_file_of_other_arrays_types_or_plain_values_is_refused(file):
    header, arrays = read_arrays(file, KEPT)
    plain = {key: header[key] for key in KEPT.plain}
    wrong_type = arrays | {"value_ends": arrays["value_ends"].astype(np.int32)}
    for written, why in (
        ((plain, wrong_type), "value_ends: expected I64 of 1 dimensions, got I32 of 1"),
        ((plain, arrays | {"more": arrays["keys"]}), "expected the arrays"),
        ((plain, {"values": arrays["values"]}), "expected the arrays"),
        ((plain | {"keys": "2"}, arrays), "expected the plain values"),
        (({"keys": 2}, arrays), "expected the plain values"),
    ):
        write_arrays(file, KEPT, *written)
        with pytest.raises(SettingsError, match=f"damaged: {why}"):
            TokenTrie.load(file)


def test_a_file_is_read_whole_once(file, monkeypatch):
    for _ in ("compiles", "maps what was compiled"):
        TokenTrie.load(file)
    monkeypatch.setattr("nlpkit.decoding.trie.arrays.fingerprint", None)
    assert len(TokenTrie.load(file)) == 2


def test_what_is_no_trie_is_refused(file, tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        TokenTrie.load(tmp_path / "none")
    other = replace(KEPT, name="something else")
    header, arrays = read_arrays(file, KEPT)
    plain = {key: header[key] for key in KEPT.plain}
    write_arrays(tmp_path / "other", other, plain, arrays)
    with pytest.raises(SettingsError, match="expected a trie, got something else"):
        TokenTrie.load(tmp_path / "other")
    write_arrays(file, replace(KEPT, version=1), plain, arrays)
    with pytest.raises(SettingsError, match="expected version 2, got 1") as error:
        TokenTrie.load(file)
    assert error.value.hint == "nlpkit trie build makes it again"


def test_a_key_that_is_too_long_is_refused():
    with pytest.raises(DataError, match="key 1: too long: expected at most 4096 tokens, got 5000"):
        TokenTrie.from_sequences([(1,), (1,) * 5000], 9)


def test_what_was_compiled_from_another_file_or_is_damaged_is_refused(file, tmp_path):
    TokenTrie.load(file)
    stale = compiled_path(file).read_bytes()
    TokenTrie.from_sequences([(4,)], 9, "ours").save(file)
    assert TokenTrie.load(file).keys([0]) == [(4,)]
    compiled_path(file).write_bytes(stale)
    with pytest.raises(
        SettingsError, match=r"keys\.trie\.csr: stale: compiled from another keys\.trie"
    ):
        TokenTrie.load(file)
    compiled_path(file).write_bytes(stale[:-1])
    with pytest.raises(SettingsError, match=r"keys\.trie\.csr: damaged, truncated"):
        TokenTrie.load(file)


def test_a_folder_that_cannot_be_written_costs_only_the_compilation(file, monkeypatch):
    def full_disk(*arguments):
        raise SettingsError("disk full")

    monkeypatch.setattr("nlpkit.decoding.trie.file.write_arrays", full_disk)
    assert TokenTrie.load(file).keys([0, 1]) == [(2,), (2, 3)]
    assert not compiled_path(file).exists()


def test_keys_come_back_sorted_from_marisa_in_several_chunks(file, monkeypatch):
    monkeypatch.setattr("nlpkit.decoding.trie.file.CHUNK", 3)
    monkeypatch.setattr("nlpkit.decoding.trie.token_trie.CHUNK", 3)
    monkeypatch.setattr("nlpkit.decoding.trie.csr.CHUNK", 3)
    keys = [(a, b) for a in range(5) for b in (300, 2, 5)] + [(3,)]
    values = [str(key) for key in keys]
    TokenTrie.from_sequences(keys, 301, "", values).save(file)
    compiled = compile_csr(from_marisa(read_arrays(file, KEPT)[1]["keys"], 301), 301)
    loaded = TokenTrie.load(file)
    np.testing.assert_array_equal(compiled.label, loaded.csr.label)
    assert loaded.keys(range(len(keys))) == sorted(keys)
    assert [loaded.values.of(key) for key in range(len(keys))] == [
        [str(key)] for key in sorted(keys)
    ]


def test_too_many_nodes_are_refused(monkeypatch):
    monkeypatch.setattr("nlpkit.decoding.trie.csr.MOST_NODES", 3)
    with pytest.raises(DataError, match="at most 3 nodes"):
        compile_csr(checked(np.array([1, 2, 3]), np.array([3]), 9), 9)
