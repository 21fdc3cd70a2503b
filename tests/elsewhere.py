"""A stand-in for cuda and mps on a CPU: a model whose tensors mix with no others."""

from __future__ import annotations

from types import SimpleNamespace

import torch


class OnCuda(torch.Tensor):
    """A tensor that stands for one on another device: no operation mixes it with one of the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        moved = function is torch.Tensor.cpu
        with torch._C.DisableTorchFunctionSubclass():
            given = [
                one
                for arg in (*args, *(kwargs or {}).values())
                for one in (arg if isinstance(arg, list | tuple) else [arg])
                if isinstance(one, torch.Tensor) and one.ndim
            ]
        if not moved and len({type(one) for one in given}) > 1:
            raise RuntimeError("Expected all tensors to be on the same device")
        if function is torch.Tensor.numpy:
            raise TypeError("can't convert a device's tensor to numpy")
        result = super().__torch_function__(function, types, args, kwargs)
        return result.as_subclass(torch.Tensor) if moved else result


class Elsewhere:
    """A module on a device that takes tensors of that device and gives such tensors back."""

    device = torch.device("meta")

    def __init__(self, module):
        self.module = module
        self.dtype = module.dtype

    def __call__(self, ids, **settings):
        given = {"input_ids": ids, **settings}
        tensors = {name: one for name, one in given.items() if isinstance(one, torch.Tensor)}
        assert all(type(one) is OnCuda for one in tensors.values()), "not on the model's device"
        here = {name: one.as_subclass(torch.Tensor) for name, one in tensors.items()}
        with torch.no_grad():
            out = self.module(**given | here)
        out.logits = out.logits.as_subclass(OnCuda)
        return out

    def base_model(self, input_ids, **settings):
        assert type(input_ids) is OnCuda, "the tokens are not on the model's device"
        out = self.module.base_model(input_ids.as_subclass(torch.Tensor), **settings)
        out.last_hidden_state = out.last_hidden_state.as_subclass(OnCuda)
        return out

    def get_output_embeddings(self):
        table = self.module.get_output_embeddings().weight.detach()
        return SimpleNamespace(weight=table.as_subclass(OnCuda))


def imitate_a_device(monkeypatch, base):
    """Make ``base`` take and give tensors of another device only, to which `to` moves them."""
    usual = torch.Tensor.to

    def to(tensor, *args, **settings):
        there = args[:1] == (Elsewhere.device,)
        moved = usual(tensor, *args[there:], **settings) if args[there:] or settings else tensor
        return moved.as_subclass(OnCuda) if there else moved

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setitem(vars(base), "module", Elsewhere(base.module))
