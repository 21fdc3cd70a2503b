"""Made-up but plausible traces, the same on every run, for tests to look at widgets with."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from labkit.records import ROOT, Candidate, Node, Outlook, Step, Token, Trace

PASSAGE = (
    "A library at night keeps its own hours.\n\nThe lamps go out one by one, and what is left is "
    "the sound of paper settling. Someone walks along the shelves and reads the titles aloud: "
    "maps of rivers, letters from the north, a book on the repair of clocks. “Which?” she asks. "
    "Nobody answers, so she takes the third.\n    for page in book:\n        turn(page)\n"
    "It smells of rain and of the tram that runs past the door. "
)
HOSTILE = (
    "<img src=x onerror=\"document.title='stolen'\">",
    "</script><script>alert(1)</script>",
    " \u202egnp.exe",
    "שלום",
    " עולם",
    " مرحبا",
    " كتاب",
    "e\u0301\u0323\u0308",
    "\u0301",
    " नमस्ते",
    "👩🏽‍🚀",
    "\ufffd",
    "",
    "\t\t",
    "\n\n\n",
    " " * 7,
    "\u200b",
    "supercalifragilisticexpialidocious" * 2,
)
PIECE = re.compile(r" ?\w+|\n+ *|[^\w\s]+|\s")
WORDS = tuple(dict.fromkeys(PIECE.findall(PASSAGE)))


def token(text: str) -> Token:
    """A token whose number depends on its text alone."""
    return Token(
        id=sum(place * ord(letter) for place, letter in enumerate(text, 1)) % 49_152, text=text
    )


@dataclass
class Plan:
    """How a made-up generation drafts: ``widths`` children for each node of each level."""

    widths: tuple[int, ...]
    temperature: float
    source: str
    detail: bool
    rng: random.Random
    word: Callable[[int], str]


@dataclass
class Draft:
    """A step in the making."""

    nodes: list[Node] = field(default_factory=list)
    outlooks: list[Outlook] = field(default_factory=list)
    tip: int = ROOT
    """The last accepted node."""
    open: bool = True
    """Whether every test so far was passed."""


def make_trace(
    *,
    steps: int = 24,
    widths: tuple[int, ...] = (1, 1, 1),
    temperature: float = 0.0,
    seed: int = 0,
    source: str = "head {depth}",
    texts: tuple[str, ...] | None = None,
    detail: bool = True,
    method: str = "mlp speculator",
) -> Trace:
    """A trace of that many steps; no ``widths`` is vanilla decoding.

    A draft is right with a chance that falls with its depth, as with trained heads.
    """
    words = texts or PIECE.findall(PASSAGE)
    plan = Plan(
        widths, temperature, source, detail, random.Random(seed), lambda at: words[at % len(words)]
    )
    place, made = 1, []
    for _ in range(steps):
        made.append(_step(plan, place))
        place += len(made[-1].committed)
    return Trace(
        method=method if widths else "vanilla",
        base="a made-up model",
        prompt="Write about a library at night.",
        prompt_tokens=9,
        temperature=temperature,
        seed=seed if temperature else None,
        first=token(words[0]),
        steps=tuple(made),
        text=words[0] + "".join(each.text for step in made for each in step.committed),
        prefill_s=0.031,
    )


def _step(plan: Plan, place: int) -> Step:
    """One step whose first committed token stands at ``place``."""
    draft, frontier = Draft(), [ROOT]
    for depth in range(1, len(plan.widths) + 1):
        first, tip = len(draft.nodes), draft.tip
        for parent in frontier:
            followed = draft.open and parent == tip and depth == _depth(draft, tip) + 1
            _children(plan, draft, parent, depth, place + depth - 1 if followed else None)
        draft.open = draft.open and draft.tip >= first
        frontier = list(range(first, len(draft.nodes)))
    path = [node.text for node in draft.nodes if node.accepted]
    committed = [*path, plan.word(place + len(path))]
    rng = plan.rng
    if draft.open and plan.detail:
        base = _candidates(rng, committed[-1], rng.uniform(0.4, 0.95))
        draft.outlooks.append(Outlook(after=draft.tip, base=base))
    ending = "plain" if not plan.widths else "bonus" if draft.open else "replacement"
    return Step(
        nodes=tuple(draft.nodes),
        committed=tuple(token(text) for text in committed),
        ending=ending,
        outlooks=tuple(draft.outlooks),
        draft_s=rng.uniform(0.002, 0.003) * len(plan.widths),
        check_s=rng.uniform(0.015, 0.019) * (1 + 0.02 * len(draft.nodes)),
        rest_s=rng.uniform(0.0004, 0.001),
    )


def _depth(draft: Draft, index: int) -> int:
    return 0 if index == ROOT else draft.nodes[index].depth


def _children(plan: Plan, draft: Draft, parent: int, depth: int, place: int | None) -> None:
    """Draft the children of ``parent``; test them where the accepted path came here (``place``)."""
    rng, width = plan.rng, plan.widths[depth - 1]
    truth = None if place is None else plan.word(place)
    hit = truth is not None and rng.random() < 0.92 - 0.17 * depth
    others = [word for word in WORDS if word != truth]
    ranked = rng.sample(others, max(width, 5))
    if hit:
        ranked[0 if rng.random() < 0.8 else rng.randrange(width)] = truth
    drafter = _candidates(rng, ranked[0], rng.uniform(0.45, 0.95), ranked[1:])
    base = _candidates(rng, truth or rng.choice(others), rng.uniform(0.4, 0.95), ranked[:2])
    share = {candidate.text: candidate.prob for candidate in base}
    done = False
    for candidate in drafter[:width]:
        p, q = share.get(candidate.text, 0.004), candidate.prob
        tested = truth is not None and not done
        accepted = tested and candidate.text == truth
        threshold = draw = None
        if tested and plan.temperature:
            threshold = max(min(1.0, p / q), 0.02)
            draw = rng.uniform(*((0, threshold) if accepted else (threshold, 1)))
            if not accepted and threshold == 1:
                threshold, p = 0.6, 0.6 * q
                draw = rng.uniform(threshold, 1)
        draft.nodes.append(
            Node(
                id=candidate.id,
                text=candidate.text,
                parent=parent,
                depth=depth,
                source=plan.source.format(depth=depth),
                p=p if plan.detail else None,
                q=q if plan.detail else None,
                tested=tested,
                accepted=accepted,
                draw=draw,
                threshold=threshold,
            )
        )
        if accepted:
            done, draft.tip = True, len(draft.nodes) - 1
    if truth is not None and plan.detail:
        draft.outlooks.append(Outlook(after=parent, base=base, drafter=drafter[:5]))


def _candidates(
    rng: random.Random, first: str, top: float, following: list[str] | None = None
) -> tuple[Candidate, ...]:
    """The head of a distribution: ``first`` with probability ``top``, then ever less."""
    rest = [word for word in following or () if word != first]
    rest += rng.sample([word for word in WORDS if word != first and word not in rest], 4)
    found, prob, left = [], top, 1.0
    for word in [first, *rest]:
        found.append(Candidate(**token(word).model_dump(), prob=prob))
        left -= prob
        prob = min(prob, left * rng.uniform(0.3, 0.8))
    return tuple(found[:8])


def hostile_trace(*, temperature: float = 0.0) -> Trace:
    """A trace whose tokens try to break the page: markup, direction, marks, blanks, controls."""
    return make_trace(steps=12, widths=(2, 1), temperature=temperature, seed=3, texts=HOSTILE * 3)
