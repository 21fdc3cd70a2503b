"""``labkit mbr``: sample, weigh, score every pair, and decide by minimum Bayes risk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    base_option,
    device_option,
    epsilon_option,
    max_new_tokens_option,
    samples_option,
    seed_option,
    temperature_option,
    utility_option,
    weights_option,
)
from labkit.cli._output import Report, reports, table

if TYPE_CHECKING:
    from labkit.records import RiskTable

SHOWN = 10
"""Hypotheses in the table for a person."""


@reports
@base_option()
@click.option("--prompt", "--source", "prompt", required=True, help="What the model answers.")
@samples_option(16)
@utility_option
@weights_option("uniform")
@temperature_option
@click.option("--top-k", default=0, help="Draw from the k most probable tokens only; 0: all.")
@click.option("--top-p", default=1.0, help="Draw from the most probable tokens that hold p only.")
@epsilon_option(0.0)
@max_new_tokens_option
@seed_option
@device_option
def command(
    *,
    base: str,
    prompt: str,
    samples: int,
    utility: str,
    weighting: Any,
    max_new_tokens: int,
    seed: int,
    device: str | None,
    **sampling: Any,
) -> Report:
    """Draw samples; take the one with the least expected loss against all."""
    from labkit import load
    from labkit.mbr import utilities
    from labkit.mbr.conditional import conditional
    from labkit.mbr.decide import decode
    from labkit.mbr.draws import Draws, draw
    from labkit.sampling import Sampling

    utilities.get(utility)  # a wrong name is reported before the samples are drawn
    how = Draws(samples, max_new_tokens, seed, sampling=Sampling(**sampling))
    (drawn,) = draw(conditional(load(base, device)), [prompt], how)
    decision = decode(
        drawn, utility=utility, weighting=weighting, base=base, source=prompt, seed=seed
    )
    return Report(as_object(decision), as_text(decision))


def as_object(decision: RiskTable) -> dict[str, Any]:
    """Return the decision as JSON: a risk for each hypothesis, a weight for each evidence item."""
    kept = {"base", "source", "utility", "weighting", "seed", "weights", "risk", "best"}
    return decision.model_dump(mode="json", include=kept) | {
        "hypotheses": [sample.text for sample in decision.hypotheses],
        "counts": [sample.count for sample in decision.hypotheses],
        "logprobs": [sample.logprob for sample in decision.hypotheses],
        "evidence": [sample.text for sample in decision.evidence],
    }


def as_text(decision: RiskTable) -> str:
    """Return the decision, and its nearest rivals, for a person."""
    order = sorted(range(len(decision.risk)), key=decision.risk.__getitem__)
    rows = [
        (f"{decision.risk[h]:.4f}", str(sample.count), " ".join(sample.text.split())[:70])
        for h, sample in ((h, decision.hypotheses[h]) for h in order[:SHOWN])
    ]
    return f"{decision.hypotheses[decision.best].text}\n\n{table(('risk', 'drawn', 'text'), rows)}"
