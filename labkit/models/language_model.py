"""`LanguageModel`: one model's folder, and what is read out of it when it is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit import devices
from labkit.errors import LabkitError
from labkit.models.weights import check_weights, read_weights

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class LanguageModel:
    """A language model in a folder: its settings, tokenizer and weights, each read when first used.

    The settings and the extent of the weight files are checked when it is made, so that a damaged
    folder is named at once. ``module`` is the transformers model, which the lab's own fast forward
    pass never loads.
    """

    def __init__(
        self, name: str, folder: Path, device: str | None = None, dtype: str | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.config = _read_config(folder)
        check_weights(folder)
        self._device = device
        self._dtype = dtype
        if device or dtype:  # a mistake in either is named now, though neither is needed yet
            _ = self.dtype

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {self.config.model_type}, {self.folder})"

    @cached_property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return devices.pick_device(self._device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format that the model computes in."""
        return devices.pick_dtype(self._dtype, self.device)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The fast tokenizer."""
        transformers = quiet_transformers()
        try:
            return transformers.AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a damaged file makes the libraries raise
            raise _unreadable("tokenizer", self.folder, error) from None

    @cached_property
    def module(self) -> PreTrainedModel:
        """The transformers model on `device` in `dtype`, ready for inference."""
        transformers = quiet_transformers()
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if self.config.is_encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        try:
            module = kind.from_pretrained(
                self.folder,
                config=self.config,
                dtype=self.dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:
            raise _unreadable("model", self.folder, error) from None
        return module.eval().requires_grad_(False).to(self.device)

    def weights(self) -> dict[str, np.ndarray]:
        """Every stored weight in float32, by its name in transformers.

        A weight that is tied to another stands there once; those stored in float32 are read-only
        views of the mapped file.
        """
        return read_weights(self.folder)

    @property
    def chat(self) -> bool:
        """Whether the model was trained to answer: its tokenizer has a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def context(self) -> int:
        """The most tokens that the model can look at, prompt and output together."""
        positions = getattr(self.config, "max_position_embeddings", None)
        return int(positions or self.tokenizer.model_max_length)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an output."""
        transformers = quiet_transformers()
        found: set[int] = set()
        sources = [self.config, self.tokenizer]
        if (self.folder / "generation_config.json").is_file():
            sources.append(transformers.GenerationConfig.from_pretrained(self.folder))
        for source in sources:
            match getattr(source, "eos_token_id", None):
                case int(one):
                    found.add(one)
                case [*several]:
                    found.update(several)
        return frozenset(found)

    def encode(self, prompt: str, chat: bool | None = None) -> list[int]:
        """The token ids of ``prompt``, as a user's turn where the model has a chat template.

        ``chat`` False leaves the template out. Raises `LabkitError` for an empty prompt, for one
        that leaves no room in the context or is no Unicode text, and for ``chat`` True without a
        template.
        """
        if not prompt.strip():
            raise LabkitError("The prompt is empty: give some text.")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise LabkitError("The prompt is not Unicode text: give it in UTF-8.") from None
        if chat and not self.chat:
            raise LabkitError(f"The model {self.name!r} has no chat template: give chat=False.")
        if self.chat and chat is not False:
            ids = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        else:
            ids = self.tokenizer(prompt)["input_ids"]
        if len(ids) >= self.context:
            raise LabkitError(
                f"The prompt has {len(ids):,} tokens and the context of {self.name!r} is "
                f"{self.context:,}: give a prompt of at most {self.context - 1:,} tokens."
            )
        return list(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def token_text(self, token: int) -> str:
        """The text of one token as it stands within a sentence; a lone byte shows as U+FFFD."""
        text = str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        # SentencePiece marks a leading space so, and drops it where a text begins
        return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text


def quiet_transformers() -> Any:
    """The transformers library, its bars and warnings off: it would write over the lab's output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers


def _read_config(folder: Path) -> PretrainedConfig:
    if not (folder / "config.json").is_file():
        raise LabkitError(f"The folder {folder} holds no model: there is no config.json in it.")
    transformers = quiet_transformers()
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise _unreadable("settings", folder, error) from None


def _unreadable(part: str, folder: Path, error: Exception) -> LabkitError:
    """One sentence out of whatever a library says, which can be a page."""
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    return LabkitError(f"The {part} in {folder} cannot be read ({reason or type(error).__name__}).")
