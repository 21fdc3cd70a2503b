from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from labkit.checks import trees


def depths(parents):
    found = []
    for parent in parents:
        found.append(1 if parent < 0 else found[parent] + 1)
    return found


def positions(parents, root):
    return [root, *(root + depth for depth in depths(parents))]


def mask(parents):
    seen = np.eye(len(parents) + 1)
    for node, parent in enumerate(parents):
        seen[node + 1] += seen[parent + 1]
    return seen


def paths(parents):
    found = []
    for leaf in set(range(len(parents))) - set(parents):
        path = [leaf]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        found.append(path)
    return found


def gain(path, accept):
    return np.prod([accept[head][rank] for head, rank in enumerate(path)])


def expected(tree, accept):
    return 1 + sum(gain(path, accept) for path in tree)


def grow(accept, nodes):
    every = [
        path
        for depth in range(1, len(accept) + 1)
        for path in product(*(range(len(row)) for row in accept[:depth]))
    ]
    return sorted(every, key=lambda path: (-gain(path, accept), len(path)))[:nodes]


def fastest(accept, check, heads):
    trees = [grow(accept[:deep], n) for deep in range(1, len(heads) + 1) for n in range(len(check))]

    def speed(tree):
        deepest = max(map(len, tree), default=0)
        return expected(tree, accept) / (check[len(tree)] + sum(heads[:deepest]))

    return max(trees, key=speed)


@pytest.mark.parametrize("seed", range(4))
def test_right_answers_are_right_at_every_seed(seed):
    assert trees.positions(positions, seed=seed, nodes=6 + seed).right
    assert trees.mask(mask, seed=seed, nodes=6 + seed).right
    assert trees.paths(paths, seed=seed, nodes=6 + seed).right
    assert trees.tokens_per_step(expected, seed=seed).right
    assert trees.best_tree(grow, seed=seed, nodes=7 + seed).right
    assert trees.fastest_tree(fastest, seed=seed, budget=16 + seed).right


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (lambda p, r: range(r, r + len(p) + 1), "a range, and an array of numbers"),
        (lambda p, r: list(range(r, r + len(p) + 1)), "siblings take the same place"),
        (lambda p, r: positions(p, 0), "these are depths"),
        (lambda p, r: positions(p, r - 1), "one too early"),
        (lambda p, r: positions(p, r + 1), "one too late"),
        (lambda p, r: [r, *(r + parent + 1 for parent in p)], "not at its parent's number"),
        (lambda p, r: [r, *(r + 1 for _ in p)], "right after the root"),
        (lambda p, r: positions(p, r)[1:], "the root and each node, is needed"),
        (lambda p, r: [0] * (len(p) + 1), "should give [8, 9, 10, 11]"),
    ],
)
def test_each_wrong_position_is_named(place, says):
    finding = trees.positions(place)
    assert not finding.right
    assert says in finding.text


def parent_only(parents):
    seen = np.eye(len(parents) + 1)
    for node, parent in enumerate(parents):
        seen[node + 1, parent + 1] = 1
    return seen


def rootless(parents):
    seen = mask(parents)
    seen[1:, 0] = 0
    return seen


def one_wrong(parents):
    seen = mask(parents)
    seen[-1, 1] = 1 - seen[-1, 1]
    return seen


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda p: np.tril(np.ones((len(p) + 1,) * 2)), "the mask of a chain"),
        (lambda p: mask(p).T, "exchanged"),
        (lambda p: mask(p) - np.eye(len(p) + 1), "also itself"),
        (rootless, "column 0 is all ones"),
        (parent_only, "go on up to the root"),
        (lambda p: 1 - mask(p), "other way round"),
        (lambda p: np.ones((len(p) + 1,) * 2), "everything sees everything"),
        (one_wrong, "node 2 does not see node 0, and must."),
        (lambda p: mask(p)[1:, 1:], "a row for the root and each node, is needed"),
    ],
)
def test_each_wrong_mask_is_named(build, says):
    finding = trees.mask(build)
    assert not finding.right
    assert says in finding.text


def test_a_mask_that_sees_too_much_is_told_what_it_must_not_see():
    def curious(parents):
        seen = mask(parents)
        seen[1, -1] = 1
        return seen

    assert trees.mask(curious).text.endswith("node 0 sees node 2, and must not.")


def every_path(parents):
    found = []
    for node in range(len(parents)):
        path = [node]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        found.append(path)
    return found


@pytest.mark.parametrize(
    ("find", "says"),
    [
        (every_path, "only those to leaves"),
        (lambda p: [path[::-1] for path in paths(p)], "from the leaf up"),
        (lambda p: [[-1, *path] for path in paths(p)], "it is no node"),
        (lambda p: [path[:-1] for path in paths(p)], "leaves themselves are missing"),
        (lambda p: [path[1:] for path in paths(p)], "the first node of each path"),
        (lambda p: paths(p) * 2, "more than once"),
        (lambda p: paths(p)[1:], "it is about the path"),
        (lambda p: 3, "a list of paths"),
        (lambda p: ..., "returns nothing"),
    ],
)
def test_each_wrong_list_of_paths_is_named(find, says):
    finding = trees.paths(find)
    assert not finding.right
    assert says in finding.text


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (lambda t, a: expected(t, a) - 1, "own token is missing"),
        (lambda t, a: 1 + sum(a[h][r] for p in t for h, r in enumerate(p)), "are added"),
        (lambda t, a: 1 + sum(a[len(p) - 1][p[-1]] for p in t), "as if its parent were always"),
        (lambda t, a: sum(a[len(p) - 1][p[-1]] for p in t), "and add the one"),
        (lambda t, a: expected(t, [a[0]] * 3), "depth d belongs to head d"),
        (lambda t, a: 1 + max((gain(p, a) for p in t if len(p) == max(map(len, t))), default=0),
         "half a path"),
        (lambda t, a: 7.0, "the answer is"),
    ],
)  # fmt: skip
def test_each_wrong_expectation_is_named(expect, says):
    finding = trees.tokens_per_step(expect)
    assert not finding.right
    assert says in finding.text


def chain_first(accept, nodes):
    chain = [(0,) * depth for depth in range(1, len(accept) + 1)]
    return (chain + [path for path in grow(accept, 60) if path not in chain])[:nodes]


def orphans(accept, nodes):
    return [(3, 3, 3), *grow(accept, nodes - 1)] if nodes > 1 else [(0, 0)]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (chain_first, "begins with the chain"),
        (lambda a, n: grow(a, min(n, 4)), "should give 9 nodes"),
        (orphans, "without its parent"),
        (lambda a, n: [(0,)] * n, "more than once"),
        (lambda a, n: [(9,)] * n, "no such choice"),
        (lambda a, n: [(2,), (1,), (0,)][-n:], "the first head's choices alone"),
        (lambda a, n: 5, "a list of nodes"),
    ],
)
def test_each_wrong_tree_is_named(build, says):
    finding = trees.best_tree(build, seed=1)
    assert not finding.right
    assert says in finding.text


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda a, c, h: grow(a, len(c) - 1), "takes all the nodes"),
        (lambda a, c, h: [], "drafts nothing"),
        (lambda a, c, h: grow(a, 30), "are given for up to 24"),
        (lambda a, c, h: [(0,)], "try all sizes"),
        (lambda a, c, h: [(0,), (0, 0), (0, 0, 0), (3,)], "every size and every depth"),
        (lambda a, c, h: [(0, 0)], "without its parent"),
    ],
)
def test_each_wrong_fastest_tree_is_named(choose, says):
    finding = trees.fastest_tree(choose)
    assert not finding.right
    assert says in finding.text
