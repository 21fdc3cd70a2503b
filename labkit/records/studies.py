"""`AblationStudy`, `StorageStudy`, `TreeStudy`: training choices, weights, trees compared."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from labkit.records.base import Count, NotNegative, Part, Positive, Probability, Record, RecordError

Bounds = tuple[Positive, Positive]
NodePath = tuple[int, ...]
"""A node of a candidate tree: the ranks on the way to it, head 1's first, 0 the top choice."""


class HeldOutScore(Part):
    """The figures of a set of heads on held-out answers of the base model.

    ``material`` names the kind of prompts; ``loss`` is the mean cross-entropy in nats and
    ``accept`` the share of right first guesses, one figure a head; ``tokens_per_step`` is that of a
    chain, the bonus token included.
    """

    material: str
    loss: tuple[float, ...]
    accept: tuple[Probability, ...]
    tokens_per_step: Annotated[float, Field(ge=1)]


class AblationRow(Part):
    """One training: its change to the baseline, its length and its scores.

    ``question`` names the choice that it varies; ``tokens`` counts the positions trained on.
    ``changes`` is empty for the baseline, which has one row for each seed.
    """

    question: str
    name: str
    changes: dict[str, Any] = Field(default_factory=dict)
    seed: Count
    steps: Count
    tokens: Count
    scores: tuple[HeldOutScore, ...]

    def score(self, material: str) -> HeldOutScore:
        """Return the score on prompts of that kind; raises `RecordError` if there is none."""
        known = {score.material: score for score in self.scores}
        if material not in known:
            raise RecordError(
                f"There is no score on {material!r} prompts; there are {', '.join(known)}."
            )
        return known[material]


class AblationStudy(Record):
    """All trainings of a study; ``recipe`` is the baseline's, whole."""

    KIND: ClassVar[str] = "ablations"

    name: str
    base: str
    recipe: dict[str, Any]
    rows: tuple[AblationRow, ...]

    @model_validator(mode="after")
    def _check(self) -> AblationStudy:
        if not self.baselines:
            raise RecordError("a study needs at least one baseline to compare with")
        if len({tuple(score.material for score in row.scores) for row in self.rows}) > 1:
            raise RecordError("the rows were not judged on the same material")
        return self

    @property
    def baselines(self) -> tuple[AblationRow, ...]:
        """The rows that change nothing, one for each seed."""
        return tuple(row for row in self.rows if not row.changes)

    def spread(self, material: str) -> tuple[float, float]:
        """Return the least and the most tokens per step of the baseline over its seeds."""
        found = [row.score(material).tokens_per_step for row in self.baselines]
        return min(found), max(found)


class StorageRow(Part):
    """One method with one storage on one kind of text.

    ``nodes`` are the most that a tree has, 0 where none pays. ``identical`` says whether all texts
    are vanilla's with the same storage, ``ties`` how many needed a tie of two logits as an excuse.
    ``speeds`` has the tokens per second of each prompt, in the same order in every row of a text.
    ``speedup`` is against vanilla with the same storage, ``of_fastest`` against the study's fastest
    plain decoder, on the same prompts; their bounds hold 95% of a paired bootstrap over prompts.
    """

    text: str = "all"
    storage: str
    method: str
    nodes: Count
    tokens_per_s: Positive
    tokens_per_step: Positive
    speedup: Positive
    speedup_bounds: Bounds | None = None
    of_fastest: Positive | None = None
    of_fastest_bounds: Bounds | None = None
    identical: bool
    ties: Count = 0
    speeds: tuple[Positive, ...] = ()


