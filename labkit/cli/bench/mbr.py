"""Benchmarks of minimum Bayes risk decoding, each on samples for every source of a test set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    EXISTING_FILE,
    FOLDER,
    Decorator,
    base_option,
    sampling_options,
    seed_option,
    together,
)
from labkit.cli._output import Report, columns, reports

if TYPE_CHECKING:
    from labkit.mbr.conditional import Conditional
    from labkit.mbr.draws import Draws
    from labkit.mbr.pairs import Case, Pair

COVERAGE = (0.25, 0.5, 0.75, 1.0)
"""The coverages at which risk-coverage curves are shown."""

FINDINGS = {
    "samples": "Decisions from 1, 2, 4, … samples; the gain is over one sample",
    "utilities": "Decisions under each utility; the gain is over the most frequent sample",
    "weightings": "How samples stand for p(y|x); the gain is over uniform",
}
"""What each table of ``choices`` shows."""

GAIN = (
    ("95%", "{low:.1f} to {high:.1f}"),
    ("gain", "{gain:+.1f}"),
    ("95%", "{gain_low:+.1f} to {gain_high:+.1f}"),
)
"""Columns of a score's interval, and of what it gains."""

resamples_option = click.option(
    "--resamples", type=COUNT, default=1000, help="Resamples of the bootstrap."
)


def drawing_options(
    weighting: str | None = None, epsilon: float = 0.0, pairs_required: bool = False
) -> Decorator:
    """Return the options that `prepared` takes; with a ``weighting`` also ``--weights``."""
    default = "" if pairs_required else " (default: the lab's own sentences)"
    return together(
        base_option("translator"),
        click.option(
            "--pairs",
            required=pairs_required,
            type=EXISTING_FILE,
            help=f"A source, a tab and its reference on each line{default}.",
        ),
        click.option(
            "--columns", help="The source's and the reference's columns, by name or number: 2,3."
        ),
        sampling_options(64, weighting, epsilon, longest=128),
    )


def prepared(
    *,
    base: str,
    pairs: Path | None,
    columns: str | None,
    utility: str,
    temperature: float,
    epsilon: float,
    device: str | None,
    **numbers: int,
) -> tuple[Conditional, list[Pair], Draws]:
    """Return the model, the test set and the way to draw, after checking everything.

    ``numbers`` are those of `labkit.mbr.draws.Draws`.
    """
    from labkit import load
    from labkit.mbr import utilities
    from labkit.mbr.conditional import check_sources, conditional
    from labkit.mbr.draws import Draws
    from labkit.mbr.pairs import read_pairs
    from labkit.paths import data_dir
    from labkit.sampling import Sampling

    utilities.get(utility)  # a wrong name is reported before the model is loaded
    how = Draws(sampling=Sampling(temperature=temperature, epsilon=epsilon), **numbers)
    default = data_dir() / "sentences" / "deu-eng.tsv"
    known = read_pairs(pairs or default, columns and columns.split(","))
    model = load(base, device)
    check_sources(model, [source for source, _ in known])
    return conditional(model), known, how


def drawn_cases(**drawing: Any) -> list[Case]:
    """Draw samples for every source of the test set; takes what `prepared` takes."""
    from tqdm import tqdm

    from labkit.mbr.pairs import draw_cases

    model, known, how = prepared(**drawing)
    cases = draw_cases(model, known, how)
    return list(tqdm(cases, total=len(known), unit=" sources", disable=None))


@reports
@drawing_options()
@resamples_option
def choices(*, utility: str, resamples: int, **drawing: Any) -> Report:
    """Decide a test set in every way from the same samples: number, utility, weighting."""
    from labkit.mbr.evaluate import textbook

    cases = drawn_cases(utility=utility, **drawing)
    found = textbook(cases, utility, resamples=resamples)
    shown = (
        ("metric", "{metric}"),
        ("decided by", "{system}"),
        ("score", "{score:.1f}"),
        *GAIN,
        ("p", "{p:.3f}"),
    )
    parts = [f"{said}:\n{columns(found[name], *shown)}" for name, said in FINDINGS.items()]
    parts.append(f"{len(cases):,} sentences; intervals and p by paired bootstrap")
    tables = {name: [asdict(row) for row in rows] for name, rows in found.items()}
    return Report({"segments": len(cases), **tables}, "\n\n".join(parts))


