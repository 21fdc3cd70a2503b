"""A base model made ready to decode: its fast forward pass, its heads, every method by name."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from labkit.devices import torch_generator
from labkit.errors import LabkitError
from labkit.kernels import engine_for, not_llama_shaped
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.engine import Engine, check_layers
from labkit.kernels.llama import LlamaWeights
from labkit.models import LanguageModel, load
from labkit.paths import data_dir, plain_heads
from labkit.records import Token, Trace
from labkit.sampling import Sampling
from labkit.speculative.calibrate import default_nodes, kept
from labkit.speculative.checkpoint import load_heads
from labkit.speculative.device import DeviceStep, places_for
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.draft_model import DraftModel
from labkit.speculative.drafters.mlp import Heads, TorchHeads
from labkit.speculative.drafters.prompt_lookup import MLPLookup, PromptLookup
from labkit.speculative.drafters.remembering import EagleHeads, has_context, tree_drafter
from labkit.speculative.drafters.static import (
    ASSUMED,
    StaticDrafter,
    StaticEagle,
    StaticHeads,
    StaticTree,
    best_static,
)
from labkit.speculative.eagle import Eagle
from labkit.speculative.generate import Generation, check_fits, generate
from labkit.speculative.tracing import traced

if TYPE_CHECKING:
    from labkit.speculative.play import Player

METHODS = ("vanilla", "mlp", "mlp_lookup", "medusa", "eagle", "prompt_lookup", "draft_model")
"""The lab's own ways to decode, by name."""

UNBOUNDED = ("vanilla", "draft_model")
"""Methods that `Decoder.max_nodes` says nothing about."""

ON_DEVICE = ("vanilla", "mlp", "medusa", "eagle")
"""Methods whose whole step can run on the device; see `labkit.speculative.device`."""

KEPT_STEPS = 8
"""Recorded steps that a decoder keeps, each with a cache."""

NOTHING_PAYS = "No tree of drafts pays on this machine with these weights, so nothing is drafted."
"""The note of a trace whose method drafted nothing."""


def heads_folder(base: str, kind: str = "mlp") -> Path:
    """Return the folder of a model's shipped heads: ``data/heads/real`` for the model `real`."""
    name = Path(base).name if kind == "mlp" else f"{Path(base).name}-{kind}"
    return data_dir() / "heads" / name


