"""Checks of the exercises on candidate trees.

A tree of N nodes is a list of N parents: -1 for a node that follows the root, else an earlier node.
Rows of a mask and positions begin with the root: row 0 the root, row i + 1 node i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labkit.checks import Finding
from labkit.checks.answers import (
    Floats,
    NotUsable,
    exercise,
    looks_like,
    number,
    numbers,
    tokens,
    written,
)
from labkit.records import TreeStudy, VerifyCost
from labkit.speculative.tree import ROOT, Draft

Parents = list[int]
Path = tuple[int, ...]


def random_tree(rng: np.random.Generator, nodes: int) -> Parents:
    """Parents (N,) of a tree in which nodes branch, and siblings do not always stand together."""
    while True:
        parents = [int(rng.integers(-1, node)) for node in range(nodes)]
        draft = _draft(parents)
        branches = max(len(draft.children(node)) for node in range(ROOT, nodes)) > 1
        if branches and max(draft.depths) > 2:
            return parents


def _draft(parents: Sequence[int]) -> Draft:
    many = len(parents)
    return Draft(tuple(range(many)), tuple(parents), (None,) * many, ("",) * many)


@exercise
def positions(place: Callable[[Parents, int], Any], seed: int = 0, nodes: int = 7) -> Finding:
    """Check the positions of the root and all nodes, (N + 1,), from parents and the root's own."""
    rng = np.random.default_rng(seed)
    for parents in ([-1, 0, 1], [-1, -1, -1], random_tree(rng, nodes)):
        root = int(rng.integers(5, 50))
        found = numbers(place(list(parents), root), (len(parents) + 1,), "the root and each node")
        depths = np.array([0, *_draft(parents).depths])
        right = root + depths
        if (found == right).all():
            continue
        says = looks_like(
            found,
            {
                "these are the nodes' numbers: siblings stand at the same place in their texts, so "
                "they share a position": root + np.arange(len(parents) + 1),
                "these are depths: the root already stands at a position of its own, so add it": (
                    depths
                ),
                "everything is one too early: a child of the root stands one after it": right - 1,
                "everything is one too late: the root keeps its position": right + 1,
                "a node stands one after its parent's position, not at its parent's number": root
                + np.array([0, *(parent + 1 for parent in parents)]),
                "each node stands right after the root: go up to the root and count": root
                + np.minimum(depths, 1),
            },
        )
        asked = f"for parents {parents} and the root at {root} it gives {_listed(found)}"
        return Finding(False, f"{asked}: {says or f'it should give {_listed(right)}'}.")
    return Finding(True, "each node one after its parent, whatever stands beside it.")


@exercise
def mask(build: Callable[[Parents], Any], seed: int = 0, nodes: int = 7) -> Finding:
    """Check what sees what, (N + 1, N + 1), from parents: row 0 the root, each row its path."""
    rng = np.random.default_rng(seed)
    for parents in ([-1, 0, 1], [-1, -1, 0], random_tree(rng, nodes), random_tree(rng, nodes)):
        size = len(parents) + 1
        found = numbers(build(list(parents)), (size, size), "a row for the root and each node")
        right = _draft(parents).visible().astype(float)
        if (found == right).all():
            continue
        self_seen = np.eye(size)
        link = np.zeros((size, size))
        for node, parent in enumerate(parents):
            link[node + 1, parent + 1] = 1
        rootless = right.copy()
        rootless[1:, 0] = 0
        says = looks_like(
            found,
            {
                "every row sees all rows before it, which is the mask of a chain: a node must not "
                "see other branches": np.tril(np.ones((size, size))),
                "rows and columns are exchanged: row i says what node i sees, and it sees towards "
                "the root": right.T,
                "a node sees its ancestors and also itself": right - self_seen * (found == 0),
                "the root is missing: every node follows it, so column 0 is all ones": rootless,
                "each node sees its parent and itself alone: go on up to the root": np.minimum(
                    link + self_seen, 1
                ),
                "everything is the other way round: 1 is for what may be seen": 1 - right,
                "everything sees everything": np.ones((size, size)),
            },
        )
        if says is None:
            row, column = np.argwhere(found != right)[0].tolist()
            does, must = ("sees", "must not") if found[row, column] else ("does not see", "must")
            says = f"{_name(row)} {does} {_name(column)}, and {must}"
        return Finding(False, f"for parents {parents}: {says}.")
    return Finding(True, "each row sees its path to the root and itself.")


