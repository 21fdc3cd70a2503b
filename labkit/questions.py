"""The prompts of a benchmark, from JSON lines in the lab's form or in Spec-Bench's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.reading import json_lines


@dataclass(frozen=True)
class Question:
    """One prompt: what the user says, turn by turn."""

    id: str
    category: str
    turns: tuple[str, ...]


def read_questions(path: str | Path | None = None) -> list[Question]:
    """Read prompts from JSON lines, by default the lab's own 48.

    A line has ``prompt`` (one turn) or ``turns``, and if it likes ``id`` (or Spec-Bench's
    ``question_id``, text or a number; by default the line's number) and ``category``; other keys
    are ignored. Raises `LabkitError` naming the line that is no prompt or repeats an id.
    """
    path = Path(path or data_dir() / "prompts" / "spec.jsonl")
    questions: dict[str, Question] = {}
    for number, value in json_lines(path):
        try:
            question = _question(value, number)
            if question.id in questions:
                raise LabkitError(f"there are two prompts {question.id!r}")
        except LabkitError as error:
            raise LabkitError(f"{path}, line {number}: {error}.") from None
        questions[question.id] = question
    if not questions:
        raise LabkitError(f"There is no prompt in {path}: give one as a line of JSON.")
    return list(questions.values())


def sample(questions: Sequence[Question], count: int, rng: np.random.Generator) -> list[Question]:
    """Draw up to ``count`` prompts, as many of each category as of the others where it can be."""
    drawn: Counter[str] = Counter()
    ranked = []
    for question in (questions[place] for place in rng.permutation(len(questions))):
        drawn[question.category] += 1
        ranked.append((drawn[question.category], question))
    return [question for _, question in sorted(ranked, key=lambda one: one[0])[:count]]


def _question(value: Any, number: int) -> Question:
    """Return the prompt that a line's value describes, or raise what is wrong with it."""
    if not isinstance(value, dict):
        raise LabkitError("a prompt is a JSON object with 'prompt' or 'turns'")
    if ("prompt" in value) == ("turns" in value):
        raise LabkitError("a prompt has either 'prompt' or 'turns'")
    turns = value.get("turns", [value.get("prompt")])
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise LabkitError("'turns' must be a list of at least one text")
    if not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise LabkitError("a turn must be text and not empty")
    name, category = value.get("id", value.get("question_id", number)), value.get("category", "")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise LabkitError("'id' must be text or a whole number")
    if not isinstance(category, str):
        raise LabkitError("'category' must be text")
    return Question(str(name), category or "all", tuple(turns))
