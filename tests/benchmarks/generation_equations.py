"""The part of the generation benchmark that writes equations: the same BERT with random weights in
every way.

    python tests/benchmarks/generation_equations.py nlpkit FOLDER --tokens 9 --problems 128

    nlpkit              batches of 32, cached, under EquationConstraint, scored among the legal tokens
    nlpkit free         the same with any tokens
    transformers        `generate` by batches of 32, cached, with prefix_allowed_tokens_fn for the same grammar,
                        and scores among the legal tokens, as renormalize_logits has them
    bert4torch          one by one, uncached, any tokens (bert4torch_generation_peer.py, by the peer's interpreter)

Every sequence has exactly `--tokens` tokens: the end is banned before and alone after. So the
search is the same in every way, and `nlpkit` must write what `transformers` writes, `nlpkit free`
what `bert4torch` writes.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import BertLMHeadModel, LogitsProcessor, LogitsProcessorList

from nlpkit import encoders, samples
from nlpkit.decoding.per_position import Free
from nlpkit.decoding.search import beam_search
from nlpkit.encoders.checkpoint.load import save_encoder
from nlpkit.layers.cached_decoder import CachedDecoder
from nlpkit.layers.prefix_lm import collate_sources
from nlpkit.tasks.ape210k.constraint import GRAMMAR, EquationConstraint
from nlpkit.tasks.ape210k.numbers import NumberTokens

BATCH, WARMUP = 32, 2
PEER = Path(__file__).parent / "bert4torch_generation_peer.py"
OWN, PEERS = ["nlpkit", "nlpkit free", "transformers"], ["bert4torch"]
EQUAL = [("nlpkit", "transformers"), ("nlpkit free", "bert4torch")]
RATIOS = [("nlpkit", other) for other in ("nlpkit free", "transformers", "bert4torch")]
LENGTHS = [9, 64]
SYMBOLS = "0123456789.+-*/^()"


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Writes a BERT of 4 layers of 256 and the token ids of made-up problems."""
    tokenizer = save_bert(folder, *random_bert())
    tokens = NumberTokens(tokenizer, marked=False)
    texts = [
        record["text"] for record in samples.records("ape210k", arguments.problems + BATCH, seed=1)
    ]
    sources = [tokens.problem(text)[0].token_ids_T[1:-1].tolist() for text in texts]
    symbols = {symbol: tokens.symbols[symbol] for symbol in SYMBOLS}
    ids = {
        "start": tokenizer.cls_id,
        "sep": tokenizer.sep_id,
        "end": tokenizer.sep_id,
        "symbols": symbols,
    }
    (folder / "sources.json").write_text(json.dumps({**ids, "sources": sources}))


def random_bert() -> tuple[Any, Any]:
    """A BERT of 4 layers of 256 with random weights, and the tokenizer's backend."""
    torch.manual_seed(1)
    return encoders.for_pretraining(None, encoders.ShapeConfig(family="bert"))


def save_bert(folder: Path, encoder: Any, backend: Any) -> Any:
    """Writes a BERT with its head for all ways, and returns its tokenizer."""
    save_encoder(folder, encoder, backend)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["cls.predictions.decoder.weight"] = weights[
        "bert.embeddings.word_embeddings.weight"
    ].clone()
    torch.save(weights, folder / "pytorch_model.bin")  # for the peer, which ties no weights
    return encoders.tokenizer_of(encoder, backend)


