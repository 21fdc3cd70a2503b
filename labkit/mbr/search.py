"""Searching for likely texts: greedy, beam and diverse beam.

What MBR is held against, and other ways to make a hypothesis set. transformers has beam search;
its diverse variant was moved out of the library to a hub, so both are written here, on the same
rows that sampling uses: with one group, diverse beam search is beam search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from labkit.errors import LabkitError
from labkit.mbr.conditional import Conditional
from labkit.mbr.draws import batched
from labkit.records import Sample

NEVER = float("-inf")


@dataclass(frozen=True)
class Beam:
    """How to search.

    ``beams`` texts are kept at every step, in ``groups`` of equal size; within a step each group
    in turn loses ``diversity`` of log-probability for every beam of an earlier group that chose
    the same token (Vijayakumar et al. 2018, Hamming diversity). Texts are ranked by log p(y|x) /
    tokens^``length_power``. Raises `LabkitError` naming the value that cannot be used.
    """

    beams: int = 5
    groups: int = 1
    diversity: float = 0.0
    length_power: float = 1.0
    max_new_tokens: int = 128
    at_once: int = 32

    def __post_init__(self) -> None:
        for name in ("beams", "groups", "max_new_tokens", "at_once"):
            if getattr(self, name) < 1:
                raise LabkitError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.beams % self.groups:
            raise LabkitError(
                f"{self.beams} beams do not make {self.groups} equal groups; "
                "give a number of beams that the groups divide."
            )
        if self.diversity < 0:
            raise LabkitError(f"The diversity is {self.diversity}; it must be at least 0.")


@dataclass(frozen=True)
class Found:
    """A finished text of a search: its tokens, the ending one included."""

    tokens: tuple[int, ...]
    logprob: float

    def rank(self, length_power: float) -> float:
        """Return what texts are ranked by: log p / tokens^length_power."""
        return self.logprob / len(self.tokens) ** length_power


def greedy(
    model: Conditional, sources: Iterable[str], max_new_tokens: int = 128
) -> Iterator[Sample]:
    """Yield, for each source, the text that takes the most probable token at every step.

    This is beam search with one beam that ends with the first finished text: by log p alone no
    longer text can be better.
    """
    how = Beam(beams=1, length_power=0.0, max_new_tokens=max_new_tokens)
    for (found,) in beam(model, sources, how):
        yield found


def beam(
    model: Conditional, sources: Iterable[str], how: Beam | None = None
) -> Iterator[tuple[Sample, ...]]:
    """Yield, for each source, the texts the search finished, best first, at most ``beams``.

    A search ends when every group has as many finished texts as beams and the likeliest unfinished
    one, ranked as if it ended now, is no better than the worst of them.
    """
    how = how or Beam()
    for batch in batched(sources, how.at_once):
        for found in _beam(model, batch, how):
            yield tuple(
                Sample(
                    text=model.text(one.tokens),
                    logprob=min(one.logprob, 0.0),
                    tokens=len(one.tokens),
                )
                for one in found
            )


class _Group:
    """One group of one source's beams: what is being written, and what is finished."""

    def __init__(self, size: int) -> None:
        # All beams start alike, so all but the first are kept out of the first step.
        self.running = [Found((), 0.0), *[Found((), NEVER)] * (size - 1)]
        self.finished: list[Found] = []

    def best(self, length_power: float) -> list[Found]:
        """Return the finished texts, best first, as many as there are beams."""
        ranked = sorted(self.finished, key=lambda one: -one.rank(length_power))
        return ranked[: len(self.running)]

    def settled(self, length_power: float) -> bool:
        """Return True if no beam, ended now, would be better than the worst of enough texts."""
        best = self.best(length_power)
        ahead = max(one.rank(length_power) for one in self.running)
        return len(best) == len(self.running) and ahead <= best[-1].rank(length_power)


@torch.inference_mode()
def _beam(model: Conditional, sources: Sequence[str], how: Beam) -> list[list[Found]]:
    rows = model.begin(sources)
    device = rows.logits.device
    size = how.beams // how.groups
    ends = torch.tensor(sorted(model.ends), device=device)
    searches = [[_Group(size) for _ in range(how.groups)] for _ in sources]
    live = searches
    row_of = torch.arange(len(sources), device=device)[:, None, None]
    row_of = row_of.expand(-1, how.groups, size)  # (L, G, size)
    longest = min(how.max_new_tokens, rows.room)
    for step in range(1, longest + 1):
        known = rows.logits.log_softmax(dim=-1)[row_of]  # (L, G, size, V)
        sofar = [[[one.logprob for one in group.running] for group in groups] for groups in live]
        found = _continue(known, torch.tensor(sofar, device=device), ends, how.diversity)
        beams, tokens, _, running = found
        listed = (part.flatten(0, 1).tolist() for part in found)
        for group, *columns, going in zip(chain.from_iterable(live), *listed, strict=True):
            grown = [
                Found((*group.running[beam].tokens, token), score)
                for beam, token, score in zip(*columns, strict=True)
            ]
            group.finished += [
                one
                for one in grown[:size]
                if one.logprob > NEVER and (step == longest or one.tokens[-1] in model.ends)
            ]
            group.running = [grown[i] for i in going]
        left = [
            place
            for place, groups in enumerate(live)
            if not all(group.settled(how.length_power) for group in groups)
        ]
        if not left or step == longest:
            break
        parents = row_of.gather(2, beams.gather(2, running))[left]  # (L', G, size)
        rows.advance(parents.flatten(), tokens.gather(2, running)[left].flatten())
        live = [live[place] for place in left]
        row_of = torch.arange(parents.numel(), device=device).view_as(parents)
    best = (
        [one for group in groups for one in group.best(how.length_power)] for groups in searches
    )
    return [sorted(found, key=lambda one: -one.rank(how.length_power)) for found in best]


def _continue(
    known: torch.Tensor, scores: torch.Tensor, ends: torch.Tensor, diversity: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best continuations of every group's beams, group after group.

    ``known`` (L, G, size, V) are log-probabilities of the next token, ``scores`` (L, G, size) those
    of the beams so far. Returns beams, tokens and scores (L, G, C) of the continuations, best
    first, enough of them that ``size`` do not end; and the numbers (L, G, size) of those.
    """
    sources, groups, size, vocabulary = known.shape
    many = min((1 + len(ends)) * size, size * vocabulary)
    chosen = torch.zeros(sources, vocabulary, device=known.device)  # how often this step, so far
    parts = []
    for group in range(groups):
        total = scores[:, group, :, None] + known[:, group]  # (L, size, V)
        wanted = (total - diversity * chosen[:, None, :]).flatten(1)
        place = wanted.topk(many, dim=-1).indices  # (L, C)
        tokens = place % vocabulary
        # A stable sort by whether it ends leaves the best that go on in front.
        running = torch.isin(tokens, ends).int().argsort(dim=-1, stable=True)[:, :size]
        going = tokens.gather(1, running)
        chosen.scatter_add_(1, going, torch.ones_like(going, dtype=chosen.dtype))
        parts.append((place // vocabulary, tokens, total.flatten(1).gather(1, place), running))
    beams, tokens, scores, running = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
    return beams, tokens, scores, running
