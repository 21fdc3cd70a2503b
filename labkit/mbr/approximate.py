"""The decision for fewer utility calls: approximations from the literature, one function each.

The exact decision scores every pair, which a neural metric makes slow. Each method here takes a
`Problem` and gives a `Decision`: the hypothesis it chose, and how many calls it made.
`compare_methods` measures how often each finds the exact minimiser, and what its choices cost.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse
from scipy.cluster.vq import kmeans2

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss, minimiser
from labkit.mbr.utilities import Utility, learned, matrix
from labkit.mbr.utilities.lexical import chrf_parts, f_score
from labkit.mbr.utilities.ngrams import counts
from labkit.mbr.weights import distinct, weigh
from labkit.records import Sample


@dataclass
class Problem:
    """Hypotheses, weighed evidence and a utility; ``calls`` counts the pairs scored so far.

    Hypotheses should be distinct texts. Raises `LabkitError` where there are none, or where the
    weights do not fit the evidence.
    """

    hypotheses: Sequence[str]
    evidence: Sequence[str]
    weights: np.ndarray
    utility: str | Utility = "chrf"
    source: str = ""
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.hypotheses:
            raise LabkitError("There are no hypotheses to decide between; give at least one.")
        expected_loss(np.zeros((1, len(self.evidence))), self.weights)  # are they weights for it?

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return evidence numbers, heaviest first, equally heavy ones in random order: (R,)."""
        return np.lexsort((rng.random(len(self.evidence)), -self.weights))

    def loss(self, hypotheses: Iterable[int], evidence: Iterable[int]) -> np.ndarray:
        """Compute losses of some hypotheses against some evidence, by their numbers: (h, r)."""
        rows = [self.hypotheses[h] for h in hypotheses]
        columns = [self.evidence[r] for r in evidence]
        self.calls += len(rows) * len(columns)
        return 1 - matrix(self.utility, rows, columns, self.source)

    def risk(self, hypotheses: Iterable[int]) -> np.ndarray:
        """Compute some hypotheses' risk under all evidence: (h,)."""
        return expected_loss(self.loss(hypotheses, range(len(self.evidence))), self.weights)

    def decide(self, risk: np.ndarray, among: np.ndarray | None = None, cheap: int = 0) -> Decision:
        """Decide for the least risk, the first of equals, among some hypotheses (default: all)."""
        among = np.arange(len(risk)) if among is None else np.sort(among)
        best = int(among[minimiser(risk[among])])
        return Decision(best, risk, self.calls, len(self.hypotheses) * len(self.evidence), cheap)


@dataclass(frozen=True)
class Decision:
    """What a method decided: the hypothesis ``best``, and what it cost.

    ``risk`` (H,) is each hypothesis's risk as far as the method estimated it, NaN where it never
    did; ``calls`` the pairs scored with the utility, of ``of`` that the exact decision scores;
    ``cheap`` counts comparisons of another kind (a proxy's, or with an average instead of a text).
    """

    best: int
    risk: np.ndarray
    calls: int
    of: int
    cheap: int = 0


def problem(
    hypotheses: Sequence[Sample],
    evidence: Sequence[Sample] | None = None,
    utility: str | Utility = "chrf",
    source: str = "",
) -> Problem:
    """Return the decision that `labkit.mbr.decide.decode` would make of the same samples."""
    items, weights = weigh(hypotheses if evidence is None else evidence, "uniform")
    texts = [one.text for one in distinct(hypotheses)]
    return Problem(texts, [item.text for item in items], weights, utility, source)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise LabkitError(f"The {name} is {value}; it must be above 0 and at most 1.")


def exact(task: Problem) -> Decision:
    """Decide exactly: every pair scored, H R calls."""
    return task.decide(task.risk(range(len(task.hypotheses))))


