"""`LanguageModel`: one model's folder, whose parts are read when first used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit import devices
from labkit.errors import LabkitError
from labkit.models.weights import check_weights, read_weights
from labkit.positions import LONGEST, context_of

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class LanguageModel:
    """A language model in a folder: config, tokenizer and weights, each read when first used.

    The config and the sizes of the weight files are checked at once. ``module`` is the
    transformers model, which the lab's own fast forward pass never loads.
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
        if device or dtype:  # name a mistake in either now, though neither is needed yet
            _ = self.dtype

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {self.config.model_type}, {self.folder})"

    @cached_property
    def device(self) -> torch.device:
        """The device on which the model computes."""
        return devices.pick_device(self._device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format in which the model computes."""
        return devices.pick_dtype(self._dtype, self.device)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The fast tokenizer."""
        transformers = quiet_transformers()
        try:
            return transformers.AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # a damaged file can make the libraries raise anything
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
            module, loading = kind.from_pretrained(
                self.folder,
                config=self.config,
                dtype=self.dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:
            raise _unreadable("model", self.folder, error) from None
        # transformers fills missing weights with random numbers and only warns.
        missing, other = loading["missing_keys"], [key[0] for key in loading["mismatched_keys"]]
        if missing or other:
            fault = "lacks the weight" if missing else "has sizes unlike its config.json's in"
            raise LabkitError(f"The model in {self.folder} {fault} {min(missing or other)}.")
        return module.eval().requires_grad_(False).to(self.device)

    def weights(self) -> dict[str, np.ndarray]:
        """Return every stored weight in float32, by its name in transformers.

        Tied weights appear once; those stored in float32 are read-only views of the mapped file.
        """
        return read_weights(self.folder)

    @property
    def chat(self) -> bool:
        """Whether the model was trained to answer: its tokenizer has a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def context(self) -> int:
        """The context length in tokens, prompt and output together."""
        return context_of(self.config) or min(LONGEST, int(self.tokenizer.model_max_length))

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an output."""
        transformers = quiet_transformers()
        found: set[int] = set()
        sources = [self.config, self.tokenizer]
        if (self.folder / "generation_config.json").is_file():
            try:
                sources.append(transformers.GenerationConfig.from_pretrained(self.folder))
            except Exception as error:
                raise _unreadable("generation config", self.folder, error) from None
        for source in sources:
            match getattr(source, "eos_token_id", None):
                case int(one):
                    found.add(one)
                case [*several]:
                    found.update(several)
        return frozenset(found)

    def encode(self, prompt: str, chat: bool | None = None) -> list[int]:
        """Return the token ids of ``prompt``, as a user's turn if the model has a chat template.

        ``chat`` False leaves the template out. Raises `LabkitError` for an empty prompt, for one
        that leaves no room in the context or is no Unicode text, and for ``chat`` True without a
        template.
        """
        if chat and not self.chat:
            raise LabkitError(f"The model {self.name!r} has no chat template: give chat=False.")
        ids = self.encode_chat([prompt]) if chat is not False else self._ids(prompt)
        if len(ids) >= self.context:
            raise LabkitError(
                f"The prompt has {len(ids):,} tokens and the context of {self.name!r} is "
                f"{self.context:,}: give a prompt of at most {self.context - 1:,} tokens."
            )
        return ids

    def encode_chat(self, turns: Sequence[str]) -> list[int]:
        """Return the token ids of a conversation: user and model by turns, the model's turn next.

        Without a chat template the turns are joined by blank lines. Raises `LabkitError` for an
        empty or non-Unicode turn, a template that fails, or token ids that the model does not have.
        """
        if not self.chat:
            return self._ids("\n\n".join(map(_checked, turns)))
        roles = ("user", "assistant")
        talk = [{"role": roles[i % 2], "content": _checked(turn)} for i, turn in enumerate(turns)]
        try:
            template: Any = self.tokenizer.apply_chat_template
            ids = template(talk, add_generation_prompt=True, return_dict=False)
        except Exception as error:  # a template is a program of somebody else's
            raise _unreadable("chat template", self.folder, error) from None
        return self._within_vocabulary(ids)

    def _ids(self, text: str) -> list[int]:
        return self._within_vocabulary(self.tokenizer(_checked(text))["input_ids"])

    def _within_vocabulary(self, ids: Iterable[int]) -> list[int]:
        """Return ``ids`` as a list; refuse a tokenizer that outgrew the model's embeddings."""
        found, size = list(ids), getattr(self.config, "vocab_size", None)
        if size and max(found, default=0) >= size:
            raise LabkitError(
                f"The tokenizer of {self.name!r} gives the token {max(found)}, and the model has "
                f"only {size:,} tokens: resize its embeddings."
            )
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids without special tokens."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def token_text(self, token: int) -> str:
        """Return the text of one token inside a sentence; a lone byte shows as U+FFFD."""
        text = str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        # SentencePiece marks a leading space so, and drops it where a text begins
        return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text


def _checked(text: str) -> str:
    """Return ``text`` if it is neither empty nor broken Unicode."""
    if not text.strip():
        raise LabkitError("The prompt is empty: give some text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LabkitError("The prompt is not Unicode text: give it in UTF-8.") from None
    return text


def quiet_transformers() -> Any:
    """Return the transformers library with its progress bars and warnings off."""
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
    """Return one sentence for a library's error, which can be a page long."""
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    return LabkitError(f"The {part} in {folder} cannot be read ({reason or type(error).__name__}).")
