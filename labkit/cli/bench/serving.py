"""``labkit bench serving``: latency against users, measured here or on a server, or computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labkit.cli._options import (
    COUNT,
    FILE,
    base_option,
    device_option,
    longest_option,
    prompts_option,
    seed_option,
)
from labkit.cli._output import Report, columns, given_command, reports, say
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.serving.bench import Outcome

MEASURED_USERS = (1, 2, 4, 8)
SIMULATED_USERS = (*MEASURED_USERS, 16, 32, 64, 128)


def numbers_of(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """Return a parser of numbers above 0 with commas between them."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            found = tuple(kind(part) for part in text.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < number < float("inf") for number in found):
            what = "whole numbers" if kind is int else "numbers"
            raise click.BadParameter(f"{text!r} is not a list of {what} above 0, such as 1,2,4.")
        return found

    return numbers


@reports
@base_option()
@click.option(
    "--users",
    type=numbers_of(int),
    help="Users at once, level by level (default: 1,2,4,8; simulated up to 128).",
)
@click.option(
    "--rates",
    type=numbers_of(float),
    help="Instead of users: requests a second (a Poisson process).",
)
@click.option(
    "--requests", type=COUNT, default=24, help="Requests at each level, at least one for each user."
)
@longest_option()
@prompts_option
@click.option("--methods", default="vanilla,mlp", help="Methods, separated by commas.")
@click.option("--slots", type=COUNT, help="Requests answered at once (default: users, up to 32).")
@click.option("--check", is_flag=True, help="Simulate the same users too, and compare the gains.")
@click.option(
    "--url", help="Measure the server at this address (OpenAI's protocol), not a model here."
)
@click.option("--model", help="The model to use on that server (default: the first it lists).")
@click.option(
    "--shape",
    help="Measure random weights of this shape, as llama2-13b; drafts are kept by --acceptance.",
)
@click.option("--simulate", is_flag=True, help="Compute a model on a GPU, measure nothing.")
@click.option("--model-params", type=float, default=13e9, help="Parameters of the computed model.")
@click.option(
    "--gpu",
    type=click.Choice(["a100", "h100", "h200", "l4", "t4"]),
    default="a100",
    help="GPU of the computed model.",
)
@click.option(
    "--acceptance",
    type=numbers_of(float),
    help="How often each head is right, as 0.6,0.5,0.4 (default: as the heads of --base are).",
)
@click.option(
    "--out", type=FILE, help="Save the record in this file, for the ServingCurves widget."
)
@seed_option
@device_option
def serving(
    *,
    base: str,
    users: tuple[int, ...] | None,
    rates: tuple[float, ...] | None,
    requests: int,
    max_new_tokens: int,
    prompts: Path | None,
    methods: str,
    slots: int | None,
    check: bool,
    url: str | None,
    model: str | None,
    shape: str | None,
    simulate: bool,
    model_params: float,
    gpu: str,
    acceptance: Sequence[float] | None,
    out: Path | None,
    seed: int,
    device: str | None,
) -> Report:
    """Measure TTFT, ITL and time per token as users grow, plain and speculative."""
    if sum(map(bool, (simulate, url, shape))) > 1:
        raise LabkitError("Give only one of --simulate, --url and --shape.")
    if users and rates:
        raise LabkitError("Give --users, who wait for their answers, or --rates, not both.")
    from labkit import Decoder, load, read_questions
    from labkit.serving import bench
    from labkit.serving.replay import bench_replayed
    from labkit.serving.targets import RemoteServer

    counts = users or (SIMULATED_USERS if simulate else MEASURED_USERS)
    levels = [bench.Level(rate=rate) for rate in rates or ()]
    levels = levels or [bench.Level(users=count) for count in counts]
    loads = bench.Loads(levels, requests, max_new_tokens, seed, given_command())
    accept = acceptance or (bench.shipped_acceptance(base) if simulate or shape else ())
    if simulate:
        outcome = bench.bench_simulated(gpu, model_params, [[share] for share in accept], loads)
    elif shape:
        outcome = bench_replayed(shape, accept, loads, device, slots, say)
    else:
        texts = [question.turns[0] for question in read_questions(prompts)]
        if url:
            outcome = bench.bench_server(RemoteServer(url, model), texts, loads, say)
        else:
            decoder = Decoder(load(base, device))
            chosen = [name.strip() for name in methods.split(",")]
            outcome = bench.bench_engine(decoder, texts, loads, chosen, slots, check, say)
    if out:
        outcome.log.save(out)
    kept = {"name", "base", "target", "max_new_tokens", "rows"}
    result = outcome.log.model_dump(mode="json", include=kept) | {
        "identical": outcome.identical,
        "decisions": outcome.decisions,
        "checks": [
            {
                "users": check.users,
                "method": check.method,
                "measured_gain": check.measured,
                "predicted_gain": check.predicted,
                "error": check.error,
            }
            for check in outcome.checks
        ],
        "contention": outcome.contention,
        "contended": outcome.contended,
        "lost": outcome.lost,
    }
    lost = f"{outcome.lost} The figures above are from before that." if outcome.lost else ""
    return Report(result, as_text(outcome), problem=lost)


