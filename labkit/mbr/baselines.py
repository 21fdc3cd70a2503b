"""What minimum Bayes risk is held against: other ways to choose one of the samples.

Greedy decoding and beam search, which look for a likely text instead of drawing any, are in
`labkit.mbr.search`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.utilities import Utility, matrix
from labkit.mbr.weights import distinct, logprob
from labkit.records import Sample


def most_probable(samples: Sequence[Sample]) -> Sample:
    """Return the sample of largest model probability: MAP, as far as sampling finds it.

    Raises `LabkitError` for no samples, or one without a log-probability.

    >>> most_probable([Sample(text="a", logprob=-2.0), Sample(text="b", logprob=-1.0)]).text
    'b'
    """
    samples = _some(samples)
    for sample in samples:
        if sample.logprob is None:
            raise LabkitError(
                "A sample has no log-probability, so the most probable is not known; "
                "take the most frequent one."
            )
    return max(samples, key=logprob)


def most_frequent(samples: Sequence[Sample]) -> Sample:
    """Return the sample drawn most often, the first of equals; raises `LabkitError` for no samples.

    >>> most_frequent([Sample(text="a"), Sample(text="b", count=2)]).text
    'b'
    """
    return max(_some(samples), key=lambda sample: sample.count)


def oracle(samples: Sequence[Sample], reference: str, utility: str | Utility = "chrf") -> Sample:
    """Return the sample most like the reference, which no decoder knows: the best possible choice.

    >>> oracle([Sample(text="a dog"), Sample(text="a cat")], "the cat").text
    'a cat'
    """
    samples = _some(samples)
    values = matrix(utility, [sample.text for sample in samples], [reference])
    return samples[int(np.argmax(values[:, 0]))]


def _some(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    if not samples:
        raise LabkitError("There are no samples to choose from; draw at least one.")
    return distinct(samples)
