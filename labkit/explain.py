"""Diagnosis of speculative decoding: why acceptance is low, or the speedup below what is expected.

"Good in training, no gain in serving" is the most frequent complaint about speculative decoding. A
report compares what heads achieve on given prompts with what they achieved in training, splits the
time of a step, and names each cause that it finds with one suggestion.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import Field

from labkit import threads
from labkit.errors import LabkitError
from labkit.models import LanguageModel, load
from labkit.paths import data_dir
from labkit.questions import Question
from labkit.records import LossLog
from labkit.records.base import Part, Probability, RecordError
from labkit.speculative.decoder import Decoder, heads_folder
from labkit.speculative.generate import Generation

COVERED = 0.85
"""Least share of the base model's tokens that a draft vocabulary should hold."""

KEPT = 0.6
"""Least acceptance of head 1 relative to training that is still ordinary for other prompts."""

FOREIGN = 0.1
"""Acceptance of head 1 below which the heads cannot have been trained for this model."""

LIKE = 0.15
"""Least share of a prompt's token pairs that should occur in the training prompts."""

DEAR = 1.7
"""Verify cost, in plain passes, above which a tree needs more acceptance than heads have."""

SLOW = 0.3
"""Share of a step's time above which drafting is the bottleneck."""


class Acceptance(Part):
    """How often a head's drafts were accepted.

    ``conditional``: of the steps in which verification reached the head's depth; ``unconditional``:
    of all steps. ``in_training``: on the held-out text at the end of training, where that is known.
    """

    head: int
    conditional: Probability
    unconditional: Probability
    in_training: Probability | None


class Cause(Part):
    """One cause: ``template``, ``heads``, ``vocabulary``, ``prompts``, ``contention``,
    ``verify_cost`` or ``draft_time``; its evidence; and one suggestion."""

    cause: str
    evidence: str
    suggestion: str


class Explanation(Part):
    """The report; shares are of a step's time, ``verify_cost`` is in plain passes.

    ``coverage``: share of the base model's own tokens that the heads can draft. ``likeness``: share
    of the prompts' token pairs that occur in the training prompts; null where those are not kept.
    ``predicted_speedup`` follows from tokens per step and the measured costs.
    """

    base: str
    heads: str
    prompts: int
    tokens: int
    identical: bool
    tokens_per_step: float
    acceptance: tuple[Acceptance, ...]
    coverage: Probability
    likeness: Probability | None
    shares: dict[str, Probability]
    verify_cost: float
    contention: Probability
    speedup: float
    predicted_speedup: float
    causes: tuple[Cause, ...] = Field(default=())


def explain(
    decoder: Decoder,
    questions: Sequence[Question],
    max_new_tokens: int = 64,
    watch: Callable[[str], None] = lambda _: None,
) -> Explanation:
    """Decode the first turn of every prompt by vanilla and by the heads, and report.

    ``watch`` is called with each finished prompt's id. Raises `LabkitError` for a prompt that does
    not fit the context, before anything runs.
    """
    base, heads = decoder.base, decoder.heads
    prompts = [decoder.encode(question.turns[0], max_new_tokens) for question in questions]
    decoder.warm_up("vanilla")
    decoder.warm_up("mlp")
    plain: list[Generation] = []
    drafted: list[Generation] = []
    taken = [threads.contention()]
    for question, ids in zip(questions, prompts, strict=True):
        plain.append(decoder.generate(ids, max_new_tokens, "vanilla"))
        drafted.append(decoder.generate(ids, max_new_tokens, "mlp"))
        taken.append(threads.contention())
        watch(question.id)
    steps = [step for done in drafted for step in done.steps]
    passes = [step.check_s + step.rest_s for done in plain for step in done.steps]
    if not steps or not passes:
        raise LabkitError("Every answer ended after one token: give other or longer prompts.")
    parts = {
        part: statistics.fmean(getattr(step, f"{part}_s") for step in steps)
        for part in ("draft", "check", "rest")
    }
    whole, token = sum(parts.values()), statistics.fmean(passes)
    per_step = sum(len(step.committed) for step in steps) / len(steps)
    written = np.concatenate([done.tokens for done in plain])
    found = Explanation(
        base=base.name,
        heads=heads.config.base if hasattr(heads.config, "base") else "unknown",
        prompts=len(prompts),
        tokens=len(written),
        identical=[done.tokens for done in plain] == [done.tokens for done in drafted],
        tokens_per_step=per_step,
        acceptance=tuple(_acceptance(drafted, _trained(decoder))),
        coverage=float(np.isin(written, heads.draft_ids).mean()),
        likeness=_likeness(base, prompts),
        shares={part: seconds / whole for part, seconds in parts.items()},
        verify_cost=parts["check"] / token,
        contention=statistics.fmean(taken),
        speedup=sum(d.seconds for d in plain) / sum(d.seconds for d in drafted),
        predicted_speedup=per_step * token / whole,
    )
    return found.model_copy(update={"causes": tuple(_causes(found, base))})