@exercise
def paths(find: Callable[[Parents], Any], seed: int = 0, nodes: int = 8) -> Finding:
    """Check the ways from the root to each leaf, as lists of nodes, from parents; in any order."""
    rng = np.random.default_rng(seed)
    for parents in ([-1, 0, 1], [-1, -1, 0], random_tree(rng, nodes), random_tree(rng, nodes)):
        draft = _draft(parents)
        answer = find(list(parents))
        written(answer)
        if type(answer) not in (list, tuple):
            raise NotUsable("it should give a list of paths, each a list of nodes.")
        found = {tuple(tokens(path)) for path in answer}
        every = {tuple(draft.path(node)) for node in range(len(parents))}
        right = {tuple(draft.path(node)) for node in range(len(parents)) if node not in parents}
        if found == right:
            if len(answer) > len(right):
                return Finding(False, f"for parents {parents} it gives a path more than once.")
            continue
        wrong = {
            "the ways to all nodes are in it, where only those to leaves are wanted: a leaf is "
            "nobody's parent": every,
            "the paths run from the leaf up: turn them round": {path[::-1] for path in right},
            "the root is in the paths, and it is no node": {(ROOT, *path) for path in right},
            "the leaves themselves are missing": {path[:-1] for path in right},
            "the first node of each path is missing: a node with parent -1 follows the root and is "
            "part of the path": {path[1:] for path in right},
        }
        says = next((text for text, seen in wrong.items() if seen == found), None)
        if says is None:
            lacking = sorted(right - found) or sorted(found - right)
            says = f"it is about the path {list(lacking[0])}"
        return Finding(False, f"for parents {parents}: {says}.")
    return Finding(True, "one path for each leaf, from the root down.")


def random_acceptance(rng: np.random.Generator, heads: int, ranks: int = 4) -> list[list[float]]:
    """``accept[h][r]``: how often head h's choice of rank r is right; a row sums to less than 1."""
    rows = -np.sort(-rng.dirichlet(np.full(ranks + 1, 0.8), size=heads)[:, :ranks], axis=1)
    return (np.floor(rows * 1000) / 1000).tolist()


