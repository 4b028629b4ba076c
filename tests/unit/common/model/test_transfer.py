"""`to_device` copies without a wait, and `StandInDevice` finds every kind of wait that it lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.model.transfer import to_device
from tests.stand_in_device import DEVICE, MixedDevices, StandInDevice


def indices() -> Tensor:
    return torch.arange(2, device=DEVICE)


def assign(x: Tensor, index: Any, value: Any) -> None:
    x[index] = value


WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "index of booleans": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x),
    "unique": lambda x: torch.unique(x),
    "index on the CPU": lambda x: x[[0, 1]],
    "number at positions": lambda x: assign(x, indices(), 1.0),
    "tensor of a list": lambda x: torch.tensor([1.0, 2.0], device=DEVICE),
    "tensor of a number": lambda x: torch.as_tensor(3, device=DEVICE),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "where of a CPU tensor": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "copy": lambda x: torch.ones(4).to(DEVICE),
    "non_blocking copy of ordinary memory": lambda x: torch.ones(4).to(DEVICE, non_blocking=True),
    "copy_": lambda x: x.copy_(torch.ones(4)),
    "synchronize": lambda x: torch.cuda.synchronize(),
}
NO_WAITS: dict[str, Callable[[Tensor], Any]] = {
    "to_device": lambda x: to_device(torch.ones(4), DEVICE) + x,
    "arithmetic with numbers": lambda x: (x * 2.0 + torch.tensor(1.0)).clamp(min=0).sum(),
    "where of a number": lambda x: torch.where(x > 0, x, 0.0),
    "number at a slice": lambda x: assign(x, slice(0, 2), 1.0),
    "number by a mask": lambda x: assign(x, x > 0, 1.0),
    "index_fill_": lambda x: x.index_fill_(0, indices(), 1.0),
    "index on the device": lambda x: x[indices()],
    "tensor at positions": lambda x: assign(x, indices(), torch.ones(2, device=DEVICE)),
    "random numbers": lambda x: torch.rand(4, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1)),
    "copy to pinned memory": lambda x: torch.empty(4, pin_memory=True).copy_(x, non_blocking=True),
}


@pytest.mark.parametrize("name", WAITS)
def test_each_kind_of_wait_is_found(name: str) -> None:
    with StandInDevice() as device:
        x = torch.zeros(4, device=DEVICE)
        WAITS[name](x)
    assert device.waits.total() == 1


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_does_not_wait_is_not_reported(name: str) -> None:
    with StandInDevice() as device:
        NO_WAITS[name](torch.zeros(4, device=DEVICE))
    assert not device.waits


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.ones(2, 4) @ x,
        lambda x: torch.ones(4)[indices()],
        lambda x: assign(x, slice(0, 2), torch.ones(2)) or x + torch.ones(1),
    ],
)
def test_tensors_of_two_devices_are_refused(mixed: Callable[[Tensor], Any]) -> None:
    with StandInDevice(), pytest.raises(MixedDevices):
        mixed(torch.zeros(4, device=DEVICE))


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(5, 4), torch.randn(3, 4)
    expected = torch.nn.Parameter(weight.clone())
    torch.autograd.backward(torch.nn.functional.gelu(x @ expected.t()).square().sum())
    with StandInDevice():
        actual = torch.nn.Parameter(to_device(weight, DEVICE))
        assert actual.device == DEVICE
        torch.autograd.backward(torch.nn.functional.gelu(to_device(x, DEVICE) @ actual.t()).square().sum())
        assert actual.grad is not None
        assert torch.equal(actual.grad.cpu(), expected.grad)


def test_a_tensor_that_is_on_the_device_already_is_returned_itself() -> None:
    x = torch.ones(2)
    assert to_device(x, torch.device("cpu")) is x