def _acceptance(
    drafted: Sequence[Generation], trained: Sequence[float] | None
) -> Iterator[Acceptance]:
    """Count, for each depth, the steps that reached it and those that accepted a node there."""
    reached: Counter[int] = Counter()
    accepted: Counter[int] = Counter()
    steps = [step for done in drafted for step in done.steps]
    for step in steps:
        depths = step.draft.depths
        reached.update({depths[test.node] for test in step.verdict.tests})
        accepted.update(depths[node] for node in step.verdict.path)
    for depth in sorted(reached):
        yield Acceptance(
            head=depth,
            conditional=accepted[depth] / reached[depth],
            unconditional=accepted[depth] / len(steps),
            in_training=trained[depth - 1] if trained and depth <= len(trained) else None,
        )


def _trained(decoder: Decoder) -> Sequence[float] | None:
    """Return each head's acceptance at the end of training, from the log kept with the heads."""
    folder = decoder.folder or heads_folder(decoder.base.name)
    try:
        validation = LossLog.load(folder / "losslog.json").validation
    except RecordError:
        return None
    return validation[-1].accept if validation else None


def _likeness(base: LanguageModel, prompts: Sequence[Sequence[int]]) -> float | None:
    """Return the share of the prompts' token pairs that occur in the training prompts."""
    from labkit.training.answers import read_answers

    folder = data_dir() / "answers" / Path(base.name).name
    if not folder.is_dir():
        return None
    kept = read_answers(folder).sequences
    asked = (kept.row(row)[:given].tolist() for row, given in enumerate(kept.given.tolist()))
    known = {pair for ids in asked for pair in pairwise(ids)}
    pairs = [pair for ids in prompts for pair in pairwise(ids)]
    return sum(pair in known for pair in pairs) / max(len(pairs), 1)


def _origin(name: str) -> LanguageModel | None:
    """Return the model that the heads were trained for, if it is on this machine."""
    try:
        return load(name, device="cpu") if name in ("real", "tiny") or Path(name).is_dir() else None
    except LabkitError:
        return None


def _same_weights(one: LanguageModel, other: LanguageModel) -> bool:
    """Return whether two models have the same embeddings and the same first layer."""
    ours, theirs = one.weights(), other.weights()
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name])
        for name in ours
        if "embed_tokens" in name or ".layers.0." in name
    )


def _causes(found: Explanation, base: LanguageModel) -> Iterator[Cause]:
    """Yield the causes that the figures show, the most fundamental first."""
    first = found.acceptance[0] if found.acceptance else None
    origin = _origin(found.heads)
    other = origin is not None and not _same_weights(base, origin)
    refused = first and first.conditional < FOREIGN and found.coverage >= COVERED
    retold = origin and origin.tokenizer.chat_template != base.tokenizer.chat_template
    fell = first and first.in_training and first.conditional < KEPT * first.in_training
    foreign = found.likeness is not None and found.likeness < LIKE
    busy = found.contention > threads.CONTENDED
    weights = ", which has other weights than this model" if other else ""
    for holds, cause, evidence, suggestion in (
        (other or refused, "heads", f"the heads were trained for {found.heads!r}{weights}; head 1 "
         f"is accepted in {first.conditional if first else 0:.0%} of the steps",
         "use heads that were trained for this very model, fine-tuning included"),
        (retold and not (other or refused), "template", "the chat template differs from that of "
         "the model that wrote the answers",
         "restore the chat template that was used in training, or train on answers made with the "
         "new one"),
        (found.coverage < COVERED, "vocabulary", f"the draft vocabulary holds {found.coverage:.0%} "
         "of the tokens that the model writes",
         "give the heads more draft tokens, chosen by frequency in the model's own answers"),
        (fell and foreign, "prompts", f"{found.likeness or 0:.0%} of the prompts' token pairs "
         "occur in the training prompts", "train on answers to prompts like these"),
        (busy, "contention", f"other processes took {found.contention:.0%} of the processor",
         "end them and measure again: the times below mean little until then"),
        (not busy and found.verify_cost > DEAR and found.speedup < 1, "verify_cost",
         f"checking a tree costs {found.verify_cost:.2f} plain passes",
         "run `labkit calibrate`, which picks the tree that pays on this machine, or give a "
         "smaller one"),
        (not busy and found.shares["draft"] > SLOW, "draft_time", "drafting takes "
         f"{found.shares['draft']:.0%} of a step",
         "use fewer heads or a smaller draft vocabulary, or run the heads on the base model's "
         "device"),
    ):  # fmt: skip
        if holds:
            yield Cause(cause=cause, evidence=evidence, suggestion=suggestion)
