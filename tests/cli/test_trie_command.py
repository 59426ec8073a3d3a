"""`nlpkit trie`: what goes in is what can be completed, and what does not fit is refused by
name."""

import gzip
import json
import lzma

import pytest
from conftest import nlpkit

KEYS = "北京\n北京大学\n上海\n\n北京\nApple\n".encode()
FACTS = "北京\t人口\t2189万\n上海\t别名\t沪\n北京\t人口\t两千万\n".encode()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "keys.txt").write_bytes(KEYS)
    nlpkit("trie", "build", tmp_path / "keys.txt", "-o", tmp_path / "keys.trie")
    return tmp_path / "keys.trie"


def report(*arguments, **options):
    return json.loads(nlpkit("trie", *arguments, **options).stdout)


def test_build_and_info_say_what_the_trie_holds(file):
    told = report("info", file)
    assert (told["keys"], told["most_tokens"], told["vocabulary_size"], told["values"]) == (
        4,
        5,
        10_000,
        None,
    )
    assert told["bytes"] == file.stat().st_size
    assert told["compiled_bytes"] == (file.parent / "keys.trie.csr").stat().st_size


@pytest.mark.parametrize("name", ["keys.txt.gz", "keys.txt.xz", "-"])
def test_compressed_keys_and_a_pipe(file, tmp_path, name):
    if name == "-":
        nlpkit("trie", "build", "-", "-o", tmp_path / "other.trie", stdin=KEYS)
    else:
        (tmp_path / name).write_bytes((gzip if name.endswith("gz") else lzma).compress(KEYS))
        nlpkit("trie", "build", tmp_path / name, "-o", tmp_path / "other.trie")
    assert (tmp_path / "other.trie").read_bytes() == file.read_bytes()


def test_completions(file):
    assert report("info", file, "--complete", "北") == {
        "prefix": "北",
        "keys": 2,
        "completions": ["北京", "北京大学"],
    }
    assert report("info", file, "--complete", "广")["completions"] == []
    assert report("info", file, "--complete", "")["keys"] == 4


def test_completions_are_text(tmp_path):
    """Not pieces of words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "许", "蓁", "a", "##b", "##1", "hello", "world"]
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    (tmp_path / "encoder" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    options = "--tokenizer", tmp_path / "encoder"
    keys = "许蓁ab1\nhello world\n".encode()
    nlpkit("trie", "build", "-", "-o", tmp_path / "x.trie", *options, stdin=keys)
    found = report("info", tmp_path / "x.trie", "--complete", "", *options)["completions"]
    assert sorted(found) == ["hello world", "许蓁ab1"]


def test_a_line_without_width_is_no_key(tmp_path):
    keys = "北京\n\u200b\n上海\n\u200d\u200b\n".encode()
    done = nlpkit("trie", "build", "-", "-o", tmp_path / "x.trie", stdin=keys)
    assert json.loads(done.stdout)["keys"] == 2
    assert done.stderr == b"lines without visible text, left out: 2, the first stdin:2\n"


def test_keys_that_differ_in_unknown_characters_only_are_refused(tmp_path):
    keys = "\U00013000矿\n\U00013001矿\n北京\n\U00013000矿\n\U00013002矿\n".encode()
    done = nlpkit("trie", "build", "-", "-o", tmp_path / "x.trie", stdin=keys, check=False)
    assert done.returncode == 3
    message = done.stderr.decode()
    assert message.startswith(
        "error: -: 2 keys differ from others only in characters that the vocabulary lacks: "
        '"\U00013001" at stdin:2 from "\U00013000" at stdin:1, '
    )
    assert not (tmp_path / "x.trie").exists()
    keys = "\U00013000矿\n\U00013000矿\n".encode()
    assert report("build", "-", "-o", tmp_path / "x.trie", stdin=keys)["keys"] == 1


def test_a_key_of_a_million_characters_is_refused_by_line(tmp_path):
    keys = ("北京\n" + "云" * 10**6 + "\n").encode()
    done = nlpkit("trie", "build", "-", "-o", tmp_path / "x.trie", stdin=keys, check=False)
    assert done.returncode == 3
    expected = b"error: stdin:2: too long for a key: expected at most 4096 characters, got 1000000"
    assert done.stderr.startswith(expected)


def test_a_knowledge_base(tmp_path):
    told = report("build", "--task", "kgclue", "-", "-o", tmp_path / "kb.trie", stdin=FACTS)
    assert (told["keys"], told["values"]) == (2, 3)
    found = report("info", tmp_path / "kb.trie", "--complete", "北京")["completions"]
    assert found == {"北京[SEP]人口[SEP]": ["北京\t人口\t2189万", "北京\t人口\t两千万"]}


def test_the_tokens_of_a_run(run, file, tmp_path):
    told = report("build", "-", "--tokenizer", run, "-o", tmp_path / "run.trie", stdin=KEYS)
    assert told["vocabulary_sha256"] == report("info", file)["vocabulary_sha256"]


def test_another_tokenizer_is_refused(file, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    (tmp_path / "other" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n北\n")
    done = nlpkit(
        "trie", "info", file, "--complete", "北", "--tokenizer", tmp_path / "other", check=False
    )
    assert done.returncode == 2
    assert b"made with another tokenizer" in done.stderr


def test_bad_lines_are_named(tmp_path):
    done = nlpkit(
        "trie",
        "build",
        "--task",
        "kgclue",
        "-",
        "-o",
        tmp_path / "x",
        stdin=FACTS + b"a\tb\n",
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        3,
        b"error: stdin:4: expected 3 columns between tabs, got 2\n",
    )
    done = nlpkit("trie", "build", "-", "-o", tmp_path / "x", stdin=b"a\n\xff\n", check=False)
    assert done.returncode == 3
    assert b"stdin:2: not UTF-8" in done.stderr
    done = nlpkit("trie", "info", tmp_path / "x", check=False)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/x: no such file\n".encode())
