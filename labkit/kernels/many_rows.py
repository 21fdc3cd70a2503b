"""The forward pass for writing a great many texts at once, where a CPU multiplies bfloat16 fast.

With a hundred rows a pass is bound by arithmetic, not by reading weights, so what helps is the
opposite of `labkit.kernels.weights_once`: half-width numbers, of which a processor with AVX-512
BF16 or AMX multiplies twice or many times as many a second. Only the products with weights are in
bfloat16; norms, attention and the residual stream stay in float32. The texts are not quite those
of float32: near-equal logits trade places, and a row's last bits change with the rows beside it. To
train on they are as good; to show that speculation changes nothing they are not, so nothing
decodes with this pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.nn import functional

from labkit.kernels.engine import Output, Rows, TorchProbe, stack
from labkit.kernels.panel import JIT
from labkit.kernels.rotary import rotary_tables
from labkit.kernels.weights_once import PanelCache, attend, remember


@njit(parallel=True, **JIT)
def attention(qkv, positions, bounds, slots, lengths, visible, heads, keys, values, cosines, sines):
    """One layer's attention of every row's new tokens: qkv (N, (H + 2 G) d) to (H d, N)."""
    kv_heads, size = keys.shape[1], keys.shape[3]
    share = heads // kv_heads
    out = np.empty((heads * size, qkv.shape[0]), np.float32)
    for g in prange(slots.shape[0]):
        slot = slots[g]
        low, high, length = bounds[g], bounds[g + 1], lengths[slot]
        remember(qkv, low, high, positions, length, heads, keys[slot], values[slot], cosines, sines)
        for group in range(kv_heads):
            attend(
                group,
                share,
                qkv,
                low,
                high,
                positions,
                length,
                visible,
                keys[slot, group],
                values[slot, group],
                cosines,
                sines,
                out,
            )
    return out


class ManyRows:
    """A Llama-shaped model on bfloat16 products, as an `Engine`.

    ``weights`` are transformers' names to float32 arrays; ``config`` is transformers' config.
    """

    exact = False
    name = "many rows, bfloat16"

    def __init__(self, config: Any, weights: Mapping[str, np.ndarray]) -> None:
        self.device = torch.device("cpu")
        self.vocabulary, self.width = config.vocab_size, config.hidden_size
        self.layer_count = config.num_hidden_layers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or self.width // self.heads
        self.epsilon = config.rms_norm_eps
        self.cosines, self.sines = rotary_tables(config, self.size)
        self.context = len(self.cosines)

        def named(name: str) -> Tensor:
            return torch.from_numpy(np.array(weights[name], np.float32))

        def product(*names: str) -> Tensor:
            return torch.cat([named(name) for name in names]).bfloat16()

        self.layers: list[dict[str, Any]] = []
        for layer in range(self.layer_count):
            at = f"model.layers.{layer}."
            qkv = [f"{at}self_attn.{part}_proj" for part in "qkv"]
            biased = f"{qkv[0]}.bias" in weights
            self.layers.append(
                {
                    "norm": named(f"{at}input_layernorm.weight"),
                    "qkv": product(*(f"{part}.weight" for part in qkv)),
                    "bias": product(*(f"{part}.bias" for part in qkv)) if biased else None,
                    "out": product(f"{at}self_attn.o_proj.weight"),
                    "norm_2": named(f"{at}post_attention_layernorm.weight"),
                    "gate_up": product(f"{at}mlp.gate_proj.weight", f"{at}mlp.up_proj.weight"),
                    "down": product(f"{at}mlp.down_proj.weight"),
                }
            )
        self.norm = named("model.norm.weight")
        self.embedding = named("model.embed_tokens.weight")
        tied = "lm_head.weight" not in weights
        self.head = self.embedding.bfloat16() if tied else product("lm_head.weight")

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        every = [part for layer in self.layers for part in layer.values() if part is not None]
        return sum(part.nbytes for part in (*every, self.head))

    @property
    def threads(self) -> int:
        """Threads that share a pass."""
        return torch.get_num_threads()

    def bandwidth_probe(self) -> TorchProbe:
        """See `kernels.engine.Engine`."""
        return TorchProbe(self.device)

    def new_cache(self, capacity: int, slots: int = 1) -> PanelCache:
        """An empty cache for ``slots`` sequences of at most ``capacity`` tokens."""
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
        tokens, positions, bounds, slots, lengths, visible = stack(self, rows, cache, layers)
        x = self.embedding[torch.from_numpy(tokens)]  # (N, D)
        told = []
        for number, (layer, keys, values) in enumerate(
            zip(self.layers, cache.keys, cache.values, strict=True), start=1
        ):
            qkv = functional.linear(self._normed(x, layer["norm"]), layer["qkv"], layer["bias"])
            mixed = attention(
                qkv.float().numpy(),
                positions,
                bounds,
                slots,
                lengths,
                visible,
                self.heads,
                keys,
                values,
                self.cosines,
                self.sines,
            )
            x += functional.linear(torch.from_numpy(mixed).T.bfloat16(), layer["out"])
            normed = self._normed(x, layer["norm_2"])
            gate, up = functional.linear(normed, layer["gate_up"]).chunk(2, dim=-1)
            x += functional.linear(functional.silu(gate) * up, layer["down"])
            if number in layers:
                told.append(x.clone())
        last = functional.rms_norm(x, (self.width,), self.norm, self.epsilon)
        wanted = last if logits == "all" else last[torch.from_numpy(bounds[1:] - 1)]
        hidden = torch.cat([*told, last], dim=-1)
        return Output(hidden, functional.linear(wanted.bfloat16(), self.head).float())

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The states (N, D) after a norm, in bfloat16."""
        return functional.rms_norm(x, (self.width,), weight, self.epsilon).bfloat16()
