"""The speculator's heads as a drafter: a candidate tree grown by joint probability.

Every head proposes its best tokens after each node of the frontier; the frontier's next nodes are
the candidates with the largest probability of being reached (the product along their path), and of
all candidates the best ``max_nodes`` are drafted (the rule of EAGLE-2: Li et al. 2024). A child is
never more probable than its parent, so the chosen nodes always form a tree. With a width and a
top-k of one it is a chain. The next head is asked only where its best candidate may be expected to
be worth the head's time: the draft has to be quick before it has to be good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, product
from typing import Protocol

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.speculative.checkpoint import PublishedConfig, PublishedSpeculator
from labkit.speculative.context import ContextMemory
from labkit.speculative.eagle import EagleConfig
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.speculative.tree import ROOT, Draft

SHOWN = 5
"""How many of the drafter's candidates after a node are kept to look at."""

HEAD_COST = 0.02
"""What running one more head costs, in tokens per step: its time over the time of a token.

On two CPU cores a head of `real` takes 0.25 to 0.35 ms, and a token, drafted, checked and
committed, 17 ms in float32. On a GPU the proportion was not measured."""

CHILD_SHARE = 0.5
"""How probable the best child of a node is reckoned before a head is asked: times its parent."""


class Heads(Protocol):
    """What growing a tree asks of the heads; states and tokens of M nodes at once."""

    draft_ids: np.ndarray

    @property
    def config(self) -> SpeculatorConfig | PublishedConfig | EagleConfig:
        """The heads' shape."""

    def start(self, hidden: np.ndarray) -> np.ndarray:
        """The state (1, D) before the first head, from Z (D,)."""

    def step(
        self, head: int, state: np.ndarray, tokens: np.ndarray, many: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States (M, I), logits (M, R), best token ids and their log-probabilities (M, many)."""


class TorchHeads:
    """The heads through torch, on any device: the plain version beside `PanelHeads`."""

    def __init__(self, speculator: Speculator | PublishedSpeculator, draft_ids: np.ndarray) -> None:
        self.config = speculator.config
        self.speculator = speculator.eval()
        self.draft_ids = draft_ids
        ids = torch.as_tensor(draft_ids)
        self._rows = [speculator.rows(head, ids) for head in range(self.config.n_predict)]

    def new_context(self) -> ContextMemory:
        """Return the context layer over a new text, for heads that have one."""
        assert isinstance(self.speculator, Speculator)
        return self.speculator.new_context()

    @torch.no_grad()
    def start(self, hidden: np.ndarray) -> np.ndarray:
        """The state (1, D) before the first head, from Z (D,)."""
        return self.speculator.start(self._tensor(hidden))[None].cpu().numpy()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=self._rows[0].device, dtype=self._rows[0].dtype)

    @torch.no_grad()
    def step(
        self, head: int, state: np.ndarray, tokens: np.ndarray, many: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States (M, I), logits (M, R), best token ids and their log-probabilities (M, many)."""
        ids = torch.as_tensor(tokens, device=self._rows[0].device)
        new, logits, places, values = self.run(head, self._tensor(state), ids, many)
        return (
            new.float().cpu().numpy(),
            logits.cpu().numpy(),
            self.draft_ids[places.cpu().numpy()],
            values.cpu().numpy(),
        )

    @torch.no_grad()
    def run(
        self, head: int, state: torch.Tensor, tokens: torch.Tensor, many: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `step`, where the tensors are, with places in ``draft_ids`` in place of token ids."""
        new = self.speculator.step(head, state, tokens)
        logits = self.speculator.logits(head, new, self._rows[head]).float()
        values, places = logits.log_softmax(-1).topk(many)
        return new, logits, places, values


def drawn_shape(max_nodes: int) -> tuple[int, ...]:
    """Children after each node, by depth, of a drawn tree: chains side by side, up to three.

    >>> [drawn_shape(nodes) for nodes in (1, 3, 5, 8, 12)]
    [(1,), (1, 1, 1), (2, 1), (2, 1, 1, 1), (3, 1, 1, 1)]
    """
    chains = 1 if max_nodes < 4 else 2 if max_nodes < 9 else 3
    return (chains, *[1] * (max_nodes // chains - 1))


class MLPDrafter:
    """Drafts trees of at most ``max_nodes`` with a speculator's heads.

    ``width`` nodes of each depth are followed further, by default a quarter of ``max_nodes`` and at
    least two; ``top_k`` candidates after each are looked at. Under sampling, children are drawn
    without replacement: ``shape[i]`` after each node of depth i, by default as `drawn_shape` has
    it. Raises `LabkitError` for a shape of more nodes than ``max_nodes``.
    """

    def __init__(
        self,
        heads: Heads,
        max_nodes: int = 12,
        width: int | None = None,
        top_k: int = 6,
        shape: Sequence[int] | None = None,
    ) -> None:
        if width is None:
            width = max(2, -(-max_nodes // 4))
        if shape is None:
            shape = drawn_shape(max_nodes)
        if min(max_nodes, width, top_k, *shape) < 1:
            raise LabkitError(
                f"A tree needs at least 1 node, width, candidate and child; got {max_nodes}, "
                f"{width}, {top_k} and {tuple(shape)}."
            )
        self.heads, self.layers = heads, heads.config.layers
        self.max_nodes, self.width, self.top_k = max_nodes, width, top_k
        shape = tuple(shape)[: heads.config.n_predict]
        levels = [product(*map(range, shape[: depth + 1])) for depth in range(len(shape))]
        self.drawn_paths = [path for level in levels for path in level]
        if len(self.drawn_paths) > max_nodes:
            raise LabkitError(
                f"A drawn tree of the shape {shape} has {len(self.drawn_paths)} nodes, more than "
                f"the {max_nodes} that it may have."
            )

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to remember: the heads read only Z and the root."""

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """A tree after the last of ``tokens``; see `Drafter.draft`."""
        root, z = int(tokens[-1]), self.read(tokens, hidden)
        if generator is None:
            return self.grown([root], z[None], self.max_nodes)[0]
        draw = partial(draw_siblings, generator=generator)
        return shaped_tree(self.heads, root, z, self.drawn_paths, draw, temperature)

    def read(self, tokens: Sequence[int], hidden: torch.Tensor) -> np.ndarray:
        """Return what the heads start from: Z (W,), after everything else that they read."""
        del tokens
        return hidden.float().cpu().numpy()

    def grown(self, roots: Sequence[int], hidden: np.ndarray, most: int) -> list[Draft]:
        """A tree of at most ``most`` nodes after each of B ``roots``, from Z (B, W) of each.

        They grow side by side: a head runs once for all, and each tree is what it would be alone.
        """
        wide = max(self.top_k, SHOWN)
        starts = np.concatenate([self.heads.start(z) for z in hidden])
        trees = [_Growing(int(root)) for root in roots]
        state, growing = starts, list(enumerate(trees))
        for head in range(self.heads.config.n_predict):
            tokens = np.array([token for _, tree in growing for token in tree.front_tokens])
            state, _, ids, logps = self.heads.step(head, state, tokens, wide)
            found = list(zip(ids.tolist(), logps.tolist(), np.exp(logps).tolist(), strict=True))
            onward, rows, first = [], [], 0
            for place, tree in growing:
                last = first + len(tree.frontier)
                above = tree.grow(
                    f"head {head + 1}", found[first:last], self.top_k, min(self.width, most)
                )
                if tree.worth_a_head(most):
                    onward.append((place, tree))
                    if self.heads.config.hierarchical:
                        rows += [first + row for row in above]
                    else:  # Medusa's heads all read Z, whatever was drafted
                        rows += [place] * len(above)
                first = last
            if not onward:
                break
            growing = onward
            state = (state if self.heads.config.hierarchical else starts)[rows]
        return [tree.best(most) for tree in trees]


Path = tuple[int, ...]
"""The ranks on the way to a node of a tree, 0 a head's best guess."""

Draw = Callable[[torch.Tensor, list[int]], list[list[int]]]
"""Draws so many places from each row of a distribution (M, R), without replacement."""


def draw_siblings(
    probs: torch.Tensor, counts: list[int], generator: torch.Generator
) -> list[list[int]]:
    """Draw so many places from each row of probs (M, R), without replacement.

    The largest of log p + Gumbel noise is a draw from p; the next ones are draws without
    replacement (Kool et al. 2019).
    """
    uniform = torch.rand(probs.shape, generator=generator, dtype=torch.float64)
    noise = uniform.log().neg().log().neg()
    drawn = (probs.log() + noise).topk(max(counts)).indices.tolist()
    return [row[:count] for row, count in zip(drawn, counts, strict=True)]


def shaped_tree(
    heads: Heads,
    root: int,
    z: np.ndarray,
    paths: Sequence[Path],
    draw: Draw | None = None,
    temperature: float = 1.0,
) -> Draft:
    """Return a tree of the shape ``paths``, parents before children, after ``root`` and its Z.

    Without ``draw`` a node is the choice of its rank. With it a node gets as many children as the
    shape has there, drawn from the heads' distribution at ``temperature``.
    """
    below: dict[Path, list[Path]] = {}
    for path in paths:
        below.setdefault(path[:-1], []).append(path)
    state = first = heads.start(z)
    ids = torch.from_numpy(heads.draft_ids)
    tree, outlooks = _Growing(root), {}
    frontier: list[tuple[int, Path, int]] = [(ROOT, (), root)] if paths else []
    for head in range(heads.config.n_predict):
        if not frontier:
            break
        state, logits, _, _ = heads.step(head, state, np.array([t for *_, t in frontier]), SHOWN)
        probs = (torch.from_numpy(logits).double() / temperature).softmax(-1)  # (M, R)
        wanted = [[child[-1] for child in below[path]] for _, path, _ in frontier]
        if draw is None:
            rows = zip(probs, wanted, strict=True)
            chosen = [row.topk(max(ranks) + 1).indices[ranks].tolist() for row, ranks in rows]
        else:
            chosen = draw(probs, list(map(len, wanted)))
        following, parents = [], []
        for row, (node, path, _) in enumerate(frontier):
            top = probs[row].topk(SHOWN)
            pairs = zip(ids[top.indices].tolist(), top.values.tolist(), strict=True)
            tree.considered[node] = tuple(pairs)
            if draw is not None:
                outlooks[node] = (ids, probs[row])
            tokens = heads.draft_ids[chosen[row]].tolist()
            for child, token, at in zip(below[path], tokens, count(len(tree.tokens)), strict=False):
                if child in below:
                    following.append((at, child, token))
                    parents.append(row if heads.config.hierarchical else 0)
            tree.tokens += tokens
            tree.parents += [node] * len(tokens)
            tree.q += probs[row].numpy()[chosen[row]].tolist()
            tree.sources += [f"head {head + 1}"] * len(tokens)
        frontier = following
        state = (state if heads.config.hierarchical else first)[parents]
    return tree.draft(outlooks)


class _Growing:
    """A tree as it grows: all candidates so far, of which the frontier's are followed next."""

    def __init__(self, root: int) -> None:
        self.root, self.frontier = root, [ROOT]
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.q: list[float] = []
        self.reached: list[float] = []
        """Log-probability that a candidate is reached: the sum along its path."""
        self.sources: list[str] = []
        self.considered: dict[int, tuple[tuple[int, float], ...]] = {}

    @property
    def front_tokens(self) -> list[int]:
        """The tokens of the frontier."""
        return [self.root if node == ROOT else self.tokens[node] for node in self.frontier]

    def grow(
        self,
        source: str,
        found: Sequence[tuple[list[int], list[float], list[float]]],
        top_k: int,
        width: int,
    ) -> list[int]:
        """Add the best ``top_k`` after each node of the frontier; follow the best ``width`` next.

        ``found`` is what the ``source`` drafts: for each node of the frontier tokens, their
        log-probabilities and probabilities, falling. Returns the parent of each new node of the
        frontier, as a place in the one before.
        """
        first = len(self.tokens)
        for node, (ids, logps, probs) in zip(self.frontier, found, strict=True):
            above = 0.0 if node == ROOT else self.reached[node]
            self.considered[node] = tuple(zip(ids[:SHOWN], probs[:SHOWN], strict=True))
            self.tokens += ids[:top_k]
            self.parents += [node] * top_k
            self.q += probs[:top_k]
            self.reached += [above + logp for logp in logps[:top_k]]
            self.sources += [source] * top_k
        new = range(first, len(self.tokens))
        self.frontier = sorted(new, key=self.reached.__getitem__, reverse=True)[:width]
        return [(node - first) // top_k for node in self.frontier]

    def worth_a_head(self, most: int) -> bool:
        """Return whether one more head may be expected to gain more than it costs."""
        if len(self.reached) <= most:
            return True
        bar = sorted(self.reached)[-most]  # what a new candidate must exceed to be drafted
        gain = CHILD_SHARE * math.exp(self.reached[self.frontier[0]]) - math.exp(bar)
        return gain > HEAD_COST

    def best(self, most: int) -> Draft:
        """Return the ``most`` candidates that are most likely to be reached, as a draft."""
        order = sorted(range(len(self.tokens)), key=self.reached.__getitem__, reverse=True)
        chosen = set(order[:most])
        return self.draft().part([node in chosen for node in range(len(self.tokens))])

    def draft(self, outlooks: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None) -> Draft:
        """Return all candidates as a draft."""
        return Draft(
            tuple(self.tokens),
            tuple(self.parents),
            tuple(self.q),
            tuple(self.sources),
            outlooks or {},
            self.considered,
        )
