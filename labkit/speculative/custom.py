"""The lab's loop inside transformers' own ``generate``.

``model.generate(ids, custom_generate=speculate, max_new_tokens=64)`` drafts by prompt lookup and
checks with the model's own forward pass; ``drafter=`` takes another drafter. The output is the
model's own, in fewer passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from labkit.errors import LabkitError
from labkit.kernels.plain import PlainEngine
from labkit.sampling import Sampling
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.generate import generate

FILTERS = {f"{kind}LogitsWarper" for kind in ("Temperature", "TopK", "TopP", "MinP")}
"""transformers' classes for the settings of `Sampling`."""

EXTRAS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
"""What transformers can add to a dictionary of results, and this loop does not keep."""


def speculate(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    drafter: Drafter | None = None,
    **model_kwargs: Any,
) -> Any:
    """Decode for ``model.generate(..., custom_generate=speculate)``: (1, T) to (1, T').

    Stopping criteria (called without scores), a streamer, left padding and
    ``return_dict_in_generate`` work as in transformers; random numbers follow torch's global seed.
    Raises `LabkitError` for what the loop cannot do, such as several sequences or settings that
    change logits by the text so far.
    """
    config, streamer = generation_config, _streamer()
    _check(model, input_ids, logits_processor, config, model_kwargs)
    mask = model_kwargs.get("attention_mask")
    padding = 0 if mask is None else int((mask[0] == 0).sum())
    if padding and mask is not None and mask[0, :padding].any():
        raise LabkitError("Speculation needs padding on the left: pad the prompt there.")

    def stop(tokens: Sequence[int]) -> bool:
        """Stream the last token, and ask the criteria about the text so far."""
        if streamer is not None:
            streamer.put(torch.tensor(tokens[-1:]))
        text = torch.cat([input_ids[:, :padding], input_ids.new_tensor([tokens])], dim=1)
        return bool(stopping_criteria(text, None).all()) if stopping_criteria else False

    prompt = input_ids[0, padding:].tolist()
    seeded = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    made = generate(
        PlainEngine(model),
        prompt,
        config.max_length - input_ids.shape[1],
        drafter if drafter is not None else PromptLookup(),
        sampling_of(config),
        ends_of(config),
        seeded if config.do_sample else None,
        stop=stop,
    )
    if streamer is not None:
        streamer.end()
    sequences = torch.cat([input_ids, input_ids.new_tensor([made.tokens])], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    from transformers.generation import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(sequences=sequences.long())  # type: ignore[arg-type]


def _streamer() -> Any:
    """Return the streamer that ``model.generate`` was called with, or None.

    transformers (5.24) feeds the prompt to a streamer and then does not pass it on to a callable:
    its reader would wait forever. So it is taken from the caller's variables.
    """
    frame = inspect.currentframe()
    while frame is not None and "custom_generate" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals.get("streamer") if frame is not None else None


def _check(
    model: Any, input_ids: torch.Tensor, processors: Any, config: Any, given: dict[str, Any]
) -> None:
    """Raise `LabkitError` for the first setting that the loop cannot honour."""
    if model.config.is_encoder_decoder:
        raise LabkitError("Speculation decodes causal models: give one without an encoder.")
    if given.get("inputs_embeds") is not None:
        raise LabkitError("inputs_embeds have no token ids to draft from: give input_ids.")
    if input_ids.shape[0] != 1:
        raise LabkitError(
            f"Speculation decodes one sequence, not {input_ids.shape[0]}: give them one by one."
        )
    kinds = {type(processor).__name__ for processor in processors or ()}
    strange = sorted(kinds - (FILTERS if config.do_sample else set()))
    if strange:
        raise LabkitError(
            f"{strange[0]} changes logits by the text so far, which drafts do not follow: leave "
            "that setting out."
        )
    extra = [name for name in EXTRAS if config.return_dict_in_generate and getattr(config, name)]
    if extra:
        raise LabkitError(f"Speculation does not keep what {extra[0]} asks for: leave it out.")


def sampling_of(config: Any) -> Sampling:
    """Return transformers' settings as a `Sampling`."""
    if not config.do_sample:
        return Sampling()
    return Sampling(
        temperature=config.temperature or 1.0,
        top_k=config.top_k or 0,
        top_p=config.top_p or 1.0,
        min_p=config.min_p or 0.0,
    )


def ends_of(config: Any) -> set[int]:
    """Return the end tokens, which transformers gives as none, one or several."""
    ends = config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
