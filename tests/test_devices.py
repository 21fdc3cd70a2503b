"""Devices, generators and clocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit import devices
from labkit.errors import LabkitError


def test_the_environment_chooses_the_device_and_an_argument_overrules_it(monkeypatch):
    monkeypatch.setenv("LABKIT_DEVICE", "abacus")
    with pytest.raises(LabkitError, match="abacus"):
        devices.pick_device()
    assert devices.pick_device("cpu") == torch.device("cpu")


def test_the_best_device_is_the_first_of_those_there_are(monkeypatch):
    monkeypatch.delenv("LABKIT_DEVICE", raising=False)
    assert devices.available_devices()[-1] == "cpu"
    assert devices.pick_device().type == devices.available_devices()[0]


@pytest.mark.parametrize("name", ["cuda:99", "xpu", "nonsense", "cpu:-4"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(LabkitError, match=name):
        devices.pick_device(name)


def test_float32_is_the_format_on_a_cpu():
    cpu = torch.device("cpu")
    assert devices.pick_dtype(None, cpu) is torch.float32
    assert devices.pick_dtype("bf16", cpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16),  # H100
        ((8, 0), torch.bfloat16),  # A100
        ((7, 5), torch.float16),  # T4
        ((7, 0), torch.float16),  # V100
        ((5, 2), torch.float32),
    ],
)
def test_the_card_chooses_the_number_format_unless_one_is_named(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    cuda = torch.device("cuda:0")
    assert devices.pick_dtype(None, cuda) is dtype
    assert devices.pick_dtype("float32", cuda) is torch.float32


def test_generators_repeat_and_leave_the_global_state_alone():
    before = torch.random.get_rng_state()
    first = torch.rand(3, generator=devices.torch_generator(7))
    again = torch.rand(3, generator=devices.torch_generator(7))
    other = torch.rand(3, generator=devices.torch_generator(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3)])
def test_a_seed_may_be_any_kind_of_whole_number(seed):
    assert devices.torch_generator(seed).initial_seed() == 3


@pytest.mark.parametrize("seed", [1.5, "a", None, 2**70])
def test_what_is_no_seed_is_named(seed):
    with pytest.raises(LabkitError, match="The seed is"):
        devices.torch_generator(seed)


def test_the_clock_goes_forward():
    assert devices.clock() <= devices.clock(torch.device("cpu"))