def as_text(outcome: Outcome) -> str:
    """Return the outcome for a person: a row for each load and method, then remarks."""
    from labkit.records import gains

    log = outcome.log
    found = {origin: gains(log.rows, origin) for origin in ("measured", "simulated")}
    rows = [
        vars(row)
        | {
            "load": f"{row.rate_per_s:g}/s" if row.rate_per_s else row.users,
            "gain": found[row.origin].get((row.users, row.method)),
        }
        for row in log.rows
    ]
    figures = columns(
        rows,
        ("load", "{load}"),
        ("method", "{method}"),
        ("origin", "{origin}"),
        ("TTFT ms", "{ttft_ms.mean:.0f}"),
        ("p90", "{ttft_ms.p90:.0f}"),
        ("TPOT ms", "{tpot_ms.mean:.1f}"),
        ("p90", "{tpot_ms.p90:.1f}"),
        ("ITL ms", "{itl_ms.mean:.1f}"),
        ("p90", "{itl_ms.p90:.1f}"),
        ("tokens/s", "{tokens_per_s:.1f}"),
        ("tokens/step", "{tokens_per_step:.2f}"),
        ("drafted", "{nodes_per_step:.1f}"),
        ("gain", "{gain:.2f}"),
        ("errors", "{errors}"),
    )
    parts = [
        f"{log.name} ({log.target}), up to {log.max_new_tokens} tokens",
        figures,
        "TPOT is the time per token, which the lecture calls inter-token latency; ITL is the gap "
        "between outputs, each of which can hold several tokens. Gain: vanilla's TPOT over this.",
    ]
    if log.provenance and log.provenance.note:
        parts.append(log.provenance.note)
    for method, decisions in outcome.decisions.items():
        told = f"How much {method} drafts after each row, by the costs measured before the load:"
        parts.append("\n".join((told, *decisions)))
    if outcome.checks:
        checks = columns(
            [vars(check) | {"error": check.error} for check in outcome.checks],
            ("users", "{users}"),
            ("method", "{method}"),
            ("measured gain", "{measured:.2f}"),
            ("predicted", "{predicted:.2f}"),
            ("error", "{error:+.0%}"),
        )
        parts.append(checks)
    if outcome.identical is not None:
        same = "the same" if outcome.identical else "NOT the same"
        parts.append(f"Every prompt got {same} answer at every load and by every method.")
    if outcome.contended:
        parts.append(
            f"Other processes took {outcome.contention:.0%} of the processor during the run, so "
            "these times mean little: run it again when the machine is quiet."
        )
    return "\n\n".join(parts)
