"""The page of the CPU study: every figure in it is computed from the shipped record."""

from __future__ import annotations

from string import Template

from labkit.bootstrap import ratio
from labkit.plots import plot_study
from labkit.records import StorageRow, StorageStudy
from labkit.speculative.bench import PEERS
from labkit.speculative.study import PLAIN
from labkit.threads import CONTENDED

NAME = "study.json"
"""The record, in data/records."""


def filled(page: str, study: StorageStudy, recorded: str) -> str:
    """The page, its places for tables and findings filled; ``recorded`` says how it was made."""
    return Template(page).substitute(
        setting=setting(study),
        figure=figure(study),
        tables="\n\n".join(table(study, text) for text in study.texts),
        absent=absent(study),
        shows="\n".join(f"* {finding}" for finding in findings(study)),
        recorded=recorded,
    )


def pictures(study: StorageStudy) -> dict[str, bytes]:
    """The figure for a light and for a dark page, by name."""
    return {f"study-{look}.png": plot_study(study, look == "dark").png() for look in LOOKS}


LOOKS = ("light", "dark")


def figure(study: StorageStudy) -> str:
    """The links to `pictures`; the theme shows the one that fits."""
    said = f"Speed of each method over vanilla's on {' and '.join(study.texts)} text"
    return "\n".join(f"![{said}](study-{look}.png){{.only-{look}}}" for look in LOOKS)


def setting(study: StorageStudy) -> str:
    """What was measured, in one paragraph; a warning where the machine was busy."""
    counts = {text: len(rows_of(study, text)[0].speeds) for text in study.texts}
    listed = " and ".join(f"{count} {text}" for text, count in counts.items())
    read = f" Its memory gave {study.bandwidth_gb_s:.0f} GB/s." if study.bandwidth_gb_s else ""
    warning = (
        f"\n\n```{{warning}}\nOther processes took {study.contention:.0%} of the processor during "
        "this run, so its speeds mean little.\n```"
        if study.contention > CONTENDED
        else ""
    )
    often = "once" if study.repeats == 1 else f"{study.repeats} times, and the median counts"
    return (
        f"The model `{study.base}`, {listed} prompts, up to {study.max_new_tokens} tokens each, "
        f"greedy, {study.threads} threads; each method decodes each prompt {often}.{read}{warning}"
    )


def rows_of(study: StorageStudy, text: str) -> list[StorageRow]:
    """The rows of one kind of text."""
    return [row for row in study.rows if row.text == text]


def bounds(pair: tuple[float, float] | None) -> str:
    """An interval in words."""
    return f"{pair[0]:.2f} to {pair[1]:.2f}" if pair else ""


def table(study: StorageStudy, text: str) -> str:
    """The rows of one kind of text as a Markdown table."""
    lines = [
        f"| {row.storage} | {row.method} | {row.tokens_per_s:.1f} | {row.tokens_per_step:.2f} "
        f"| {row.speedup:.2f} | {bounds(row.speedup_bounds)} | {row.of_fastest or 0:.2f} "
        f"| {bounds(row.of_fastest_bounds)} | {row.nodes or ''} "
        f"| {'yes' if row.identical else 'no'} |"
        for row in rows_of(study, text)
    ]
    head = (
        "storage | method | tokens/s | tokens per step | over vanilla | 95% "
        "| over fastest plain | 95% | nodes | same text"
    )
    rule = ":-- | :-- | --: | --: | --: | :-- | --: | :-- | --: | :--"
    return "\n".join([f"### On {text} text", "", f"| {head} |", f"| {rule} |", *lines])


def absent(study: StorageStudy) -> str:
    """What could not run, and why."""
    if not study.absent:
        return "Every method and every storage could run."
    lines = "\n".join(f"* `{name}`: {why}" for name, why in study.absent.items())
    return f"Not in the tables, and why:\n\n{lines}"


def findings(study: StorageStudy) -> list[str]:
    """What the figures say, a sentence or two each."""
    found = []
    for text in study.texts:
        rows = rows_of(study, text)
        drafted = [row for row in rows if row.method not in (*PLAIN, *PEERS)]
        told = f"**On {text} text** {sorted_out(drafted)}"
        if drafted:
            best = max(drafted, key=lambda row: row.speedup)
            told += (
                f" The largest gain is that of `{best.method}` with `{best.storage}`: "
                f"{best.speedup:.2f} times vanilla ({bounds(best.speedup_bounds)}). "
                + by_storage(drafted)
            )
        found.append(told)
        found += [
            sentence for name in ("transformers", "llama_cpp") if (sentence := own(rows, name))
        ]
    found.append(against_fastest(study))
    ours = [row for row in study.rows if row.method not in (*PLAIN, *PEERS)]
    same = [row for row in ours if row.identical]
    found.append(
        f"**Same output**: in {len(same)} of the lab's own {len(ours)} drafting rows every text "
        "is exactly vanilla's."
    )
    return found


def sorted_out(rows: list[StorageRow]) -> str:
    """How many methods are faster than vanilla, slower, or neither beyond chance."""
    pairs = [row.speedup_bounds for row in rows if row.speedup_bounds]
    faster = sum(low > 1 for low, _ in pairs)
    slower = sum(high < 1 for _, high in pairs)
    return (
        f"{faster} of {len(pairs)} drafting methods are faster than vanilla with the same storage, "
        f"{slower} are slower, and of {len(pairs) - faster - slower} the interval holds 1."
    )


def by_storage(rows: list[StorageRow]) -> str:
    """The best gain with each storage."""
    best = [
        max((row for row in rows if row.storage == storage), key=lambda row: row.speedup)
        for storage in dict.fromkeys(row.storage for row in rows)
    ]
    listed = ", ".join(f"`{row.storage}` {row.speedup:.2f} (`{row.method}`)" for row in best)
    return f"The best gain with each storage: {listed}."


def own(rows: list[StorageRow], name: str) -> str:
    """What a program's own prompt lookup adds to its plain decoding; empty if it did not run."""
    by_name = {row.method: row for row in rows}
    plain, lookup = by_name.get(name), by_name.get(f"{name}_prompt_lookup")
    if not plain or not lookup:
        return ""
    value, pair = ratio(lookup.speeds, plain.speeds)
    return (
        f"`{name}` with its own prompt lookup, on {plain.text} text, is {value:.2f} times as fast "
        f"as without ({bounds(pair)})."
    )


def against_fastest(study: StorageStudy) -> str:
    """What beats the fastest plain decoder beyond chance, for each kind of text."""
    if study.fastest is None:
        return "There was no plain decoder to compare with."
    storage, method = study.fastest
    told = [f"**The fastest plain decoder** is `{method}` with `{storage}`."]
    for text in study.texts:
        better = [
            f"`{row.method}` with `{row.storage}` ({row.of_fastest:.2f})"
            for row in rows_of(study, text)
            if row.of_fastest_bounds and row.of_fastest_bounds[0] > 1
        ]
        told.append(f"On {text} text, faster beyond chance: {', '.join(better) or 'nothing'}.")
    return " ".join(told)
