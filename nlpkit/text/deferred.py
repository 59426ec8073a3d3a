"""Texts that become tokens only when somebody asks for a token.

A file of predictions is scored by comparing strings and spans of characters. Most tasks then never
look at a token, and tokenising would take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nlpkit.text.tokenizer import Encoding, Tokenizer


class DeferredTokenizer(Tokenizer):
    """A tokenizer, without word features, whose `encode` returns at once."""

    def encode(self, text: str) -> Encoding:
        """[CLS] text [SEP], uncut."""
        return DeferredEncoding(text, super().encode)


class DeferredEncoding(Encoding):
    """The encoding of a text, which `encode` makes at the first look at one of its tokens; from
    then on it is an `Encoding` like any other."""

    def __init__(self, text: str, encode: Callable[[str], Encoding]):
        vars(self).update(text=text, encode=encode)  # the class is frozen

    def __getattr__(self, name: str) -> Any:
        """Python asks here for what is not there yet."""
        if name not in Encoding.__dataclass_fields__:
            raise AttributeError(name)
        made = vars(self).pop("encode")(self.text)
        vars(self).update(vars(made))
        object.__setattr__(self, "__class__", Encoding)
        return vars(self)[name]
