"""Models by name: shipped, fetched, in a folder or on a hub, each part read when first used."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit import devices
from labkit.errors import LabkitError
from labkit.models.smollm2 import check_real
from labkit.models.store import check_folder, check_weights, read_weights
from labkit.paths import data_dir
from labkit.positions import LONGEST, context_of

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
"""The files that are fetched from a hub: never pickled weights, never code."""


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
        if not (folder / "config.json").is_file():
            raise LabkitError(f"The folder {folder} holds no model: there is no config.json in it.")
        self.config: PretrainedConfig = _read("settings", quiet_transformers().AutoConfig, folder)
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
        return _read("tokenizer", quiet_transformers().AutoTokenizer, self.folder)

    @cached_property
    def module(self) -> PreTrainedModel:
        """The transformers model on `device` in `dtype`, ready for inference."""
        shape = "Seq2Seq" if self.config.is_encoder_decoder else "Causal"
        module, loading = _read(
            "model",
            getattr(quiet_transformers(), f"AutoModelFor{shape}LM"),
            self.folder,
            config=self.config,
            dtype=self.dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
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
        found: set[int] = set()
        sources = [self.config, self.tokenizer]
        if (self.folder / "generation_config.json").is_file():
            kind = quiet_transformers().GenerationConfig
            sources.append(_read("generation config", kind, self.folder))
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


def _read(part: str, kind: Any, folder: Path, **options: Any) -> Any:
    """Read one part of a model folder by a class of transformers: no network, nobody's code."""
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # a damaged file can make the libraries raise anything
        raise _unreadable(part, folder, error) from None


def _unreadable(part: str, folder: Path, error: Exception) -> LabkitError:
    """Return one sentence for a library's error, which can be a page long."""
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    return LabkitError(f"The {part} in {folder} cannot be read ({reason or type(error).__name__}).")


def load(name: str = "real", device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load the model ``name``: real, a shipped one (tiny), a folder, or one on a hub.

    ``device`` (cpu, cuda, mps) and ``dtype`` (float32, bfloat16, float16) are chosen by
    `labkit.devices` where they are None. Raises `LabkitError` where there is no such model, or
    its files are damaged.
    """
    return LanguageModel(name, model_folder(name), device, dtype)


def shipped_names() -> tuple[str, ...]:
    """Return the names of the models in ``data/models``."""
    return tuple(sorted(path.parent.name for path in data_dir().glob("models/*/config.json")))


def model_folder(name: str, deep: bool = False) -> Path:
    """Return the checked folder of the model ``name`` (``deep``: hash every file); see `load`."""
    if name == "real":
        return check_real(deep)
    if name in shipped_names():
        folder = data_dir() / "models" / name
        check_folder(folder, f"`git checkout -- {folder}` brings it back", deep)
        return folder
    if name and Path(name).is_dir():
        folder = Path(name).resolve()
        check_folder(folder, "make or fetch that folder again", deep)
        return folder
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    """Return the folder of a model on a hub, from the hub's own cache if it is complete there."""
    known = ", ".join(("real", *shipped_names()))
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", name):
        raise LabkitError(f"There is no model {name!r}: give {known}, a folder, or a hub's name.")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    def snapshot(local: bool) -> Path:
        fetch = huggingface_hub.snapshot_download
        return Path(fetch(name, allow_patterns=HUB_FILES, local_files_only=local))

    disable_progress_bars()
    with contextlib.suppress(OSError, HFValidationError, LabkitError):
        folder = snapshot(local=True)
        check_weights(folder)  # other programs cache the config and the tokenizer alone
        return folder
    try:
        return snapshot(local=False)
    except Exception as error:
        raise LabkitError(
            f"There is no model {name!r} here, and the hub gave none ({type(error).__name__}): "
            f"give {known}, a folder, or a name that the hub knows."
        ) from None
