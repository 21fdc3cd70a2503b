"""A base model made of dice, and drafters whose skill is planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from labkit.kernels.engine import Output, Rows, chain_visible
from labkit.speculative.tree import ROOT, Draft, chain


class ToyCache:
    """Remembers the very tokens, so that a wrong commit changes what the engine says."""

    def __init__(self, capacity: int, slots: int) -> None:
        self.capacity = capacity
        self.lengths = np.zeros(slots, np.int64)
        self.texts: list[list[int]] = [[] for _ in range(slots)]
        self.last: dict[int, list[int]] = {}

    def commit(self, path: Sequence[int], slot: int = 0) -> None:
        self.texts[slot] += [self.last[slot][row] for row in path]
        self.lengths[slot] = len(self.texts[slot])

    def truncate(self, length: int, slot: int = 0) -> None:
        del self.texts[slot][length:]
        self.lengths[slot] = len(self.texts[slot])

    def copy_slot(self, source: int, target: int) -> None:
        self.texts[target] = list(self.texts[source])
        self.lengths[target] = self.lengths[source]


class ToyEngine:
    """Logits (V,) drawn by a seed that is the whole text before: any slip shows in the output."""

    name = "toy"
    device = torch.device("cpu")
    context, layer_count = 4096, 1
    width = 3
    bytes_per_pass = 1000
    threads = 1

    def __init__(self, vocabulary: int = 11, seed: int = 0, exact: bool = True) -> None:
        self.vocabulary, self.seed, self.exact = vocabulary, seed, exact
        self.passes: list[int] = []
        """How many rows each pass had."""
        self.longest: list[int] = []
        """How many tokens the longest text of each pass had, its last one included."""
        self.after = lru_cache(maxsize=None)(self._after)

    def _after(self, text: tuple[int, ...]) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, *text])
        return torch.from_numpy(rng.normal(size=self.vocabulary).astype(np.float32))

    @staticmethod
    def hidden_after(text: Sequence[int]) -> torch.Tensor:
        """Z (3,) after a text, from which a drafter can tell where it stands."""
        return torch.tensor([len(text), text[-1], sum(text)], dtype=torch.float32)

    def bandwidth_probe(self) -> Callable[[], float]:
        return lambda: 1e9

    def new_cache(self, capacity: int, slots: int = 1) -> ToyCache:
        return ToyCache(capacity, slots)

    def forward(
        self,
        rows: Sequence[Rows],
        cache: ToyCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        assert not layers, "there are none"
        hidden, found = [], []
        self.passes.append(sum(len(piece.tokens) for piece in rows))
        for piece in rows:
            count = len(piece.tokens)
            assert cache.lengths[piece.slot] + count <= cache.capacity, "the cache is too small"
            visible = chain_visible(count) if piece.visible is None else piece.visible
            depths = range(count) if piece.depths is None else piece.depths
            cache.last[piece.slot] = list(piece.tokens)
            texts = []
            for row, depth in enumerate(depths):
                seen = np.flatnonzero(visible[row])
                assert len(seen) == depth + 1, "a row's position is that of what it sees"
                texts.append((*cache.texts[piece.slot], *(piece.tokens[i] for i in seen)))
            self.longest.append(max(map(len, texts)))
            assert self.longest[-1] <= self.context, "a pass looks beyond the context"
            hidden += [self.hidden_after(text) for text in texts]
            wanted = texts if logits == "all" else texts[-1:]
            found += [self.after(text) for text in wanted]
        return Output(torch.stack(hidden), torch.stack(found))

    def greedy(self, text: Sequence[int], count: int) -> list[int]:
        """The ``count`` tokens of greedy decoding after ``text``."""
        tokens = list(text)
        for _ in range(count):
            tokens.append(int(self.after(tuple(tokens)).argmax()))
        return tokens[len(text) :]


class Planned:
    """Drafts a chain of ``length`` whose first ``plan[step]`` tokens are right, the next one wrong.

    With ``decoys`` wrong siblings stand before every node, so that the draft is a tree.
    """

    name = "planned"
    layers = ()

    def __init__(
        self, engine: ToyEngine, length: int, plan: Callable[[int], int], decoys: int = 0
    ) -> None:
        self.engine, self.length, self.plan, self.decoys = engine, length, plan, decoys
        self.max_nodes = length * (1 + decoys)
        self.steps = 0

    def begin(self, prompt: Sequence[int]) -> None:
        self.steps = 0

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        assert torch.equal(hidden, self.engine.hidden_after(tokens[:-1])), "Z is of another place"
        vocabulary = self.engine.vocabulary
        right = self.engine.greedy(tokens, self.length)
        if self.plan(self.steps) < self.length:
            right[self.plan(self.steps)] = (right[self.plan(self.steps)] + 1) % vocabulary
        self.steps += 1
        if not self.decoys:
            return chain(right, "planned")
        nodes: list[int] = []
        parents: list[int] = []
        above = ROOT
        text = list(tokens)
        for token in right:
            best = int(self.engine.after(tuple(text)).argmax())
            wrong = [t for t in range(vocabulary) if t not in (token, best)]
            nodes += [*wrong[: self.decoys], token]
            parents += [above] * (self.decoys + 1)
            above = len(nodes) - 1
            text.append(token)
        many = len(nodes)
        return Draft(tuple(nodes), tuple(parents), (None,) * many, ("planned",) * many)


class Dice:
    """Children drawn from a q of its own under sampling, or chosen outright, or both by depth.

    ``shape[d]`` children after each node of depth d; ``drawn[d]`` says whether they are drawn from
    q without replacement, or chosen outright.
    """

    name = "dice"
    layers = ()

    def __init__(
        self, vocabulary: int, shape: Sequence[int], drawn: Sequence[bool], seed: int = 1
    ) -> None:
        self.vocabulary, self.shape, self.drawn, self.seed = vocabulary, shape, drawn, seed
        self.max_nodes = int(np.cumprod(shape).sum())
        self.q = lru_cache(maxsize=None)(self._q)

    def _q(self, text: tuple[int, ...]) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, *text])
        return torch.from_numpy(rng.dirichlet(np.full(self.vocabulary, 0.8)))

    def begin(self, prompt: Sequence[int]) -> None:
        pass

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        nodes: list[int] = []
        parents: list[int] = []
        probs: list[float] = []
        outlooks = {}
        frontier = [(ROOT, tuple(tokens))]
        ids = torch.arange(self.vocabulary)
        for many, drawn in zip(self.shape, self.drawn, strict=True):
            following = []
            for node, text in frontier:
                q = self.q(text)
                if drawn and generator is not None:
                    children = torch.multinomial(q, many, generator=generator).tolist()
                    outlooks[node] = (ids, q)
                else:
                    children = q.topk(many).indices.tolist()
                for token in children:
                    following.append((len(nodes), (*text, token)))
                    nodes.append(token)
                    parents.append(node)
                    probs.append(float(q[token]))
            frontier = following
        sources = ("dice",) * len(nodes)
        return Draft(tuple(nodes), tuple(parents), tuple(probs), sources, outlooks)
