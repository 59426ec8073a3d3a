"""Weights in few bits: what is stored, what comes back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import Save, edit_config, saver

from nlpkit.encoders import TINY
from nlpkit.encoders.checkpoint import bits
from nlpkit.encoders.checkpoint.files import headers, tensors
from nlpkit.encoders.checkpoint.load import inspect, load_encoder
from nlpkit.errors import SettingsError

save = pytest.fixture(saver)


def random_matrix(rows: int = 5, columns: int = 96, size: float = 0.05) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return size * torch.randn(rows, columns, generator=random)


def reference(packed: torch.Tensor, scales: torch.Tensor, width: int) -> np.ndarray:
    """The weights by the text of the format, one at a time, in float64."""
    rows, blocks = scales.shape
    out = np.zeros((rows, blocks * 32))
    for row in range(rows):
        for column in range(blocks * 32):
            block, place = divmod(column, 32)
            if width == 8:
                code = int(packed[row, column]) - 128
            else:
                byte = int(packed[row, block * 16 + place % 16])
                code = (byte % 16 if place < 16 else byte // 16) - 8
            out[row, column] = code * float(scales[row, block])
    return out


@pytest.mark.parametrize("width", [4, 8])
def test_the_weights_are_those_of_the_format_exactly(width: int) -> None:
    packed, scales = bits.pack(random_matrix(), width)
    assert (packed.dtype, scales.dtype) == (torch.uint8, torch.float16)
    assert packed.shape == (5, 96 * width // 8)
    weights = bits.unpack(packed, scales, width)
    assert weights.dtype == torch.float32
    assert np.array_equal(weights.double().numpy(), reference(packed, scales, width))


@pytest.mark.parametrize("width", [4, 8])
def test_all_codes_and_scales_come_back_exactly(width: int) -> None:
    random = np.random.default_rng(1)
    packed = torch.from_numpy(random.integers(0, 256, (7, 8 * width), dtype=np.uint8))
    scales = torch.from_numpy(random.normal(size=(7, 2)).astype(np.float16))
    found = bits.unpack(packed, scales, width).double().numpy()
    assert np.array_equal(found, reference(packed, scales, width))


@pytest.mark.parametrize(("width", "most"), [(4, 0.085), (8, 0.006)])
def test_the_error_is_small_and_no_plain_scale_beats_the_search(width: int, most: float) -> None:
    weights = random_matrix(64, 320)
    found = bits.unpack(*bits.pack(weights, width), width)
    error = (found - weights).norm() / weights.norm()
    assert error < most
    block = weights.reshape(-1, 32)
    top = 2 ** (width - 1) - 1
    scale = block.abs().amax(1, keepdim=True) / top
    plain = (block / scale).round() * scale
    assert error < (plain - block).norm() / block.norm()


@pytest.mark.parametrize("width", [4, 8])
def test_packing_again_changes_nothing(width: int) -> None:
    once = bits.unpack(*bits.pack(random_matrix(), width), width)
    again = bits.unpack(*bits.pack(once, width), width)
    assert (once - again).abs().max() <= 1e-3 * once.abs().max()


def test_blocks_of_nothing_and_of_very_small_weights_are_zero() -> None:
    weights = torch.zeros(2, 32)
    weights[1] = 1e-12
    for width in bits.BITS:
        assert torch.equal(bits.unpack(*bits.pack(weights, width), width), torch.zeros(2, 32))


@pytest.mark.parametrize("number", [1e6, float("inf"), float("nan")])
def test_weights_too_large_are_refused_by_name(number: float) -> None:
    weights = random_matrix()
    weights[2, 3] = number
    with pytest.raises(SettingsError, match="^layer.weight: weights beyond 65504"):
        bits.pack_all({"layer.weight": weights}, 4)


def test_what_is_added_to_every_token_and_odd_rows_stay() -> None:
    kept = {
        "embeddings.position_embeddings.weight": torch.ones(4, 32),
        "embeddings.token_type_embeddings.weight": torch.ones(2, 32),
        "odd.weight": torch.ones(4, 48),
        "bias": torch.ones(32),
        "numbers": torch.ones(4, 32, dtype=torch.int64),
    }
    assert bits.pack_all(kept, 8) == (kept, {})
    stored, metadata = bits.pack_all({**kept, "a.weight": torch.ones(4, 32)}, 8)
    assert stored.keys() - kept.keys() == {"a.weight.q8", "a.weight.scales"}
    assert metadata == {"nlpkit_bits": "8"}


def in_bits(folder: Path, width: int) -> dict[str, torch.Tensor]:
    """Stores a checkpoint in few bits; gives the weights that are to be read from it."""
    path = folder / "model.safetensors"
    stored, metadata = bits.pack_all(safetensors.torch.load_file(path), width)
    safetensors.torch.save_file(stored, path, metadata)
    return dict(tensors(path))


@pytest.mark.parametrize("width", [4, 8])
def test_a_checkpoint_is_read_as_any_other(save: Save, width: int) -> None:
    folder = save("BertForMaskedLM", intermediate_size=64)
    path = folder / "model.safetensors"
    before = inspect(folder)
    weights = in_bits(folder, width)
    told = dict(headers(path))
    assert {name: header.shape for name, header in told.items()} == {
        name: tuple(tensor.shape) for name, tensor in weights.items()
    }
    report = inspect(folder)
    assert (report.bits, before.bits) == (width, None)
    assert (report.problems, report.sizes) == ([], before.sizes)
    assert report.parameters == before.parameters
    assert report.bytes < before.bytes
    state = load_encoder(folder, head=True).model.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, weights[f"bert.{name}"]), name


Edit = Callable[[dict[str, torch.Tensor]], object]
NAME = "encoder.layer.0.output.dense.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(f"{NAME}.scales"), f"{NAME}: its scales are missing"),
        (lambda w: w.pop(f"{NAME}.q4"), f"{NAME}: scales without codes"),
        (
            lambda w: w.update({f"{NAME}.scales": torch.ones(32, 1).half()}),
            rf"{NAME}: scales: expected F16 \[32, 2\], got F16 \[32, 1\]",
        ),
        (
            lambda w: w.update({f"{NAME}.scales": torch.ones(32, 2)}),
            rf"{NAME}: scales: expected F16 \[32, 2\], got F32 \[32, 2\]",
        ),
        (
            lambda w: w.update({f"{NAME}.q4": w[f"{NAME}.q4"][:, :20].contiguous()}),
            f"{NAME}: expected rows of a multiple of 32, got 40",
        ),
        (
            lambda w: w.update({f"{NAME}.q4": w[f"{NAME}.q4"].char()}),
            rf"{NAME}: codes: expected a matrix of U8, got I8 \[32, 32\]",
        ),
        (lambda w: w.update({NAME: torch.ones(32, 64)}), f"{NAME}: is stored twice"),
        (
            lambda w: w.update({f"{NAME}.q8": w[f"{NAME}.q4"].clone()}),
            f"{NAME}: is stored twice",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(save: Save, edit: Edit, message: str) -> None:
    folder = save(intermediate_size=64)
    in_bits(folder, 4)
    path = folder / "model.safetensors"
    stored = safetensors.torch.load_file(path)
    edit(stored)
    safetensors.torch.save_file(stored, path, {"nlpkit_bits": "4"})
    for read in (inspect, load_encoder):
        with pytest.raises(SettingsError, match=f"model.safetensors: {message}"):
            read(folder)


@pytest.mark.parametrize("told", [{}, {"nlpkit_bits": "8"}, {"nlpkit_bits": "4,8"}])
def test_the_header_and_the_tensors_agree(save: Save, told: dict[str, str]) -> None:
    folder = save(intermediate_size=64)
    in_bits(folder, 4)
    path = folder / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, told)
    with pytest.raises(SettingsError, match='header says nlpkit_bits ".*", the tensors have "4"'):
        inspect(folder)


def test_scales_that_are_no_numbers_are_refused(save: Save) -> None:
    folder = save(intermediate_size=64)
    in_bits(folder, 8)
    path = folder / "model.safetensors"
    stored = safetensors.torch.load_file(path)
    stored[f"{NAME}.scales"][3, 1] = float("nan")
    safetensors.torch.save_file(stored, path, {"nlpkit_bits": "8"})
    with pytest.raises(SettingsError, match=f"{NAME}: not all of its numbers are finite"):
        load_encoder(folder)


def test_a_shape_that_does_not_fit_is_told_as_for_other_weights(save: Save) -> None:
    folder = save(intermediate_size=64)
    in_bits(folder, 8)
    edit_config(folder, hidden_size=64)
    assert inspect(folder).disagreements == ["config.json says hidden_size 64, the weights have 32"]


def test_the_error_on_a_pretrained_encoder_is_what_is_told() -> None:
    squares = {"all": 0.0, "plain": 0.0, 4: 0.0, 8: 0.0}
    for name, tensor in tensors(TINY / "model.safetensors"):
        if not bits.packs(name, tensor):
            continue
        weight = tensor.double()
        squares["all"] += float(weight.square().sum())
        for count in bits.BITS:
            error = bits.unpack(*bits.pack(weight, count), count).double() - weight
            squares[count] += float(error.square().sum())
        blocks = weight.reshape(-1, bits.BLOCK)
        scale = (blocks.abs().amax(1, keepdim=True) / 7).clamp_min(1e-30)
        error = (blocks / scale).round() * scale - blocks
        squares["plain"] += float(error.square().sum())
    shares = {key: (square / squares["all"]) ** 0.5 for key, square in squares.items()}
    assert round(shares[4], 3) == 0.083
    assert round(shares["plain"], 3) == 0.099
    assert round(shares[8], 4) == 0.0051
