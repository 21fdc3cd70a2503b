"""Checks of the exercises on candidate trees.

A tree of N nodes is a list of N parents: -1 for a node that follows the root, else an earlier node.
Rows of a mask and positions begin with the root: row 0 is the root, row i + 1 is node i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from labkit.checks import Finding, answers
from labkit.checks.answers import Answer, Floats, exercise, refuse, verdict
from labkit.records import TreeStudy, VerifyCost
from labkit.speculative.tree import ROOT, Draft

Parents = list[int]
Path = tuple[int, ...]


def random_tree(rng: np.random.Generator, nodes: int) -> Parents:
    """Return parents (N,) of a tree that branches and is three deep; siblings may lie apart."""
    while True:
        parents = [int(rng.integers(-1, node)) for node in range(nodes)]
        if len(set(parents)) < nodes and max(_draft(parents).depths) > 2:
            return parents


def _trees(seed: int, nodes: int) -> Iterator[Parents]:
    """Yield a chain, a small tree and two random ones."""
    rng = np.random.default_rng(seed)
    yield from ([-1, 0, 1], [-1, -1, 0], random_tree(rng, nodes), random_tree(rng, nodes))


def _draft(parents: Sequence[int]) -> Draft:
    many = len(parents)
    return Draft(tuple(range(many)), tuple(parents), (None,) * many, ("",) * many)


@exercise
def positions(place: Answer, seed: int = 0, nodes: int = 7) -> Iterator[Finding]:
    """Check the positions of the root and all nodes, (N + 1,), from parents and the root's own."""
    rng = np.random.default_rng(seed)
    for parents in ([-1, 0, 1], [-1, -1, -1], random_tree(rng, nodes)):
        root, size = int(rng.integers(5, 50)), len(parents) + 1
        found = answers.numbers(place(parents, root), (size,), "the root and each node")
        depths = np.array([0, *_draft(parents).depths])
        right = root + depths
        yield verdict(
            found, right, "each node is one after its parent, whatever its siblings are",
            (root + np.arange(size), "these are the nodes' numbers: siblings take the same place "
             "in their texts, so they share a position"),
            (depths, "these are depths: the root already has a position, so add it"),
            (right - 1, "everything is one too early: a child of the root is one after it"),
            (right + 1, "everything is one too late: the root keeps its position"),
            (root + np.array([0, *(parent + 1 for parent in parents)]), "a node is one after its "
             "parent's position, not at its parent's number"),
            (root + np.minimum(depths, 1), "each node is right after the root: go up to the root "
             "and count"),
            otherwise=f"with the root at {root} it gives {found.astype(int).tolist()}, and should "
                      f"give {right.tolist()}",
        ).about(f"for parents {parents}")  # fmt: skip


@exercise
def mask(build: Answer, seed: int = 0, nodes: int = 7) -> Iterator[Finding]:
    """Check what sees what, (N + 1, N + 1), from parents: row 0 the root, each row its path."""
    for parents in _trees(seed, nodes):
        size = len(parents) + 1
        found = answers.numbers(build(parents), (size, size), "a row for the root and each node")
        right = _draft(parents).visible().astype(float)
        itself, link, rootless = np.eye(size), np.eye(size), right.copy()
        link[np.arange(1, size), np.array(parents) + 1] = 1
        rootless[1:, 0] = 0
        row, column = np.unravel_index((found != right).argmax(), right.shape)
        does, must = ("sees", "must not") if found[row, column] else ("does not see", "must")
        names = ["the root", *(f"node {node}" for node in range(size - 1))]
        yield verdict(
            found, right, "each row sees its path to the root and itself",
            (np.tril(np.ones((size, size))), "every row sees all rows before it, which is the mask "
             "of a chain: a node must not see other branches"),
            (right.T, "rows and columns are exchanged: row i says what node i sees, and it sees "
             "towards the root"),
            (right - itself * (found == 0), "a node sees its ancestors and also itself"),
            (rootless, "the root is missing: every node follows it, so column 0 is all ones"),
            (link, "each node sees its parent and itself alone: go on up to the root"),
            (1 - right, "everything is the other way round: 1 is for what may be seen"),
            (np.ones((size, size)), "everything sees everything"),
            otherwise=f"{names[row]} {does} {names[column]}, and {must}",
        ).about(f"for parents {parents}")  # fmt: skip


