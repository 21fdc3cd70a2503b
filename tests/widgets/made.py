"""Made-up but plausible risk tables, loss logs and serving logs, the same on every run."""

from __future__ import annotations

import math
import random
from collections import Counter

import sacrebleu

from labkit.records import (
    LossLog,
    LossPoint,
    RiskTable,
    Sample,
    ServingLog,
    ServingRow,
    Spread,
    ValidationPoint,
)

SENTENCES = (
    "The ferry left the harbour before the storm.",
    "The ferry had left the harbour before the storm came.",
    "Before the storm the ferry left port.",
    "A ferry left the harbour ahead of the storm.",
    "The boat sailed out of the harbour before it stormed.",
    "The ferry was leaving the port when the storm came.",
)
OTHERS = {
    "ferry": ("ferry", "ferry", "boat", "ship"),
    "left": ("left", "left", "departed"),
    "harbour": ("harbour", "port", "harbor"),
    "storm.": ("storm.", "storm.", "gale."),
    "The": ("The", "The", "Our"),
}
REFERENCE = "The ferry left port ahead of the storm."


def sentences(many: int, seed: int = 0) -> list[str]:
    """That many translations as a model might draw them, some of them equal."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choice(OTHERS.get(word, (word,))) for word in rng.choice(SENTENCES).split())
        for _ in range(many)
    ]


def different(many: int, seed: int = 0) -> list[str]:
    """That many different sentences."""
    found: dict[str, None] = {}
    while len(found) < many:
        seed += 1
        words = random.Random(seed).sample(" ".join(SENTENCES).split(), 9)
        found[" ".join(words)] = None
    return list(found)


def chrf_loss(one: str, other: str) -> float:
    """1 - chrF by sacrebleu."""
    return min(1.0, max(0.0, 1 - sacrebleu.sentence_chrf(one, [other]).score / 100))


def risk_table(
    texts: list[str] | None = None,
    *,
    hypotheses: int | None = None,
    logprobs: bool = True,
    reference: str | None = REFERENCE,
    utility: str = "chrf",
) -> RiskTable:
    """A table by chrF with counts as weights; the distinct texts are evidence and hypotheses."""
    counts = Counter(texts if texts is not None else sentences(60))
    total = sum(counts.values())
    evidence = tuple(
        Sample(
            text=text,
            count=count,
            logprob=math.log(count / total) - 0.1 * len(text) if logprobs else None,
            tokens=len(text.split()) + 1,
        )
        for text, count in counts.items()
    )
    chosen = evidence[:hypotheses]
    weights = [sample.count / total for sample in evidence]
    loss = [[chrf_loss(one.text, other.text) for other in evidence] for one in chosen]
    risk = [sum(w * x for w, x in zip(weights, row, strict=True)) for row in loss]
    return RiskTable(
        base="a made-up translator",
        source="Die Fähre verließ den Hafen vor dem Sturm.",
        utility=utility,
        weighting="counts",
        hypotheses=chosen,
        evidence=evidence,
        weights=tuple(weights),
        loss=tuple(map(tuple, loss)),
        risk=tuple(risk),
        best=risk.index(min(risk)),
        reference=reference,
        seed=1,
    )


def loss_log(
    name: str = "a made-up run",
    *,
    first: int = 60,
    second: int = 40,
    heads: int = 3,
    every: int = 10,
    offset: float = 0.0,
    seed: int = 0,
) -> LossLog:
    """A run of ``first`` steps of phase 1 and ``second`` of phase 2, looked at ``every`` steps."""
    rng = random.Random(seed)
    points, looks = [], []
    for step in range(first + second):
        phase = 1 if step < first else 2
        level = [
            2 + 0.7 * head + 6 * math.exp(-step / 15) + offset - (0.8 if phase == 2 else 0)
            for head in range(heads)
        ]
        seen = 1_000 * (step + 1)
        points.append(
            LossPoint(
                phase=phase,
                step=step,
                tokens=seen,
                loss=tuple(value + rng.uniform(-0.1, 0.1) for value in level),
                lr=1e-3,
                seconds=0.5 * step,
            )
        )
        if every and step % every == every - 1:
            looks.append(
                ValidationPoint(
                    phase=phase,
                    step=step,
                    tokens=seen,
                    loss=tuple(level),
                    accept=tuple(max(0.0, 0.8 - 0.1 * value) for value in level),
                    tokens_per_step=1.5,
                )
            )
    return LossLog(
        name=name, base="tiny", heads=heads, points=tuple(points), validation=tuple(looks)
    )


def spread(mean: float) -> Spread:
    """A latency of that mean with a tail."""
    return Spread(mean=mean, p50=0.9 * mean, p90=1.4 * mean, p99=2 * mean)


def serving_row(users: int, method: str, origin: str = "measured") -> ServingRow:
    """Speculation halves the time per token at one user and gains nothing at very many."""
    step = 20 + 0.5 * users
    gain = 1.0 if method == "vanilla" else 1 + 1 / users
    return ServingRow(
        users=users,
        method=method,
        origin=origin,
        ttft_ms=spread(50 + 10 * users),
        itl_ms=spread(step),
        tpot_ms=spread(step / gain),
        e2e_ms=spread(100 * step),
        tokens_per_s=1000 * users * gain / step,
        tokens_per_step=None if method == "vanilla" else 2.0,
        requests=24,
        errors=0,
    )


def serving_log() -> ServingLog:
    """Measured up to 8 users, simulated up to 64."""
    loads = {"measured": (1, 2, 4, 8), "simulated": (1, 2, 4, 8, 16, 32, 64)}
    return ServingLog(
        name="a made-up machine",
        base="tiny",
        target="engine",
        max_new_tokens=64,
        rows=tuple(
            serving_row(users, method, origin)
            for origin, all_users in loads.items()
            for method in ("vanilla", "mlp")
            for users in all_users
        ),
    )
