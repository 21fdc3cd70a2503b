"""A test set streams through every system, can be stopped and shared, and is scored as a whole."""

import json
import math

import pytest

from labkit.errors import LabkitError
from labkit.mbr import translation
from labkit.mbr.decide import choose
from labkit.mbr.draws import Draws, draw
from labkit.mbr.evaluate import corpus
from labkit.mbr.family import oracle
from labkit.mbr.search import Beam
from labkit.mbr.translation import SYSTEMS, Plan, collect, scored, translate

from .models import Table

LETTERS = [
    [0.0, 0.5, 0.3, 0.2],
    [0.4, 0.3, 0.2, 0.1],
    [0.5, 0.0, 0.25, 0.25],
    [0.6, 0.1, 0.1, 0.2],
]
PAIRS = [(f"s{i}", "abc" * (1 + i % 3)) for i in range(11)]
PLAN = Plan(
    base="table",
    drawing=Draws(samples=8, max_new_tokens=9, at_once=3),
    searching=Beam(beams=3, max_new_tokens=9),
)


class Counting(Table):
    begun = 0

    def begin(self, sources):
        self.begun += len(sources)
        return super().begin(sources)


def outputs(journal):
    return {batch.number: batch.outputs for batch in journal}


def test_every_system_is_scored_and_timed():
    found = scored(translate(Table(LETTERS), PAIRS, PLAN))
    assert tuple(found["systems"]) == SYSTEMS
    for scores in found["systems"].values():
        assert set(scores) == {"bleu", "chrf", "seconds"}
        assert all(math.isfinite(value) and value >= 0 for value in scores.values())
    assert found["segments"] == 11
    assert found["signature"]["chrf"].startswith("chrf|nrefs:1")
    json.dumps(found)


def test_choosing_and_drawing_both_count_as_time(monkeypatch):
    monkeypatch.setattr(translation, "timed", lambda call: (call(), 1.0))
    _, seconds = collect(translate(Table(LETTERS), PAIRS, PLAN))
    batches = 4
    assert seconds == {
        "greedy": batches,
        "beam": batches,
        "sample": batches,
        "mbr": 2 * batches,
        "oracle": 2 * batches,
    }


def test_outputs_are_those_of_each_system_by_itself():
    model = Table(LETTERS)
    journal = translate(model, PAIRS, PLAN)
    mbr = [text for batch in journal for text in batch.outputs["mbr"]]
    best = [text for batch in journal for text in batch.outputs["oracle"]]
    drawn = draw(model, [source for source, _ in PAIRS], PLAN.drawing)
    assert mbr == [choose(samples).text for samples in drawn]
    assert best == [oracle(s, r).text for s, (_, r) in zip(drawn, PAIRS, strict=True)]
    corpora, _ = collect(journal)
    expected = corpus(mbr, [reference for _, reference in PAIRS])
    assert corpora["mbr"].scores() == pytest.approx(expected.scores())


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path):
    whole = translate(Table(LETTERS), PAIRS, PLAN)

    def stop(sources):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate(Table(LETTERS), PAIRS, PLAN, tmp_path, progress=stop)
    with (tmp_path / "batches-0.jsonl").open("a") as half:
        half.write('{"number": 1, "outp')
    model, seen = Counting(LETTERS), []
    journal = translate(model, PAIRS, PLAN, tmp_path, progress=seen.append)
    assert outputs(journal) == outputs(whole)
    assert seen == [3, 3, 3, 2]
    assert model.begun == 4 * (11 - 3)  # greedy, beam, one sample, samples; the first batch not
    again = Counting(LETTERS)
    translate(again, PAIRS, PLAN, tmp_path)
    assert again.begun == 0


def test_processes_share_the_batches(tmp_path):
    whole = translate(Table(LETTERS), PAIRS, PLAN)
    models = [Counting(LETTERS), Counting(LETTERS)]
    for process, model in enumerate(models):
        journal = translate(model, PAIRS, PLAN, tmp_path, share=(process, 2))
    assert outputs(journal) == outputs(whole)
    assert [model.begun for model in models] == [4 * 6, 4 * 5]


def test_pairs_stream_a_batch_at_a_time(tmp_path):
    taken = []

    def pairs():
        for pair in PAIRS:
            taken.append(pair)
            yield pair

    most = []
    translate(Table(LETTERS), pairs(), PLAN, tmp_path, progress=lambda n: most.append(len(taken)))
    assert most == [3, 6, 9, 11]


def test_a_journal_of_another_run_is_refused(tmp_path):
    translate(Table(LETTERS), PAIRS, PLAN, tmp_path)
    other = Plan(base="table", utility="bleu", drawing=PLAN.drawing, searching=PLAN.searching)
    with pytest.raises(LabkitError, match="utility 'chrf', not 'bleu'"):
        translate(Table(LETTERS), PAIRS, other, tmp_path)
    with pytest.raises(LabkitError, match="other pairs, from number 4 on"):
        translate(Table(LETTERS), [*PAIRS[:3], ("x", "y")], PLAN, tmp_path)


def test_a_damaged_line_is_named(tmp_path):
    translate(Table(LETTERS), PAIRS, PLAN, tmp_path)
    path = tmp_path / "batches-0.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], "oops", *lines[2:], ""]), encoding="utf-8")
    with pytest.raises(LabkitError, match=r"Line 2 of .* is damaged"):
        translate(Table(LETTERS), PAIRS, PLAN, tmp_path)


def test_no_pairs_at_all_is_said_in_one_sentence():
    with pytest.raises(LabkitError, match="no segment"):
        scored(translate(Table(LETTERS), [], PLAN))
