"""Reading safetensors without torch: the same numbers, and no damaged file read as a whole one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from labkit.errors import LabkitError
from labkit.models.store import read_header, read_weights


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4), st.integers(0, 9))
def test_every_kind_of_number_reads_as_torch_reads_it(tmp_path_factory, shapes, seed):
    folder = tmp_path_factory.mktemp("weights")
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    weights = {
        f"{kind}-{i}": torch.randn(shape, generator=generator).to(kind)
        for i, shape in enumerate(shapes)
        for kind in kinds
    }
    save_file(weights, folder / "model.safetensors")
    read = read_weights(folder)
    assert set(read) == set(weights)
    for name, weight in weights.items():
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], weight.float().numpy()), name


def test_float32_is_a_view_of_the_file_that_nobody_can_write(tmp_path):
    save_file({"w": torch.ones(3, 4)}, tmp_path / "model.safetensors")
    weight = read_weights(tmp_path)["w"]
    assert not weight.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 2


def test_a_model_in_pieces_reads_as_one(tmp_path):
    index = {}
    for piece in ("a", "b"):
        save_file({piece: torch.full((2,), ord(piece) * 1.0)}, tmp_path / f"{piece}.safetensors")
        index[piece] = f"{piece}.safetensors"
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    assert {name: weight[0] for name, weight in read_weights(tmp_path).items()} == {
        "a": 97,
        "b": 98,
    }
    path.write_text("[1", encoding="utf-8")
    with pytest.raises(LabkitError, match="damaged"):
        read_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 20, 100, -1])
def test_a_cut_off_file_is_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(30)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LabkitError, match=r"^[^\n]*\.$"):
        read_header(path)


def test_bytes_after_the_end_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(30)}, path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(LabkitError, match="bytes, not"):
        read_header(path)


@given(st.binary(max_size=64), st.integers(0, 80))
def test_no_damage_to_the_header_raises_anything_else(tmp_path_factory, noise, place):
    path = tmp_path_factory.mktemp("noise") / "model.safetensors"
    save_file({"w": torch.ones(5)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:place] + noise + content[place + len(noise) :])
    try:
        read_weights(path.parent)
    except LabkitError as error:
        assert str(error).endswith(".")


def test_a_kind_of_number_that_cannot_be_read_is_named(tmp_path):
    save_file({"w": torch.ones(3, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(LabkitError, match="I8"):
        read_weights(tmp_path)