def command(way: str, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """What measures a way, in a process of its own."""
    options = [
        str(folder),
        "--beams=3",
        f"--tokens={arguments.tokens}",
        f"--threads={arguments.threads}",
    ]
    if way == "bert4torch":
        return [arguments.peer_python, str(PEER), *options, f"--problems={arguments.peer_problems}"]
    return [arguments.python, __file__, way, *options, f"--problems={arguments.problems}"]


class Exactly:
    """`Model` of nlpkit.decoding: the decoder, with no end before `tokens` tokens and nothing else
    after them."""

    def __init__(self, decoder: CachedDecoder, end_id: int, tokens: int):
        self.decoder, self.end_id, self.left = decoder, end_id, tokens

    def first(self) -> torch.Tensor:
        """See `Model`."""
        return only(self.decoder.first(), self.end_id, self.left == 0)

    def next(self, token_BK: torch.Tensor, beam_BK: torch.Tensor) -> torch.Tensor:
        """See `Model`."""
        self.left -= 1
        return only(self.decoder.next(token_BK, beam_BK), self.end_id, self.left == 0)


def only(logits: torch.Tensor, end_id: int, at_end: bool) -> torch.Tensor:
    """Bans all but the end, or the end."""
    is_end_V = torch.arange(logits.shape[-1]) == end_id
    return logits.masked_fill(~is_end_V if at_end else is_end_V, float("-inf"))


def ours(folder: Path, given: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """decode(sources) by nlpkit."""
    config = encoders.settings_of(str(folder))()
    encoder, tokenizer = encoders.load(str(folder), config, head=True)
    encoder.eval()
    alphabet = [*given["symbols"].values(), given["end"]]
    symbols = {symbol: number for number, symbol in enumerate(given["symbols"])}
    end = len(symbols)

    def decode(sources: list[list[int]]) -> list[list[int]]:
        batch = collate_sources(sources, tokenizer)
        beams, tokens = arguments.beams, arguments.tokens
        if arguments.way == "nlpkit free":
            model = Exactly(CachedDecoder(encoder, batch), given["end"], tokens)
            constraint: Any = Free(encoder.vocabulary_size, given["end"])
            rows = beam_search(model, constraint, len(sources), beams, tokens).lists()
            return [row[0][0] for row in rows]
        decoder = CachedDecoder(encoder, batch, alphabet_V=torch.tensor(alphabet))
        model = Exactly(decoder, end, tokens)
        constraint = EquationConstraint(symbols, end, max_length=tokens, double_star=False)
        rows = beam_search(model, constraint, len(sources), beams, tokens, norm="renorm").lists()
        return [[alphabet[number] for number in row[0][0]] for row in rows]

    return decode


class PrefixBert(BertLMHeadModel):
    """transformers' BERT decoder with the mask, segments and positions of a prefix language model,
    padded left."""

    source_length = 0
    renorm = False
    """Whether tokens are scored among the legal ones; every beam must have one then."""
    processors: tuple[Any, ...] = ()
    """What else is done to the scores of each step."""

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        **given: Any,
    ) -> Any:
        """The source, all of which sees itself, or one token more."""
        # the newer versions say "cache"
        kept = {name: given.get(name) for name in ("cache", "past_key_values") if name in given}
        place_NT = (attention_mask.cumsum(1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
        written = attention_mask.shape[1] - self.source_length
        shape = (len(input_ids), 1, input_ids.shape[1], attention_mask.shape[1])
        hidden_N1QK = (attention_mask == 0)[:, None, None].expand(shape)
        output = super().forward(
            input_ids,
            attention_mask=torch.zeros(shape).masked_fill(
                hidden_N1QK, torch.finfo(torch.float32).min
            ),
            token_type_ids=torch.full_like(input_ids, int(written > 0)),
            position_ids=place_NT,
            **kept,
            use_cache=True,
            logits_to_keep=1,
        )
        output.logits = self.banned(output.logits, written)
        return output

    def banned(self, logits: torch.Tensor, written: int) -> torch.Tensor:
        """The logits after so many written tokens, -inf for what the model must not write."""
        return logits

    def write(
        self, sources: list[list[int]], given: dict[str, Any], beams: int, most: int, legal: Any
    ) -> Any:
        """The best sequence of each source, at most `most` tokens with the end, which is the last
        one in all.

        `legal` maps what was written, a list, to the next tokens that are legal.
        """
        self.source_length = length = max(map(len, sources)) + 2
        rows = [[given["start"], *source, given["sep"]] for source in sources]
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])

        def allowed(_: int, row: torch.Tensor) -> list[int]:
            written = row[length:].tolist()
            return [given["end"]] if given["end"] in written else legal(written)

        options = {
            "num_beams": beams,
            "max_new_tokens": most,
            "do_sample": False,
            "length_penalty": 0.0,
        }
        options |= {"pad_token_id": 0, "eos_token_id": given["end"], "use_cache": True}
        options |= {"prefix_allowed_tokens_fn": allowed, "renormalize_logits": self.renorm}
        options |= {"logits_processor": LogitsProcessorList(self.processors)}
        output = self.generate(ids, attention_mask=mask, **options)
        return [row[length:][: row[length:].index(given["end"])] for row in output.tolist()]


class Renormalised(LogitsProcessor):
    """As `renormalize_logits`, which gives NaN where a beam can neither go on nor end."""

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Scores among what is legal, -inf for a beam without any."""
        return scores.log_softmax(-1).nan_to_num(nan=float("-inf"), neginf=float("-inf"))


class ExactBert(PrefixBert):
    """It writes exactly `tokens` tokens."""

    end_id = tokens = 0
    processors = (Renormalised(),)

    def banned(self, logits: torch.Tensor, written: int) -> torch.Tensor:
        """See `PrefixBert`."""
        return only(logits, self.end_id, written == self.tokens)


def theirs(folder: Path, given: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """decode(sources) by transformers."""
    model = ExactBert.from_pretrained(folder, is_decoder=True, dtype=torch.float32).eval()
    model.end_id, model.tokens = given["end"], arguments.tokens
    allowed = next_symbols(given["symbols"], given["end"], arguments.tokens)
    return lambda sources: model.write(
        sources,
        given,
        arguments.beams,
        arguments.tokens + 1,
        lambda written: allowed(tuple(written)),
    )


def next_symbols(symbols: dict[str, int], end_id: int, tokens: int) -> Any:
    """The grammar of equations as a user writes it for transformers: written tokens without an end
    -> legal tokens."""
    grammar = {**GRAMMAR, "star": GRAMMAR["operator"]}
    characters = {token: symbol for symbol, token in symbols.items()}

    @cache
    def after(written: tuple[int, ...]) -> tuple[str, int]:
        if not written:
            return "begin", 0
        (row, opened), symbol = after(written[:-1]), characters[written[-1]]
        row = next(then for some, then in grammar[row].items() if symbol in some)
        return row, opened + (symbol == "(") - (symbol == ")")

    @cache
    def legal(written: tuple[int, ...]) -> list[int]:
        if len(written) == tokens:
            return [end_id]
        (row, opened), left, found = after(written), tokens - len(written) - 1, []
        for symbol, token in symbols.items():
            then = next((then for some, then in grammar[row].items() if symbol in some), None)
            still_open = opened + (symbol == "(") - (symbol == ")")
            if then and 0 <= still_open <= left - (")" not in grammar[then]):
                found.append(token)
        return found or [end_id]

    return legal


def main() -> None:
    """Measures one way and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=OWN)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # one thread's seconds are the processor's, so that other programs do not count
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    given = json.loads((arguments.folder / "sources.json").read_text())
    decode = (theirs if arguments.way == "transformers" else ours)(
        arguments.folder, given, arguments
    )
    sources, found = given["sources"][: arguments.problems], []
    with torch.inference_mode():
        decode(given["sources"][:WARMUP])
        started = clock()
        for first in range(0, len(sources), BATCH):
            found += decode(sources[first : first + BATCH])
    speed = round(len(sources) / (clock() - started), 2)
    print(json.dumps({"problems_per_second": speed, "written": found}))


if __name__ == "__main__":
    main()
