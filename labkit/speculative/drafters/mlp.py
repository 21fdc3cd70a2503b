"""The speculator's heads as a drafter: a candidate tree grown by joint probability.

Every head proposes its best tokens after each node of the frontier; the frontier's next nodes are
the candidates with the largest probability of being reached (the product along their path), and of
all candidates the best ``max_nodes`` are drafted (the rule of EAGLE-2: Li et al. 2024). A child is
never more probable than its parent, so the chosen nodes always form a tree. With a width and a
top-k of one it is a chain. The next head is asked only where its best candidate may be expected to
be worth the head's time: the draft has to be quick before it has to be good.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
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

    name = "mlp"
    stateless = True
    """Keeps nothing of one text, so that one drafter can serve all rows of a batch."""

    def __init__(
        self,
        heads: Heads,
        max_nodes: int = 12,
        width: int | None = None,
        top_k: int = 6,
        shape: Sequence[int] | None = None,
        name: str = "mlp",
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
        self.name = name
        self.heads = heads
        self.layers = heads.config.layers
        self.max_nodes = max_nodes
        self.width, self.top_k = width, top_k
        self.shape = tuple(shape)[: heads.config.n_predict]
        drawn = sum(accumulate(self.shape, operator.mul))
        if drawn > max_nodes:
            raise LabkitError(
                f"A drawn tree of the shape {self.shape} has {drawn} nodes, more than the "
                f"{max_nodes} that it may have."
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
        root = int(tokens[-1])
        if generator is None:
            return self.draft_many([root], hidden[None])[0]
        state = self.heads.start(hidden.float().cpu().numpy())
        return self._sample(state, root, generator, temperature)

    def draft_many(
        self, roots: Sequence[int], hidden: torch.Tensor, max_nodes: int | None = None
    ) -> list[Draft]:
        """A tree after each of B ``roots``, grown side by side: a head runs once for all of them.

        ``hidden`` (B, D) is Z of each; each tree is the one that it would be alone. ``max_nodes``
        asks for smaller trees than the drafter's own.
        """
        most = min(self.max_nodes, max_nodes or self.max_nodes)
        many, every = len(roots), np.arange(len(roots))[:, None]
        starts = np.concatenate([self.heads.start(z) for z in hidden.float().cpu().numpy()])
        state = starts  # (B M, S): M nodes a tree are followed, at first the root alone
        frontier, joint = np.full((many, 1), ROOT), np.zeros((many, 1), np.float32)  # (B, M)
        front_tokens = np.array(roots)[:, None]
        empty = np.empty((many, 0))
        tokens, parents, joints, logps, depths = (
            empty.astype(kind) for kind in (int, int, float, float, int)
        )  # (B, C), C candidates so far
        looked_at: list[dict[int, tuple[np.ndarray, np.ndarray]]] = [{} for _ in roots]
        growing = np.ones(many, bool)
        for head in range(self.heads.config.n_predict):
            wide = max(self.top_k, SHOWN)
            state, _, ids, logp = self.heads.step(head, state, front_tokens.ravel(), wide)
            ids, logp = (part.reshape(*frontier.shape, -1) for part in (ids, logp))
            for tree in np.flatnonzero(growing):
                looked_at[tree] |= {
                    int(node): (row, row_logp)
                    for node, row, row_logp in zip(
                        frontier[tree], ids[tree], logp[tree], strict=True
                    )
                }
            ids, logp = ids[..., : self.top_k], logp[..., : self.top_k]  # (B, M, top_k)
            first, followed, top_k = tokens.shape[1], frontier.shape[1], ids.shape[2]
            reached = (joint[:, :, None] + logp).reshape(many, -1)  # (B, M top_k)
            tokens = np.concatenate([tokens, ids.reshape(many, -1)], axis=1)
            parents = np.concatenate([parents, np.repeat(frontier, top_k, axis=1)], axis=1)
            joints = np.concatenate([joints, reached], axis=1)
            logps = np.concatenate([logps, logp.reshape(many, -1)], axis=1)
            depths = np.concatenate([depths, np.full(reached.shape, head + 1)], axis=1)
            onward = np.argsort(-reached, axis=1, kind="stable")[:, : min(self.width, most)]
            frontier, front_tokens = first + onward, tokens[every, first + onward]
            joint = reached[every, onward]
            if self.heads.config.hierarchical:
                state = state[(every * followed + onward // top_k).ravel()]
            else:  # Medusa's heads all read Z, whatever was drafted
                state = np.repeat(starts, onward.shape[1], axis=0)
            if joints.shape[1] > most:
                bar = np.partition(joints, -most, axis=1)[:, -most]
                gain = CHILD_SHARE * np.exp(joint[:, 0]) - np.exp(bar)  # of a child in its place
                growing &= gain > HEAD_COST
                if not growing.any():
                    break
        best = np.sort(np.argsort(-joints, axis=1, kind="stable")[:, :most], axis=1)
        return [
            _tree(best[tree], tokens[tree], parents[tree], logps[tree], depths[tree], looked)
            for tree, looked in enumerate(looked_at)
        ]

    def _sample(
        self, state: np.ndarray, root: int, generator: torch.Generator, temperature: float
    ) -> Draft:
        """Children drawn from the heads' distributions, ``shape[i]`` after each node of depth i."""
        first_state = state
        frontier, front_tokens = [ROOT], np.array([root])
        tokens: list[int] = []
        parents: list[int] = []
        q: list[float] = []
        outlooks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        considered: dict[int, tuple[tuple[int, float], ...]] = {}
        depths: list[int] = []
        ids = torch.from_numpy(self.heads.draft_ids)
        for head, many in enumerate(self.shape):
            state, logits, _, _ = self.heads.step(head, state, front_tokens, SHOWN)
            probs = (torch.from_numpy(logits).double() / temperature).softmax(-1)  # (M, R)
            # The largest of log p + Gumbel noise is a draw from p; the next ones are draws without
            # replacement (Kool et al. 2019).
            noise = (
                torch.rand(probs.shape, generator=generator, dtype=torch.float64)
                .log()
                .neg()
                .log()
                .neg()
            )
            drawn = (probs.log() + noise).topk(many).indices  # (M, many)
            first = len(tokens)
            for row, node in enumerate(frontier):
                outlooks[node] = (ids, probs[row])
                top = probs[row].topk(SHOWN)
                considered[node] = tuple(
                    zip(ids[top.indices].tolist(), top.values.tolist(), strict=True)
                )
                tokens += ids[drawn[row]].tolist()
                q += probs[row, drawn[row]].tolist()
                parents += [node] * many
                depths += [head + 1] * many
            frontier = list(range(first, len(tokens)))
            front_tokens = np.array(tokens[first:])
            source = first_state if not self.heads.config.hierarchical else state
            rows = (
                np.zeros(len(frontier), int)
                if source is first_state
                else np.repeat(np.arange(len(state)), many)
            )
            state = source[rows]
        return Draft(
            tuple(tokens),
            tuple(parents),
            tuple(q),
            tuple(f"head {d}" for d in depths),
            outlooks,
            considered,
        )


def _tree(
    chosen: np.ndarray,
    tokens: np.ndarray,
    parents: np.ndarray,
    logps: np.ndarray,
    depths: np.ndarray,
    looked_at: dict[int, tuple[np.ndarray, np.ndarray]],
) -> Draft:
    """The ``chosen`` of one tree's candidates (C,) as a draft."""
    place = {ROOT: ROOT, **{node: i for i, node in enumerate(chosen.tolist())}}
    considered = {
        place[node]: tuple(
            zip(row[:SHOWN].tolist(), np.exp(row_logp[:SHOWN]).tolist(), strict=True)
        )
        for node, (row, row_logp) in looked_at.items()
        if node in place
    }
    return Draft(
        tuple(tokens[chosen].tolist()),
        tuple(place[parent] for parent in parents[chosen].tolist()),
        tuple(np.exp(logps[chosen]).tolist()),
        tuple(f"head {depth}" for depth in depths[chosen].tolist()),
        considered=considered,
    )
