"""What a prediction imports: what its encoder needs, and nothing that is slow beside torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import write_lines

from nlpkit import samples

PROGRAM = """
import json, sys
import torch
torchs = set(sys.modules)
from cli.main import main
sys.argv = ["nlpkit", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code
print(json.dumps([name for name in sys.modules if name not in torchs]))
"""
SLOW = {
    *("transformers", "accelerate", "huggingface_hub", "requests", "httpx", "scipy", "sympy"),
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.distributed.tensor", "triton"),
}


def imported_by(source: object, task: str, folder: Path) -> set[str]:
    """The modules that a prediction of one line of a task loads in a new process, beside those of
    torch's own import."""
    line = write_lines(folder / "line.jsonl", samples.records(task, 1, seed=1))
    arguments = ["predict", str(source), str(line), "-o", str(folder / "out.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, check=True
    )
    assert "prediction" in json.loads((folder / "out.jsonl").read_text())
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_checkpoint_needs_no_package_but_torch(tmp_path: Path) -> None:
    found = imported_by("tiny", "fill_mask", tmp_path)
    assert found & (SLOW | {"jieba"}) == set()
    assert not {"nlpkit.encoders.dgcnn", "nlpkit.tasks.gplinker"} & found


def test_an_encoder_that_reads_words_needs_their_dictionary_alone(
    run: Path, tmp_path: Path
) -> None:
    found = imported_by(run, "gplinker", tmp_path)
    assert found & SLOW == set()
    assert "jieba" in found
    assert "nlpkit.encoders.transformer" not in found
