"""``labkit bench serving``: latency against users, measured here or on a server, or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    base_option,
    device_option,
    max_new_tokens_option,
    seed_option,
)
from labkit.cli._output import json_option, only_results_on_stdout, say, table
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.serving.bench import Loads, Outcome

MEASURED_USERS, SIMULATED_USERS = "1,2,4,8", "1,2,4,8,16,32,64,128"


class Numbers(click.ParamType):
    """Numbers above 0 with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a tuple of the numbers; fail with a sentence on an invalid value."""
        if not isinstance(value, str):
            return value
        try:
            found = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < number < float("inf") for number in found):
            what = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"{value!r} is not a list of {what} above 0, such as 1,2,4.", param, ctx)
        return found


@click.command()
@base_option()
@click.option(
    "--users",
    type=Numbers(int),
    help=f"Users at once, level by level (default: {MEASURED_USERS}; simulated up to 128).",
)
@click.option(
    "--rates", type=Numbers(float), help="Instead of users: requests a second (a Poisson process)."
)
@click.option(
    "--requests",
    type=COUNT,
    default=24,
    show_default=True,
    help="Requests at each level, at least one for each user.",
)
@max_new_tokens_option
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines with id, category, and prompt or turns (default: the lab's own 48).",
)
@click.option(
    "--methods", default="vanilla,mlp", show_default=True, help="Methods, separated by commas."
)
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
@click.option(
    "--model-params",
    type=float,
    default=13e9,
    show_default=True,
    help="Parameters of the computed model.",
)
@click.option(
    "--gpu",
    type=click.Choice(["a100", "h100", "h200", "l4", "t4"]),
    default="a100",
    show_default=True,
    help="GPU of the computed model.",
)
@click.option(
    "--acceptance",
    type=Numbers(float),
    help="How often each head is right, as 0.6,0.5,0.4 (default: as the heads of --base are).",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the record in this file, for the ServingCurves widget.",
)
@seed_option
@device_option
@json_option
def command(*, out: Path | None, as_json: bool, **given: Any) -> None:
    """Measure TTFT, ITL and time per token as users grow, plain and speculative."""
    asked = Asked(**given)
    with only_results_on_stdout() as show:
        from labkit.serving.bench import Level, Loads

        if asked.rates:
            levels = [Level(rate=rate) for rate in asked.rates]
        else:
            default = SIMULATED_USERS if asked.simulate else MEASURED_USERS
            counts = asked.users or map(int, default.split(","))
            levels = [Level(users=count) for count in counts]
        loads = Loads(levels, asked.requests, asked.max_new_tokens, asked.seed)
        outcome = measure(asked, loads)
        if out:
            outcome.log.save(out)
        show(as_object(outcome) if as_json else as_text(outcome))
    if outcome.lost:
        raise LabkitError(f"{outcome.lost} The figures above are from before that.")


@dataclass(frozen=True)
class Asked:
    """The command's options."""

    base: str
    users: tuple[int, ...] | None
    rates: tuple[float, ...] | None
    requests: int
    max_new_tokens: int
    prompts: Path | None
    methods: str
    slots: int | None
    check: bool
    url: str | None
    model: str | None
    simulate: bool
    shape: str | None
    model_params: float
    gpu: str
    acceptance: tuple[float, ...] | None
    seed: int
    device: str | None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.simulate, self.url, self.shape))) > 1:
            raise LabkitError("Give only one of --simulate, --url and --shape.")
        if self.users and self.rates:
            raise LabkitError("Give --users, who wait for their answers, or --rates, not both.")


def measure(asked: Asked, loads: Loads) -> Outcome:
    """Put the loads on what was asked for."""
    from labkit.serving import bench

    accept: Sequence[float] = asked.acceptance or ()
    if (asked.simulate or asked.shape) and not accept:
        accept = bench.shipped_acceptance(asked.base)
    if asked.simulate:
        return bench.bench_simulated(asked.gpu, asked.model_params, [[a] for a in accept], loads)
    if asked.shape:
        from labkit.serving.replay import bench_replayed

        return bench_replayed(asked.shape, accept, loads, asked.device, asked.slots, say)

    from labkit.questions import read_questions

    texts = [question.turns[0] for question in read_questions(asked.prompts)]
    if asked.url:
        from labkit.serving.targets import RemoteServer

        return bench.bench_server(RemoteServer(asked.url, asked.model), texts, loads, say)

    from labkit.models import load
    from labkit.speculative.decoder import Decoder

    decoder = Decoder(load(asked.base, asked.device))
    methods = [name.strip() for name in asked.methods.split(",")]
    return bench.bench_engine(decoder, texts, loads, methods, asked.slots, asked.check, say)


def as_object(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as a JSON object."""
    log = outcome.log
    return {
        "name": log.name,
        "base": log.base,
        "target": log.target,
        "max_new_tokens": log.max_new_tokens,
        "rows": [row.model_dump(mode="json") for row in log.rows],
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


HEADER = ("load", "method", "origin", "TTFT ms", "p90", "TPOT ms", "p90", "ITL ms", "p90")


def as_text(outcome: Outcome) -> str:
    """Return the outcome for a person: a row for each load and method, then remarks."""
    from labkit.records import gains

    log = outcome.log
    found = {origin: gains(log.rows, origin) for origin in ("measured", "simulated")}
    rows = []
    for row in log.rows:
        gain = found[row.origin].get((row.users, row.method))
        rows.append(
            (
                f"{row.rate_per_s:g}/s" if row.rate_per_s else str(row.users),
                row.method,
                row.origin,
                f"{row.ttft_ms.mean:.0f}",
                f"{row.ttft_ms.p90:.0f}",
                f"{row.tpot_ms.mean:.1f}",
                f"{row.tpot_ms.p90:.1f}",
                f"{row.itl_ms.mean:.1f}",
                f"{row.itl_ms.p90:.1f}",
                f"{row.tokens_per_s:.1f}",
                "" if row.tokens_per_step is None else f"{row.tokens_per_step:.2f}",
                "" if row.nodes_per_step is None else f"{row.nodes_per_step:.1f}",
                "" if gain is None else f"{gain:.2f}",
                str(row.errors),
            )
        )
    header = (*HEADER, "tokens/s", "tokens/step", "drafted", "gain", "errors")
    parts = [
        f"{log.name} ({log.target}), up to {log.max_new_tokens} tokens",
        table(header, rows),
        "TPOT is the time per token, which the lecture calls inter-token latency; ITL is the gap "
        "between outputs, each of which can hold several tokens. Gain: vanilla's TPOT over this.",
    ]
    if log.provenance and log.provenance.note:
        parts.append(log.provenance.note)
    for method, decisions in outcome.decisions.items():
        told = f"How much {method} drafts after each row, by the costs measured before the load:"
        parts.append("\n".join((told, *decisions)))
    if outcome.checks:
        lines = [
            (
                str(check.users),
                check.method,
                f"{check.measured:.2f}",
                f"{check.predicted:.2f}",
                f"{check.error:+.0%}",
            )
            for check in outcome.checks
        ]
        parts.append(table(("users", "method", "measured gain", "predicted", "error"), lines))
    if outcome.identical is not None:
        same = "the same" if outcome.identical else "NOT the same"
        parts.append(f"Every prompt got {same} answer at every load and by every method.")
    if outcome.contended:
        parts.append(
            f"Other processes took {outcome.contention:.0%} of the processor during the run, so "
            "these times mean little: run it again when the machine is quiet."
        )
    return "\n\n".join(parts)