def coarse_to_fine(task: Problem, proxy: str | Utility = "f1", keep: float = 0.25) -> Decision:
    """Decide among the share ``keep`` of hypotheses (at least one) that the ``proxy`` ranks best.

    Only those are scored with the utility itself (Eikema & Aziz 2022, "Sampling-Based
    Approximations to Minimum Bayes Risk Decoding for Neural Machine Translation"). The proxy's
    comparisons are counted as cheap. Raises `LabkitError` for a share outside 0..1.
    """
    _check_share("share to keep", keep)
    coarse = 1 - matrix(proxy, task.hypotheses, task.evidence, task.source)
    ranked = np.argsort(expected_loss(coarse, task.weights), kind="stable")
    kept = np.sort(ranked[: max(1, int(keep * len(ranked)))])
    risk = np.full(len(ranked), np.nan)
    risk[kept] = task.risk(kept)
    return task.decide(risk, among=kept, cheap=coarse.size)


def halving(task: Problem, rng: np.random.Generator, budget: float = 0.25) -> Decision:
    """Decide with about ``budget`` of the exact decision's calls: the worse half goes, each round.

    Sequential halving (Jinnai & Ariu 2024, "Hyperparameter-Free Approach for Faster Minimum Bayes
    Risk Decoding") shares the budget equally among ceil(log2 H) rounds. In a round all remaining
    hypotheses are scored against the same new evidence, so that their estimates err together, and
    differences are surer than levels (Baharav & Tse 2019). What a round scored stays in the
    averages of the next. Raises `LabkitError` for a budget outside 0..1.
    """
    _check_share("budget", budget)
    many, much = len(task.hypotheses), len(task.evidence)
    rounds = max(1, math.ceil(math.log2(many)))
    order = task.order(rng)
    left = np.arange(many)
    risk, total = np.full(many, np.nan), np.zeros(many)
    seen = 0
    for _ in range(rounds):
        new = order[seen : seen + max(1, int(budget * many * much / (rounds * len(left))))]
        if len(new):
            total[left] += (task.loss(left, new) * task.weights[new]).sum(axis=1)
        seen += len(new)
        risk[left] = total[left] / task.weights[order[:seen]].sum()
        ranked = left[np.argsort(risk[left], kind="stable")]
        left = np.sort(ranked[: math.ceil(len(left) / 2)])
    return task.decide(risk, among=left)


RESAMPLES = 500
"""Resamples of the evidence, by which `pruning` judges."""


def pruning(
    task: Problem, rng: np.random.Generator, confidence: float = 0.99, first: int = 8
) -> Decision:
    """Decide with ``first`` evidence items a hypothesis, then twice as many, dropping the hopeless.

    After each step the evidence seen is resampled with replacement; a hypothesis stays while it is
    at least as good as the best one in 1 - ``confidence`` of `RESAMPLES`. It ends when one is left
    or all evidence is seen, so whatever survives to the end is judged exactly (Cheng & Vlachos
    2023, "Faster Minimum Bayes Risk Decoding with Confidence-based Pruning"; the defaults are the
    paper's). Raises `LabkitError` for a confidence outside 0..1 or a ``first`` below 1.
    """
    if not 0 < confidence < 1:
        raise LabkitError(f"The confidence is {confidence}; it must be between 0 and 1.")
    if first < 1:
        raise LabkitError(f"first is {first}; it must be at least 1.")
    order = task.order(rng)
    left = np.arange(len(task.hypotheses))
    risk = np.full(len(left), np.nan)
    loss = np.empty((len(left), 0))  # of those left, against the evidence seen
    while loss.shape[1] < len(order) and len(left) > 1:
        seen = loss.shape[1]
        new = order[seen : max(first, 2 * seen)]
        loss = np.concatenate([loss, task.loss(left, new)], axis=1)
        much = loss.shape[1]
        weights = task.weights[order[:much]]
        risk[left] = loss @ weights / weights.sum()
        drawn = rng.integers(much, size=(RESAMPLES, much))
        times = np.stack([np.bincount(row, minlength=much) for row in drawn])  # (B, r)
        resampled = loss @ (times * weights).T  # (h, B); what all are divided by changes no winner
        best = resampled[minimiser(risk[left])]
        stays = (resampled <= best + 1e-12).mean(axis=1) >= 1 - confidence
        left, loss = left[stays], loss[stays]
    return task.decide(risk, among=left)