@exercise
def paths(find: Answer, seed: int = 0, nodes: int = 8) -> Iterator[Finding]:
    """Check the paths from the root to each leaf, as lists of nodes, from parents; in any order."""
    for parents in _trees(seed, nodes):
        draft, answer = _draft(parents), find(parents)
        refuse((type(answer) not in (list, tuple), "it should give a list of paths, each a list of "
                "nodes"))  # fmt: skip
        found = {tuple(answers.tokens(path)) for path in answer}
        every = {tuple(draft.path(node)) for node in range(len(parents))}
        right = {tuple(draft.path(node)) for node in range(len(parents)) if node not in parents}
        twice = found == right and len(answer) > len(right)
        differs = sorted(right - found) or sorted(found - right) or [()]
        yield verdict(
            None if twice else found, right, "one path for each leaf, from the root down",
            (None, "it gives a path more than once"),
            (every, "it holds the paths to all nodes, where only those to leaves are wanted: a "
             "leaf has no children"),
            ({path[::-1] for path in right}, "the paths run from the leaf up: turn them round"),
            ({(ROOT, *path) for path in right}, "the root is in the paths, and it is no node"),
            ({path[:-1] for path in right}, "the leaves themselves are missing"),
            ({path[1:] for path in right}, "the first node of each path is missing: a node with "
             "parent -1 follows the root and is part of the path"),
            otherwise=f"it is about the path {list(differs[0])}",
        ).about(f"for parents {parents}")  # fmt: skip


def random_acceptance(rng: np.random.Generator, heads: int) -> list[list[float]]:
    """Return ``accept[h][r]``, how often head h's choice of rank r of 4 is right; sums are < 1."""
    rows = -np.sort(-rng.dirichlet(np.full(5, 0.8), size=heads)[:, :4], axis=1)
    return (np.floor(rows * 1000) / 1000).tolist()


@exercise
def tokens_per_step(expect: Answer, seed: int = 0, heads: int = 3) -> Finding:
    """Check expected tokens of a step, from a tree of rank paths and ``accept[head][rank]``.

    One, plus for each node the product of the acceptances on its path, as if heads were
    independent.
    """
    accept = random_acceptance(np.random.default_rng(seed), heads)
    bushy: list[Path] = [(0,), (1,), (0, 0), (1, 0), (0, 1), (0, 0, 0)]
    trees: tuple[list[Path], ...] = ([], [(0,)], [(0,), (0, 0)], bushy)
    found = np.array([answers.number(expect(list(tree), accept)) for tree in trees])

    def of(worth: Callable[[Path], float]) -> Floats:
        """Return one, plus what each node is worth, for every tree."""
        return np.array([1 + sum(map(worth, tree)) for tree in trees])

    right = of(lambda path: _gain(path, accept))
    last = [[path for path in tree if len(path) == max(map(len, tree))] for tree in trees]
    deepest = [1 + max((_gain(path, accept) for path in paths), default=0) for paths in last]
    alone = of(lambda path: accept[len(path) - 1][path[-1]])
    off = int(np.abs(found - right).argmax())
    return verdict(
        found, right, "one, and for each node the chance that all of its path is accepted",
        (right - 1, "the base model's own token is missing: every step gives one, whatever is "
         "accepted"),
        (of(lambda path: sum(accept[head][rank] for head, rank in enumerate(path))), "the "
         "acceptances on a path are added: a node counts only if all before it were accepted, so "
         "multiply"),
        (alone, "each node counts with its own head's acceptance, as if its parent were always "
         "accepted: multiply along the way"),
        (alone - 1, "each node counts with its own head's acceptance, and the base model's own "
         "token is missing: multiply along the way, and add the one"),
        (of(lambda path: _gain(path, [accept[0]] * len(path))), "every node is taken with the "
         "first head's acceptance: depth d belongs to head d"),
        (deepest, "only the deepest node is counted: half a path that is accepted gives that half"),
        otherwise="write it as a sum over nodes of a product over the path",
    ).about(f"for the tree {trees[off]} it gives {found[off]:.4f}, and the answer is "
            f"{right[off]:.4f}")  # fmt: skip


def _gain(path: Sequence[int], accept: Sequence[Sequence[float]]) -> float:
    return float(np.prod([accept[head][rank] for head, rank in enumerate(path)]))


@exercise
def best_tree(grow: Answer, seed: int = 0, heads: int = 3, nodes: int = 9) -> Finding:
    """Check the tree of so many nodes with the most expected tokens, as a list of rank paths."""
    rng = np.random.default_rng(seed)
    for size in (1, 3, nodes):
        accept = random_acceptance(rng, heads)
        while size > 1 and not {(0, 0), (1,)} <= set(_best(accept, 3)):
            accept = random_acceptance(rng, heads)  # until neither a chain nor one head is best
        tree = rank_paths(grow(accept, size), accept)
        refuse((len(tree) != size, f"it should give {size} nodes, and gives {len(tree)}"))
        ours = 1 + sum(_gain(path, accept) for path in tree)
        most = 1 + sum(_gain(path, accept) for path in _best(accept, size))
        if ours > most - 1e-9:
            continue
        chain = {(0,) * depth for depth in range(1, heads + 1)}
        wide = any(len(path) == 1 and path != (0,) for path in tree)
        first = set(tree) <= chain or (size > heads and chain <= set(tree) and wide)
        says = f"with {size} nodes it expects {ours:.4f} tokens a step, and {most:.4f} are possible"
        refuse(
            (first, f"{says}: it begins with the chain of first choices; a second choice of head 1 "
             "can be worth more than a first choice three places deep"),
            (all(len(path) == 1 for path in tree), f"{says}: it holds the first head's choices "
             "alone; deeper nodes may be worth more"),
            (True, f"{says}: compare all nodes that could be added next by the product along their "
             "path"),
        )  # fmt: skip
    return Finding(True, "no tree of that many nodes expects more.")


