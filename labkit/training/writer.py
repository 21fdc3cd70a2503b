"""The base model as a writer of many texts at a time; see `labkit.training.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.devices import torch_generator
from labkit.kernels import engine_for
from labkit.training.data import Continue, Writing, Written
from labkit.training.generate import Choose, continue_all, greedy, sampler

if TYPE_CHECKING:
    from labkit.kernels.engine import Engine
    from labkit.models import LanguageModel


SLOTS = 24
"""How many texts are written at once; more gain little on a CPU and cost memory."""


def writer(base: LanguageModel, slots: int = SLOTS, keep_states: bool = True) -> Continue:
    """``base`` as a `Continue`: opens its fastest forward pass when first asked to write."""
    opened: list[Engine] = []

    def write(prompts: Sequence[Sequence[int]], manner: Writing, seed: int) -> Written:
        if not opened:
            opened.append(engine_for(base))
        choose: Choose = greedy
        if manner.temperature:
            generator = torch_generator(seed, opened[0].device)
            choose = sampler(manner.temperature, manner.top_p, generator, manner.top_k)
        states: list[Tensor] = []
        answers = continue_all(
            opened[0],
            prompts,
            manner.max_new_tokens,
            base.eos_ids,
            slots,
            choose,
            manner.repeats or None,
            states if keep_states else None,
        )
        return Written(answers, torch.cat(states).cpu().half() if keep_states else None)

    return write
