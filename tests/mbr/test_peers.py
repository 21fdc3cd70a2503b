"""Another library's decisions: compared case by case, by a peer that is faked where none is."""

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.mbr import bench, peer_script
from labkit.mbr.bench import compare_with_peer
from labkit.mbr.utilities import matrix

CASES = [
    (["a cat sat", "a cat sat", "the dog", "a cat ran"],) * 2,
    (["x", "y"], ["x", "y"]),
    (["", "a"], ["", "", "a"]),
]

FAKE = '''
"""A library with mbrs' interface, as far as it is used; its scores come from a table."""
import json, os

SCORES = json.load(open(os.path.join(os.path.dirname(__file__), "scores.json")))


class Scores(list):
    def tolist(self):
        return list(self)


class Metric:
    Config = dict

    def __init__(self, config):
        pass

    def expected_scores(self, hypotheses, evidence):
        return Scores(SCORES[json.dumps([hypotheses, evidence])])


class Decoder:
    Config = dict

    def __init__(self, config, metric):
        self.metric = metric

    def decode(self, hypotheses, evidence, nbest):
        scores = self.metric.expected_scores(hypotheses, evidence)
        self.idx = [max(range(len(scores)), key=scores.__getitem__)]
        return self


def get_metric(name):
    if name != "chrf":
        raise KeyError(name)
    return Metric


def get_decoder(name):
    if name not in ("mbr", "aggregate_mbr"):
        raise KeyError(name)
    return Decoder
'''


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A Python that finds a faked mbrs; the scores it gives are those handed to the function."""

    def make(change=lambda number, scores: scores):
        for module in ("metrics", "decoders"):
            folder = tmp_path / "mbrs" / module
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").write_text(FAKE, encoding="utf-8")
            known = {
                json.dumps(case): change(n, (100 * matrix("chrf", *case)).mean(1)).tolist()
                for n, case in enumerate(CASES)
            }
            (folder / "scores.json").write_text(json.dumps(known), encoding="utf-8")
        (tmp_path / "mbrs" / "__init__.py").touch()
        code = (
            f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); "
            f"runpy.run_path({peer_script.__file__!r}, run_name='__main__')"
        )
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
        script.chmod(0o755)
        return script

    return make


def test_equal_scores_give_equal_decisions_and_a_missing_way_is_told(peer):
    rows = {(row.metric, row.decoder): row for row in compare_with_peer(CASES, "mbrs", peer())}
    chrf = rows["chrf", "mbr"]
    assert (chrf.same, chrf.ties, chrf.cases) == (3, 0, 3)
    assert chrf.apart < 1e-9
    assert chrf.seconds >= 0 and chrf.peer_seconds >= 0
    assert rows["chrf", "aggregate_mbr"].same == 3
    assert rows["bleu", "mbr"].missing.startswith("not offered: KeyError")
    assert rows["chrf", "pruning_mbr"].missing


def test_a_tie_is_told_from_a_difference(peer):
    def change(number, scores):
        if number == 1:  # x and y have the same expected score: either may be taken
            return scores + np.array([0, 1e-9])
        return scores + np.array([60, 0]) if number == 2 else scores

    chrf = compare_with_peer(CASES, "mbrs", peer(change), ["chrf"], ["mbr"])[0]
    assert (chrf.same, chrf.ties) == (1, 1)
    assert chrf.apart == pytest.approx(60, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "python", "says"),
    [("taste", sys.executable, "'taste'"), ("mbrs", "/no/such/python", "cannot be run")],
)
def test_a_peer_that_cannot_be_asked_gets_one_sentence(name, python, says):
    with pytest.raises(LabkitError, match=says):
        compare_with_peer(CASES, name, python)


def test_a_peer_that_answers_nothing_is_quoted(tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such thing')", encoding="utf-8")
    monkeypatch.setattr(bench.peer_script, "__file__", str(broken))
    with pytest.raises(LabkitError, match="no such thing"):
        compare_with_peer(CASES, "mbrs", sys.executable)


def test_a_library_that_is_not_installed_is_told_for_every_way():
    rows = compare_with_peer(CASES, "mbr", sys.executable, ["chrf"], ["mbr"])
    assert "ModuleNotFoundError" in rows[0].missing


def test_the_command_prints_the_comparison(toy_folder, tmp_path, monkeypatch):
    path = tmp_path / "pairs.tsv"
    path.write_text("ein Haus\ta house\n", encoding="utf-8")
    words = ["bench", "mbr", "--peer-python", sys.executable, "--base", str(toy_folder)]
    words += ["--pairs", str(path), "--samples", "3", "--max-new-tokens", "4"]
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["cases"] == 1
    assert len(said["rows"]) == 7
    assert "why they may differ" in CliRunner().invoke(main, words).stdout
