"""``labkit race``: one prompt decoded the plain way and by a speculative method, timed in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import COUNT, base_option, device_option, max_new_tokens_option
from labkit.cli._output import json_option, only_results_on_stdout, table

if TYPE_CHECKING:
    from labkit.speculative.decoder import RaceResult


@click.command()
@base_option()
@click.option("--prompt", required=True, help="What the model answers.")
@max_new_tokens_option
@click.option(
    "--method",
    default="mlp",
    show_default=True,
    help="What races vanilla: mlp, mlp_lookup, medusa, eagle, prompt_lookup.",
)
@click.option(
    "--repeats", type=COUNT, default=3, show_default=True, help="Runs of each, one after the other."
)
@device_option
@json_option
def command(
    *,
    base: str,
    prompt: str,
    max_new_tokens: int,
    method: str,
    repeats: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Decode a prompt plainly and speculatively: the same text, sooner."""
    with only_results_on_stdout() as show:
        from labkit import Decoder, load

        decoder = Decoder(load(base, device))
        race = decoder.race(prompt, max_new_tokens, ("vanilla", method), repeats)
        result = as_object(race, method)
        show(result if as_json else as_text(result))


def as_object(race: RaceResult, method: str) -> dict[str, Any]:
    """The race as a JSON object; times are those of the median run, prefill included."""
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
    """The race for a person: the text, the figures of both, and whether they wrote the same."""
    rows = [
        (
            name,
            str(figures["tokens"]),
            str(figures["steps"]),
            f"{figures['tokens_per_step']:.2f}",
            f"{figures['tokens_per_s']:.1f}",
        )
        for name, figures in result["methods"].items()
    ]
    header = ("method", "tokens", "steps", "tokens/step", "tokens/s")
    same = "the same text" if result["identical"] else "DIFFERENT texts"
    ties = f", {result['ties']} place(s) where two tokens all but tie" if result["ties"] else ""
    verdict = f"{same}{ties}; {result['method']} is {result['speedup']:.2f} times as fast"
    return f"{result['text']}\n\n{table(header, rows)}\n{verdict}"
