"""A Llama model out of a GGUF file, as the plain files that the rest of the lab reads.

GGUF is llama.cpp's format: one file with the settings, the vocabulary and the weights, these in
blocks of 32 numbers (Q4_1: a 16-bit scale and offset and 32 four-bit steps; Q8_0: a 16-bit scale
and 32 signed bytes). Undoing the blocks is exact in float32, so nothing is lost here; what was lost
when the file was quantised stays lost. It takes a few seconds and no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabkitError

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What transformers calls a layer's weights, by llama.cpp's name."""

OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""The weights outside the layers; ``output`` is missing where the head is the embedding itself."""

CONTROL_TOKEN = 3
"""The GGUF token type of a special token, one that text never spells."""


def convert_gguf(source: Path, folder: Path) -> None:
    """Write ``source``'s model into ``folder`` as config.json, tokenizer files and safetensors.

    Raises `LabkitError` where the file is not a Llama-shaped GGUF model with a byte-level BPE
    vocabulary, which is all that this lab needs to read.
    """
    import gguf
    from safetensors.numpy import save_file

    try:
        reader = gguf.GGUFReader(source)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise LabkitError(f"{source.name} is not a whole GGUF file ({error}).") from None
    facts = {name: field.contents() for name, field in reader.fields.items()}
    shape, vocabulary = facts.get("general.architecture"), facts.get("tokenizer.ggml.model")
    if (shape, vocabulary) != ("llama", "gpt2"):
        raise LabkitError(
            f"{source.name} holds a {shape!r} model with a {vocabulary!r} vocabulary, and only "
            "'llama' with 'gpt2' (byte-level BPE) can be converted."
        )
    weights = {
        weight_name(tensor.name): _plain(tensor, facts, gguf.quants.dequantize)
        for tensor in reader.tensors
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = llama_config(facts, tied="lm_head.weight" not in weights)
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)
    write_tokenizer(facts, folder)


def weight_name(name: str) -> str:
    """Transformers' name of a weight, from llama.cpp's.

    >>> weight_name("blk.7.attn_q.weight")
    'model.layers.7.self_attn.q_proj.weight'
    >>> weight_name("token_embd.weight")
    'model.embed_tokens.weight'
    """
    match name.split("."):
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
        case [part, "weight"]:
            return f"{OUTER_NAMES[part]}.weight"
    raise LabkitError(f"The GGUF file holds a weight {name!r}, which no Llama model has.")


def _plain(tensor: Any, facts: dict[str, Any], dequantize: Any) -> np.ndarray:
    """One weight in float32, rows in transformers' order."""
    weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    heads = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    part = tensor.name.split(".")[-2]
    return halves_from_pairs(weight, heads[part]) if part in heads else np.ascontiguousarray(weight)


def halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key projection for the other way to write rotary positions.

    The rotation turns two numbers of a head together. llama.cpp keeps the two side by side (0 with
    1, 2 with 3 ...), transformers half a head apart (0 with D/2, 1 with D/2 + 1 ...).

    >>> halves_from_pairs(np.arange(8)[:, None], heads=1).ravel().tolist()
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, width))


def llama_config(facts: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The file's settings as a transformers ``config.json`` for `LlamaForCausalLM`."""
    width, heads = facts["llama.embedding_length"], facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "dtype": "float32",
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "rms_norm_eps": float(str(np.float32(facts["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {"rope_theta": facts["llama.rope.freq_base"], "rope_type": "default"},
        "tie_word_embeddings": tied,
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
    }


def write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    """Write the vocabulary as a fast tokenizer with the chat template.

    Text is cut the way SmolLM's was in training (``tokenizer.ggml.pre`` "smollm"): each digit on
    its own, then GPT-2's words, each as bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    cut = facts.get("tokenizer.ggml.pre")
    if cut != "smollm":
        raise LabkitError(f"The GGUF file cuts its text by {cut!r}, and only 'smollm' is known.")
    tokens = facts["tokenizer.ggml.tokens"]
    types = facts["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8", newline="\n")
    named = {
        "bos_token": "tokenizer.ggml.bos_token_id",
        "eos_token": "tokenizer.ggml.eos_token_id",
        "pad_token": "tokenizer.ggml.padding_token_id",
        "unk_token": "tokenizer.ggml.unknown_token_id",
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            **{name: tokens[facts[key]] for name, key in named.items()},
            "clean_up_tokenization_spaces": False,
            "model_max_length": facts["llama.context_length"],
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    template = facts["tokenizer.chat_template"]
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` in a form that a person can read and that is the same every time."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
