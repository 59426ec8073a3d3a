"""The bert4torch side of the generation benchmark: its AutoRegressiveDecoder, used as in its
examples.

    PEER/bin/python bert4torch_generation_peer.py FOLDER --tokens 9 --problems 16 --beams 3 --threads 2

FOLDER is what `generation_equations.py` prepares: a BERT checkpoint and `sources.json`. Needs torch
and bert4torch (see bert4torch_peer.py for what that imports without saying so), and nothing of
nlpkit. As in bert4torch's example for math word problems, one problem is decoded at a time, and
each step runs the whole of source and target through the model again. One JSON line goes to stdout:
problems a second after the first two, and what was written.
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


class Writer(AutoRegressiveDecoder):
    """`tokens` tokens and no end before."""

    @AutoRegressiveDecoder.wraps(default_rtype="logits")
    def predict(self, inputs, output_ids, states):
        """The logits after what was written; the model sees everything again."""
        token_ids = torch.cat([inputs[0], output_ids], 1)
        segment_ids = torch.cat([inputs[1], torch.ones_like(output_ids)], 1)
        logits = self.model.predict([token_ids, segment_ids])[-1][:, -1, :]
        logits[:, self.eos_token_id] = float("-inf")
        return logits


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description="Speed of bert4torch's beam search.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
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
        # without do_sample=False a filter for sampling keeps a beam's best tokens and renormalises
        # them
        writer = Writer(eos_token_id=given["end"], max_new_tokens=arguments.tokens, do_sample=False)
        writer.model = model
        found, sources = [], given["sources"][: arguments.problems + WARMUP]
        for number, source in enumerate(sources):
            if number == WARMUP:
                started = time.perf_counter()
            ids = [given["start"], *source, given["end"]]
            found.append(
                writer.beam_search([ids, [0] * len(ids)], top_k=arguments.beams)[0].tolist()
            )
        seconds = time.perf_counter() - started
    speed = round((len(sources) - WARMUP) / seconds, 2)
    print(json.dumps({"problems_per_second": speed, "written": found}))


if __name__ == "__main__":
    main()
