"""The host side: a trie holds exactly its keys, whatever they look like, and files are read back or
refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_trie import key_lists

from nlpkit.decoding.trie.csr import checked, compile_levels
from nlpkit.decoding.trie.file import compiled_path, from_marisa, read_arrays, write_arrays
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
    for one, other in zip(
        ours.levels, TokenTrie.from_sequences(sequences, size).levels, strict=True
    ):
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
        for one, other in zip(loaded.levels, saved.levels, strict=True):
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


def test_a_damaged_file_is_refused_wherever_the_damage_is(file):
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (header, header + 40, len(whole) - 1, whole.index(b"ours")):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SettingsError, match="damaged"):
            TokenTrie.load(file)
    for length in (0, 5, header - 3, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(
            SettingsError, match=r"keys\.trie: damaged, truncated, or no trie at all"
        ):
            TokenTrie.load(file)


def test_what_is_no_trie_is_refused(file, tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        TokenTrie.load(tmp_path / "none")
    write_arrays(tmp_path / "other", "something else", {}, {"keys": np.zeros(1)})
    with pytest.raises(SettingsError, match="expected a trie, got something else"):
        TokenTrie.load(tmp_path / "other")
    header, arrays = read_arrays(file, "trie")
    write_arrays(file, "trie", header | {"version": 2}, arrays)
    with pytest.raises(SettingsError, match="expected version 1, got 2"):
        TokenTrie.load(file)


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
    compiled = compile_levels(from_marisa(read_arrays(file, "trie")[1]["keys"], 301), 301)
    loaded = TokenTrie.load(file)
    np.testing.assert_array_equal(compiled.label, loaded.levels.label)
    assert loaded.keys(range(len(keys))) == sorted(keys)
    assert [loaded.values.of(key) for key in range(len(keys))] == [
        [str(key)] for key in sorted(keys)
    ]


def test_too_many_nodes_are_refused(monkeypatch):
    monkeypatch.setattr("nlpkit.decoding.trie.csr.MOST_NODES", 3)
    with pytest.raises(DataError, match="at most 3 nodes"):
        compile_levels(checked(np.array([1, 2, 3]), np.array([3]), 9), 9)
