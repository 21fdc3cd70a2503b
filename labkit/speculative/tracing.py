"""The steps of a `Trace`, which widgets, plots and assignments read, from the loop's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from labkit.records import Candidate, Node, Outlook, Step, Token
from labkit.speculative.drafters.mlp import SHOWN
from labkit.speculative.generate import GeneratedStep
from labkit.speculative.tree import ROOT
from labkit.speculative.verify import Test

TokenText = Callable[[int], str]


def traced(step: GeneratedStep, token_text: TokenText) -> Step:
    """Return a step as the record has it; ``token_text`` returns what a token looks like."""
    draft, verdict = step.draft, step.verdict
    tests = {test.node: test for test in verdict.tests}
    nodes = []
    for i, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
        test = tests.get(i, Test(i, accepted=False))
        p = test.p
        if p is None and step.probs is not None:
            p = float(step.probs[parent + 1, token])
        nodes.append(
            Node(
                id=token,
                text=token_text(token),
                parent=parent,
                depth=draft.depths[i],
                source=draft.sources[i],
                p=p,
                q=draft.q[i] if test.q is None else test.q,
                tested=i in tests,
                accepted=i in verdict.path,
                draw=test.draw,
                threshold=test.threshold,
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

    def candidates(pairs: Iterable[tuple[int, float]]) -> tuple[Candidate, ...]:
        return tuple(Candidate(id=t, text=token_text(t), prob=min(p, 1.0)) for t, p in pairs)

    found = []
    for place in sorted({ROOT, *step.verdict.path, *step.draft.parents}):
        top = step.probs[place + 1].topk(SHOWN)
        base = candidates(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        drafter = candidates(step.draft.considered.get(place, ()))
        found.append(Outlook(after=place, base=base, drafter=drafter))
    return tuple(found)