@reports
@click.option(
    "--peer",
    type=click.Choice(("mbrs", "mbr")),
    default="mbrs",
    help="The library to compare with.",
)
@click.option(
    "--peer-python",
    required=True,
    type=EXISTING_FILE,
    help="The Python of an environment where that library is installed.",
)
@drawing_options()
@resamples_option  # accepted as by its sister commands; nothing here is resampled
def mbr(*, peer: str, peer_python: Path, resamples: int, **drawing: Any) -> Report:
    """Decide the same samples here and by another library: decisions, expected scores, time.

    chrF, BLEU and TER exactly; with chrF also the decoders that both have.
    """
    from labkit.mbr.bench import compare_with_peer

    cases = []
    for case in drawn_cases(**drawing):
        texts = [one.text for one in case.samples for _ in range(one.count)]
        cases.append((texts, texts))
    rows = [asdict(row) for row in compare_with_peer(cases, peer, peer_python.absolute())]
    shown = []
    for row in rows:
        if row["missing"]:
            row.update(seconds=None, peer_seconds=None)
            unknown = dict.fromkeys(("same", "ties", "differ"))
            shown.append(row | unknown | {"why": row["missing"][:60]})
        else:
            differ = row["cases"] - row["same"] - row["ties"]
            shown.append(row | {"differ": differ, "why": row["reason"]})
    text = columns(
        shown,
        ("metric", "{metric}"),
        ("decoder", "{decoder}"),
        ("same", "{same}"),
        ("ties", "{ties}"),
        ("differ", "{differ}"),
        ("scores apart", "{apart:.1e}"),
        ("s here", "{seconds:.2f}"),
        (f"s {peer}", "{peer_seconds:.2f}"),
        ("why they may differ", "{why}"),
    )
    return Report(
        {"peer": peer, "cases": len(cases), "rows": rows},
        f"{text}\n\n{len(cases):,} sources. Duplicates are listed as often as drawn in both, so "
        "they count that often; scores are on 0 to 100, and the first of equal scores is taken.",
    )


@reports
@drawing_options(weighting="model", epsilon=0.02)
@resamples_option
@click.option("--size", type=COUNT, default=3, help="Hypotheses in a set.")
@click.option("--diversity", default=0.5, help="What likeness costs a set.")
@click.option("--metric", default="chrf", help="Scores the best of the set.")
def sets(
    *,
    size: int,
    diversity: float,
    metric: str,
    utility: str,
    weighting: Any,
    resamples: int,
    **drawing: Any,
) -> Report:
    """Choose sets of hypotheses, and score each set's best member against the reference."""
    from labkit.mbr import utilities
    from labkit.mbr.sets import compare_sets

    utilities.get(metric)
    cases = drawn_cases(utility=utility, **drawing)
    found = compare_sets(cases, size, utility, weighting, metric, diversity, resamples)
    shown = columns(
        found,
        (f"{size} chosen as", "{way}"),
        (f"oracle {metric}", "{oracle:.1f}"),
        *GAIN,
        ("set risk", "{risk:.4f}"),
    )
    rows = [asdict(row) for row in found]
    return Report(
        {"segments": len(cases), "size": size, "metric": metric, "sets": rows},
        f"{shown}\n\n{len(cases):,} sources; the oracle takes each set's best by the reference; "
        "gains are over the best single hypotheses.",
    )


