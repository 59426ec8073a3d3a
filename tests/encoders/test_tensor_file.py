"""Files of tensors: the library reads what is written here, and writing them takes no copy."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch

from nlpkit.encoders.tensor_file import DTYPES, load_tensors, save_tensors

COPIES = """
import resource
import sys
from pathlib import Path

import torch

from nlpkit.encoders.tensor_file import save_tensors


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


folder = Path(sys.argv[1])
save_tensors(folder / "small", {"table": torch.ones(2)}, {})
large = {"table": torch.ones(64, 2**20 // 4)}
before = peak()
save_tensors(folder / "large", large, {})
print(peak() - before)
"""
"""Prints by how many MiB the writing of a tensor of 64 MiB raises the peak."""


def of_all_types():
    """A tensor of each type, a scalar, an empty one, and one that is no block of memory."""
    tensors = {f"types.{name}": torch.arange(3).to(dtype) for dtype, name in DTYPES.items()}
    tensors["scalar"] = torch.tensor(0.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).T
    return tensors


def test_the_library_reads_the_same_tensors(tmp_path):
    tensors = of_all_types()
    save_tensors(tmp_path / "file", tensors, {"书": 1})
    found = safetensors.torch.load_file(tmp_path / "file")
    own, plain = load_tensors(tmp_path / "file")
    assert plain == {"书": 1}
    assert set(found) == set(own) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)
        assert torch.equal(own[name], tensor)


def test_the_order_of_the_tensors_changes_no_byte(tmp_path):
    tensors = of_all_types()
    save_tensors(tmp_path / "one", tensors, {})
    save_tensors(tmp_path / "other", dict(reversed(tensors.items())), {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_bytes_are_those_of_the_library(tmp_path):
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(5), "c": torch.tensor(7)}
    save_tensors(tmp_path / "file", tensors, {})
    with safetensors.safe_open(str(tmp_path / "file"), "pt") as file:
        about = file.metadata()
    assert (tmp_path / "file").read_bytes() == safetensors.torch.save(tensors, about)


@pytest.mark.skipif(sys.platform == "win32", reason="no peak of a process there")
def test_writing_takes_no_copy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COPIES, str(tmp_path)], capture_output=True, check=True
    )
    assert float(done.stdout) < 16, done.stdout
