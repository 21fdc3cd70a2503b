"""Any causal language model through transformers' own forward pass: the plain path.

It works for every architecture and on every device, and it promises less: the result of a row may
change in its last bits with the other rows of the pass, so two nearly equal logits can trade
places. The fast paths are tested against this one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Cache, Engine, Output, Rows, stack
from labkit.positions import context_of

FULL, SLIDING = "full_attention", "sliding_attention"
"""The kinds of layers in transformers that a mask can serve."""

ENDLESS = 1 << 30
"""The context of a model without a table of positions."""


class PlainCache(Cache):
    """Keys and values in a `DynamicCache` of transformers' for each slot; see `engine.Cache`."""

    def __init__(self, capacity: int, slots: int) -> None:
        from transformers import DynamicCache

        super().__init__(capacity, slots)
        self.slots: list[Any] = [DynamicCache() for _ in range(slots)]

    def _move(self, slot: int, length: int, path: np.ndarray) -> None:
        for layer in self.slots[slot].layers:
            for part in (layer.keys, layer.values):
                part[:, :, length : length + len(path)] = part[:, :, length + path]

    def copy_slot(self, source: int, target: int) -> None:
        """See `Cache`."""
        self.lengths[target] = self.lengths[source]
        self.drop_uncommitted(source)
        self.slots[target] = copy.deepcopy(self.slots[source])

    def drop_uncommitted(self, slot: int) -> None:
        """Drop the rows of a pass that were not committed."""
        written = self.slots[slot].get_seq_length()
        self.slots[slot].crop(int(self.lengths[slot]) - written)


class PlainEngine(Engine):
    """A transformers causal LM as an `Engine`; the sequences of one pass run one by one.

    ``module`` is the model in evaluation mode. Raises `LabkitError` for models that keep a running
    state instead of keys and values, since a state cannot be rolled back to an accepted path.
    """

    exact = False

    def __init__(self, module: Any) -> None:
        self.module = module
        self.name = "transformers' own forward pass"
        config = module.config
        self.vocabulary, self.width = config.vocab_size, config.hidden_size
        self.context = context_of(config) or ENDLESS
        self.layer_count = config.num_hidden_layers
        self.device, self.dtype = module.device, module.dtype
        kinds = set(getattr(config, "layer_types", None) or ())
        if strange := kinds - {FULL, SLIDING}:
            raise LabkitError(
                f"This model has layers of the kind {', '.join(sorted(strange))}, which cannot "
                "process a tree of drafts: give a model whose layers all attend to keys and values."
            )
        self.window = None if kinds == {FULL} else getattr(config, "sliding_window", None)
        self.mixed = kinds == {FULL, SLIDING}

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        every = sum(weight.nbytes for weight in self.module.parameters())
        table = self.module.get_input_embeddings().weight
        tied = table is self.module.get_output_embeddings().weight
        return every if tied else every - table.nbytes  # of the table only a few rows are read

    def new_cache(self, capacity: int, slots: int = 1) -> PlainCache:
        """See `kernels.engine.Engine`."""
        return PlainCache(capacity, slots)

    def mask(self, positions: np.ndarray, visible: np.ndarray, length: int) -> Any:
        """Return the mask of N new tokens, to be added to the scores: (1, 1, N, length + N).

        One mask for each kind of layer where the model has both.
        """
        shown = np.concatenate([np.ones((len(positions), length), bool), visible > 0], axis=1)
        full = self._additive(shown)
        if self.window is None:
            return full
        places = np.concatenate([np.arange(length), positions])
        near = positions[:, None] - places[None, :] < self.window
        windowed = self._additive(shown & near)
        return {FULL: full, SLIDING: windowed} if self.mixed else windowed

    def _additive(self, shown: np.ndarray) -> torch.Tensor:
        mask = torch.zeros(shown.shape, dtype=self.dtype, device=self.device)
        hidden = torch.from_numpy(~shown).to(self.device)
        return mask.masked_fill_(hidden, torch.finfo(self.dtype).min)[None, None]

    @torch.no_grad()
    def forward(
        self,
        rows: Sequence[Rows],
        cache: PlainCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """See `kernels.engine.Engine`."""
        tokens, positions, bounds, slots, lengths, visible = stack(self, rows, cache, layers)
        hidden, found = [], []
        for low, high, slot in zip(bounds[:-1], bounds[1:], slots, strict=True):
            cache.drop_uncommitted(slot)
            piece = slice(int(low), int(high))
            states: list[torch.Tensor] = []
            hook = self.module.base_model.register_forward_hook(
                lambda _module, _inputs, out, states=states: states.append(out.last_hidden_state)
            )
            with hook:
                out = self.module(
                    input_ids=self._ids(tokens[piece]),
                    position_ids=self._ids(positions[piece]),
                    attention_mask=self.mask(
                        positions[piece], visible[piece, piece], int(lengths[slot])
                    ),
                    cache=cache.slots[slot],
                    use_cache=True,
                    logits_to_keep=0 if logits == "all" else 1,
                    output_hidden_states=bool(layers),
                )
            told = [out.hidden_states[layer][0] for layer in layers]
            hidden.append(torch.cat([*told, states[0][0]], dim=-1))
            found.append(out.logits[0])
        return Output(torch.cat(hidden), torch.cat(found).float())

    def _ids(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)[None]

    def check_trees(self) -> None:
        """Raise `LabkitError` if the model does not keep a tree's branches apart.

        An architecture may ignore the mask or the positions that it is given; then the logits after
        one of two siblings are not those that it has alone.
        """
        cache = self.new_cache(4)
        alone = self.forward([Rows([0, 1, 2])], cache).logits[-1]
        visible = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], np.uint8)
        tree = Rows([0, 2, 1, 2], 0, [0, 1, 1, 2], visible)
        beside = self.forward([tree], cache).logits[-1]
        near = 2e-3 if self.dtype == torch.float32 else 0.1
        if not (beside - alone).abs().max() <= near * alone.abs().max():
            kind = type(self.module).__name__
            raise LabkitError(
                f"{kind} does not keep the branches of a draft tree apart, so nothing can be "
                "drafted for it: give a model such as Llama, Qwen, Mistral, GPT-NeoX or GPT-2."
            )