@reports
@drawing_options("model", 0.02, pairs_required=True)
@click.option("--at-once", type=COUNT, default=32, help="Sources in memory.")
@click.option(
    "--journal",
    type=FOLDER,
    help="Folder that keeps what is done, so that a run that was stopped goes on.",
)
def translation(
    *, base: str, utility: str, weighting: Any, journal: Path | None, **drawing: Any
) -> Report | None:
    """Translate a test set by every system, and score them: quality and time."""
    from accelerate import PartialState
    from tqdm import tqdm

    from labkit.mbr.translation import Plan, scored, translate

    model, pairs, how = prepared(base=base, utility=utility, **drawing)
    plan = Plan(base=base, utility=utility, weighting=weighting, drawing=how)
    several = PartialState()
    share = several.process_index, several.num_processes
    with tqdm(unit=" sources", disable=None) as bar:
        result = scored(translate(model, pairs, plan, journal, share, bar.update))
    if not several.is_main_process:
        return None
    scores = columns(
        [{"system": name, **of} for name, of in result["systems"].items()],
        ("system", "{system}"),
        ("BLEU", "{bleu:.1f}"),
        ("chrF", "{chrf:.1f}"),
        ("seconds", "{seconds:.1f}"),
    )
    signatures = "\n".join(result["signature"].values())
    return Report(result, f"{scores}\n\n{result['segments']:,} segments\n{signatures}")


@reports
@drawing_options(weighting="counts")
@resamples_option
@click.option("--metric", default="chrf", help="True loss: 1 - this metric.")
def uncertainty(
    *, metric: str, utility: str, weighting: Any, resamples: int, **drawing: Any
) -> Report:
    """Draw a risk-coverage curve for each confidence score of an MBR decision, with its area.

    A score is good if the decisions it trusts least are the worst ones. The area under the curve
    is the mean loss over all coverages; lower is better.
    """
    from labkit.mbr import utilities
    from labkit.mbr.uncertainty import compare_areas, judge, risk_coverage

    utilities.get(metric)
    cases = drawn_cases(utility=utility, **drawing)
    judged = judge(cases, utility, weighting, metric)
    areas = [asdict(area) for area in compare_areas(judged.scores, judged.loss, resamples)]
    risk = {}
    for name, scores in judged.scores.items():
        curve = risk_coverage(scores, judged.loss).risk
        risk[name] = [float(curve[max(round(at * len(cases)), 1) - 1]) for at in COVERAGE]
    shown = columns(
        [{**area, "risk": risk[area["score"]]} for area in areas],
        ("confidence", "{score}"),
        *((f"loss at {at:.0%}", f"{{risk[{i}]:.3f}}") for i, at in enumerate(COVERAGE)),
        ("area", "{area:.4f}"),
        ("95%", "{low:.4f} to {high:.4f}"),
        ("area - minimum risk's", "{excess:+.4f}"),
        ("95%", "{excess_low:+.4f} to {excess_high:+.4f}"),
    )
    found = {"areas": areas, "coverage": list(COVERAGE), "risk": risk}
    return Report(
        {"segments": len(cases), "metric": metric, **found},
        f"{shown}\n\n{len(cases):,} decisions; loss is 1 - {metric} against the reference; "
        "intervals by paired bootstrap. Lower is better.",
    )


@reports
@click.option("--utility", default="chrf", help="One that sacrebleu has: chrf, bleu.")
@click.option("--size", type=COUNT, default=1024, help="Rows and columns of the matrix.")
@seed_option
def utilities(*, utility: str, size: int, seed: int) -> Report:
    """Time a matrix of a utility, and check it against sacrebleu's."""
    from labkit.mbr.bench import bench_utility

    result = bench_utility(utility, size, seed)
    lines = [
        f"{utility}, {size:,} x {size:,}: {result['seconds']:.3f} s",
        f"{result['ratio_sacrebleu']:,.0f} times as fast as sacrebleu (its time taken from "
        f"{result['pairs_sacrebleu']} pairs)",
        f"at most {result['max_abs_difference']:.1e} from sacrebleu's scores, of 100",
    ]
    if result["ratio_fastchrf"] is not None:
        lines.append(f"{result['ratio_fastchrf']:.1f} times as fast as fastchrf")
    if "note" in result:
        lines.append(result["note"])
    return Report(result, "\n".join(lines))
