"""Reference aggregation and centroids: evidence averaged before it is compared.

Reference aggregation (Vamvas & Sennrich 2024, "Linear-time Minimum Bayes Risk Decoding with
Reference Aggregation"): instead of comparing with every evidence sample and averaging the scores,
average what the score is made of, and compare once: H comparisons instead of H R. For chrF that is
n-gram counts, which turn into fractions; for embeddings the vectors, where it is not even an
approximation, because the cosine is linear in them.

Centroids (Deguchi et al. 2024, "Centroid-Based Efficient Minimum Bayes Risk Decoding"): cluster the
evidence first and average within clusters, so that k comparisons keep apart what differs. One
cluster is reference aggregation, as many as evidence samples is the exact decision.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.cluster.vq import kmeans2

from labkit.errors import LabkitError
from labkit.mbr.approximate.problem import Decision, Problem, answer
from labkit.mbr.utilities import embedding
from labkit.mbr.utilities.chrf import character_part, f_score, word_part
from labkit.mbr.utilities.ngrams import Texts, counts


@dataclass(frozen=True)
class Averageable:
    """Evidence as vectors that may be averaged.

    ``vectors`` (R, D), sparse or dense; ``utility`` from k vectors (k, D) to utilities (H, k).
    """

    vectors: scipy.sparse.csr_array
    utility: Callable[[np.ndarray], np.ndarray]


def aggregation(task: Problem) -> Decision:
    """Decide by one comparison of each hypothesis with the average of all evidence."""
    parts = averageable(task)
    mean = (task.weights @ parts.vectors)[None, :]  # (1, D)
    return answer(task, 1 - parts.utility(mean)[:, 0], cheap=len(task.hypotheses))


def centroids(task: Problem, rng: np.random.Generator, clusters: int = 8) -> Decision:
    """Decide by comparing each hypothesis with the averages of ``clusters`` clusters of evidence.

    Raises `LabkitError` for fewer than one cluster.
    """
    if clusters < 1:
        raise LabkitError(f"{clusters} clusters were given; at least 1 is needed.")
    parts = averageable(task)
    of = k_means(parts.vectors, min(clusters, len(task.evidence)), rng)  # (R,)
    mass = np.bincount(of, task.weights)
    present = np.flatnonzero(mass)
    share = np.stack([np.where(of == k, task.weights, 0) / mass[k] for k in present])  # (k, R)
    utility = parts.utility(share @ parts.vectors)  # (H, k)
    return answer(task, 1 - utility @ mass[present], cheap=utility.size)


def averageable(task: Problem) -> Averageable:
    """Return the vectors of a utility whose evidence can be averaged: chrf, chrf++, embedding.

    Raises `LabkitError` for any other.
    """
    texts = [*task.hypotheses, *task.evidence]
    match task.utility:
        case "chrf":
            return _of_grams([character_part(texts)], len(task.hypotheses))
        case "chrf++":
            parts = [character_part(texts), word_part(texts)]
            return _of_grams(parts, len(task.hypotheses))
        case "embedding":
            return _of_embeddings(task.hypotheses, task.evidence)
    raise LabkitError(
        f"The evidence of {task.utility!r} cannot be averaged; that of chrf, chrf++ and embedding "
        "can."
    )


def _of_grams(parts: Sequence[tuple[Texts, int]], hypotheses: int) -> Averageable:
    """Return chrF's vectors: the count of each n-gram of each order in a text."""
    tables = [table for texts, orders in parts for table in counts(texts, orders)]
    ours = [table[:hypotheses] for table in tables]
    totals = np.stack([table.sum(axis=1) for table in ours])  # (N, H)
    ends = np.cumsum([table.shape[1] for table in tables])

    def utility(means: np.ndarray) -> np.ndarray:
        columns = []
        for mean in means:
            means_of = np.split(mean, ends[:-1])  # by order
            matches = np.stack([_clipped(*pair) for pair in zip(ours, means_of, strict=True)])
            of_mean = np.array([[one.sum()] for one in means_of])  # (N, 1)
            columns.append(f_score(matches[:, :, None], totals, of_mean)[:, 0])
        return np.stack(columns, axis=1)

    return Averageable(scipy.sparse.hstack([t[hypotheses:] for t in tables], "csr"), utility)


def _clipped(table: scipy.sparse.csr_array, mean: np.ndarray) -> np.ndarray:
    """Return the sum over n-grams of min(count in a text, mean count), for each text: (H,)."""
    least = np.minimum(table.data, mean[table.indices])
    return np.bincount(
        np.repeat(np.arange(table.shape[0]), np.diff(table.indptr)), least, minlength=table.shape[0]
    )


def _of_embeddings(hypotheses: Sequence[str], evidence: Sequence[str]) -> Averageable:
    encoder = embedding.minilm()
    ours, theirs = (embedding.unit(encoder(texts)) for texts in (hypotheses, evidence))
    return Averageable(scipy.sparse.csr_array(theirs), lambda means: (1 + ours @ means.T) / 2)


def k_means(vectors: scipy.sparse.csr_array, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each vector (R, D), scaled to length 1: (R,), 0..clusters-1.

    Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii 2007).
    """
    scaled = embedding.unit(vectors.toarray())
    apart = len(np.unique(scaled.round(9), axis=0))  # no cluster is needed for an equal vector
    with warnings.catch_warnings(action="ignore"):  # a cluster may become empty
        return kmeans2(scaled, min(clusters, apart), minit="++", rng=rng)[1]
