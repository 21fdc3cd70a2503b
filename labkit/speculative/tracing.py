"""The steps of a `Trace`, which widgets, plots and assignments read, from the loop's."""

from __future__ import annotations

from collections.abc import Callable

from labkit.records import Candidate, Node, Outlook, Step, Token
from labkit.speculative.drafters.mlp import SHOWN
from labkit.speculative.generate import GeneratedStep
from labkit.speculative.tree import ROOT

TokenText = Callable[[int], str]


def traced(step: GeneratedStep, token_text: TokenText) -> Step:
    """Return a step as the record has it; ``token_text`` returns what a token looks like."""
    draft, verdict = step.draft, step.verdict
    tests = {test.node: test for test in verdict.tests}
    accepted = set(verdict.path)
    nodes = []
    for i, (token, parent, depth) in enumerate(
        zip(draft.tokens, draft.parents, draft.depths, strict=True)
    ):
        test = tests.get(i)
        p = test.p if test else None
        if p is None and step.probs is not None:
            p = float(step.probs[parent + 1, token])
        q = test.q if test and test.q is not None else draft.q[i]
        nodes.append(
            Node(
                id=token,
                text=token_text(token),
                parent=parent,
                depth=depth,
                source=draft.sources[i],
                p=p,
                q=q,
                tested=test is not None,
                accepted=i in accepted,
                draw=test.draw if test else None,
                threshold=test.threshold if test else None,
            )
        )
    return Step(
        nodes=tuple(nodes),
        committed=tuple(Token(id=token, text=token_text(token)) for token in step.committed),
        ending="cut" if step.cut else verdict.ending,
        outlooks=_outlooks(step, token_text),
        draft_s=step.draft_s,
        check_s=step.check_s,
        rest_s=step.rest_s,
    )


def _outlooks(step: GeneratedStep, token_text: TokenText) -> tuple[Outlook, ...]:
    """Return both models' candidates after the root and after each node tested or continued."""
    if step.probs is None:
        return ()

    def candidates(pairs: list[tuple[int, float]]) -> tuple[Candidate, ...]:
        return tuple(Candidate(id=t, text=token_text(t), prob=min(p, 1.0)) for t, p in pairs)

    places = {ROOT, *step.verdict.path, *step.draft.parents}
    found = []
    for place in sorted(places):
        top = step.probs[place + 1].topk(SHOWN)
        base = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        drafter = list(step.draft.considered.get(place, ()))
        found.append(Outlook(after=place, base=candidates(base), drafter=candidates(drafter)))
    return tuple(found)