class Decoder:
    """Decodes with one base model by any of `METHODS`.

    ``base`` is a `LanguageModel` or a name for `labkit.load`; ``heads`` a folder of trained heads,
    by default those shipped for it; ``max_nodes`` bounds the drafted tree, by default to what
    this machine's calibration favours. ``draft`` is the smaller model of the method draft_model.
    ``on_device`` runs the whole step of `ON_DEVICE` methods on the device, with a static tree: by
    default where that is a CUDA card, and on a CPU for teaching and tests.
    """

    def __init__(
        self,
        base: LanguageModel | str = "real",
        heads: str | Path | None = None,
        max_nodes: int | None = None,
        storage: str = "float32",
        draft: LanguageModel | str | None = None,
        on_device: bool | None = None,
    ) -> None:
        self.base = load(base) if isinstance(base, str) else base
        if getattr(self.base.config, "is_encoder_decoder", False):
            raise LabkitError(
                f"{self.base.name!r} is an encoder-decoder, and speculative decoding here needs a "
                "causal language model, such as real or tiny."
            )
        self.storage = storage
        self.draft_base = load(draft) if isinstance(draft, str) else draft
        self._max_nodes = max_nodes
        self.folder = Path(heads) if heads else None
        self.on_device = self.base.device.type == "cuda" if on_device is None else on_device
        self._heads: dict[str, Heads] = {}
        self._drafters: dict[str, Drafter | None] = {}
        self._steps: dict[tuple[str, Sampling, int], DeviceStep] = {}

    @property
    def max_nodes(self) -> int:
        """The most nodes of a drafted tree; 0 where no tree pays, and then nothing is drafted."""
        if self._max_nodes is None:
            self._max_nodes = default_nodes(self.base, self.engine, lambda: self.heads)
        return self._max_nodes

    @cached_property
    def engine(self) -> Engine:
        """The fastest forward pass that this machine has for the model."""
        if self.on_device and self.base.device.type == "cpu":
            strange = not_llama_shaped(self.base.config)
            if strange:
                raise LabkitError(f"The whole step cannot run on the device, since {strange}.")
            weights = LlamaWeights(self.base.config, self.base.weights())
            return CudaEngine(weights, self.base.device, self.base.dtype)
        return engine_for(self.base, self.storage)

    @property
    def heads(self) -> Heads:
        """The hierarchical heads."""
        return self.heads_of("mlp")

    @cached_property
    def plain_heads(self) -> Heads:
        """The heads, or those without a context layer that are shipped with them."""
        if not has_context(self.heads):
            return self.heads
        return self._open_heads(plain_heads(self.base.name))

    def heads_of(self, method: str) -> Heads:
        """Return the heads of mlp, of medusa (independent ones, for contrast) or of eagle."""
        if method not in self._heads:
            own = self.folder if method == "mlp" else None
            self._heads[method] = self._open_heads(own or heads_folder(self.base.name, method))
        return self._heads[method]

    def _open_heads(self, folder: Path) -> Heads:
        if not folder.is_dir():
            raise LabkitError(
                f"There are no heads for {self.base.name!r} in {folder}: train some with `labkit "
                f"train all`, or use another method."
            )
        rows: Any = getattr(self.engine, "embedding", None)
        on_panels = isinstance(rows, np.ndarray)  # the weights-once path, so numba is there
        if rows is None:
            embeddings: Any = self.base.module.get_input_embeddings()
            rows = embeddings.weight.detach()
        table = torch.tensor(rows) if on_panels else rows  # (V, D)
        speculator, ids = load_heads(folder, table.float())
        weights = {name: value.numpy() for name, value in speculator.state_dict().items()}
        if isinstance(speculator, Eagle):
            if not on_panels:
                return EagleHeads(speculator.cpu(), ids)
            from labkit.kernels.eagle import PanelEagle

            return EagleHeads(PanelEagle(speculator.config, weights, rows, ids), ids)
        check_layers(speculator.config.layers, self.engine.layer_count)
        if not on_panels:
            return TorchHeads(speculator.to(table.device), ids)
        from labkit.kernels.heads import ContextPanelHeads, PanelHeads

        make = ContextPanelHeads if speculator.config.context else PanelHeads
        return make(speculator.config, weights, rows, ids)

    def drafter(self, method: str) -> Drafter | None:
        """Return the drafter called ``method``; None for vanilla, and where no tree pays.

        Raises `LabkitError` for an unknown method.
        """
        if method not in METHODS:
            raise LabkitError(f"There is no method {method!r}: give one of {', '.join(METHODS)}.")
        if method == "vanilla" or self._idle(method):
            return None
        if method == "draft_model":
            return self._draft_model()
        if method == "prompt_lookup":
            return PromptLookup(self.max_nodes)
        if method == "mlp_lookup":
            heads = tree_drafter(self.heads, self.max_nodes)
            return MLPLookup(heads, PromptLookup(self.max_nodes))
        return tree_drafter(self.heads_of(method), self.max_nodes)

    def _idle(self, method: str) -> bool:
        """Return whether ``method`` drafts nothing, since no tree pays."""
        return method not in UNBOUNDED and not self.max_nodes

    @property
    def smaller_model(self) -> LanguageModel:
        """The model that drafts in draft_model; raises `LabkitError` if none was given."""
        if self.draft_base is None:
            raise LabkitError(
                f"No smaller model with the tokenizer of {self.base.name!r} comes with the lab: "
                "name one as the draft model."
            )
        return self.draft_base

    def _draft_model(self) -> DraftModel:
        smaller = self.smaller_model
        # The tokenizers' vocabularies decide: a table may have more rows than its tokenizer.
        if smaller.tokenizer.get_vocab() != self.base.tokenizer.get_vocab():
            raise LabkitError(
                f"The draft model {smaller.name!r} has another tokenizer than "
                f"{self.base.name!r}: give one of the same family."
            )
        return DraftModel(engine_for(smaller, self.storage), self.engine.vocabulary)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        method: str = "vanilla",
        sampling: Sampling | None = None,
        seed: int = 0,
        detail: bool = False,
    ) -> Generation:
        """Decode by ``method``, with the step on the device where that can be.

        ``detail`` keeps what both models thought, for the TokenStepper.
        """
        ids = self.encode(prompt, max_new_tokens)
        sampling = sampling or Sampling()
        if not detail and not sampling.typical and self.whole_step(method):
            step = self.step(method, sampling, len(ids) + max_new_tokens)
            return step.generate(ids, max_new_tokens, self.base.eos_ids, seed)
        if method not in self._drafters:
            self._drafters[method] = self.drafter(method)
        drafter, ends = self._drafters[method], self.base.eos_ids
        draws = None if sampling.greedy else torch_generator(seed)
        return generate(self.engine, ids, max_new_tokens, drafter, sampling, ends, draws, detail)

    def whole_step(self, method: str) -> bool:
        """Return whether the whole step of ``method`` runs on the device."""
        return self.on_device and method in ON_DEVICE and isinstance(self.engine, CudaEngine)

    def step(self, method: str, sampling: Sampling, room: int) -> DeviceStep:
        """Return the step on the device for texts of up to ``room`` tokens, recorded once."""
        assert isinstance(self.engine, CudaEngine)
        tree = self.static_tree(method)
        end = places_for(room, tree)
        if (method, sampling, end) not in self._steps:
            drafter = self._static_drafter(method, tree, end) if tree.paths else None
            made = DeviceStep(self.engine, drafter, sampling, end - len(tree.paths) - 1)
            self._steps[method, sampling, end] = made
            for oldest in list(self._steps)[:-KEPT_STEPS]:
                del self._steps[oldest]
        return self._steps[method, sampling, end]

    def static_tree(self, method: str) -> StaticTree:
        """Return the tree of a method on the device: of `max_nodes` nodes, by calibration."""
        if method == "vanilla" or not self.max_nodes:
            return StaticTree(())
        depth = self.heads_of(method).config.n_predict
        found = kept(self.base.name, self.engine.name)
        measured = found.acceptance if found else ()
        shares = measured if len(measured) == depth else (ASSUMED,) * depth
        return best_static(shares, self.max_nodes)

    def _static_drafter(self, method: str, tree: StaticTree, room: int) -> StaticDrafter:
        assert isinstance(self.engine, CudaEngine)
        heads: Any = self.heads_of(method)
        eagle = isinstance(heads, EagleHeads)
        module = deepcopy(heads.eagle if eagle else heads.speculator).requires_grad_(False)
        module = module.to(self.engine.device, self.engine.dtype)
        make: Any = StaticEagle if eagle else StaticHeads
        return make(module, heads.draft_ids, tree, room)

    def trace(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        method: str = "mlp",
        sampling: Sampling | None = None,
        seed: int = 0,
        detail: bool = True,
    ) -> Trace:
        """Return the record of one generation, with both models' candidates at every place."""
        done = self.generate(prompt, max_new_tokens, method, sampling, seed, detail)
        temperature = sampling.temperature if sampling else 0.0
        return self.record(done, prompt, method, temperature, seed if temperature else None)

    def record(
        self,
        generation: Generation,
        prompt: str,
        method: str,
        temperature: float = 0.0,
        seed: int | None = None,
        ties: int = 0,
    ) -> Trace:
        """Return a finished generation as a record; its note says why nothing was drafted."""
        show = self.base.token_text
        return Trace(
            method=method,
            base=self.base.name,
            prompt=prompt,
            prompt_tokens=len(generation.prompt),
            temperature=temperature,
            seed=seed,
            first=Token(id=generation.first, text=show(generation.first)),
            steps=tuple(traced(step, show) for step in generation.steps),
            text=self.base.decode(generation.tokens),
            prefill_s=generation.prefill_s,
            ties=ties,
            note=NOTHING_PAYS if self._idle(method) else "",
        )

    def encode(self, prompt: str | Sequence[int], max_new_tokens: int) -> list[int]:
        """Return the prompt's token ids; raises `LabkitError` if it is empty or too long."""
        ids = self.base.encode(prompt) if isinstance(prompt, str) else [int(t) for t in prompt]
        check_fits(self.base.context, ids, max_new_tokens)
        return ids

    def warm_up(self, method: str = "mlp") -> None:
        """Compile and load everything, so that the next generation's times are its own."""
        self.generate([0, 1, 2], 4, method)

    def player(self) -> Player:
        """Return what answers a `labkit.widgets.Playground` with this decoder."""
        from labkit.speculative.play import Player

        return Player(self)

    def race(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        methods: Sequence[str] = ("vanilla", "mlp"),
        repeats: int = 3,
    ) -> RaceResult:
        """Decode the prompt by every method, in turn, ``repeats`` times; greedy.

        The first method is what the others are compared with.
        """
        if repeats < 1:
            raise LabkitError(f"The number of repeats is {repeats}: give at least 1.")
        ids = self.encode(prompt, max_new_tokens)
        for method in methods:
            self.warm_up(method)
        runs: dict[str, list[Generation]] = {method: [] for method in methods}
        for _ in range(repeats):
            for method in methods:
                runs[method].append(self.generate(ids, max_new_tokens, method))
        middle = {
            method: sorted(done, key=lambda run: run.seconds)[repeats // 2]
            for method, done in runs.items()
        }
        return RaceResult(self, prompt, middle, runs)


@dataclass(frozen=True)
class RaceResult:
    """Several methods over one prompt: of each the run of median time, and all runs."""

    decoder: Decoder
    prompt: str
    typical: dict[str, Generation]
    runs: dict[str, list[Generation]]

    def compare(self, method: str) -> tuple[bool, int]:
        """Return whether ``method``'s output is the first method's, and the ties that excuse it.

        On an exact engine nothing is excused.
        """
        results = [
            same_output(one.tokens, other.tokens, {*one.narrow, *other.narrow}.__contains__)
            for one, other in self._pairs(method)
        ]
        return all(same for same, _ in results), max(ties for _, ties in results)

    def speedup(self, method: str) -> float:
        """Return the median, over the repeats, of the first method's time over ``method``'s."""
        return statistics.median(one.seconds / two.seconds for one, two in self._pairs(method))

    def _pairs(self, method: str) -> Iterator[tuple[Generation, Generation]]:
        """The runs of the first method, each with ``method``'s of the same repeat."""
        return zip(next(iter(self.runs.values())), self.runs[method], strict=True)

    @property
    def traces(self) -> list[Trace]:
        """The runs of median time as records, for the Race widget."""
        return [
            self.decoder.record(done, self.prompt, method, ties=self.compare(method)[1])
            for method, done in self.typical.items()
        ]


def same_output(
    ours: Sequence[int], theirs: Sequence[int], tied: Callable[[int], bool]
) -> tuple[bool, int]:
    """Return whether both outputs are the same, and the ties that excuse a difference: 0 or 1.

    Where the base model's two largest logits all but tie (``tied``, by place), an engine that is
    not exact may take either. What follows is another text, so the comparison ends there.
    """
    if ours == theirs:
        return True, 0
    shared = min(len(ours), len(theirs))
    place = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
    excused = tied(place)
    return excused, int(excused)
