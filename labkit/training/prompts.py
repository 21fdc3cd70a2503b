"""Prompts whose answers the heads learn: cut from text, made from templates, or self-written.

Heads learn the base model's answers, so what they learn depends on the prompts. Prompts that the
model wrote itself are all of one kind; the templates of ``data/prompts/templates.json`` add others:
questions, tasks over real passages, sums, code, letters, translation, long texts and second turns
of a conversation. Every piece is drawn by seed, so the same arguments always give the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.errors import LabkitError
from labkit.models import LanguageModel
from labkit.paths import data_dir
from labkit.training.answers import Continue, Writing, made_answers
from labkit.training.recipe import Generation, Recipe
from labkit.training.text import read_documents, some_text

PROMPTS_FROM = 8
"""Prompts are cut from a text this many times as long as all of them together."""
FRAME_TOKENS = 64
"""Room for what a chat template puts around a prompt."""


def make_prompts(
    recipe: Recipe, base: LanguageModel, write: Continue, held_out: bool
) -> list[list[int]]:
    """Return the recipe's prompts as token ids, each once, every kind in equal parts.

    Held-out prompts are made from held-out documents only.
    """
    plan = recipe.answers
    documents = [text for text in read_documents(plan.sources) if text.held_out == held_out]
    texts = [document.text for document in documents]
    passages = [part for text in texts for part in text.split("\n\n") if len(part.split()) >= 40]
    count, kinds = plan.held_out if held_out else plan.count, len(plan.kinds)
    made: list[list[int]] = []
    for number, kind in enumerate(plan.kinds[:count]):
        share = count // kinds + (number < count % kinds)
        seed = 1_000 * recipe.seed + 2 * number + held_out
        match kind:
            case "text":
                enough = PROMPTS_FROM * share * plan.prompt_tokens
                stream = some_text(documents, base.tokenizer, enough)
                made += text_prompts(stream, plan.prompt_tokens, share, seed)
            case "tasks":
                made += _encoded(base, task_prompts(passages, share, seed), plan.answer_tokens)
            case "long":
                made += _encoded(base, long_prompts(texts, share, seed), plan.answer_tokens)
            case "talk":
                made += _second_turns(base, write, plan, task_prompts(passages, share, seed), seed)
            case "own":
                made += _own_prompts(base, write, plan, share, seed)
    return [list(row) for row in dict.fromkeys(map(tuple, made))]


def text_prompts(stream: Tensor, length: int, count: int, seed: int) -> list[list[int]]:
    """Cut ``count`` prompts of ``length`` tokens at random places; none overlap.

    Raises `LabkitError` if the stream (N,) is too short for that many.
    """
    places = len(stream) // length
    if places < count:
        raise LabkitError(
            f"The text gives {places:,} prompts of {length} tokens, and the recipe wants"
            f" {count:,}: ask for fewer or shorter ones."
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randperm(places, generator=generator)[:count] * length
    return [stream[start : start + length].tolist() for start in starts.tolist()]


def _own_prompts(
    base: LanguageModel, write: Continue, plan: Generation, count: int, seed: int
) -> list[list[int]]:
    """Let the chat model write user turns itself, after the opening of its template."""
    if not base.chat:
        raise LabkitError(f"The model {base.name!r} has no chat template, so it writes no prompts.")
    mark = "\N{BLACK SQUARE}\N{BLACK SQUARE}"
    turn = [{"role": "user", "content": mark}]
    template = str(base.tokenizer.apply_chat_template(turn, tokenize=False))
    opening = base.tokenizer(template.partition(mark)[0], add_special_tokens=False)["input_ids"]
    length = plan.prompt_tokens
    manner = Writing(length, temperature=1.0, top_p=0.95, seed=seed, precision=plan.precision)
    made = made_answers(base, [opening] * count, write, manner).sequences
    turns = (made.row(row)[len(opening) :].tolist() for row in range(len(made)))
    return _encoded(base, (base.decode(turn).strip() for turn in turns), length)


def _second_turns(
    base: LanguageModel, write: Continue, plan: Generation, first: Sequence[str], seed: int
) -> list[list[int]]:
    """Ask ``first``, let the model answer, and follow each answer by another question."""
    asked = {
        tuple(ids): text for text in first for ids in _encoded(base, [text], base.context // 2)
    }
    manner = Writing(plan.answer_tokens, repeats=plan.repeats, precision=plan.precision)
    made = made_answers(base, list(map(list, asked)), write, manner).sequences
    fill, rows = _Filler(np.random.default_rng(seed), ()), []
    for row, given in enumerate(made.given.tolist()):
        ids = made.row(row).tolist()
        turns = [asked[tuple(ids[:given])], base.decode(ids[given:]).strip()]
        if turns[1]:
            rows.append(base.encode_chat([*turns, fill.pick("follow_ups")]))
    return [row for row in rows if len(row) + plan.answer_tokens <= base.context]


def _encoded(base: LanguageModel, texts: Iterable[str], room: int) -> list[list[int]]:
    """Encode the texts that are not empty and leave ``room`` tokens of the context free."""
    most = base.context - room - FRAME_TOKENS
    return [
        base.encode(text)
        for text in texts
        if text and len(base.tokenizer(text)["input_ids"]) <= most
    ]


@cache
def templates() -> dict[str, Any]:
    """Read the templates and the words that fill them: lists of strings by name."""
    return json.loads((data_dir() / "prompts" / "templates.json").read_text(encoding="utf-8"))


def task_prompts(passages: Sequence[str], count: int, seed: int) -> list[str]:
    """Make ``count`` distinct prompts of all kinds, in random order.

    ``passages`` are longer texts; tasks over a passage use 25 to 110 words of one of them.
    """
    fill = _Filler(np.random.default_rng(seed), passages)
    makers: dict[Callable[[], str], float] = {
        fill.question: 0.20,
        fill.how_to: 0.10,
        fill.in_a_manner: 0.10,
        fill.over_passage: 0.18,
        fill.over_notes: 0.08,
        fill.sum: 0.12,
        fill.code: 0.08,
        fill.letter: 0.05,
        fill.phrases: 0.02,
        fill.over_sentences: 0.07,
    }
    shares = np.array([*makers.values()])
    kinds = fill.rng.choice(len(makers), size=4 * count, p=shares / shares.sum())
    return _first((list(makers)[kind]() for kind in kinds), count)


def long_prompts(documents: Sequence[str], count: int, seed: int) -> list[str]:
    """Make ``count`` distinct tasks over 150 to 700 words of running text, as for retrieval.

    Every third asks about one of several numbered excerpts.
    """
    fill = _Filler(np.random.default_rng(seed), documents)
    made = (
        fill.over_notes(40, 160) if number % 3 == 2 else fill.over_passage(150, 701)
        for number in range(4 * count)
    )
    return _first(made, count)


def _first(texts: Iterable[str], count: int) -> list[str]:
    """Return the first ``count`` distinct texts, without asking for more."""
    found: dict[str, None] = {}
    for text in texts:
        found[text] = None
        if len(found) == count:
            break
    return list(found)


class _Filler:
    """Fills templates with words and passages drawn by ``rng``."""

    def __init__(self, rng: np.random.Generator, passages: Sequence[str]) -> None:
        self.rng, self.passages = rng, passages

    def pick(self, items: str | Sequence[str]) -> str:
        """Draw one of ``items``, or of the list with that name in the templates."""
        choices = templates()[items] if isinstance(items, str) else items
        return choices[int(self.rng.integers(len(choices)))]

    def fill(self, forms: str, known: Mapping[str, object] | None = None, **drawn: str) -> str:
        """Draw a form, then a word of each list named in ``drawn``, and put both kinds in."""
        form = self.pick(forms)
        return form.format(**known or {}, **{at: self.pick(items) for at, items in drawn.items()})

    def question(self) -> str:
        text = self.fill("questions", t="topics", u="topics", p="people")
        return text[0].upper() + text[1:]

    def how_to(self) -> str:
        return self.fill("action_forms", a="actions", b="actions")

    def in_a_manner(self) -> str:
        """Ask a question and say how to answer it."""
        question = self.question() if self.rng.random() < 0.6 else self.how_to()
        words, points = 10 * int(self.rng.integers(2, 13)), int(self.rng.integers(2, 8))
        return self.fill("role_forms", {"q": question, "n": words, "m": points}, r="roles")

    def excerpt(self, least: int, most: int) -> str:
        words = self.pick(self.passages).split()
        length = int(self.rng.integers(least, most))
        start = int(self.rng.integers(max(1, len(words) - length)))
        return " ".join(words[start : start + length])

    def over_passage(self, least: int = 25, most: int = 111) -> str:
        return self.fill("passage_tasks", {"x": self.excerpt(least, most)}, p="people")

    def over_notes(self, least: int = 12, most: int = 36) -> str:
        """Number some notes and ask about a word of one of them."""
        notes = [self.excerpt(least, most) for _ in range(int(self.rng.integers(2, 5)))]
        number = int(self.rng.integers(len(notes)))
        words = [w.strip(".,;:!?\"'") for w in notes[number].split() if len(w) > 4]
        word = self.pick(words or ["it"])
        shown = "\n".join(f"[{place}] {note}" for place, note in enumerate(notes, start=1))
        return self.fill("note_tasks", {"x": shown, "n": number + 1, "w": word})

    def sum(self) -> str:
        a, b, c = (int(n) for n in self.rng.integers(2, 60, size=3))
        words = {"who": self.pick("names"), "other": self.pick("names")}
        values = {"thing": self.pick("things"), "a": a, "b": b, "c": c, "1+a%12": 1 + a % 12}
        sums = {"a+b": a + b, "a+c": a + c, "a*b+c": a * b + c, "a*c+b": a * c + b}
        products = {"a*b": a * b, "a*c": a * c, "a*3": a * 3, "a*10": a * 10, "b*10": b * 10}
        return self.fill("sums", {**words, **values, **sums, **products})

    def code(self) -> str:
        language = self.pick(("Python", "Python", "Python", "JavaScript", "Java", "C"))
        return self.fill("code_forms", {"l": language}, c="code_tasks")

    def letter(self) -> str:
        return self.fill("letters", r="receivers", w="wishes")

    def phrases(self) -> str:
        language = self.pick(("French", "German", "Spanish", "Italian", "Portuguese"))
        return f"Translate into {language}: {self.pick('phrases')} {self.pick('phrases')}"

    def sentence(self) -> str:
        parts = [self.pick(kind) for kind in ("subjects", "verbs", "objects", "endings")]
        text = " ".join(filter(None, parts))
        return text[0].upper() + text[1:] + "."

    def several(self, make: Callable[[], str]) -> str:
        """Join one to three sentences."""
        return " ".join(make() for _ in range(int(self.rng.integers(1, 4))))

    def over_sentences(self) -> str:
        if self.rng.random() < 0.3:
            language = self.pick(list(templates()["foreign"]))
            sentences = templates()["foreign"][language]
            text = self.several(lambda: self.pick(sentences))
            return f"Translate from {language} into English: {text}"
        language = self.pick(("French", "German", "Spanish", "Italian", "Dutch", "Portuguese"))
        text = self.several(self.sentence)
        return self.fill("sentence_tasks", {"x": text, "l": language})