class StorageStudy(Record):
    """Every storage of one model on one machine, all of them in turn at each prompt.

    ``fastest`` is the storage and the method of the fastest plain decoder; ``absent`` says of each
    storage and method that could not run here why.
    """

    KIND: ClassVar[str] = "storagestudy"

    base: str
    threads: Count
    prompts: Count
    max_new_tokens: Count
    repeats: Count
    contention: float
    bandwidth_gb_s: Positive | None = None
    fastest: tuple[str, str] | None = None
    absent: dict[str, str] = Field(default_factory=dict)
    rows: tuple[StorageRow, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The kinds of text, in the order of the rows."""
        return tuple(dict.fromkeys(row.text for row in self.rows))


class VerifyCost(Part):
    """The time of one check of ``nodes`` drafted tokens and the last committed one.

    ``ratio`` is that time over the time of a plain step, which checks the last committed token
    alone: 1.0 at 0 nodes.
    """

    nodes: Count
    ratio: Positive


class TreeStudy(Record):
    """Measured acceptance and measured costs, from which a tree's speedup is predicted.

    ``accept[h][r]``: how often head h + 1's choice of rank r was the base model's own token,
    among the ``places`` where the tokens drafted before it were right. Ranks exclude one another,
    so a head's numbers sum to at most 1. Costs are in plain steps of ``token_s`` seconds:
    ``verify`` by the number of nodes (rising, from 0; straight lines in between), ``draft_head[h]``
    for running head h + 1 once, ``draft_node`` for each node.

    A tree is a list of `NodePath`: ``[(0,), (0, 0), (1,)]`` is head 1's two top choices, and head
    2's top choice after the first. Expected tokens after Cai et al. (2024, on tree construction):
    one, plus for each node the product of the acceptances on its path, as if heads were
    independent.

    >>> study = TreeStudy(name="mlp", base="tiny", accept=((0.5, 0.2), (0.5,)), places=1000,
    ...                   verify=(VerifyCost(nodes=0, ratio=1), VerifyCost(nodes=4, ratio=1.2)),
    ...                   draft_head=(0.1, 0.1), draft_node=0.0, token_s=0.02)
    >>> study.tokens_per_step([(0,), (0, 0)]), round(study.cost([(0,), (0, 0)]), 3)
    (1.75, 1.3)
    >>> study.best_tree()
    ((0,), (1,), (0, 0), (1, 0))
    """

    KIND: ClassVar[str] = "treestudy"

    name: str
    base: str
    accept: Annotated[tuple[tuple[Probability, ...], ...], Field(min_length=1)]
    places: Annotated[int, Field(ge=1)]
    verify: Annotated[tuple[VerifyCost, ...], Field(min_length=2)]
    draft_head: tuple[NotNegative, ...]
    draft_node: NotNegative = 0.0
    token_s: Positive

    @model_validator(mode="after")
    def _check(self) -> TreeStudy:
        for head, shares in enumerate(self.accept, start=1):
            if not shares or sum(shares) > 1 + 1e-6:
                raise RecordError(
                    f"head {head} has acceptances that sum to {sum(shares):.3f}: a head needs at "
                    "least one rank, and its ranks exclude one another"
                )
        if len(self.draft_head) != len(self.accept):
            raise RecordError(f"{len(self.draft_head)} drafting costs for {len(self.accept)} heads")
        nodes = [point.nodes for point in self.verify]
        if nodes[0] != 0 or any(b <= a for a, b in pairwise(nodes)):
            raise RecordError(f"the verification costs are for {nodes} nodes, not rising from 0")
        return self

    @property
    def most_nodes(self) -> int:
        """The largest tree whose check was measured."""
        return self.verify[-1].nodes

    def gain(self, path: NodePath) -> float:
        """Return the chance that the whole path is accepted: the node's part of a step's tokens."""
        return math.prod((self.accept[head][rank] for head, rank in enumerate(path)), start=1.0)

    def tokens_per_step(self, tree: Sequence[NodePath]) -> float:
        """Return the expected tokens of a step with this tree, the base model's own included."""
        return 1.0 + sum(self.gain(path) for path in tree)

    def cost(self, tree: Sequence[NodePath]) -> float:
        """Return a step's time with this tree, in plain steps: drafting and checking."""
        deepest = max((len(path) for path in tree), default=0)
        drafting = sum(self.draft_head[:deepest]) + self.draft_node * len(tree)
        return drafting + self.verify_cost(len(tree))

    def verify_cost(self, nodes: int) -> float:
        """Return a check's time in plain steps; raises `RecordError` beyond what was measured."""
        if nodes > self.most_nodes:
            raise RecordError(
                f"The check of {nodes} nodes was not measured, only of up to {self.most_nodes}."
            )
        low, high = next(pair for pair in pairwise(self.verify) if nodes <= pair[1].nodes)
        share = (nodes - low.nodes) / (high.nodes - low.nodes)
        return low.ratio + share * (high.ratio - low.ratio)

    def speedup(self, tree: Sequence[NodePath]) -> float:
        """Return predicted tokens per second with this tree, over those without a draft."""
        return self.tokens_per_step(tree) / self.cost(tree)

    def best_trees(self) -> tuple[tuple[NodePath, ...], ...]:
        """Return for each number of nodes, from 0, the tree with the highest predicted speedup.

        For each depth allowed, nodes are added by falling `gain`, which no other tree of that size
        exceeds in tokens per step (a child never gains more than its parent); then the depths are
        compared by speedup.
        """
        best: list[tuple[NodePath, ...]] = [()]
        for depth in range(1, len(self.accept) + 1):
            nodes = tuple(islice(self._by_gain(depth), self.most_nodes))
            for size in range(1, len(nodes) + 1):
                tree = nodes[:size]
                if size == len(best):
                    best.append(tree)
                elif self.speedup(tree) > self.speedup(best[size]) + 1e-12:
                    best[size] = tree
        return tuple(tuple(sorted(tree, key=lambda p: (len(p), p))) for tree in best)

    def best_tree(self, nodes: int | None = None) -> tuple[NodePath, ...]:
        """Return the tree with the highest predicted speedup: of that many nodes, or of any size.

        Raises `RecordError` where no tree has that many nodes.
        """
        trees = self.best_trees()
        if nodes is None:
            return max(trees, key=self.speedup)
        if not 0 <= nodes < len(trees):
            raise RecordError(f"A tree has 0 to {len(trees) - 1} nodes here, not {nodes}.")
        return trees[nodes]

    def _by_gain(self, depth: int) -> Iterator[NodePath]:
        """Yield every node at most ``depth`` deep, by falling gain, parents before children."""
        ranks = [sorted(range(len(of)), key=lambda rank: -of[rank]) for of in self.accept]
        heap: list[tuple[float, NodePath, int]] = []

        def push(above: NodePath, place: int) -> None:
            if len(above) < depth and place < len(ranks[len(above)]):
                path = (*above, ranks[len(above)][place])
                heapq.heappush(heap, (-self.gain(path), path, place))

        push((), 0)
        while heap:
            _, path, place = heapq.heappop(heap)
            yield path
            push(path[:-1], place + 1)
            push(path, 0)
