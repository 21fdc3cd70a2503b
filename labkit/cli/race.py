"""``labkit race``: one prompt decoded the plain way and by a speculative method, timed in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import COUNT, base_option, device_option, max_new_tokens_option
from labkit.cli._output import Report, columns, reports

if TYPE_CHECKING:
    from labkit.speculative.decoder import RaceResult


@reports
@base_option()
@click.option("--prompt", required=True, help="What the model answers.")
@max_new_tokens_option
@click.option(
    "--method",
    default="mlp",
    help="What races vanilla: mlp, mlp_lookup, medusa, eagle, prompt_lookup.",
)
@click.option("--repeats", type=COUNT, default=3, help="Runs of each, one after the other.")
@device_option
def command(
    *, base: str, prompt: str, max_new_tokens: int, method: str, repeats: int, device: str | None
) -> Report:
    """Decode a prompt plainly and speculatively: the same text, sooner."""
    from labkit import Decoder, load

    decoder = Decoder(load(base, device))
    race = decoder.race(prompt, max_new_tokens, ("vanilla", method), repeats)
    result = as_object(race, method)
    return Report(result, as_text(result))


def as_object(race: RaceResult, method: str) -> dict[str, Any]:
    """Return the race as a JSON object; times are those of the median run, prefill included."""
    identical, ties = race.compare(method)
    winner = race.typical[method]
    return {
        "base": race.decoder.base.name,
        "prompt": race.prompt,
        "method": method,
        "engine": race.decoder.engine.name,
        "identical": identical,
        "ties": ties,
        "tokens_per_step": winner.tokens_per_step,
        "speedup": race.speedup(method),
        "text": race.decoder.base.decode(winner.tokens),
        "methods": {
            name: {
                "tokens": len(done.tokens),
                "steps": len(done.steps),
                "tokens_per_s": len(done.tokens) / done.seconds,
                "tokens_per_step": done.tokens_per_step,
            }
            for name, done in race.typical.items()
        },
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the race for a person: the text, both figures, and whether the texts are equal."""
    figures = columns(
        [{"method": name, **figures} for name, figures in result["methods"].items()],
        ("method", "{method}"),
        ("tokens", "{tokens}"),
        ("steps", "{steps}"),
        ("tokens/step", "{tokens_per_step:.2f}"),
        ("tokens/s", "{tokens_per_s:.1f}"),
    )
    same = "the same text" if result["identical"] else "DIFFERENT texts"
    ties = f", {result['ties']} place(s) where two tokens all but tie" if result["ties"] else ""
    verdict = f"{same}{ties}; {result['method']} is {result['speedup']:.2f} times as fast"
    return f"{result['text']}\n\n{figures}\n{verdict}"
