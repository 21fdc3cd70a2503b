"""The shipped records of a base model, for pages without a kernel.

`labkit record` makes them; the gallery, the README's pictures and the widgets' examples show them.
"""

from __future__ import annotations

from pathlib import Path

from labkit.mbr.conditional import conditional
from labkit.mbr.decide import decode
from labkit.mbr.draws import Draws, draw
from labkit.mbr.pairs import read_pairs
from labkit.models import load
from labkit.paths import data_dir
from labkit.provenance import provenance
from labkit.records import Record
from labkit.sampling import Sampling
from labkit.speculative.calibrate import calibrate
from labkit.speculative.decoder import Decoder
from labkit.speculative.theory import Acceptance, tree_study

RACE_PROMPT = "Explain to a beginner how a lighthouse works."
STEP_PROMPT = "Write three short sentences about a library at night."
TRANSLATED = "Ich würde gerne mitkommen, aber ich muss noch arbeiten."
"""The sentence of the Bayes decision, among the shipped ones; its translations are alike."""

NEW_TOKENS = 96
SAMPLES = 48
REPEATS = 7


Made = tuple[dict[str, Record], int | None, str]
"""Records by name, and for their provenance the seed and a note."""


def race(decoder: Decoder) -> Made:
    """Record vanilla and the heads on one prompt, interleaved."""
    result = decoder.race(RACE_PROMPT, NEW_TOKENS, ("vanilla", "mlp"), REPEATS)
    records: dict[str, Record] = {f"race-{trace.method}": trace for trace in result.traces}
    return records, None, f"the run of median time of {REPEATS}, interleaved"


def steps(decoder: Decoder) -> Made:
    """Record one generation in detail, greedy and sampled."""
    warm = Sampling(temperature=0.7)
    records: dict[str, Record] = {
        "trace-greedy": decoder.trace(STEP_PROMPT, 64, "mlp"),
        "trace-sampled": decoder.trace(STEP_PROMPT, 64, "mlp", warm, seed=0),
    }
    return records, 0, "recorded in detail, which takes time: for its steps"


def risk(_decoder: Decoder) -> Made:
    """Record one Bayes decision over translations of one sentence, by the small translator."""
    reference = dict(read_pairs(data_dir() / "sentences" / "deu-eng.tsv"))[TRANSLATED]
    translator = load("translator")
    (drawn,) = draw(conditional(translator), [TRANSLATED], Draws(SAMPLES, 64, seed=0))
    table = decode(
        drawn,
        utility="chrf",
        base=translator.name,
        source=TRANSLATED,
        reference=reference,
        seed=0,
    )
    return {"risk": table}, 0, ""


def tree(decoder: Decoder) -> Made:
    """Record what trees of the heads would gain and cost on this machine."""
    found = calibrate(decoder.base, decoder.engine, decoder.heads, REPEATS)
    study = tree_study(
        "mlp",
        decoder.base.name,
        Acceptance(found.acceptance, found.places),
        found.verify_cost,
        [milliseconds / 1e3 for milliseconds in found.head_ms],
        found.token_ms / 1e3,
    )
    note = f"contention {found.contention:.2f}, bandwidth {found.bandwidth_gb_s:.0f} GB/s"
    return {"tree": study}, None, note


MAKERS = {"race": race, "steps": steps, "risk": risk, "tree": tree}
"""The makers of records by name."""


def record(base: str, folder: Path, kinds: tuple[str, ...], command: str) -> list[Path]:
    """Make records of these kinds with ``base``, write them to ``folder``, return the paths.

    ``command`` is the command that does so, for their provenance.
    """
    decoder = Decoder(base)
    paths = []
    for kind in kinds:
        records, seed, note = MAKERS[kind](decoder)
        made = provenance(command, seed, note)
        for name, found in records.items():
            whole = found.model_copy(update={"provenance": made})
            paths.append(whole.save(folder / f"{name}.json"))
    return paths
