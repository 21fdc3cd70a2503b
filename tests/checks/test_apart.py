"""An answer that changes its arguments in place is judged by what it returns, and harms nobody."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import get_origin

import numpy as np
import pytest
import torch

import labkit.checks
from labkit.checks import (
    approximate,
    heads,
    measures,
    risk,
    trees,
    verification,
)
from labkit.checks.answers import copied
from tests.checks import test_approximate as fast
from tests.checks import test_heads as training
from tests.checks import test_risk as deciding
from tests.checks import test_schedules as course
from tests.checks import test_trees as branching
from tests.checks import test_verification as judging

RIGHT = {
    verification.certain_drafter: judging.right,
    verification.greedy_chain: judging.greedy,
    verification.keeping: lambda x, p, q: min(1, p[x] / q[x]),
    verification.owed: judging.residual,
    verification.lossless: judging.sampling(),
    verification.sampled_chain: judging.chain,
    verification.chi_square: judging.judge,
    verification.speculation: judging.speculate,
    risk.bayes_action: lambda loss, p: (loss @ p).argmin(),
    risk.merged: deciding.counted,
    risk.losses: deciding.losses,
    risk.risks: lambda loss, weights: loss @ weights,
    risk.model_weights: deciding.model_weights,
    risk.decision: deciding.choose,
    heads.head_state: training.step,
    heads.forward: training.forward,
    heads.targets: training.pick,
    heads.hard_loss: training.hard,
    heads.soft_loss: training.soft,
    heads.answer_places: training.mark,
    trees.positions: branching.positions,
    trees.mask: branching.mask,
    trees.paths: branching.paths,
    trees.tokens_per_step: branching.expected,
    trees.best_tree: branching.grow,
    trees.fastest_tree: branching.fastest,
    approximate.aggregated: fast.aggregate,
    measures.model_weights: lambda logs, t: course.softmax((logs - logs.max()) / t),
    measures.paired_gains: lambda a, b, picks: (a - b)[picks].mean(axis=1),
    approximate.prefix_nodes: lambda texts: len(
        {tuple(text[: n + 1]) for text in texts for n in range(len(text))}
    ),
    measures.time_per_token: lambda sent, arrivals, tokens: (
        (arrivals[-1] - arrivals[0]) / (tokens - 1)
    ),
    measures.head_targets: lambda tokens, head: tokens[1 + head :],
    measures.soft_labels: lambda p, logits: -(p * course.log_softmax(logits)).sum(),
    measures.chain_steps: lambda right: measures._walk(right.cumprod(axis=1).sum(axis=1)),
}
"""A right answer to each check that hands out arrays or lists."""


def spoil(given):
    """Change everything in the argument that can be changed."""
    if isinstance(given, np.ndarray):
        given.fill(0)
    elif isinstance(given, torch.Tensor):
        given.zero_()
    elif isinstance(given, list | tuple | dict):
        for one in given.values() if isinstance(given, dict) else given:
            spoil(one)
        if not isinstance(given, tuple):
            given.clear()


def spoiling(answer):
    def spoils(*given):
        result = copy.deepcopy(answer(*given))
        for one in given:
            spoil(one)
        return result

    return spoils


@pytest.mark.parametrize(
    ("check", "answer"), RIGHT.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_an_answer_that_spoils_its_arguments_is_right_and_so_is_the_next_one(check, answer):
    assert check(spoiling(answer)).right
    assert check(answer).right


def test_a_rule_may_strike_the_draft_out_of_the_p_that_it_was_given():
    def in_place(x, p, rng, keep=True):
        if keep and rng.random() < p[x]:
            return x
        p[x] = 0
        return rng.choice(len(p), p=p / p.sum())

    assert verification.certain_drafter(in_place).right
    never = verification.certain_drafter(lambda *given: in_place(*given, keep=False))
    assert "never comes out" in never.text
    assert verification.certain_drafter(judging.right).right


def modules():
    names = {one.name for one in pkgutil.iter_modules(labkit.checks.__path__)}
    return [f"labkit.checks.{name}" for name in sorted(names - {"answers"})]  # holds no check


def takes_an_answer(check, module):
    """Whether the first argument is a function, and not, say, trained heads."""
    first = next(iter(inspect.signature(check).parameters.values()), None)
    return first is not None and get_origin(eval(first.annotation, vars(module))) is Callable


@pytest.mark.parametrize("name", modules())
def test_every_check_of_a_function_hands_out_copies(name):
    module = importlib.import_module(name)
    for of, check in inspect.getmembers(module, inspect.isfunction):
        ours = check.__module__ == name and not of.startswith("_")
        if ours and check.__annotations__.get("return") == "Finding":
            handed = hasattr(check, "__wrapped__") or not takes_an_answer(check, module)
            assert handed, f"{name}.{of} is no `exercise`"


def test_a_copy_shares_nothing_but_what_cannot_be_changed():
    rng = np.random.default_rng(0)
    given = [np.ones(2), torch.ones(2), ([1.0], {"scale": torch.ones(1)}), "text", rng]
    theirs = copied(given)
    spoil(theirs[:4])
    assert given[0].tolist() == given[1].tolist() == [1, 1]
    assert given[2] == ([1.0], {"scale": torch.ones(1)})
    assert theirs[4] is rng
