"""The conversion of a GGUF file, against transformers' own reading of the same file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from labkit.errors import LabkitError
from labkit.models import LanguageModel
from labkit.models.gguf import convert_gguf, halves_from_pairs

from .conftest import HEADS, WIDTH, write_gguf


@pytest.fixture(scope="module")
def converted(gguf_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(gguf_file, folder)
    return folder


def test_weights_and_logits_equal_those_that_transformers_makes_of_the_file(converted, gguf_file):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    ours = LanguageModel("toy", converted, device="cpu").module
    state = ours.state_dict()
    assert set(state) == set(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        assert torch.equal(state[name], weight), name
    ids = torch.arange(20)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_stored_weights_are_float32_and_named_as_transformers_names_them(converted):
    weights = load_file(converted / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
    assert "model.layers.1.self_attn.q_proj.weight" in weights
    assert "lm_head.weight" not in weights  # tied to the embedding


def test_rows_of_interleaved_rotary_pairs_come_apart_into_halves_of_each_head():
    weight = np.arange(16)[:, None]
    assert halves_from_pairs(weight, heads=2).ravel().tolist() == [
        *(0, 2, 4, 6, 1, 3, 5, 7),
        *(8, 10, 12, 14, 9, 11, 13, 15),
    ]


@pytest.mark.parametrize("text", ["in the end", "a  12  the345", "é漢字\n\n 3rd", "<|im_start|>in"])
def test_text_survives_the_tokenizer(converted, text):
    tokenizer = LanguageModel("toy", converted).tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone_and_spaces_before_them_stay_together(converted):
    tokenizer = LanguageModel("toy", converted).tokenizer
    assert tokenizer.tokenize("in  12") == ["in", "ĠĠ", "1", "2"]


def test_a_chat_turn_is_written_by_the_models_own_template(converted):
    model = LanguageModel("toy", converted)
    text = model.tokenizer.decode(model.encode("the"))
    assert text == "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"
    assert model.eos_ids == {2}
    assert model.context == 64


def test_another_architecture_or_cut_is_refused_by_name(tmp_path):
    write_gguf(tmp_path / "other.gguf", architecture="qwen2")
    with pytest.raises(LabkitError, match="qwen2"):
        convert_gguf(tmp_path / "other.gguf", tmp_path)
    write_gguf(tmp_path / "other.gguf", cut="llama-bpe")
    with pytest.raises(LabkitError, match="llama-bpe"):
        convert_gguf(tmp_path / "other.gguf", tmp_path / "out")


@pytest.mark.parametrize(
    "missing",
    [
        "add_rope_freq_base",
        "add_bos_token_id",
        "add_eos_token_id",
        "add_pad_token_id",
        "add_unk_token_id",
        "add_chat_template",
        "add_token_types",
    ],
)
def test_settings_that_a_file_leaves_out_get_the_formats_defaults(tmp_path, missing):
    write_gguf(tmp_path / "toy.gguf", without=[missing])
    convert_gguf(tmp_path / "toy.gguf", tmp_path / "model")
    model = LanguageModel("toy", tmp_path / "model", device="cpu")
    ids = model.encode("in the end")
    assert model.chat == (missing != "add_chat_template")
    assert model.eos_ids == (set() if missing == "add_eos_token_id" else {2})
    assert model.module(torch.tensor([ids])).logits.isfinite().all()
    if missing == "add_rope_freq_base":
        assert model.config.rope_parameters["rope_theta"] == 10_000


def test_key_heads_default_to_query_heads(tmp_path):
    write_gguf(tmp_path / "toy.gguf", without=["add_head_count_kv"], key_heads=HEADS)
    convert_gguf(tmp_path / "toy.gguf", tmp_path / "model")
    assert LanguageModel("toy", tmp_path / "model").config.num_key_value_heads == HEADS


def test_rotary_factors_of_one_change_nothing_and_others_are_refused(tmp_path, gguf_file):
    plain = np.ones(WIDTH // HEADS // 2)
    write_gguf(tmp_path / "ones.gguf", frequencies=plain)
    convert_gguf(tmp_path / "ones.gguf", tmp_path / "ones")
    convert_gguf(gguf_file, tmp_path / "same")
    ones, same = (load_file(tmp_path / name / "model.safetensors") for name in ("ones", "same"))
    assert ones.keys() == same.keys()
    write_gguf(tmp_path / "scaled.gguf", frequencies=plain * 8)
    with pytest.raises(LabkitError, match=r"scaled\.gguf scales its rotary"):
        convert_gguf(tmp_path / "scaled.gguf", tmp_path / "scaled")


@pytest.mark.parametrize(
    ("missing", "key"),
    [
        ("add_context_length", "llama.context_length"),
        ("add_layer_norm_rms_eps", "llama.attention.layer_norm_rms_epsilon"),
        ("add_token_merges", "tokenizer.ggml.merges"),
        ("add_head_count", "llama.attention.head_count"),
    ],
)
def test_a_setting_without_a_default_is_named(tmp_path, missing, key):
    write_gguf(tmp_path / "toy.gguf", without=[missing])
    with pytest.raises(LabkitError, match=f"lacks the setting '{key}'"):
        convert_gguf(tmp_path / "toy.gguf", tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -64])
def test_a_cut_off_file_is_refused_in_one_sentence(gguf_file, tmp_path, keep):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file.read_bytes()[:keep])
    with pytest.raises(LabkitError, match=r"^cut\.gguf .*\.$"):
        convert_gguf(cut, tmp_path / "out")
