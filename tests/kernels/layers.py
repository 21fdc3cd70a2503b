"""A layer of any sizes with a pass over it, for tests of `kernels.fused`; run, it compiles them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch

from labkit.kernels.cuda import Inputs, Layer, Sizes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Shape:
    """A layer and a pass: D wide, I inside, G groups of n tokens over ``end`` cache places."""

    heads: int = 4
    kv: int = 2
    size: int = 32
    width: int = 96
    inside: int = 80
    groups: int = 1
    many: int = 4
    end: int = 256
    slots: int = 1
    ordered: bool = False
    norms: bool = False


SHAPES = {
    "one token": Shape(many=1),
    "a chain": Shape(many=5),
    "a tree": Shape(many=7, ordered=True),
    "several texts": Shape(groups=3, many=2, slots=4),
    "more rows than one product has": Shape(many=19),
    "three queries a key": Shape(heads=6, kv=2, size=64, width=100),
    "one key-value head": Shape(heads=5, kv=1, size=16),
    "odd sizes": Shape(heads=3, kv=3, size=24, width=75, inside=131, many=3),
    "norms of the heads": Shape(norms=True, many=3),
    "norms of odd heads, in a tree": Shape(norms=True, size=24, ordered=True),
    "wide": Shape(width=300, inside=520, many=2),
}


def passed(shape: Shape, dtype: torch.dtype = torch.float32) -> tuple:
    """The arguments of a layer's pass, random: which places a row sees, in which order."""
    s, random = shape, torch.Generator().manual_seed(0)

    def drawn(*sizes: int, scale: float = 1, shift: float = 0) -> torch.Tensor:
        numbers = torch.randn(*sizes, generator=random) * scale + shift
        return numbers.to(DEVICE, dtype)

    def permuted(rows: int, most: int) -> torch.Tensor:
        order = [torch.randperm(most, generator=random) for _ in range(rows)]
        return torch.stack(order).to(DEVICE)

    outputs = (s.heads + 2 * s.kv) * s.size
    layer = Layer(
        before=drawn(s.width, scale=0.1, shift=1),
        qkv=drawn(outputs, s.width, scale=s.width**-0.5),
        bias=drawn(outputs, scale=0.1),
        out=drawn(s.width, s.heads * s.size, scale=(s.heads * s.size) ** -0.5),
        between=drawn(s.width, scale=0.1, shift=1),
        gate_up=drawn(2 * s.inside, s.width, scale=s.width**-0.5),
        down=drawn(s.width, s.inside, scale=s.inside**-0.5),
        head_norms=drawn(2, s.size, scale=0.1, shift=1) if s.norms else None,
    )
    share = s.heads // s.kv
    rows = (s.many, 1, 1) if s.ordered else (s.groups, 1, s.many)
    seen = torch.rand(*rows, s.end, generator=random) < 0.6
    seen[..., 0] = True
    mask = torch.zeros(seen.shape).masked_fill(~seen, -math.inf).to(DEVICE, dtype)
    mask = mask.expand(-1, -1, share, -1) if s.ordered else mask.repeat(1, 1, share, 1)
    places = permuted(s.groups, s.end)[:, : s.many].contiguous()
    tokens = torch.zeros_like(places)
    order = permuted(s.many, s.end) if s.ordered else None
    slots = torch.randperm(s.slots, generator=random)[: s.groups].to(DEVICE)
    angles = torch.rand(s.groups, s.many, 1, s.size // 2, generator=random) * 6
    turn = tuple(part.to(DEVICE, dtype) for part in (angles.cos(), angles.sin()))
    keys, values = (drawn(s.slots, s.kv, s.end + 64, s.size) for _ in range(2))
    x = drawn(s.groups, s.many, s.width)
    given = Inputs(tokens, places, places, slots, mask, order)
    return x, layer, given, turn, keys, values, Sizes(s.heads, s.kv, s.size, 1e-5)


def compile_all(capability: int) -> list[str]:
    """Compile what the kernels of `kernels.fused` need for a card, without one; name them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    from labkit.kernels import fused

    class Card:
        def get_current_target(self):
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, _device=0):
            return 0

    run, names = JITFunction.run, []

    def compile_only(self, *given, grid, warmup, **settings):
        kernel = run(self, *given, grid=grid, warmup=True, **settings)
        assert kernel.metadata.shared <= 99 * 1024, "more shared memory than a card for games has"
        assert "mma.sync" in kernel.asm["ptx"], "tensor cores do the products"
        assert kernel.asm["cubin"]
        names.append(self.__name__)

    JITFunction.run = compile_only
    triton.runtime.driver._active = Card()
    for name in ("a tree", "norms of the heads", "three queries a key"):
        fused.layer_pass(*passed(SHAPES[name], torch.bfloat16))
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    print(*compile_all(int(sys.argv[1])))
