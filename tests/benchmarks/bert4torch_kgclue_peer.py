"""The bert4torch side of the benchmark on a knowledge base: its AutoRegressiveDecoder, used as in
its KgCLUE example.

    PEER/bin/python bert4torch_kgclue_peer.py FOLDER --problems 16 --beams 3 --threads 2 [--off]

FOLDER is what `generation_kgclue.py` prepares. Needs torch and bert4torch, and nothing of nlpkit.
As in the example, one question is decoded at a time, each step runs question and key through the
model again, the knowledge base is nested dictionaries, and look-ahead lists all keys that go on
from a beam and finds the longest common subsequence of each with the question; `--off` leaves that
out. Changed is what keeps the example from running, or runs it slower than need be:

- A filter for sampling, on by default, takes the beam size for its k and writes -inf among the
  probabilities, whose logarithm is NaN then: do_sample=False.
- An illegal token has the probability 1e-12, so that it gets into a beam where legal ones are
  rarer, and the look-up of what follows fails: nothing but an end follows here. Such a beam never
  wins.
- Subsequences are compared as lists of ints, not as tensors one element at a time.

One JSON line goes to stdout: problems and tokens a second after the first two, and what was
written, without the end.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

try:  # see bert4torch_peer.py
    import torchvision  # noqa: F401
except RuntimeError:
    for op in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

from bert4torch.generation import AutoRegressiveDecoder  # noqa: E402
from bert4torch.models import build_transformer_model  # noqa: E402

WARMUP = 2
END = -1  # what marks a node where a key ends


class Trie:
    """Keys in nested dictionaries."""

    def __init__(self, lines):
        self.root = {}
        for line in lines:
            node = self.root
            for token in map(int, line.split()):
                node = node.setdefault(token, {})
            node[END] = {}

    def at(self, prefix):
        """What goes on from a prefix."""
        node = self.root
        for token in prefix:
            node = node.get(token, {})
        return node

    def keys(self, node):
        """What stands behind a node on the way to the ends."""
        for token, below in node.items():
            if token == END:
                yield []
            else:
                yield from ([token, *rest] for rest in self.keys(below))


def common(one, other):
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for a in one:
        above, row = row, [0]
        for place, b in enumerate(other):
            row.append(above[place] + 1 if a == b else max(above[place + 1], row[place]))
    return row[-1]


class Writer(AutoRegressiveDecoder):
    """Keys of `trie`; they end with the third [SEP]."""

    @AutoRegressiveDecoder.wraps(default_rtype="probas")
    def predict(self, inputs, output_ids, states):
        """The probabilities of legal tokens; the model sees everything again."""
        token_ids = torch.cat([inputs[0], output_ids], 1)
        segment_ids = torch.cat([inputs[1], torch.ones_like(output_ids)], 1)
        probs = self.model.predict([token_ids, segment_ids])[-1][:, -1, :].softmax(-1)
        legal_probs = torch.zeros_like(probs)
        for beam, (question, written) in enumerate(
            zip(inputs[0].tolist(), output_ids.tolist(), strict=True)
        ):
            node = self.trie.at(written)
            legal = [token for token in node if token != END]
            if self.look_ahead and len(legal) > 1 and self.eos_token_id in written:
                probs[beam] = probs[beam].pow(1 / self.gains(node, question, written, probs[beam]))
            legal = legal or [self.eos_token_id]
            legal_probs[beam, legal] = probs[beam, legal]
        return legal_probs / legal_probs.sum(1, keepdim=True)

    def gains(self, node, question, written, probs):
        """1 + how many tokens of the question each next token may still cover."""
        covered, found = common(written, question), torch.ones_like(probs)
        for rest in self.trie.keys(node):
            if rest:
                gain = 1 + common(written + rest, question) - covered
                found[rest[0]] = max(gain, float(found[rest[0]]))
        return found


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description="Speed of bert4torch's beam search under a trie.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--off", action="store_true", help="no look-ahead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    given = json.loads((arguments.folder / "sources.json").read_text())
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bert4torch_config.json"  # other names it takes for a download
        config.write_text((arguments.folder / "config.json").read_text())
        weights = str(arguments.folder / "pytorch_model.bin")
        options = {"with_mlm": True, "application": "unilm", "verbose": 0}
        model = (
            build_transformer_model(config_path=str(config), checkpoint_path=weights, **options)
            .float()
            .eval()
        )
        writer = Writer(
            eos_token_id=given["sep"], max_new_tokens=given["depth"] + 1, do_sample=False
        )
        writer.model, writer.look_ahead = model, not arguments.off
        with (arguments.folder / "keys.txt").open() as lines:
            writer.trie = Trie(lines)
        sources = given["sources"][: arguments.problems]
        found = []
        for number, source in enumerate([*sources[:WARMUP], *sources]):
            if number == WARMUP:
                started = time.perf_counter()
            ids = [given["start"], *source, given["sep"]]
            output = writer.beam_search([ids, [0] * len(ids)], top_k=arguments.beams, min_ends=3)
            found.append(output[0].tolist()[:-1])
        seconds, found = time.perf_counter() - started, found[WARMUP:]
    speed = {"problems_per_second": round(len(sources) / seconds, 2)}
    speed["tokens_per_second"] = round(sum(len(key) + 1 for key in found) / seconds, 1)
    print(json.dumps({**speed, "written": found}))


if __name__ == "__main__":
    main()
