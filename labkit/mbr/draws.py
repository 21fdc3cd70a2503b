"""Drawing texts from p(y|x): the hypothesis set, and the evidence set that stands for p.

Ancestral sampling draws token after token from the model's own distribution, and is the only way
here whose samples are fair (Eikema & Aziz 2020); temperature, top-k, top-p and epsilon trade
fairness for likelier texts, which make better hypotheses and, measured, often better evidence too
(Freitag et al. 2023, "Epsilon Sampling Rocks").

Samples of one source mostly begin alike. Each distinct beginning is one row of the batch, however
many samples share it, so the model runs once for each node of the samples' prefix tree.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.mbr.conditional import Conditional
from labkit.records import Sample
from labkit.sampling import Sampling

T = TypeVar("T")

ANCESTRAL = Sampling(temperature=1.0)
"""The model's own distribution."""


@dataclass(frozen=True)
class Draws:
    """The number of samples to draw, and how.

    ``samples`` texts for each source, each of at most ``max_new_tokens`` tokens (fewer where the
    model's context ends before); ``at_once`` sources go through the model together. The samples of
    a source depend on ``seed`` and on the source, not on the other sources.

    Raises `LabkitError` naming the value that is wrong; greedy decoding is a function of its own.
    """

    samples: int = 64
    max_new_tokens: int = 128
    seed: int = 0
    at_once: int = 32
    sampling: Sampling = ANCESTRAL

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "at_once"):
            if getattr(self, name) < 1:
                raise LabkitError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.sampling.greedy:
            raise LabkitError(
                "The temperature is 0; samples need a positive one. For the greedy output, use "
                "`labkit.mbr.search.greedy`."
            )
        if self.sampling.typical:
            raise LabkitError("Samples for MBR are drawn without drafts; leave `typical` out.")


def draw(
    model: Conditional, sources: Sequence[str], how: Draws | None = None
) -> list[tuple[Sample, ...]]:
    """Draw samples for each source: distinct texts in order of first appearance, with counts.

    A sample's ``logprob`` is log p(y|x) under the model's own distribution, neither tempered nor
    filtered; ``tokens`` counts the token that ends the text. Where one text was drawn in several
    splits into tokens, their probabilities are added.

    Raises `LabkitError` for an empty source or one longer than the model's context.
    """
    return list(stream(model, sources, how))


def stream(
    model: Conditional, sources: Iterable[str], how: Draws | None = None
) -> Iterator[tuple[Sample, ...]]:
    """Draw like `draw`, one source after the other, with ``at_once`` sources in memory."""
    how = how or Draws()
    for batch in batched(sources, how.at_once):
        for sequences, logprobs in _sequences(model, batch, how):
            yield _distinct(model, sequences, logprobs)


def batched(items: Iterable[T], many: int) -> Iterator[list[T]]:
    """Yield lists of ``many`` items, the last perhaps shorter."""
    left = iter(items)
    while batch := list(islice(left, many)):
        yield batch