def low_rank(task: Problem, rng: np.random.Generator, budget: float = 0.25) -> Decision:
    """Decide after scoring about the share ``budget`` of all pairs, drawn evenly from every row.

    The matrix is then completed to one of rank 4: good hypotheses are good against almost all
    evidence, so a few entries of a row determine the others (Trabelsi et al. 2024, "Efficient
    Minimum Bayes Risk Decoding using Low-Rank Matrix Completion Algorithms"). Pairs of equal texts
    are scored as well but kept out of the fit: a text has no loss against itself, which no matrix
    of low rank can follow. Raises `LabkitError` for a budget outside 0..1.
    """
    _check_share("budget", budget)
    many, much = len(task.hypotheses), len(task.evidence)
    each = max(1, round(budget * much))
    drawn = np.stack([rng.permutation(much) < each for _ in range(many)])  # (H, R)
    equal = np.array([[one == other for other in task.evidence] for one in task.hypotheses])
    loss = np.zeros((many, much))
    for h, columns in enumerate(drawn | equal):
        loss[h, columns] = task.loss([h], np.flatnonzero(columns))[0]
    fitted = drawn & ~equal
    guess = complete(loss, fitted, rng) if fitted.any() else loss
    return task.decide(expected_loss(np.where(drawn | equal, loss, guess), task.weights))


