"""`Trace`: one generation, step by step; what TokenStepper, Race and the acceptance plots read."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from labkit.records.base import Count, NotNegative, Part, Probability, Record, RecordError

ROOT = -1
"""The parent of a node that follows the last committed token."""


class Token(Part):
    """A token of the vocabulary and the text it stands for (a lone byte shows as U+FFFD)."""

    id: Count
    text: str


class Candidate(Token):
    """A token that a model considered, and the probability it gave it."""

    prob: Probability


class Node(Token):
    """One drafted token in a step's candidate tree.

    ``p`` and ``q`` are the base model's and the drafter's probability of this token after its
    parent. Under sampling ``draw`` is the uniform number drawn and the node is accepted if it is
    below ``threshold`` = min(1, p/q), both p and q as they stand at this node's turn; under greedy
    decoding both are null and the node is accepted if the base model's argmax is this token.
    ``tested`` is false where verification never reached the node. ``p`` and ``q`` are null in a
    trace recorded without detail.
    """

    parent: Annotated[int, Field(ge=ROOT)]
    depth: Annotated[int, Field(ge=1)]
    source: str
    p: Probability | None = None
    q: Probability | None = None
    tested: bool
    accepted: bool
    draw: Probability | None = None
    threshold: Probability | None = None


class Outlook(Part):
    """What both models would put after one place of the tree: the root (-1) or a node's index."""

    after: Annotated[int, Field(ge=ROOT)]
    base: tuple[Candidate, ...]
    drafter: tuple[Candidate, ...] = ()


class Step(Part):
    """One pass of the loop: draft, verify, commit.

    ``committed`` is the accepted path followed by one token of the base model's own: a
    ``replacement`` where a draft was rejected, a ``bonus`` where a whole path was accepted,
    ``plain`` where nothing was drafted. At the end of a generation the last tokens may be cut off:
    then ``ending`` is ``cut``. The three times add up to the step's time.
    """

    nodes: tuple[Node, ...] = ()
    committed: tuple[Token, ...]
    ending: Literal["replacement", "bonus", "plain", "cut"]
    outlooks: tuple[Outlook, ...] = ()
    draft_s: NotNegative = 0.0
    check_s: NotNegative = 0.0
    rest_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _check(self) -> Step:
        for index, node in enumerate(self.nodes):
            if node.parent >= index:
                raise RecordError(f"node {index} stands before its parent {node.parent}")
            above = 0 if node.parent == ROOT else self.nodes[node.parent].depth
            if node.depth != above + 1:
                raise RecordError(f"node {index} has depth {node.depth} under depth {above}")
        return self

    @property
    def seconds(self) -> float:
        """The step's time."""
        return self.draft_s + self.check_s + self.rest_s

    @property
    def accepted(self) -> tuple[int, ...]:
        """Indices of the accepted nodes, from the root down."""
        return tuple(index for index, node in enumerate(self.nodes) if node.accepted)


class Trace(Record):
    """One generation, step by step.

    The first generated token comes out of the prefill and stands in ``first``; every later token
    was committed by a step. ``ties`` counts positions where this generation left vanilla's path
    because the base model's two largest logits agree within rounding (1e-4 relative). ``note`` says
    why a method drafted nothing where it did not try.
    """

    KIND: ClassVar[str] = "trace"

    method: str
    base: str
    prompt: str
    prompt_tokens: Count
    temperature: NotNegative = 0.0
    seed: int | None = None
    first: Token
    steps: tuple[Step, ...]
    text: str
    prefill_s: NotNegative
    ties: Count = 0
    note: str = ""

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Every generated token, in order."""
        return (self.first, *(token for step in self.steps for token in step.committed))

    @property
    def seconds(self) -> float:
        """Time of the whole generation, prefill included."""
        return self.prefill_s + sum(step.seconds for step in self.steps)

    @property
    def tokens_per_step(self) -> float:
        """Acceptance length: tokens committed per step, the bonus included; vanilla is 1.00."""
        if not self.steps:
            return 1.0
        return sum(len(step.committed) for step in self.steps) / len(self.steps)
