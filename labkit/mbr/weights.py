"""How samples stand for p(y|x), the distribution over references that the risk averages over.

Long texts hardly ever repeat, so a sample's count says little about its probability; the model
knows it exactly. Which of these works best is a question to measure (Jinnai et al. 2024,
"Model-Based Minimum Bayes Risk Decoding for Text Generation").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, product
from typing import get_args

import numpy as np

from labkit.errors import LabkitError
from labkit.records import Sample, Weighting


def distinct(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Merge samples with equal texts and add their counts, in order of first appearance.

    Equal texts may carry different log-probabilities, because a text can be split into tokens in
    more than one way: the largest stands, which is a lower bound on the text's own.

    >>> [(s.text, s.count) for s in distinct([Sample(text=t) for t in "aba"])]
    [('a', 2), ('b', 1)]
    """
    merged: dict[str, Sample] = {}
    for sample in samples:
        known = merged.get(sample.text)
        if known is None:
            merged[sample.text] = sample
            continue
        best = max(known, sample, key=logprob)
        merged[sample.text] = best.model_copy(update={"count": known.count + sample.count})
    return tuple(merged.values())


def logprob(sample: Sample) -> float:
    """Return the sample's log-probability, minus infinity where it is not known."""
    return -math.inf if sample.logprob is None else sample.logprob


def weigh(
    samples: Sequence[Sample],
    weighting: Weighting,
    temperature: float = 1.0,
    length_power: float = 0.0,
) -> tuple[tuple[Sample, ...], np.ndarray]:
    """Return the evidence that samples make, and each item's weight, summing to 1.

    ``uniform`` lists every sample as often as it was drawn, all weighing the same; the others list
    distinct texts: ``counts`` by how often each was drawn, ``unique`` all the same, ``model`` by
    (p(y|x) / tokens^a)^(1/T) in logarithms, that is exp(log p / (T tokens^a)), renormalised, with
    T the ``temperature`` and a the ``length_power`` (0: no normalisation, 1: per token).

    Raises `LabkitError` for no samples, an unknown weighting, a temperature that is not positive,
    or ``model`` weights where a log-probability (or a needed token count) is missing.

    >>> evidence, weights = weigh([Sample(text="a", count=3), Sample(text="b")], "counts")
    >>> weights
    array([0.75, 0.25])
    """
    if weighting not in get_args(Weighting):
        raise LabkitError(
            f"No weighting is named {weighting!r}; there are {', '.join(get_args(Weighting))}."
        )
    if not samples:
        raise LabkitError("No samples were given to weigh; draw at least one.")
    if weighting == "uniform":
        singles = [[one.model_copy(update={"count": 1})] * one.count for one in samples]
        evidence = tuple(chain.from_iterable(singles))
    else:
        evidence = distinct(samples)
    if weighting == "model":
        mass = _powers(evidence, temperature, length_power)
    elif weighting == "counts":
        mass = np.array([sample.count for sample in evidence], dtype=np.float64)
    else:
        mass = np.ones(len(evidence))
    return evidence, mass / mass.sum()


def _powers(samples: Sequence[Sample], temperature: float, length_power: float) -> np.ndarray:
    """Return (p / tokens^a)^(1/T) of each sample, in proportion to the largest, which is 1."""
    if not temperature > 0:
        raise LabkitError(f"The weights' temperature is {temperature}; it must be positive.")
    needed = {"logprob": "log-probability; model weights need one for every sample, the other "
              "weightings do not"}  # fmt: skip
    if length_power:
        needed["tokens"] = "token count; length normalisation needs one for every sample"
    for sample, (name, what) in product(samples, needed.items()):
        if getattr(sample, name) is None:
            text = sample.text if len(sample.text) <= 40 else sample.text[:39] + "…"
            raise LabkitError(f"The sample {text!r} has no {what}.")
    lengths = [max(sample.tokens or 1, 1) ** length_power for sample in samples]
    logs = zip(map(logprob, samples), lengths, strict=True)
    exponents = np.array([log / (temperature * length) for log, length in logs])
    return np.exp(exponents - exponents.max())


def pool(
    parts: Sequence[Sequence[Sample]], shares: Sequence[float] | None = None
) -> tuple[tuple[Sample, ...], np.ndarray]:
    """Return evidence from several models or temperatures, as the mixture of what each says.

    Part m, weighed by its own counts, counts ``shares[m]`` (equal shares where none are
    given; they are divided by their sum). A text that several parts have gets the sum of its
    weights. Raises `LabkitError` for shares that do not fit or have no positive sum, or as `weigh`.

    >>> one, other = [Sample(text="a")], [Sample(text="a"), Sample(text="b")]
    >>> evidence, weights = pool([one, other], [3, 1])
    >>> [item.text for item in evidence], weights
    (['a', 'b'], array([0.875, 0.125]))
    """
    given = np.ones(len(parts)) if shares is None else np.asarray(shares, np.float64)
    if given.shape != (len(parts),) or not len(parts):
        raise LabkitError(f"{given.size} shares were given for {len(parts)} parts; give one each.")
    if not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise LabkitError(
            f"The shares are {given.tolist()}; they must be at least 0, and one must be positive."
        )
    weight: dict[str, float] = defaultdict(float)
    listed: list[Sample] = []
    for part, share in zip(parts, given / given.sum(), strict=True):
        items, weights = weigh(part, "counts")
        listed += items
        for item, of in zip(items, weights.tolist(), strict=True):
            weight[item.text] += share * of
    merged = distinct(listed)
    return merged, np.array([weight[item.text] for item in merged])