def complete(
    values: np.ndarray,
    known: np.ndarray,
    rng: np.random.Generator,
    rank: int = 4,
    penalty: float = 0.3,
    rounds: int = 15,
) -> np.ndarray:
    """Fit a matrix of ``rank`` plus its mean to ``values`` (H, R) where ``known``, on 0..1.

    Alternating least squares: with the right factors fixed every row is a ridge regression on its
    known entries, and the other way round.
    """

    def regress(values: np.ndarray, known: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Regress each row on the ``factors`` (R, K) of its known entries: (H, K)."""
        squares = np.einsum("hr,ri,rj->hij", known.astype(float), factors, factors, optimize=True)
        squares += penalty * np.eye(rank)
        return np.linalg.solve(squares, (values @ factors)[..., None])[..., 0]

    mean = values[known].mean()
    centred = np.where(known, values - mean, 0)
    right = rng.normal(scale=rank**-0.5, size=(values.shape[1], rank))  # (R, K)
    for _ in range(rounds):
        left = regress(centred, known, right)  # (H, K)
        right = regress(centred.T, known.T, left)
    return np.clip(mean + left @ right.T, 0, 1)


def aggregation(task: Problem) -> Decision:
    """Decide by one comparison of each hypothesis with the average of all evidence.

    Reference aggregation (Vamvas & Sennrich 2024, "Linear-time Minimum Bayes Risk Decoding with
    Reference Aggregation"): average what a score is made of instead of the scores, so H comparisons
    instead of H R. For chrF that is n-gram counts, which turn into fractions; for embeddings the
    vectors, where it is exact, because the cosine is linear in them. Raises `LabkitError` for
    another utility.
    """
    vectors, utility = averageable(task)
    mean = (task.weights @ vectors)[None, :]  # (1, D)
    return task.decide(1 - utility(mean)[:, 0], cheap=len(task.hypotheses))


def centroids(task: Problem, rng: np.random.Generator, clusters: int = 8) -> Decision:
    """Decide by comparing each hypothesis with the averages of ``clusters`` clusters of evidence.

    So k comparisons keep apart what differs (Deguchi et al. 2024, "Centroid-Based Efficient Minimum
    Bayes Risk Decoding"). One cluster is `aggregation`, as many as evidence samples the exact
    decision. Raises `LabkitError` for fewer than one cluster, or as `aggregation`.
    """
    if clusters < 1:
        raise LabkitError(f"{clusters} clusters were given; at least 1 is needed.")
    vectors, compare = averageable(task)
    of = k_means(vectors, min(clusters, len(task.evidence)), rng)  # (R,)
    mass = np.bincount(of, task.weights)
    present = np.flatnonzero(mass)
    share = np.stack([np.where(of == k, task.weights, 0) / mass[k] for k in present])  # (k, R)
    utility = compare(share @ vectors)  # (H, k)
    return task.decide(1 - utility @ mass[present], cheap=utility.size)


Compare = Callable[[np.ndarray], np.ndarray]
"""From k averages of evidence vectors (k, D) to the hypotheses' utilities (H, k)."""


def averageable(task: Problem) -> tuple[scipy.sparse.csr_array, Compare]:
    """Return the evidence as vectors (R, D) that may be averaged, and how averages are compared.

    Raises `LabkitError` for a utility whose evidence cannot be averaged.
    """
    if task.utility == "embedding":
        encoder = learned.minilm()
        ours, theirs = (learned.unit(encoder(x)) for x in (task.hypotheses, task.evidence))
        return scipy.sparse.csr_array(theirs), lambda means: (1 + ours @ means.T) / 2
    if task.utility not in ("chrf", "chrf++"):
        raise LabkitError(
            f"The evidence of {task.utility!r} cannot be averaged; that of chrf, chrf++ and "
            "embedding can."
        )
    parts = chrf_parts([*task.hypotheses, *task.evidence], with_words=task.utility == "chrf++")
    tables = [table for texts, orders in parts for table in counts(texts, orders)]  # one an order
    many = len(task.hypotheses)
    counted = [table[:many] for table in tables]
    totals = np.stack([table.sum(axis=1) for table in counted])  # (N, H)
    ends = np.cumsum([table.shape[1] for table in tables])[:-1]

    def utility(means: np.ndarray) -> np.ndarray:
        columns = []
        for mean in means:
            of_order = np.split(mean, ends)
            matches = np.stack([_clipped(*pair) for pair in zip(counted, of_order, strict=True)])
            of_mean = np.array([[one.sum()] for one in of_order])  # (N, 1)
            columns.append(f_score(matches[:, :, None], totals, of_mean)[:, 0])
        return np.stack(columns, axis=1)

    return scipy.sparse.hstack([table[many:] for table in tables], "csr"), utility


def _clipped(table: scipy.sparse.csr_array, mean: np.ndarray) -> np.ndarray:
    """Return the sum over n-grams of min(count in a text, mean count), for each text: (H,)."""
    least = np.minimum(table.data, mean[table.indices])
    owner = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return np.bincount(owner, least, minlength=table.shape[0])


def k_means(vectors: scipy.sparse.csr_array, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each vector (R, D), scaled to length 1: (R,), 0..clusters-1.

    Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii 2007).
    """
    scaled = learned.unit(vectors.toarray())
    apart = len(np.unique(scaled.round(9), axis=0))  # no cluster is needed for an equal vector
    with warnings.catch_warnings(action="ignore"):  # a cluster may become empty
        return kmeans2(scaled, min(clusters, apart), minit="++", rng=rng)[1]


Method = Callable[[Problem, np.random.Generator], Decision]

METHODS: dict[str, Method] = {
    "exact": lambda task, rng: exact(task),
    "aggregation": lambda task, rng: aggregation(task),
    "centroids": centroids,
    "coarse to fine": lambda task, rng: coarse_to_fine(task),
    "halving": halving,
    "low rank": low_rank,
    "pruning": pruning,
}
"""Every method with its defaults."""


@dataclass(frozen=True)
class Comparison:
    """A method against the exact decision, over many problems.

    ``calls`` is the share of the exact decision's calls, ``found`` how often the choice has the
    exact least risk, ``regret`` by how much the risk of the choice is above it, on average.
    """

    method: str
    calls: float
    found: float
    regret: float


def compare_methods(
    problems: Iterable[Problem], methods: dict[str, Method] | None = None
) -> list[Comparison]:
    """Run every method on every problem; raises `LabkitError` if there is no problem."""
    methods = METHODS if methods is None else methods
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for number, task in enumerate(problems):
        risk = exact(task).risk
        for name, method in methods.items():
            found = method(replace(task), np.random.default_rng((0, number)))
            regret = risk[found.best] - risk.min()
            rows[name].append((found.calls / found.of, float(regret < 1e-12), regret))
    if not any(rows.values()):
        raise LabkitError("There are no problems to compare the methods on; give at least one.")
    return [Comparison(name, *np.mean(row, axis=0).tolist()) for name, row in rows.items()]
