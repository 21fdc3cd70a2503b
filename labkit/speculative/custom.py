"""The lab's loop inside transformers' own ``generate``.

``model.generate(ids, custom_generate=speculate, max_new_tokens=64)`` drafts by prompt lookup and
checks with the model's own forward pass; ``drafter=`` takes another drafter. The output is the
model's own, in fewer passes.
"""

from __future__ import annotations

from typing import Any

import torch

from labkit.errors import LabkitError
from labkit.kernels.plain import PlainEngine
from labkit.sampling import Sampling
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.generate import generate

FILTERS = {
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "MinPLogitsWarper",
}
"""What transformers makes of the settings that `Sampling` knows."""


def speculate(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    drafter: Drafter | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """A decoding loop for ``model.generate(..., custom_generate=speculate)``: (1, T) to (1, T').

    Random numbers follow torch's global seed, as in transformers. Raises `LabkitError` for more
    than one sequence, for padding, and for settings that change logits as drafts cannot follow.
    """
    config = generation_config
    mask = model_kwargs.get("attention_mask")
    if input_ids.shape[0] != 1 or (mask is not None and not mask.all()):
        raise LabkitError(
            f"Speculation decodes one sequence without padding, not {input_ids.shape[0]}: give "
            "them one by one."
        )
    kinds = {type(processor).__name__ for processor in logits_processor or ()}
    strange = sorted(kinds - (FILTERS if config.do_sample else set()))
    if strange:
        raise LabkitError(
            f"{strange[0]} changes logits by what was written before, which drafts do not follow: "
            "leave that setting out."
        )
    prompt = input_ids[0].tolist()
    made = generate(
        PlainEngine(model),
        prompt,
        config.max_length - len(prompt),
        drafter or PromptLookup(),
        sampling_of(config),
        ends_of(config),
        torch.Generator().manual_seed(int(torch.randint(2**62, ()))) if config.do_sample else None,
    )
    return torch.tensor([[*prompt, *made.tokens]], device=input_ids.device)


def sampling_of(config: Any) -> Sampling:
    """transformers' settings as the lab's."""
    if not config.do_sample:
        return Sampling()
    return Sampling(
        temperature=config.temperature or 1.0,
        top_k=config.top_k or 0,
        top_p=config.top_p or 1.0,
        min_p=config.min_p or 0.0,
    )


def ends_of(config: Any) -> set[int]:
    """The end tokens, which transformers gives as none, one or several."""
    match config.eos_token_id:
        case None:
            return set()
        case int(one):
            return {one}
        case several:
            return set(several)
