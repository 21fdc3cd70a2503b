"""The forward pass for writing a great many texts at once, where a CPU multiplies bfloat16 fast.

With a hundred rows a pass is bound by arithmetic, not by reading weights, so what helps is the
opposite of `labkit.kernels.weights_once`: half-width numbers, of which a processor with AVX-512
BF16 or AMX multiplies twice or many times as many a second. Only the products with weights are in
bfloat16; norms, attention and the residual stream stay in float32. The texts are not quite those
of float32: near-equal logits trade places, and a row's last bits change with the other rows. To
train on they are as good; to show that speculation changes nothing they are not, so nothing
decodes with this pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.kernels.engine import Output, Rows, stack
from labkit.kernels.llama import LlamaEngine, LlamaWeights
from labkit.kernels.weights_once import PanelCache, attention


class ManyRows(LlamaEngine):
    """A Llama-shaped model on torch's bfloat16 products, as an `Engine`."""

    exact = False
    name = "many rows, bfloat16"

    def __init__(self, llama: LlamaWeights) -> None:
        super().__init__(llama, torch.device("cpu"))

        def product(*weights: np.ndarray) -> Tensor:
            return torch.cat([torch.from_numpy(np.array(w)).bfloat16() for w in weights])

        self.norms: list[tuple[Tensor, Tensor]] = []
        self.head_norms: list[Tensor | None] = []
        self.products: list[tuple[Tensor, ...]] = []  # qkv, its bias, out, gate and up, down
        for layer in llama.layers():
            self.norms.append((torch.tensor(layer.before), torch.tensor(layer.between)))
            gains = layer.head_norms
            self.head_norms.append(None if gains is None else torch.from_numpy(gains))
            single = (product(part) for part in (layer.qkv, layer.bias, layer.out))
            self.products.append((*single, product(layer.gate, layer.up), product(layer.down)))
        self.norm, self.embedding = torch.tensor(llama.norm), torch.tensor(llama.embedding)
        self.head = product(llama.head)
        self.cosines, self.sines = llama.cosines, llama.sines

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        return self.head.nbytes + sum(part.nbytes for layer in self.products for part in layer)

    def new_cache(self, capacity: int, slots: int = 1) -> PanelCache:
        """See `kernels.engine.Engine`."""
        return PanelCache(self.layer_count, self.kv_heads, self.size, capacity, slots)

    @torch.no_grad()
    def forward(
        self,
        rows: Sequence[Rows],
        cache: PanelCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """See `kernels.engine.Engine`."""
        stacked = stack(self, rows, cache, layers)
        x = self.embedding[torch.from_numpy(stacked.tokens)]  # (N, D)
        told = []
        for layer, (before, between) in enumerate(self.norms):
            qkv, bias, out, gate_up, down = self.products[layer]
            mixed = attention(
                self._heads_normed(layer, functional.linear(self._normed(x, before), qkv, bias)),
                stacked,
                self.heads,
                cache.keys[layer],
                cache.values[layer],
                self.cosines,
                self.sines,
            )
            x += functional.linear(torch.from_numpy(mixed).bfloat16(), out)
            gate, up = functional.linear(self._normed(x, between), gate_up).chunk(2, dim=-1)
            x += functional.linear(functional.silu(gate) * up, down)
            if layer + 1 in layers:
                told.append(x.clone())
        last = functional.rms_norm(x, (self.width,), self.norm, self.epsilon)
        wanted = last if logits == "all" else last[torch.from_numpy(stacked.bounds[1:] - 1)]
        hidden = torch.cat([*told, last], dim=-1)
        return Output(hidden, functional.linear(wanted.bfloat16(), self.head).float())

    def _heads_normed(self, layer: int, qkv: Tensor) -> np.ndarray:
        """Return queries, keys and values in float32, the first two normed where the model does."""
        gains, qkv = self.head_norms[layer], qkv.float()
        if gains is not None:
            heads = qkv.unflatten(-1, (-1, self.size))  # (N, H + 2 kv, d)
            queries, keys = heads[:, : self.heads], heads[:, self.heads : -self.kv_heads]
            for part, gain in zip((queries, keys), gains, strict=True):
                part.copy_(functional.rms_norm(part, (self.size,), gain, self.epsilon))
        return qkv.numpy()

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the states (N, D) after a norm, in bfloat16."""
        return functional.rms_norm(x, (self.width,), weight, self.epsilon).bfloat16()
