"""Accept or reject: from a draft and what the base model thinks of it to the tokens committed.

Pure functions, in the papers' order and letters: p is the base model's distribution, q the
drafter's. Row 0 of every input belongs to the root, row i + 1 to node i, as in `Draft.rows`.

* `greedy`: a draft is accepted if it is the base model's most probable token. Output is vanilla's.
* `speculative_sampling`: a draft x is accepted with probability min(1, p(x) / q(x)); a rejected one
  leaves the residual norm(max(0, p - q)) for its next sibling, and at last for the replacement
  (Leviathan et al. 2023, Chen et al. 2023; several siblings drawn without replacement: Miao et al.
  2024, Yang et al. 2024). Output is distributed as the base model's own.
* `typical_acceptance`: Medusa's rule (Cai et al. 2024). Not lossless: output is *not* distributed
  as the base model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from labkit.speculative.tree import ROOT, Draft

Ending = Literal["replacement", "bonus", "plain"]
"""Where the token at the end of what a step commits comes from; see `Verdict`."""


@dataclass(frozen=True)
class Test:
    """One acceptance test: the node, p and q as they stood at its turn, and how it went.

    Under sampling the node passes if ``draw`` < ``threshold`` = min(1, p / q).
    """

    node: int
    accepted: bool
    p: float | None = None
    q: float | None = None
    draw: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What one step commits: the accepted ``path`` of nodes, then ``token``, the base model's own.

    ``ending`` says what that token is: a ``replacement`` for rejected drafts, a ``bonus`` after a
    path that was accepted to its leaf, or ``plain`` where there was no draft.
    """

    path: tuple[int, ...]
    token: int
    ending: Ending
    tests: tuple[Test, ...]


def ending(draft: Draft, at: int) -> Ending:
    """Return what the token after a path that ends ``at`` a node is."""
    if not len(draft):
        return "plain"
    return "replacement" if draft.children(at) else "bonus"


def greedy(logits: torch.Tensor, draft: Draft) -> Verdict:
    """Follow the base model's most probable tokens down the tree: logits (N + 1, V).

    >>> from labkit.speculative.tree import chain
    >>> logits = torch.eye(4)[[1, 2, 3]]  # after the root 1, after node 0 2, after node 1 3
    >>> verdict = greedy(logits, chain([1, 0], "example"))
    >>> verdict.path, verdict.token, verdict.ending
    ((0,), 2, 'replacement')
    """
    on_cpu = logits.device.type == "cpu"
    # NumPy takes a quarter of torch's time; a GPU is asked once, for the rows off the path too.
    rows = logits.numpy() if on_cpu else logits.argmax(-1).tolist()
    path: list[int] = []
    tests: list[Test] = []
    at = ROOT
    while True:
        wanted = int(rows[at + 1].argmax()) if on_cpu else rows[at + 1]
        for node in draft.children(at):
            accepted = draft.tokens[node] == wanted
            tests.append(Test(node, accepted))
            if accepted:
                path.append(node)
                break
        else:
            return Verdict(tuple(path), wanted, ending(draft, at), tuple(tests))
        at = path[-1]


def speculative_sampling(probs: torch.Tensor, draft: Draft, generator: torch.Generator) -> Verdict:
    """Lossless verification of a chain or a tree: probs (N + 1, V), p after the root and each node.

    ``probs`` is the base model's distribution after temperature and filters. A parent's children
    with a distribution in ``draft.outlooks`` are taken as drawn from it without replacement, others
    as chosen outright, which is q(x) = 1: accepted with probability p(x).
    """
    path: list[int] = []
    tests: list[Test] = []
    at = ROOT
    while True:
        p = probs[at + 1].double()
        outlook = draft.outlooks.get(at)
        q = spread(outlook, p) if outlook is not None else None
        for node in draft.children(at):
            x = draft.tokens[node]
            q_x = float(q[x]) if q is not None else 1.0
            p_x = float(p[x])
            threshold = acceptance(p_x, q_x)
            draw = float(torch.rand((), generator=generator, dtype=torch.float64))
            accepted = draw < threshold
            tests.append(Test(node, accepted, min(p_x, 1.0), min(q_x, 1.0), draw, threshold))
            if accepted:
                path.append(node)
                break
            p = residual(p, q, x)
            if q is not None:
                q = without(q, x)
        else:
            token = int(torch.multinomial(p, 1, generator=generator))
            return Verdict(tuple(path), token, ending(draft, at), tuple(tests))
        at = path[-1]


def spread(outlook: tuple[torch.Tensor, torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Return a distribution over some token ids as one over the whole vocabulary: (V,)."""
    ids, values = outlook
    return torch.zeros_like(like).scatter_(0, ids.long(), values.to(like.dtype))


def acceptance(p_x: float, q_x: float) -> float:
    """Return the probability min(1, p(x) / q(x)) that x is accepted; 0 where q cannot draw x.

    >>> acceptance(0.3, 0.6), acceptance(0.6, 0.3)
    (0.5, 1.0)
    """
    return min(1.0, p_x / q_x) if q_x > 0 else 0.0


def residual(p: torch.Tensor, q: torch.Tensor | None, x: int) -> torch.Tensor:
    """Return what p still owes once x was rejected: norm(max(0, p - q)); q None is all on x.

    >>> residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.2, 0.1]), 0)
    tensor([0.0000, 0.5000, 0.5000])
    """
    if q is None:
        left = p.clone()
        left[x] = 0
    else:
        left = (p - q).clamp_min(0)
    mass = left.sum()
    # Rounding can leave nothing where p equals q to the last bit; then a rejection had probability
    # zero, and p itself is as good an answer as any.
    return left / mass if mass > 0 else p


def without(q: torch.Tensor, x: int) -> torch.Tensor:
    """Return q once x is drawn and not put back; all zeros where x held all of it."""
    left = q.clone()
    left[x] = 0
    mass = left.sum()
    return left / mass if mass > 0 else left


def typical_acceptance(
    probs: torch.Tensor,
    draft: Draft,
    generator: torch.Generator,
    epsilon: float = 0.3,
    delta: float = 0.09,
) -> Verdict:
    """Medusa's rule, not lossless: accept x where p(x) > min(epsilon, delta * exp(-entropy(p))).

    probs: (N + 1, V). The longest accepted path wins; the token after it is drawn from p.
    """
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum(-1)  # (N + 1,)
    bars = torch.minimum(torch.tensor(epsilon), delta * torch.exp(-entropy))
    tests: list[Test] = []
    alive = {ROOT}
    best = ROOT
    depths = draft.depths
    for node, parent in enumerate(draft.parents):
        if parent not in alive:
            continue
        p_x, bar = float(probs[parent + 1, draft.tokens[node]]), float(bars[parent + 1])
        accepted = p_x > bar
        tests.append(Test(node, accepted, p_x, draft.q[node], None, min(bar, 1.0)))
        if accepted:
            alive.add(node)
            if best == ROOT or depths[node] > depths[best]:
                best = node
    token = int(torch.multinomial(probs[best + 1], 1, generator=generator))
    return Verdict(tuple(draft.path(best)), token, ending(draft, best), tuple(tests))
