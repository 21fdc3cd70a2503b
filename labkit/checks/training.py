"""What the assignment on heads trains with, and checks of what was trained and read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from labkit.checks import Finding, answers
from labkit.checks.answers import Answer, exercise, refuse, verdict
from labkit.checks.heads import Head, SmallModel, all_logits, counted_places, head_shapes
from labkit.questions import read_questions

if TYPE_CHECKING:
    from labkit.models import LanguageModel

WINDOW = 40
"""Tokens of a row of ordinary text."""
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class LessonRows:
    """Rows of text: tokens (B, T + K + 1), the base model's states over them (B, T + K, D), and for
    each row how many tokens were given and how many there are in all."""

    tokens: Tensor
    hidden: Tensor
    given: list[int]
    lengths: list[int]


@dataclass(frozen=True)
class Lesson:
    """The base model's table (V, D), ordinary text, its own answers, and held-out answers: float32
    on the CPU, whatever the base model's device and dtype are."""

    table: Tensor
    text: LessonRows
    answers: LessonRows
    held_out: LessonRows


def lesson(base: LanguageModel, rows: int = 96, held_out: int = 16) -> Lesson:
    """Make the material of a small training, always the same for a base model and without fetching
    anything: text of `data/prompts`, greedy answers to parts of it."""
    texts = [turn for question in read_questions() for turn in question.turns]
    stream = torch.tensor([token for text in texts for token in base.encode(text, chat=False)])
    windows = stream[: len(stream) // WINDOW * WINDOW].view(-1, WINDOW)
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(rows + held_out):
        size = int(rng.integers(6, 14))
        begin = int(rng.integers(len(stream) - size))
        prompts.append(stream[begin : begin + size].tolist())
    prompts.sort(key=len)
    pairs = list(zip(prompts, _answers(base, prompts), strict=True))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    whole = [torch.tensor([*prompt, *answer]) for prompt, answer in pairs]
    tokens = pad_sequence(whole, batch_first=True)
    hidden, given = _hidden(base, tokens), [len(prompt) for prompt, _ in pairs]
    lengths = list(map(len, whole))
    table = base.module.get_output_embeddings().weight.detach().float().cpu()
    return Lesson(
        table,
        LessonRows(windows, _hidden(base, windows), [1] * len(windows), [WINDOW] * len(windows)),
        LessonRows(tokens[:rows], hidden[:rows], given[:rows], lengths[:rows]),
        LessonRows(tokens[rows:], hidden[rows:], given[rows:], lengths[rows:]),
    )


@torch.no_grad()
def _answers(base: LanguageModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Write greedy answers to prompts in order of length, those of one length together."""
    made: list[list[int]] = []
    for size, alike in itertools.groupby(prompts, key=len):
        ids = torch.tensor(list(alike)).to(base.module.device)
        for _ in range(ANSWER_TOKENS):
            best = base.module(ids, use_cache=False).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
        for row in ids[:, size:].tolist():
            ends = (place for place, token in enumerate(row) if token in base.eos_ids)
            made.append(row[: next(ends, len(row)) + 1])
    return made


def _hidden(base: LanguageModel, tokens: Tensor) -> Tensor:
    """Return the base model's states (B, T + K, D) over all tokens but the last."""
    from labkit.training.features import last_hidden

    parts = tokens.to(base.module.device).split(16)
    return torch.cat([last_hidden(base.module, part).float().cpu() for part in parts])[:, :-1]


def new_heads(width: int, heads: int = 3, inner: int = 96) -> list[Head]:
    """Return untrained heads, at the published scales."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for head in range(heads):
        shapes = head_shapes(inner if head else width, width, inner)
        tensors = {"scale": torch.ones(inner), "shift": torch.zeros(inner)}
        for name in ("proj", "token", "out"):
            tensors[name] = torch.randn(shapes[name], generator=rng) / shapes[name][1] ** 0.5
        made.append({name: tensors[name].requires_grad_() for name in shapes})
    return made


@torch.no_grad()
def right_shares(heads: Sequence[Head], table: Tensor, rows: LessonRows) -> list[float]:
    """Return how often each head's most probable token is the one that the base model wrote."""
    many = len(heads)
    places = rows.tokens.shape[1] - many - 1
    case = SmallModel(table, rows.hidden[:, :places], rows.tokens, list(heads))
    shares = []
    for head, logits in enumerate(all_logits(case)):
        counted = counted_places(rows.given, rows.lengths, places, head)
        goal = rows.tokens[:, 2 + head : 2 + head + places]
        shares.append(float((logits.argmax(-1) == goal)[counted].float().mean()))
    return shares


@exercise
def trained(heads: Any, material: Lesson) -> Finding:
    """Check trained heads by how often they are right on held-out answers: the first two reach a
    least share each if training did what it should."""
    given = _as_heads(heads, material.table.shape[1])
    shares = right_shares(given, material.table, material.held_out)
    listed = ", ".join(f"{share:.0%}" for share in shares)
    says = f"on held-out answers the heads are right in {listed} of the places"
    for head, (share, least) in enumerate(zip(shares, (0.4, 0.3), strict=False)):
        refuse((share < least, f"{says}, and head {head} should reach {least:.0%}: did both phases "
                "run, and did the loss fall?"))  # fmt: skip
    return Finding(True, f"{says}.")


def _as_heads(heads: Any, width: int) -> list[Head]:
    """Return heads with plain tensors of the right shapes; `NotUsable` for anything else."""
    answers.written(heads)
    known = type(heads) in (list, tuple) and 1 <= len(heads) <= 8
    refuse((not known, "the heads should be a list of dictionaries, as `new_heads` gives it"))
    made: list[Head] = []
    for place, head in enumerate(heads):
        known = type(head) is dict and set(head) == {"proj", "token", "out", "scale", "shift"}
        refuse((not known, f"head {place + 1} lacks the tensors that `new_heads` gives it"))
        inner = len(answers.numbers(head["scale"]))
        shapes = head_shapes(inner if place else width, width, inner)
        made.append({
            name: torch.tensor(answers.numbers(head[name], shape), dtype=torch.float32)
            for name, shape in shapes.items()
        })  # fmt: skip
    return made


@exercise
def curves(read: Answer, seed: int = 0, heads: int = 3) -> Iterator[Finding]:
    """Check what is read from a training's looks at held-out text: two things.

    By how much each head's loss fell in phase 2, from its last look in phase 1 to its last look,
    (K,); and the tokens per step gained in the same time. A look has ``phase``, ``step``, ``loss``
    (K,) and ``tokens_per_step``.
    """
    looks = _looks(np.random.default_rng(seed), heads)
    answer = answers.parts(
        read(looks), 2, "two things: how much each loss fell, and the tokens gained"
    )
    turn = max(i for i, look in enumerate(looks) if look["phase"] == 1)
    losses = np.array([look["loss"] for look in looks])
    steps = np.array([look["tokens_per_step"] for look in looks])
    right, gain = losses[turn] - losses[-1], steps[-1] - steps[turn]
    yield verdict(
        answers.numbers(answer[0], (heads,), "one for each head"), right, "",
        (-right, "the sign is turned: a loss that fell from 5 to 4 fell by 1"),
        (losses[0] - losses[-1], "this is the fall over both phases: phase 2 begins where phase 1 "
         "ended"),
        (losses[0] - losses[turn], "this is the fall in phase 1"),
        (losses[turn + 1] - losses[-1], "this begins at the first look of phase 2, which has "
         "trained for a while already"),
        (losses[-1], "these are the last losses, not how far they fell"),
        otherwise=f"the losses fell by {right.round(3).tolist()}", tolerance=1e-6,
    )  # fmt: skip
    yield verdict(
        answers.number(answer[1]), gain, "what phase 2 did to each head, and to a step",
        (steps[-1] - steps[0], "the tokens gained are those of both phases"),
        (steps[-1], "these are the tokens per step at the end, not what was gained"),
        (-gain, "the sign of what was gained is turned"),
        otherwise="the tokens gained are another number", tolerance=1e-6,
    )  # fmt: skip


def _looks(rng: np.random.Generator, heads: int) -> list[dict[str, Any]]:
    """Return looks at a made-up training: losses fall with noise, tokens per step rise."""
    first = 5 + np.sort(rng.random(heads))
    made = []
    for place in range(8):
        loss = first - 0.3 * place * (1 + 0.2 * rng.random(heads))
        look = {"phase": 1 if place < 3 else 2, "step": 50 * (place + 1), "loss": loss.tolist()}
        made.append(look | {"tokens_per_step": 1 + 0.1 * place + 0.02 * float(rng.random())})
    return made
