"""Commands that decode: race, mbr, and what explains or calibrates speculation."""

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import (
    COUNT,
    EXISTING_FOLDER,
    base_option,
    device_option,
    longest_option,
    prompts_option,
    sampling_options,
    storage_option,
)
from labkit.cli._output import Report, columns, reports, say, table
from labkit.errors import LabkitError

top_k_option = click.option(
    "--top-k", default=0, help="Draw from the k most probable tokens only; 0: all."
)
top_p_option = click.option(
    "--top-p", default=1.0, help="Draw from the most probable tokens that hold p only."
)


@reports
@base_option()
@click.option("--prompt", required=True, help="What the model answers.")
@longest_option()
@click.option(
    "--method",
    default="mlp",
    help="What races vanilla: mlp, mlp_lookup, medusa, eagle, prompt_lookup.",
)
@click.option("--repeats", type=COUNT, default=3, help="Runs of each, one after the other.")
@device_option
def race(
    *, base: str, prompt: str, max_new_tokens: int, method: str, repeats: int, device: str | None
) -> Report:
    """Decode a prompt plainly and speculatively: the same text, sooner."""
    from labkit import Decoder, load

    decoder = Decoder(load(base, device))
    run = decoder.race(prompt, max_new_tokens, ("vanilla", method), repeats)
    identical, ties = run.compare(method)
    winner, speedup = run.typical[method], run.speedup(method)
    text = decoder.base.decode(winner.tokens)
    methods = {  # of the median runs, prefill included
        name: {
            "tokens": len(done.tokens),
            "steps": len(done.steps),
            "tokens_per_s": len(done.tokens) / done.seconds,
            "tokens_per_step": done.tokens_per_step,
        }
        for name, done in run.typical.items()
    }
    result = {
        "base": decoder.base.name,
        "prompt": prompt,
        "method": method,
        "engine": decoder.engine.name,
        "identical": identical,
        "ties": ties,
        "tokens_per_step": winner.tokens_per_step,
        "speedup": speedup,
        "text": text,
        "methods": methods,
    }
    figures = columns(
        [{"method": name, **figures} for name, figures in methods.items()],
        ("method", "{method}"),
        ("tokens", "{tokens}"),
        ("steps", "{steps}"),
        ("tokens/step", "{tokens_per_step:.2f}"),
        ("tokens/s", "{tokens_per_s:.1f}"),
    )
    same = "the same text" if identical else "DIFFERENT texts"
    near = f", {ties} place(s) where two tokens all but tie" if ties else ""
    verdict = f"{same}{near}; {method} is {speedup:.2f} times as fast"
    return Report(result, f"{text}\n\n{figures}\n{verdict}")


@reports
@base_option()
@click.option("--prompt", "--source", "prompt", required=True, help="What the model answers.")
@sampling_options(samples=16, weights="uniform", more=(top_k_option, top_p_option))
def mbr(
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
    found = decode(drawn, utility=utility, weighting=weighting, base=base, source=prompt, seed=seed)
    kept = {"base", "source", "utility", "weighting", "seed", "weights", "risk", "best"}
    result = found.model_dump(mode="json", include=kept) | {
        "hypotheses": [sample.text for sample in found.hypotheses],
        "counts": [sample.count for sample in found.hypotheses],
        "logprobs": [sample.logprob for sample in found.hypotheses],
        "evidence": [sample.text for sample in found.evidence],
    }
    ranked = sorted(zip(found.risk, found.hypotheses, strict=True), key=lambda pair: pair[0])
    rows = [
        (f"{risk:.4f}", str(sample.count), " ".join(sample.text.split())[:70])
        for risk, sample in ranked[:10]
    ]
    shown = table(("risk", "drawn", "text"), rows)
    return Report(result, f"{found.hypotheses[found.best].text}\n\n{shown}")


@reports
@base_option()
@prompts_option
@click.option(
    "--heads",
    type=EXISTING_FOLDER,
    help="Folder of trained heads (default: those shipped for the base model).",
)
@longest_option()
@device_option
def explain(
    *, base: str, prompts: Path | None, heads: Path | None, max_new_tokens: int, device: str | None
) -> Report:
    """Diagnose speculative decoding on your prompts, with one suggestion for each cause."""
    from labkit import Decoder, load, read_questions
    from labkit.explain import explain

    decoder = Decoder(load(base, device), heads)
    found = explain(decoder, read_questions(prompts), max_new_tokens, say)
    acceptance = columns(
        found.acceptance,
        ("head", "{head}"),
        ("accepted if reached", "{conditional:.1%}"),
        ("of all steps", "{unconditional:.1%}"),
        ("in training", "{in_training:.1%}"),
    )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found.shares.items())
    like = "" if found.likeness is None else f"; likeness to training {found.likeness:.0%}"
    causes = [f"{c.cause}: {c.evidence}.\n  To do: {c.suggestion}." for c in found.causes]
    parts = (
        f"{found.base} with heads trained for {found.heads}: {found.tokens_per_step:.2f} "
        f"tokens per step, {found.speedup:.2f} times vanilla (predicted "
        f"{found.predicted_speedup:.2f})",
        acceptance,
        f"time of a step: {shares}; a check costs {found.verify_cost:.2f} plain passes\n"
        f"draft vocabulary covers {found.coverage:.0%} of what the model writes{like}",
        "\n".join(causes) or "No cause found: acceptance and times are as expected.",
    )
    return Report(found.model_dump(mode="json"), "\n\n".join(parts))


@reports
@base_option()
@click.option("--repeats", type=COUNT, default=15, help="Runs of each pass.")
@storage_option
@click.option("--parts", is_flag=True, help="Also print the time of each part of a pass.")
@device_option
def calibrate(*, base: str, repeats: int, storage: str, parts: bool, device: str | None) -> Report:
    """Time passes over 1 to 32 tokens and a read of memory; keep the tree that pays best."""
    from labkit import Decoder, load
    from labkit.speculative import calibrate

    decoder = Decoder(load(base, device), storage=storage)
    try:
        heads = decoder.heads
    except LabkitError as error:
        say(f"Without heads: {error}")
        heads = None
    measured = calibrate.calibrate(decoder.base, decoder.engine, heads, repeats)
    calibrate.keep(measured)
    timed = measured
    if parts or hasattr(decoder.engine, "parts"):
        found = calibrate.time_parts(decoder.engine, repeats)
        timed = measured.model_copy(update={"parts": found})
    more: dict[str, Any] = {"contended": measured.contended, "nodes": measured.nodes}
    unlike = None
    if storage != "float32":
        unlike = calibrate.unlike_float32(decoder.base, decoder.engine)
        more["difference"] = unlike.model_dump()
    result = timed.model_dump(mode="json") | more
    return Report(result, calibrate.summary(timed if parts else measured, unlike))
