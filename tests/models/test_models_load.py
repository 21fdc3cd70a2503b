"""Models by name, and what a loaded one promises."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from labkit import Decoder, load
from labkit.errors import LabkitError
from labkit.models import shipped_names
from labkit.models.store import make_manifest


@pytest.fixture
def copy(toy_folder, tmp_path):
    return shutil.copytree(toy_folder, tmp_path / "model")


def test_a_folder_is_a_model(toy_folder):
    model = load(str(toy_folder), device="cpu")
    ids = model.encode("hello")
    assert model.decode(ids) == "hello"
    assert model.context == 128
    assert model.eos_ids == {0}
    assert not model.chat
    logits = model.module(torch.tensor([ids])).logits
    assert logits.shape == (1, 5, 257)
    assert logits.dtype == torch.float32


def test_a_longrope_model_is_used_within_its_first_context_and_drafts_change_nothing(copy):
    factors = {f"{kind}_factor": [value] * 4 for kind, value in (("short", 1.0), ("long", 2.0))}
    path = copy / "config.json"
    config = json.loads(path.read_text("utf-8"))
    del config["rope_parameters"]  # as in files of before transformers 5
    config["original_max_position_embeddings"] = 64
    config["rope_scaling"] = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    path.write_text(json.dumps(config), encoding="utf-8")
    decoder = Decoder(load(str(copy), device="cpu"), max_nodes=8)
    assert decoder.base.context == decoder.engine.context == 64
    prompt = [5, 9, 7, 3] * 5
    plain = decoder.generate(prompt, 44, "vanilla").tokens
    assert decoder.generate(prompt, 44, "prompt_lookup").tokens == plain
    given = torch.tensor([prompt])
    wanted = decoder.base.module.generate(given, max_new_tokens=44, do_sample=False)
    assert wanted[0, 20:].tolist() == list(plain)
    with pytest.raises(LabkitError, match="beyond the model's context of 64"):
        decoder.generate(prompt, 45, "vanilla")


def test_no_config_asks_for_tables_of_positions_without_end(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"max_position_embeddings": 10**9}), encoding="utf-8")
    decoder = Decoder(load(str(copy), device="cpu"))
    assert decoder.base.context == decoder.engine.context == 2**20


def test_the_module_holds_the_weights_that_are_read_from_the_file(toy_folder):
    model = load(str(toy_folder))
    state = model.module.state_dict()
    for name, weight in model.weights().items():
        assert torch.equal(state[name].float().cpu(), torch.tensor(weight)), name


def test_the_module_is_loaded_once_and_only_when_asked(toy_folder):
    model = load(str(toy_folder))
    model.encode("hello")
    assert "module" not in vars(model)
    assert model.module is model.module
    assert not model.module.training


def test_the_number_format_can_be_chosen(toy_folder):
    assert load(str(toy_folder), dtype="bf16").module.dtype == torch.bfloat16


def test_a_chat_template_is_applied_unless_refused(chatting_toy_folder):
    model = load(str(chatting_toy_folder))
    assert model.chat
    assert model.decode(model.encode("hi")) == "[hi]>"
    assert model.decode(model.encode("hi", chat=False)) == "hi"


def test_token_texts_joined_are_the_text(toy_folder):
    model = load(str(toy_folder))
    assert "".join(map(model.token_text, model.encode("It is, 12 x"))) == "It is, 12 x"
    assert model.token_text(model.encode("é")[0]) == "\ufffd"


@pytest.mark.parametrize("content", ["", "[]", '{"eos_token_id": '])
def test_a_damaged_generation_config_is_one_sentence(copy, content):
    (copy / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(LabkitError, match="generation config"):
        _ = load(str(copy)).eos_ids


@pytest.mark.parametrize("template", ["{% if %}", "{{ raise_exception('never') }}", "{{ 1 / 0 }}"])
def test_a_chat_template_that_fails_is_one_sentence(copy, template):
    (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(LabkitError, match="chat template"):
        load(str(copy)).encode("hello")


def test_a_token_beyond_the_embeddings_is_one_sentence(copy):
    model = load(str(copy))
    model.tokenizer.add_tokens(["<more>"])
    with pytest.raises(LabkitError, match="the token 257, and the model has only 257"):
        model.encode("hello <more>")


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "intermediate_size"])
def test_a_config_unlike_the_weights_is_one_sentence(copy, key):
    path = copy / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, key: config[key] * 2}), encoding="utf-8")
    with pytest.raises(LabkitError, match=r"^The model in .*\.$"):
        _ = load(str(copy)).module


def test_a_missing_weight_is_named_and_never_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    (copy / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(LabkitError, match=r"lacks the weight model\.layers\.0\.mlp\.up_proj"):
        _ = load(str(copy)).module


@pytest.mark.parametrize("listed", [{}, {"a": "../elsewhere.safetensors"}, {"a": 3}, None])
def test_a_list_of_weight_files_that_names_none_of_them_is_one_sentence(copy, listed):
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": listed}), encoding="utf-8")
    with pytest.raises(LabkitError, match="list of weight files"):
        load(str(copy))


def test_a_snapshot_without_weights_is_completed_by_the_hub(copy, monkeypatch):
    without = copy.parent / "cached"
    shutil.copytree(copy, without, ignore=shutil.ignore_patterns("*.safetensors"))
    asked = []

    def snapshot(name, allow_patterns, local_files_only):
        asked.append(local_files_only)
        return str(without if local_files_only else copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert load("someone/model").folder == copy
    assert asked == [True, False]


def test_ending_tokens_of_every_settings_file_count(copy):
    path = copy / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [5, 6]}), encoding="utf-8")
    assert load(str(copy)).eos_ids == {0, 5, 6}


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("x" * 128, r"128 tokens .* 128: .* 127"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_with_the_reason(toy_folder, prompt, said):
    with pytest.raises(LabkitError, match=said):
        load(str(toy_folder)).encode(prompt)


def test_the_longest_prompt_leaves_room_for_one_token(toy_folder):
    assert len(load(str(toy_folder)).encode("x" * 127)) == 127


def test_a_chat_turn_without_a_template_is_refused(toy_folder):
    with pytest.raises(LabkitError, match="no chat template"):
        load(str(toy_folder)).encode("hello", chat=True)


@pytest.mark.parametrize("name", ["reel", "some body/model", "no/such/model", "", "../up", "a/b"])
def test_an_unknown_name_is_answered_with_those_there_are(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LabkitError, match=r"^There is no model [^\n]*real[^\n]*\.$"):
        load(name)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(LabkitError, match=r"no config\.json"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"device": "meta"}, "meta"),
        ({"dtype": "int3"}, "int3"),
    ],
)
def test_a_device_or_format_that_is_not_there_is_refused_at_once(toy_folder, options, said):
    with pytest.raises(LabkitError, match=said):
        load(str(toy_folder), **options)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "no-such-shape"}', "\udcff"])
def test_damaged_settings_are_one_sentence(copy, content):
    (copy / "config.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(LabkitError, match=r"^[^\n]*\.$"):
        load(str(copy))


def test_a_damaged_tokenizer_is_one_sentence(copy):
    (copy / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(LabkitError, match=r"^The tokenizer in [^\n]*\.$"):
        load(str(copy)).encode("hello")


def test_cut_off_weights_are_named_as_the_model_is_loaded(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LabkitError, match=r"model\.safetensors"):
        load(str(copy))


def test_pickled_weights_are_not_read(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(LabkitError, match=r"model\.safetensors"):
        load(str(copy))


def test_a_manifest_in_a_folder_is_held_to(copy):
    make_manifest(copy, "here", 1, times=False).write(copy)
    load(str(copy))
    (copy / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LabkitError, match=r"tokenizer_config\.json"):
        load(str(copy))


def test_a_shipped_model_is_found_in_the_data_folder(toy_folder, tmp_path, monkeypatch):
    shutil.copytree(toy_folder, tmp_path / "models" / "small")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert shipped_names() == ("small",)
    assert load("small").folder == tmp_path / "models" / "small"


def test_a_data_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(LabkitError, match="LABKIT_DATA"):
        load("tiny")


def test_an_encoder_decoder_is_a_model_too(toy_folder, tmp_path):
    from transformers import MarianConfig, MarianMTModel

    shutil.copytree(toy_folder, tmp_path, dirs_exist_ok=True)
    config = MarianConfig(
        vocab_size=257,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    MarianMTModel(config).save_pretrained(tmp_path)
    model = load(str(tmp_path))
    assert model.context == 64
    ids = torch.tensor([model.encode("hallo")])
    logits = model.module(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits
    assert logits.shape == (1, 1, 257)
