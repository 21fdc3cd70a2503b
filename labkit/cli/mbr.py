"""``labkit mbr``: sample, weigh, score every pair, and decide by minimum Bayes risk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    WEIGHTINGS,
    base_option,
    device_option,
    max_new_tokens_option,
    seed_option,
)
from labkit.cli._output import json_option, only_results_on_stdout, table

if TYPE_CHECKING:
    from labkit.records import RiskTable

SHOWN = 10
"""Hypotheses in the table for a person."""


@click.command()
@base_option()
@click.option("--prompt", "--source", "prompt", required=True, help="What the model answers.")
@click.option("--samples", type=COUNT, default=16, show_default=True, help="How many to draw.")
@click.option("--utility", default="chrf", show_default=True, help="chrf, bleu, chrf++, exact, …")
@click.option(
    "--weights",
    "weighting",
    type=click.Choice(WEIGHTINGS),
    default="uniform",
    show_default=True,
    help="How samples stand for p(y|x).",
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="1: the model's.")
@click.option("--top-k", type=int, default=0, help="Draw from the k most probable tokens only.")
@click.option(
    "--top-p", type=float, default=1.0, help="Draw from the most probable tokens that hold p only."
)
@click.option(
    "--epsilon", type=float, default=0.0, help="Never draw a token less probable than this."
)
@max_new_tokens_option
@seed_option
@device_option
@json_option
def command(
    *,
    base: str,
    prompt: str,
    samples: int,
    utility: str,
    weighting: Any,
    temperature: float,
    top_k: int,
    top_p: float,
    epsilon: float,
    max_new_tokens: int,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw samples; take the one with the least expected loss against all."""
    with only_results_on_stdout() as show:
        from labkit import load
        from labkit.mbr import utilities
        from labkit.mbr.conditional import conditional
        from labkit.mbr.decide import decode
        from labkit.mbr.draws import Draws, draw
        from labkit.sampling import Sampling

        utilities.get(utility)  # a wrong name is told before the samples are drawn
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, epsilon=epsilon)
        how = Draws(samples, max_new_tokens, seed, sampling=sampling)
        (drawn,) = draw(conditional(load(base, device)), [prompt], how)
        decision = decode(
            drawn, utility=utility, weighting=weighting, base=base, source=prompt, seed=seed
        )
        show(as_object(decision) if as_json else as_text(decision))


def as_object(decision: RiskTable) -> dict[str, Any]:
    """Return the decision as JSON: a risk for each hypothesis, a weight for each evidence item."""
    return {
        "base": decision.base,
        "source": decision.source,
        "utility": decision.utility,
        "weighting": decision.weighting,
        "seed": decision.seed,
        "hypotheses": [sample.text for sample in decision.hypotheses],
        "counts": [sample.count for sample in decision.hypotheses],
        "logprobs": [sample.logprob for sample in decision.hypotheses],
        "evidence": [sample.text for sample in decision.evidence],
        "weights": list(decision.weights),
        "risk": list(decision.risk),
        "best": decision.best,
    }


def as_text(decision: RiskTable) -> str:
    """Return the decision, and its nearest rivals, for a person."""
    order = sorted(range(len(decision.risk)), key=decision.risk.__getitem__)
    rows = [
        (f"{decision.risk[h]:.4f}", str(sample.count), " ".join(sample.text.split())[:70])
        for h, sample in ((h, decision.hypotheses[h]) for h in order[:SHOWN])
    ]
    return f"{decision.hypotheses[decision.best].text}\n\n{table(('risk', 'drawn', 'text'), rows)}"
