"""The base model as a writer of many texts at a time; see `labkit.training.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.kernels import choose as choose_path
from labkit.kernels import engine_for
from labkit.sampling import Sampling
from labkit.training.answers import Continue, Writing, Written
from labkit.training.generate import continue_all
from labkit.training.recipe import Precision

if TYPE_CHECKING:
    from labkit.kernels.engine import Engine
    from labkit.models import LanguageModel


SLOTS: dict[Precision, int] = {"float32": 24, "bfloat16": 128}
"""How many texts are written at once; more gain little on a CPU and cost memory."""


def writer(
    base: LanguageModel,
    slots: int | None = None,
    keep_states: bool = True,
    layers: tuple[int, ...] = (),
) -> Continue:
    """``base`` as a `Continue`: opens its fastest forward pass when first asked to write.

    States are kept with those after the ``layers`` before them; see `kernels.engine.Output`.
    """
    opened: dict[Precision, Engine] = {}

    def write(prompts: Sequence[Sequence[int]], manner: Writing, seed: int) -> Written:
        if manner.precision not in opened:
            opened[manner.precision] = _engine(base, manner.precision)
        engine = opened[manner.precision]
        sampling = Sampling(temperature=manner.temperature, top_k=manner.top_k, top_p=manner.top_p)
        states: list[Tensor] = []
        answers = continue_all(
            engine,
            prompts,
            manner.max_new_tokens,
            base.eos_ids,
            slots or SLOTS[manner.precision],
            sampling,
            seed,
            manner.repeats,
            states if keep_states else None,
            layers if keep_states else (),
        )
        return Written(answers, torch.cat(states).cpu().half() if keep_states else None)

    return write


def _engine(base: LanguageModel, precision: Precision) -> Engine:
    """The forward pass to write with; bfloat16 products are for what weights once can compute."""
    path = choose_path(base.config, base.device, base.dtype).path
    if precision == "bfloat16" and path == "weights_once":
        from labkit.kernels.llama import LlamaWeights
        from labkit.kernels.many_rows import ManyRows

        return ManyRows(LlamaWeights(base.config, base.weights()))
    return engine_for(base)
