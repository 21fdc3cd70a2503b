from __future__ import annotations

import json

from labkit import LossLog
from labkit.course import plain_heads


def test_plain_heads_are_those_next_to_the_default_ones_where_there_are_any(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    (tmp_path / "heads" / "real").mkdir(parents=True)
    assert plain_heads("real") == tmp_path / "heads" / "real"
    (tmp_path / "heads" / "real-plain").mkdir()
    assert plain_heads("real") == tmp_path / "heads" / "real-plain"
    assert plain_heads("models/tiny") == tmp_path / "heads" / "tiny"


def test_the_shipped_plain_heads_have_no_context_layer_and_a_log_of_both_phases():
    for base in ("real", "tiny"):
        folder = plain_heads(base)
        log = LossLog.load(folder / "losslog.json")
        assert {point.phase for point in log.points} == {1, 2}
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert not config.get("context")
