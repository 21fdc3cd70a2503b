"""Records: what is written is what is read, and whatever else is one sentence."""

from __future__ import annotations

import json
import os
import stat
import sys

import pytest

from labkit.records import (
    LossLog,
    LossPoint,
    Node,
    Provenance,
    RecordError,
    RiskTable,
    Sample,
    ServingLog,
    ServingRow,
    Spread,
    Step,
    Token,
    Trace,
    ValidationPoint,
    write_whole,
)

TOKEN = Token(id=7, text=" sea")
SPREAD = Spread(mean=2.0, p50=1.5, p90=3.0, p99=4.0)


def a_trace() -> Trace:
    node = Node(
        id=7, text=" sea", parent=-1, depth=1, source="head 1", p=0.5, q=0.25,
        tested=True, accepted=True, draw=0.1, threshold=1.0,
    )  # fmt: skip
    step = Step(nodes=(node,), committed=(TOKEN, TOKEN), ending="bonus", draft_s=0.1, check_s=0.2)
    return Trace(
        method="mlp", base="tiny", prompt="The", prompt_tokens=1, first=TOKEN, steps=(step, step),
        text=" sea sea", prefill_s=0.5, provenance=Provenance(command="made up", seed=3),
    )  # fmt: skip


def a_log() -> LossLog:
    point = LossPoint(phase=1, step=1, tokens=64, loss=(3.0, 4.0), lr=1e-3, seconds=0.5)
    look = ValidationPoint(phase=1, step=1, tokens=64, loss=(3.5, 4.5), accept=(0.5, 0.25))
    return LossLog(name="t", base="tiny", heads=2, points=(point,), validation=(look,))


def a_table() -> RiskTable:
    texts = (Sample(text="a", count=2, logprob=-1.0), Sample(text="b"))
    return RiskTable(
        base="tiny", source="x", utility="chrf", weighting="counts", hypotheses=texts,
        evidence=texts, weights=(0.75, 0.25), loss=((0.0, 1.0), (1.0, 0.0)), risk=(0.25, 0.75),
        best=0,
    )  # fmt: skip


def a_serving_log() -> ServingLog:
    row = ServingRow(
        users=1, method="mlp", origin="measured", ttft_ms=SPREAD, itl_ms=SPREAD, tpot_ms=SPREAD,
        e2e_ms=SPREAD, tokens_per_s=20.0, requests=4, errors=0,
    )  # fmt: skip
    return ServingLog(name="s", base="tiny", target="engine", max_new_tokens=8, rows=(row,))


ALL = (a_trace, a_log, a_table, a_serving_log)


@pytest.mark.parametrize("make", ALL)
def test_what_is_written_is_what_is_read(make, tmp_path):
    record = make()
    assert type(record).from_json(record.to_json()) == record
    assert type(record).load(record.save(tmp_path / "deep" / "record.json")) == record


@pytest.mark.parametrize("make", ALL)
def test_another_kind_version_key_or_nonsense_is_one_sentence(make):
    record = make()
    content = json.loads(record.to_json())
    wrong = [
        {**content, "kind": "novel"},
        {**content, "version": 99},
        {**content, "surprise": 1},
        {key: value for key, value in content.items() if key != "base"},
        [content],
    ]
    for text in [*map(json.dumps, wrong), "", "{", record.to_json()[:-20]]:
        with pytest.raises(RecordError) as caught:
            type(record).from_json(text)
        assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused():
    for word in ("NaN", "Infinity"):
        with pytest.raises(RecordError):
            Trace.from_json(a_trace().to_json().replace('"prefill_s":0.5', f'"prefill_s":{word}'))


def test_a_missing_file_names_itself(tmp_path):
    with pytest.raises(RecordError, match=r"nowhere\.json"):
        Trace.load(tmp_path / "nowhere.json")


def test_times_and_acceptance_add_up():
    trace = a_trace()
    assert trace.seconds == pytest.approx(0.5 + 2 * 0.3)
    assert trace.tokens_per_step == 2.0
    assert len(trace.tokens) == 5
    assert trace.steps[0].accepted == (0,)


def test_a_tree_with_a_child_before_its_parent_is_refused():
    node = a_trace().steps[0].nodes[0].model_dump()
    for parent, depth in ((0, 1), (-1, 2)):
        broken = {**node, "parent": parent, "depth": depth}
        with pytest.raises(ValueError, match="node 0"):
            Step(nodes=(broken,), committed=(TOKEN,), ending="bonus")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": (0.5, 0.25)},
        {"weights": (1.0,)},
        {"loss": ((0.0, 1.0),)},
        {"risk": (0.25,)},
        {"best": 2},
        {"hypotheses": ()},
    ],
)
def test_a_risk_table_that_does_not_fit_together_is_refused(change):
    content = a_table().model_dump() | change
    with pytest.raises(RecordError):
        RiskTable.from_json(json.dumps(content))


def running_log(tmp_path, *lines: str):
    header = a_log().model_dump_json(exclude={"points", "validation"})
    path = tmp_path / "losslog.jsonl"
    path.write_text("".join([header + "\n", *lines]), encoding="utf-8")
    return path


def test_following_a_log_leaves_a_half_written_line_for_the_next_look(tmp_path):
    log = a_log()
    point, look = log.points[0].model_dump_json(), log.validation[0].model_dump_json()
    path = running_log(tmp_path, point + "\n", look + "\n", point[:20])
    assert LossLog.follow(path) == log


def test_a_step_that_was_done_twice_counts_once_the_later(tmp_path):
    point = a_log().points[0]
    again = point.model_copy(update={"loss": (1.0, 2.0)})
    path = running_log(tmp_path, point.model_dump_json() + "\n", again.model_dump_json() + "\n")
    assert LossLog.follow(path).points == (again,)


def test_a_damaged_or_empty_log_is_one_sentence(tmp_path):
    for path in (running_log(tmp_path, "nonsense\n"), tmp_path / "nowhere.jsonl", "no\0name"):
        with pytest.raises(RecordError) as caught:
            LossLog.follow(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(RecordError, match="empty"):
        LossLog.follow(tmp_path / "empty.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_file_gets_the_permissions_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = write_whole(tmp_path / "grades.csv", "for all to read")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_refused_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "kept.txt", "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