@torch.inference_mode()
def _sequences(
    model: Conditional, sources: Sequence[str], how: Draws
) -> Iterator[tuple[list[list[int]], list[float]]]:
    """Yield, for each source, the tokens and the log-probability of each of its samples."""
    rows = model.begin(sources)
    vocabulary = rows.logits.shape[1]
    device = rows.logits.device
    if device.type == "mps":  # it has no float64, which `draw_tokens` needs
        device = torch.device("cpu")
    ends = torch.tensor(sorted(model.ends), device=device)
    seeds = (f"{how.seed}\n{source}".encode("utf-8", "surrogatepass") for source in sources)
    digests = [hashlib.blake2b(seed, digest_size=8).digest() for seed in seeds]
    generators = [torch.Generator().manual_seed(int.from_bytes(one, "big")) for one in digests]
    row = torch.arange(len(sources), device=device).repeat_interleave(how.samples)  # (S,)
    logprob = torch.zeros(len(row), dtype=torch.float64, device=device)
    live = torch.arange(len(row), device=device)  # samples that have not ended
    columns = []
    longest = min(how.max_new_tokens, rows.room)
    for step in range(longest):
        uniform = torch.cat(
            [torch.rand(how.samples, generator=one, dtype=torch.float64) for one in generators]
        )
        known = rows.logits.log_softmax(dim=-1).to(device)  # (N, V)
        token = draw_tokens(how.sampling.filtered(known), row[live], uniform.to(device)[live])
        logprob[live] += known[row[live], token].double()
        column = torch.full_like(row, -1)
        column[live] = token
        columns.append(column)
        going = ~torch.isin(token, ends)
        live, token = live[going], token[going]
        if not len(live) or step == longest - 1:
            break
        # Samples on one row that drew the same token stay on one row.
        nodes, row[live] = torch.unique(row[live] * vocabulary + token, return_inverse=True)
        nodes = nodes.to(rows.logits.device)
        rows.advance(nodes // vocabulary, nodes % vocabulary)
    table = torch.stack(columns, dim=1).view(len(sources), how.samples, -1).tolist()
    for drawn, scores in zip(table, logprob.view(len(sources), -1).tolist(), strict=True):
        yield [[token for token in tokens if token >= 0] for tokens in drawn], scores


BLOCK = 128
"""Tokens summed up together in `draw_tokens`."""


def draw_tokens(logits: torch.Tensor, row: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw a token for each sample by the inverse of its row's distribution function: (S,).

    ``logits`` (N, V); ``row`` (S,) says on which row each sample stands; ``uniform`` (S,) are
    numbers in [0, 1), float64. The token is the first whose cumulative probability is above the
    number; it is looked for among blocks of tokens first, then within one, so that many samples
    of one row cost one pass over it.

    >>> half = torch.tensor([[0.5, 0.0, 0.5]]).log()
    >>> draw_tokens(half, torch.tensor([0, 0]), torch.tensor([0.49, 0.51], dtype=torch.float64))
    tensor([0, 2])
    """
    probability = logits.softmax(dim=-1)
    vocabulary = probability.shape[1]
    whole = vocabulary - vocabulary % BLOCK
    sums = probability[:, :whole].unflatten(1, (-1, BLOCK)).sum(dim=-1)
    if whole < vocabulary:
        sums = torch.cat([sums, probability[:, whole:].sum(dim=-1, keepdim=True)], dim=1)
    upto = sums.double().cumsum(dim=-1)  # (N, blocks)
    block, rest = _first_above(upto[row], uniform * upto[row, -1])
    place = block[:, None] * BLOCK + torch.arange(BLOCK, device=row.device)  # (S, BLOCK)
    inside = probability[row[:, None], place.clamp(max=vocabulary - 1)].double()
    inside[place >= vocabulary] = 0
    return block * BLOCK + _first_above(inside.cumsum(dim=-1), rest)[0]


def _first_above(
    cumulative: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's first place (S,) in ``cumulative`` (S, M) over its target, and the rest."""
    # Rounding must not carry the target past the last place that has any probability.
    below = torch.nextafter(cumulative[:, -1], torch.zeros_like(target))
    target = torch.minimum(target, below)[:, None]
    place = torch.searchsorted(cumulative, target, right=True)
    before = torch.where(place > 0, cumulative.gather(1, (place - 1).clamp(min=0)), 0)
    return place[:, 0], (target - before)[:, 0]


def _distinct(
    model: Conditional, sequences: list[list[int]], logprobs: list[float]
) -> tuple[Sample, ...]:
    """Merge equal texts: add their counts, and the probabilities of their distinct splits."""
    drawn = list(map(tuple, sequences))
    counts, of_split = Counter(drawn), dict(zip(drawn, logprobs, strict=True))
    splits = defaultdict(list)
    for tokens in counts:
        splits[model.text(tokens)].append(tokens)
    return tuple(
        Sample(
            text=text,
            count=sum(counts[tokens] for tokens in ways),
            logprob=min(float(np.logaddexp.reduce([of_split[tokens] for tokens in ways])), 0.0),
            tokens=len(max(ways, key=of_split.__getitem__)),
        )
        for text, ways in splits.items()
    )