@exercise
def tokens_per_step(
    expect: Callable[[list[Path], list[list[float]]], float], seed: int = 0, heads: int = 3
) -> Finding:
    """Check expected tokens of a step, from a tree of rank paths and ``accept[head][rank]``.

    One, plus for each node the product of the acceptances on its way, as if heads were independent.
    """
    rng = np.random.default_rng(seed)
    accept = random_acceptance(rng, heads)
    trees: tuple[list[Path], ...] = (
        [],
        [(0,)],
        [(0,), (0, 0)],
        [(0,), (1,), (0, 0), (1, 0), (0, 1), (0, 0, 0)],
    )
    found = np.array([number(expect(list(tree), [list(row) for row in accept])) for tree in trees])

    def of(worth: Callable[[Path], float]) -> Floats:
        """One, plus what each node is worth, for every tree."""
        return np.array([1 + sum(worth(path) for path in tree) for tree in trees])

    right = of(lambda path: _gain(path, accept))
    if np.abs(found - right).max() < 1e-9:
        return Finding(True, "one, and for each node the chance that all of its path is accepted.")
    alone = of(lambda path: accept[len(path) - 1][path[-1]])
    deepest = np.array(
        [
            1 + max((_gain(path, accept) for path in tree if len(path) == deep), default=0)
            for tree, deep in ((tree, max(map(len, tree), default=0)) for tree in trees)
        ]
    )
    says = looks_like(
        found,
        {
            "the base model's own token is missing: every step gives one, accepted or not": right
            - 1,
            "the acceptances on a path are added: a node counts only if all before it were "
            "accepted, so multiply": of(
                lambda path: sum(accept[head][rank] for head, rank in enumerate(path))
            ),
            "each node counts with its own head's acceptance, as if its parent were always "
            "accepted: multiply along the way": alone,
            "each node counts with its own head's acceptance, and the base model's own token is "
            "missing: multiply along the way, and add the one": alone - 1,
            "every node is taken with the first head's acceptance: depth d is head d": of(
                lambda path: _gain(path, [accept[0]] * len(path))
            ),
            "only the deepest node is counted: half a path that is accepted gives that half": (
                deepest
            ),
        },
    )
    off = int(np.abs(found - right).argmax())
    asked = (
        f"for the tree {trees[off]} it gives {found[off]:.4f}, and the answer is {right[off]:.4f}"
    )
    return Finding(False, f"{asked}: {says}." if says else f"{asked}.")


def _gain(path: Sequence[int], accept: Sequence[Sequence[float]]) -> float:
    return float(np.prod([accept[head][rank] for head, rank in enumerate(path)]))


@exercise
def best_tree(
    grow: Callable[[list[list[float]], int], Any], seed: int = 0, heads: int = 3, nodes: int = 9
) -> Finding:
    """Check the tree of so many nodes with the most expected tokens, as a list of rank paths."""
    rng = np.random.default_rng(seed)
    for size in (1, 3, nodes):
        accept = _mixed(rng, heads) if size > 1 else random_acceptance(rng, heads)
        tree = rank_paths(grow([list(row) for row in accept], size), accept)
        if len(tree) != size:
            return Finding(False, f"it was to give {size} nodes, and gives {len(tree)}.")
        orphan = next((path for path in tree if len(path) > 1 and path[:-1] not in tree), None)
        if orphan is not None:
            says = f"the node {orphan} is there without its parent {orphan[:-1]}"
            return Finding(False, f"{says}: it could never be reached.")
        right = _best(accept, size)
        ours = 1 + sum(_gain(path, accept) for path in tree)
        most = 1 + sum(_gain(path, accept) for path in right)
        if ours > most - 1e-9:
            continue
        chain = {tuple([0] * depth) for depth in range(1, heads + 1)}
        why = "compare all nodes that could be added next by the product along their way"
        if set(tree) <= chain or (size > heads and chain <= set(tree) and _wide(tree)):
            why = (
                "it begins with the chain of first choices; a second choice of head 1 can be worth "
            )
            why += "more than a first choice three places deep"
        elif all(len(path) == 1 for path in tree):
            why = "it holds the first head's choices alone; deeper nodes may be worth more"
        says = (
            f"with {size} nodes it expects {ours:.4f} tokens a step where {most:.4f} are possible"
        )
        return Finding(False, f"{says}: {why}.")
    return Finding(True, "no tree of that many nodes expects more.")


def _mixed(rng: np.random.Generator, heads: int) -> list[list[float]]:
    """Acceptance for which the best three nodes are neither a chain nor one head's choices."""
    while True:
        accept = random_acceptance(rng, heads)
        best = _best(accept, 3)
        if (0, 0) in best and (1,) in best:
            return accept


def _wide(tree: Sequence[Path]) -> bool:
    return any(len(path) == 1 and path != (0,) for path in tree)


