"""p(y|x) token by token: all that drawing and searching need of a model.

A `Conditional` begins a set of `Prefixes`, one row for each source. A row is a source with the
tokens written after it so far, and has the logits of its next token. `Prefixes.advance` makes new
rows out of old ones, each an old row with one more token: a row can be continued in several ways,
or dropped. So the common beginning of several texts is computed once.

`conditional` makes one of a transformers model, causal or encoder-decoder; anything else that
keeps the two promises below (a toy distribution, another engine) serves as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence

from labkit.errors import LabkitError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prefixes(Protocol):
    """Texts being written side by side."""

    logits: torch.Tensor
    """The logits of each row's next token: (N, V), float32."""
    room: int
    """How many tokens the model has room for after its longest source, from the beginning."""

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> None:
        """Make row i the old row ``parents[i]`` with ``tokens[i]`` after it; both (N',)."""


class Conditional(Protocol):
    """A distribution over texts, given a source."""

    ends: Collection[int]
    """The tokens that end a text."""

    def begin(self, sources: Sequence[str]) -> Prefixes:
        """Start one row for each source, with nothing written yet."""

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens stand for, the ending one left out."""


class Base(Protocol):
    """A transformers model with its way from text to tokens and back; `labkit.load` gives these."""

    @property
    def module(self) -> PreTrainedModel:
        """The model."""

    @property
    def context(self) -> int:
        """The most tokens it can look at."""

    @property
    def eos_ids(self) -> Collection[int]:
        """The tokens that end a text."""

    def encode(self, prompt: str) -> list[int]:
        """Return a source's tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens, special ones left out."""


def conditional(base: Base) -> Conditional:
    """Return the distribution that a transformers model defines, encoder-decoder or causal."""
    return OfModel(base)


def check_sources(base: Base, sources: Iterable[str]) -> list[list[int]]:
    """Return each source's tokens; raise `LabkitError` for one that is empty or too long."""
    lists = []
    for number, source in enumerate(sources, start=1):
        if not source.strip():
            raise LabkitError(f"Source {number} is empty: give some text.")
        try:
            lists.append(base.encode(source))
        except LabkitError as error:
            raise LabkitError(f"Source {number}: {error}") from None
        if len(lists[-1]) >= base.context:
            raise LabkitError(
                f"Source {number} has {len(lists[-1]):,} tokens, and the model's context holds "
                f"{base.context:,}: give a shorter one."
            )
    return lists


def padded(
    lists: Sequence[Sequence[int]], device: torch.device, side: str = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return lists of tokens, padded on one side, and a mask of real ones: both (B, T)."""
    rows = [torch.tensor(tokens, dtype=torch.long) for tokens in lists]
    masks = [torch.ones_like(row) for row in rows]
    ids, real = (pad_sequence(part, True, padding_side=side).to(device) for part in (rows, masks))
    return ids, real


class OfModel:
    """The `Conditional` of a transformers model: a text continues its source or translates it."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.ends = base.eos_ids

    def begin(self, sources: Sequence[str]) -> Prefixes:
        """Start one row for each source."""
        module = self.base.module
        kind = Translations if module.config.is_encoder_decoder else Continuations
        tokens = check_sources(self.base, sources)
        return kind(module, self.base.context, *padded(tokens, module.device, kind.side))

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens stand for, special ones left out."""
        return self.base.decode(token for token in tokens if token not in self.ends)


class Continuations:
    """Prefixes of a decoder-only model: prompts padded on the left, one shared key/value cache."""

    side = "left"

    def __init__(
        self, module: PreTrainedModel, context: int, ids: torch.Tensor, real: torch.Tensor
    ) -> None:
        from transformers import DynamicCache

        self.module = module
        self.room = context - ids.shape[1]
        self.cache: Any = DynamicCache(config=module.config)
        self.real = real  # (N, T), T growing by one a step
        self.padded = not bool(real.all())
        self.position = (real.cumsum(1) - 1).clamp(min=0)  # (N, T), then (N, 1)
        parameters = inspect.signature(module.forward).parameters
        # A prompt's logits are all the vocabulary at every place: ask for the last place only.
        last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._forward(ids, **last)
        self.position = self.position[:, -1:]

    def _forward(self, ids: torch.Tensor, **options: Any) -> None:
        out = self.module(
            input_ids=ids,
            attention_mask=self.real if self.padded else None,
            position_ids=self.position,
            cache=self.cache,
            use_cache=True,
            **options,
        )
        self.logits = out.logits[:, -1].float()  # (N, V)

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> None:
        """Continue old rows ``parents``, picked or repeated, by one token each."""
        self.cache.reorder_cache(parents)
        self.real = torch.cat([self.real[parents], torch.ones_like(tokens)[:, None]], dim=1)
        self.position = self.position[parents] + 1
        self._forward(tokens[:, None])


class Translations:
    """Prefixes of an encoder-decoder model; each row keeps the keys and values of its source."""

    side = "right"

    def __init__(
        self, module: PreTrainedModel, context: int, ids: torch.Tensor, real: torch.Tensor
    ) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.module = module
        self.room = context
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.real = real  # (N, S)
        self.encoded = module.get_encoder()(input_ids=ids, attention_mask=real).last_hidden_state
        start = module.config.decoder_start_token_id
        self._forward(torch.full((len(ids), 1), start, device=ids.device))

    def _forward(self, ids: torch.Tensor) -> None:
        out = self.module(
            attention_mask=self.real,
            encoder_outputs=(self.encoded,),
            decoder_input_ids=ids,
            cache=self.cache,
            use_cache=True,
        )
        self.logits = out.logits[:, -1].float()  # (N, V)
        if self.module.config.pad_token_id is not None:
            self.logits[:, self.module.config.pad_token_id] = float("-inf")

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> None:
        """Continue old rows ``parents``, picked or repeated, by one token each."""
        self.cache.reorder_cache(parents)
        self.real = self.real[parents]
        self.encoded = self.encoded[parents]
        self._forward(tokens[:, None])
