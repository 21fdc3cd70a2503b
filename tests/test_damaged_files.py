"""Files that the lab reads, damaged at random: the right value or one sentence, never a traceback.

The readers of pairs, prompts, recipes, notebooks and server events have such tests of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit import load, records
from labkit.course import kept
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.records.base import RecordError
from labkit.speculative import calibrate
from labkit.speculative.checkpoint import load_heads, load_published, save_heads
from labkit.speculative.speculator import Speculator, SpeculatorConfig

SAID = (LabkitError, RecordError)
RECORDS = sorted((data_dir() / "records").glob("*.json"))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def places(value: Any) -> list[tuple[dict[str, Any] | list[Any], Any]]:
    """Every (container, key) in a JSON value."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    inner = [place for key in keys for place in places(value[key])]
    return [(value, key) for key in keys] + inner


def damaged(text: str, data: st.DataObject) -> bytes:
    """The JSON text with one value replaced or removed, or with bytes replaced."""
    if data.draw(st.booleans(), label="bytes"):
        raw = text.encode()
        at = data.draw(st.integers(0, len(raw)), label="at")
        return raw[:at] + data.draw(st.binary(max_size=4), label="put") + raw[at + 2 :]
    value = json.loads(text)
    container, key = data.draw(st.sampled_from(places(value)[:400]), label="place")
    if data.draw(st.booleans(), label="remove"):
        del container[key]
    else:
        container[key] = data.draw(values, label="value")
    return json.dumps(value).encode()


def said_or_read(read: Callable[[], object]) -> None:
    try:
        read()
    except SAID as error:
        assert str(error).strip()
        assert "\n" not in str(error)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
@settings(few, max_examples=15)
@given(data=st.data())
def test_a_damaged_record_is_one_sentence(path, data, tmp_path):
    text = path.read_text(encoding="utf-8")
    kind = json.loads(text)["kind"]
    reader = next(
        found
        for found in vars(records).values()
        if isinstance(found, type) and getattr(found, "KIND", None) == kind
    )
    broken = tmp_path / "record.json"
    broken.write_bytes(damaged(text, data))
    said_or_read(lambda: reader.load(broken))


def test_a_record_with_a_byte_order_mark_is_read(tmp_path):
    path = RECORDS[0]
    kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    reader = next(r for r in vars(records).values() if getattr(r, "KIND", None) == kind)
    marked = tmp_path / "record.json"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert reader.load(marked) == reader.load(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@few
@given(data=st.data())
def test_a_damaged_model_folder_is_one_sentence(name, data, toy_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(toy_folder, folder)
    text = (folder / name).read_text(encoding="utf-8")
    (folder / name).write_bytes(damaged(text, data))

    def use() -> None:
        model = load(str(folder), device="cpu")
        ids = model.encode("hello")
        assert model.context
        assert model.eos_ids is not None
        assert model.module(torch.tensor([ids])).logits.shape[1] == len(ids)

    said_or_read(use)


@few
@given(data=st.data())
def test_a_damaged_manifest_is_one_sentence(data, toy_folder, tmp_path):
    from labkit.models.store import make_manifest

    folder = tmp_path / "model"
    if not folder.is_dir():
        shutil.copytree(toy_folder, folder)
        (folder / "manifest.json").unlink(missing_ok=True)
    whole = make_manifest(folder, "here", 1, times=True).model_dump_json()
    (folder / "manifest.json").write_bytes(damaged(whole, data))
    said_or_read(lambda: load(str(folder), device="cpu"))


@few
@given(data=st.data())
def test_damaged_heads_are_one_sentence(data, tmp_path):
    table = torch.randn(20, 8)
    config = SpeculatorConfig(base="toy", vocab_size=20, emb_dim=8, inner_dim=6, n_predict=2)
    save_heads(tmp_path, Speculator(config, table), torch.arange(20))
    path = tmp_path / "config.json"
    path.write_bytes(damaged(path.read_text(encoding="utf-8"), data))
    said_or_read(lambda: load_heads(tmp_path, table))
    said_or_read(lambda: load_published(tmp_path))


@few
@given(content=st.binary(max_size=40))
def test_a_damaged_calibration_counts_as_none(content, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    path = calibrate.kept_at("toy", "plain")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert calibrate.kept("toy", "plain") is None


@few
@given(content=st.binary(max_size=40))
def test_damaged_predictions_are_one_sentence(content, tmp_path, monkeypatch):
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    monkeypatch.setattr(kept, "FILE", path)
    said_or_read(kept.predictions)