def rank_paths(answer: object, accept: Sequence[Sequence[float]]) -> list[Path]:
    """A tree as distinct tuples of ranks; `NotUsable` where it is none, or has unknown ranks."""
    written(answer)
    if type(answer) not in (list, tuple, set):
        raise NotUsable("it should give a list of nodes, each a tuple of ranks as in (0, 1).")
    found = [tuple(tokens(path)) for path in answer]  # type: ignore[attr-defined]
    if len(set(found)) != len(found):
        raise NotUsable("a node stands there more than once.")
    for path in found:
        known = 0 < len(path) <= len(accept) and all(
            0 <= rank < len(accept[head]) for head, rank in enumerate(path)
        )
        if not known:
            raise NotUsable(f"it gives the node {path}, and there is no such choice of the heads.")
    return found


def _best(accept: Sequence[Sequence[float]], nodes: int) -> list[Path]:
    """The nodes of largest gain; a child never gains more than its parent, so they form a tree."""
    every: list[Path] = [()]
    found: list[Path] = []
    for row in accept:
        every = [(*path, rank) for path in every for rank in range(len(row))]
        found += every
    return sorted(found, key=lambda path: (-_gain(path, accept), len(path), path))[:nodes]


def random_study(rng: np.random.Generator, heads: int = 3) -> TreeStudy:
    """Acceptance and costs of a machine that does not exist: cheap checks to a point, then dear."""
    free = int(rng.integers(3, 10))
    slope = float(rng.uniform(0.05, 0.2))
    sizes = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31]
    return TreeStudy(
        name="made up",
        base="made up",
        accept=tuple(tuple(row) for row in random_acceptance(rng, heads)),
        places=1000,
        verify=tuple(
            VerifyCost(nodes=n, ratio=1 + 0.01 * n + slope * max(0, n - free)) for n in sizes
        ),
        draft_head=tuple(float(cost) for cost in rng.uniform(0.01, 0.08, size=heads)),
        token_s=0.02,
    )


@exercise
def fastest_tree(
    choose: Callable[[list[list[float]], list[float], list[float]], Any],
    seed: int = 0,
    budget: int = 24,
) -> Finding:
    """Check the tree with the greatest speedup, from acceptance and costs in plain steps.

    ``choose`` gets ``accept[head][rank]``, the cost of a check of n nodes beside the root for n = 0
    .. ``budget``, and of running each head. A head costs once if the tree is so deep. Speedup is
    tokens per step over the cost of a step.
    """
    rng = np.random.default_rng(seed)
    for _ in range(3):
        study = random_study(rng)
        check = [study.verify_cost(n) for n in range(budget + 1)]
        accept = [list(row) for row in study.accept]
        tree = rank_paths(choose(accept, check, list(study.draft_head)), study.accept)
        if len(tree) > budget:
            return Finding(
                False, f"the costs are given for up to {budget} nodes, and it has {len(tree)}."
            )
        if any(len(path) > 1 and path[:-1] not in tree for path in tree):
            return Finding(False, "a node is there without its parent: it could never be reached.")
        best, size = max((study.speedup(study.best_tree(n)), n) for n in range(budget + 1))
        ours = study.speedup(tree)
        if ours > best - 1e-9:
            continue
        if not tree:
            why = "it drafts nothing at all"
        elif len(tree) == budget:
            why = (
                "it takes all the nodes that it may, and each makes the check dearer: divide "
                "tokens per step by the step's cost, for every size"
            )
        elif ours > study.speedup(study.best_tree(len(tree))) - 1e-9:
            why = f"no tree of {len(tree)} nodes is faster, but one of {size} is: look at all sizes"
        else:
            why = (
                "compare trees of every size and every depth: a step costs the check of all nodes "
                "and each head that runs, and a head beyond the tree's depth does not run"
            )
        return Finding(False, f"it speeds up by {ours:.4f} where {best:.4f} is possible: {why}.")
    return Finding(True, "no tree is faster by these figures.")


def _name(row: int) -> str:
    return f"node {row - 1}" if row else "the root"


def _listed(values: Floats) -> str:
    return str([int(value) for value in values])
