"""Conversion of a Llama model in a GGUF file to config.json, tokenizer files and safetensors.

GGUF is llama.cpp's format: one file with the settings, the vocabulary and the weights in blocks of
32 numbers (Q4_1: a 16-bit scale and offset and 32 four-bit steps; Q8_0: a 16-bit scale and 32
signed bytes). Expanding the blocks is exact in float32. Settings that the file leaves out get the
format's defaults. It takes a few seconds and needs no torch.
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
"""transformers' names of a layer's weights, by llama.cpp's."""

OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""The weights outside the layers; ``output`` is missing where the head is the embedding itself."""

CONTROL_TOKEN = 3
"""The GGUF token type of a special token, which no text contains."""

SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
"""The format's names of the special tokens, by transformers' short names; a file may lack any."""

FREQUENCIES = "rope_freqs.weight"
"""Factors of the rotary frequencies; all ones where the file's model does not scale them."""


def convert_gguf(source: Path, folder: Path) -> None:
    """Write the model in ``source`` into ``folder`` as config.json, tokenizer and safetensors.

    Raises `LabkitError` unless the file is a whole Llama-shaped GGUF model with a byte-level BPE
    vocabulary.
    """
    import gguf
    from safetensors.numpy import save_file

    try:
        reader = gguf.GGUFReader(source)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise LabkitError(f"{source.name} is not a whole GGUF file ({error}).") from None
    facts = Facts(source.name, {name: field.contents() for name, field in reader.fields.items()})
    shape, vocabulary = facts.get("general.architecture"), facts.get("tokenizer.ggml.model")
    if (shape, vocabulary) != ("llama", "gpt2"):
        raise LabkitError(
            f"{source.name} holds a {shape!r} model with a {vocabulary!r} vocabulary, and only "
            "'llama' with 'gpt2' (byte-level BPE) can be converted."
        )
    scaled, weights = facts.get("llama.rope.scaling.type", "none") != "none", {}
    for tensor in reader.tensors:
        plain = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name == FREQUENCIES:
            scaled = scaled or bool((plain != 1).any())
            continue
        name = weight_name(tensor.name)
        if heads := facts.heads.get(tensor.name.split(".")[-2]):
            plain = halves_from_pairs(plain, heads)
        weights[name] = np.ascontiguousarray(plain, np.float32)
    if scaled:
        raise LabkitError(f"{source.name} scales its rotary frequencies, which is not supported.")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = llama_config(facts, tied="lm_head.weight" not in weights)
    ends = {name: config[name] for name in config if name.endswith("_token_id")}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)
    write_tokenizer(facts, folder)


class Facts(dict[str, Any]):
    """A GGUF file's settings by key; a missing one that has no default is named in one sentence."""

    def __init__(self, file: str, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise LabkitError(f"{self.file} lacks the setting {key!r}.")

    @property
    def heads(self) -> dict[str, int]:
        """The number of heads of each projection; key heads default to query heads."""
        heads = self["llama.attention.head_count"]
        return {"attn_q": heads, "attn_k": self.get("llama.attention.head_count_kv", heads)}

    @property
    def special(self) -> dict[str, int]:
        """The ids of the special tokens that the file names, by short name (bos, eos, pad, unk)."""
        keys = {name: f"tokenizer.ggml.{key}_token_id" for name, key in SPECIAL_TOKENS.items()}
        found = {name: self[key] for name, key in keys.items() if key in self}
        size = len(self["tokenizer.ggml.tokens"])
        beyond = [name for name, token in found.items() if not 0 <= token < size]
        if beyond:
            raise LabkitError(f"{self.file} names a {beyond[0]} token outside its vocabulary.")
        return found


def weight_name(name: str) -> str:
    """Return transformers' name of a weight from llama.cpp's.

    >>> weight_name("blk.7.attn_q.weight")
    'model.layers.7.self_attn.q_proj.weight'
    >>> weight_name("token_embd.weight")
    'model.embed_tokens.weight'
    """
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in LAYER_NAMES:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
        case [part, "weight"] if part in OUTER_NAMES:
            return f"{OUTER_NAMES[part]}.weight"
    raise LabkitError(f"The GGUF file holds a weight {name!r}, which no Llama model has.")


def halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key projection for transformers' rotary layout.

    A rotation turns two numbers of a head. llama.cpp stores the two next to each other (0 with 1,
    2 with 3 ...), transformers half a head apart (0 with D/2, 1 with D/2 + 1 ...).

    >>> halves_from_pairs(np.arange(8)[:, None], heads=1).ravel().tolist()
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def llama_config(facts: Facts, tied: bool) -> dict[str, Any]:
    """Return the file's settings as a transformers ``config.json`` for `LlamaForCausalLM`."""
    width, heads = facts["llama.embedding_length"], facts.heads["attn_q"]
    base = facts.get("llama.rope.freq_base", 10_000.0)
    return {
        **{f"{name}_token_id": facts.special.get(name) for name in ("bos", "eos", "pad")},
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "dtype": "float32",
        "head_dim": facts.get("llama.attention.key_length", width // heads),
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts.heads["attn_k"],
        "rms_norm_eps": float(str(np.float32(facts["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {"rope_theta": base, "rope_type": "default"},
        "tie_word_embeddings": tied,
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
    }


def write_tokenizer(facts: Facts, folder: Path) -> None:
    """Write the vocabulary as a fast tokenizer, with the chat template if there is one.

    Text is split as SmolLM's was in training (``tokenizer.ggml.pre`` "smollm"): into single digits
    and GPT-2's words, each as bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    cut = facts.get("tokenizer.ggml.pre")
    if cut != "smollm":
        raise LabkitError(f"{facts.file} splits its text by {cut!r}; only 'smollm' is supported.")
    tokens = facts["tokenizer.ggml.tokens"]
    types = facts.get("tokenizer.ggml.token_type", [0] * len(tokens))
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
    write_json(
        folder / "tokenizer_config.json",
        {
            **{f"{name}_token": tokens[token] for name, token in facts.special.items()},
            "clean_up_tokenization_spaces": False,
            "model_max_length": facts["llama.context_length"],
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    template = facts.get("tokenizer.chat_template")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON with sorted keys."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