def rank_paths(answer: object, accept: Sequence[Sequence[float]]) -> list[Path]:
    """Return a tree as distinct tuples of ranks; `NotUsable` if it is none."""
    refuse((type(answer) not in (list, tuple, set), "it should give a list of nodes, each a tuple "
            "of ranks as in (0, 1)"))  # fmt: skip
    found = [tuple(answers.tokens(path)) for path in answer]  # type: ignore[attr-defined]
    refuse((len(set(found)) != len(found), "it gives a node more than once"))
    for path in found:
        ranks = range(len(accept[0]))
        known = 0 < len(path) <= len(accept) and all(rank in ranks for rank in path)
        refuse(
            (not known, f"it gives the node {path}, and the heads have no such choice"),
            (len(path) > 1 and path[:-1] not in found, f"it holds the node {path} without its "
             f"parent {path[:-1]}: that node could never be reached"),
        )  # fmt: skip
    return found


def _best(accept: Sequence[Sequence[float]], nodes: int) -> list[Path]:
    """Return the nodes of largest gain; no child gains more than its parent, so it is a tree."""
    depths, ranks = range(1, len(accept) + 1), range(len(accept[0]))
    every = (path for depth in depths for path in product(ranks, repeat=depth))
    return sorted(every, key=lambda path: (-_gain(path, accept), len(path), path))[:nodes]


def random_study(rng: np.random.Generator) -> TreeStudy:
    """Return acceptance and costs of a made-up machine: checks cheap up to a point, then dearer."""
    free, slope = int(rng.integers(3, 10)), float(rng.uniform(0.05, 0.2))
    accept = tuple(map(tuple, random_acceptance(rng, 3)))
    draft_head = rng.uniform(0.01, 0.08, size=3).tolist()
    verify = [
        VerifyCost(nodes=n, ratio=1 + 0.01 * n + slope * max(0, n - free))
        for n in (0, 1, 2, 3, 5, 7, 11, 15, 23, 31)
    ]
    costs = {"verify": verify, "draft_head": draft_head, "token_s": 0.02}
    return TreeStudy(name="made up", base="made up", accept=accept, places=1000, **costs)


@exercise
def fastest_tree(choose: Answer, seed: int = 0, budget: int = 24) -> Finding:
    """Check the tree with the greatest speedup, from acceptance and costs in vanilla steps.

    ``choose`` gets ``accept[head][rank]``, the cost of checking the root and n nodes for n = 0 ..
    ``budget``, and of running each head. A head costs once if the tree reaches its depth. Speedup
    is tokens per step over the cost of a step.
    """
    rng = np.random.default_rng(seed)
    for _ in range(3):
        study = random_study(rng)
        check = [study.verify_cost(n) for n in range(budget + 1)]
        accept = [list(row) for row in study.accept]
        tree = rank_paths(choose(accept, check, list(study.draft_head)), study.accept)
        refuse((len(tree) > budget, f"the costs are given for up to {budget} nodes, and it has "
                f"{len(tree)}"))  # fmt: skip
        speedups = [study.speedup(best) for best in study.best_trees()[: budget + 1]]
        ours, best = study.speedup(tree), max(speedups)
        if ours > best - 1e-9:
            continue
        says = f"it speeds up by {ours:.4f}, and {best:.4f} is possible"
        refuse(
            (not tree, f"{says}: it drafts nothing at all"),
            (len(tree) == budget, f"{says}: it takes all the nodes that it may, and each makes the "
             "check dearer: divide tokens per step by the step's cost, for every size"),
            (ours > speedups[len(tree)] - 1e-9, f"{says}: no tree of {len(tree)} nodes is faster, "
             f"but one of {speedups.index(best)} is: try all sizes"),
            (True, f"{says}: compare trees of every size and every depth: a step costs the check "
             "of all nodes and each head that runs, and a head beyond the tree's depth does not "
             "run"),
        )  # fmt: skip
    return Finding(True, "no tree is faster by these figures.")
