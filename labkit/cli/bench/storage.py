"""``labkit bench storage``: every way to store weights, with and without speculation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.cli._output import Report, reports
from labkit.cli.bench.study import measure, study_options


@reports
@study_options
def command(*, prompts: Path | None, **settings: Any) -> Report:
    """Decode by every storage on a CPU, in turn, plainly and by heads; every 4th of 48 prompts."""
    from labkit.questions import read_questions
    from labkit.speculative.bench import LLAMA_CPP

    asked = read_questions(prompts) if prompts else read_questions()[::4]
    together = [replace(question, category="all") for question in asked]
    return measure(together, ("mlp", "mlp_lookup", *LLAMA_CPP), **settings)
