"""The benchmark: Spec-Bench's figures from planted runs, and every method on a toy model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from labkit import threads
from labkit.cli import main
from labkit.errors import LabkitError
from labkit.kernels.engine import Output
from labkit.models import load
from labkit.questions import Question, read_questions
from labkit.speculative.bench import (
    HEADER,
    LLAMA_CPP,
    PEERS,
    VANILLA,
    Run,
    Turn,
    bench,
    compare,
    conversation,
    rows,
    score,
    speed,
)
from labkit.speculative.decoder import METHODS, Decoder
from labkit.training import prompts as training
from tests.conftest import make_toy
from tests.speculative.conftest import FakeLlama, with_gguf
from tests.speculative.fakes import ToyEngine

QUESTIONS = [
    Question(id="a", category="letters", turns=("Say a.",)),
    Question(id="b", category="letters", turns=("Say b.", "Again.")),
    Question(id="c", category="more letters", turns=("Say c.",)),
]


pytestmark = pytest.mark.usefixtures("quiet")


def run(tokens: int, seconds: float, steps: int = 1, first: int = 0) -> Run:
    parts = {"prefill": seconds / 2, "draft": 0.01, "check": 0.02, "rest": 0.005}
    return Run(tuple(range(first, first + tokens)), seconds, tokens - 1, steps, parts)


def alike(turn: Turn, method: str) -> tuple[bool, int]:
    return True, int(method == "mlp")


TURNS = [
    Turn(
        QUESTIONS[0],
        (1,),
        {
            "vanilla": [run(10, s, 9) for s in (1.0, 5.0, 2.0)],
            "mlp": [run(10, s, 3) for s in (0.5, 1.0, 9.0)],
        },
    ),
    Turn(QUESTIONS[1], (1,), {"vanilla": [run(4, 1.0, 3)], "mlp": [run(4, 0.5, 1)]}),
    Turn(QUESTIONS[1], (1,), {"vanilla": [run(6, 1.0, 5)], "mlp": [run(6, 0.5, 1)]}),
]


def test_speed_is_the_mean_over_prompts_of_tokens_over_the_median_seconds_of_all_turns() -> None:
    assert speed(TURNS, "vanilla") == pytest.approx((10 / 2 + 10 / 2) / 2)
    assert speed(TURNS, "mlp") == pytest.approx((10 / 1 + 10 / 1) / 2)


def test_score_holds_what_the_runs_hold() -> None:
    vanilla, mlp = score(TURNS, "vanilla", alike), score(TURNS, "mlp", alike)
    assert vanilla.tokens_per_step == 1
    assert mlp.tokens_per_step == pytest.approx((3 * 9 + 3 + 5) / (3 * 3 + 1 + 1))
    assert mlp.speedup_vs_vanilla == pytest.approx(2)
    assert mlp.speedup_vs_transformers is None
    assert (mlp.identical, mlp.ties) == (True, 3)
    assert (mlp.prompts, mlp.tokens) == (2, 20)
    assert mlp.check_ms == pytest.approx(1e3 * 5 * 0.02 / 11)
    assert mlp.prefill_ms == pytest.approx(1e3 * (0.5 + 1.0 + 9.0 + 0.5 + 0.5) / 2 / 5)


def test_speedup_against_transformers_is_the_ratio_of_the_means() -> None:
    turns = [
        Turn(turn.question, turn.ids, {**turn.runs, "transformers": [run(10, 4.0)]})
        for turn in TURNS[:2]
    ]
    assert score(turns, "mlp", alike).speedup_vs_transformers == pytest.approx(
        speed(turns, "mlp") / 2.5
    )


class Tied(ToyEngine):
    """Its two largest logits all but tie after a text of ``length`` tokens."""

    def __init__(self, length: int, exact: bool) -> None:
        super().__init__(exact=exact)
        self.length = length

    def forward(self, rows: Any, cache: Any, logits: Any = "all", layers: Any = ()) -> Output:
        out = super().forward(rows, cache, logits)
        if int(out.hidden[-1, 0]) == self.length:
            found = out.logits.clone()
            top = found[-1].topk(2)
            found[-1, top.indices[1]] = top.values[0]
            return Output(out.hidden, found)
        return out


@pytest.mark.parametrize(
    ("method", "exact", "tie", "expected"),
    [
        ("mlp", True, 5, (False, 0)),
        ("mlp", False, 5, (True, 1)),
        ("mlp", False, 4, (False, 0)),
        ("transformers", True, 5, (True, 1)),
        ("transformers", True, 6, (False, 0)),
    ],
)
def test_outputs_may_part_at_a_tie_unless_the_engine_is_exact(
    method: str, exact: bool, tie: int, expected: tuple[bool, int]
) -> None:
    other = Run((0, 1, 9, 9), 1.0, 3, 3)
    turn = Turn(QUESTIONS[0], (7, 7, 7), {"vanilla": [run(4, 1.0)], method: [other]})
    assert compare(Tied(tie, exact), turn, method) == expected


def test_equal_outputs_are_identical_and_a_shorter_one_is_not() -> None:
    same = Turn(QUESTIONS[0], (7,), {"vanilla": [run(4, 1.0)], "mlp": [run(4, 2.0)]})
    assert compare(ToyEngine(), same, "mlp") == (True, 0)
    short = Turn(QUESTIONS[0], (7,), {"vanilla": [run(4, 1.0)], "mlp": [run(3, 2.0)]})
    assert compare(ToyEngine(), short, "mlp") == (False, 0)


def test_every_method_decodes_the_toy_and_the_labs_own_are_vanillas_output(
    decoder: Decoder,
) -> None:
    said: list[str] = []
    result = bench(decoder, QUESTIONS, max_new_tokens=8, repeats=1, watch=said.append)
    assert set(result.methods) == {*METHODS, *PEERS}
    for method in ("medusa", "eagle"):
        assert result.methods[method] is None
        assert "no heads" in result.notes[method]
    for method in LLAMA_CPP:
        assert result.methods[method] is None
        assert "llama-cpp-python cannot be imported" in result.notes[method]
    for method in set(METHODS) - {"medusa", "eagle"}:
        found = result.methods[method]
        assert found.identical, method
        assert found.ties == 0
        assert found.tokens_per_step >= 1
        assert found.check_ms > 0
    assert result.methods[VANILLA].tokens_per_step == 1
    assert result.methods[VANILLA].speedup_vs_vanilla == 1
    # The base model as its own draft model is always right, but so unsure of itself that it
    # drafts one token a step: 7 tokens after the first in 4 steps
    assert result.methods["draft_model"].tokens_per_step == pytest.approx(7 / 4)
    for peer in set(PEERS) - set(LLAMA_CPP):
        assert result.methods[peer].identical, peer
        assert result.methods[peer].check_ms is None
    assert result.methods["transformers"].tokens_per_step == 1
    assert result.methods["transformers"].speedup_vs_transformers == 1
    assert set(result.categories) == {"letters", "more letters"}
    assert result.categories["letters"]["mlp"].prompts == 2
    assert not result.contended
    assert any("medusa" in line for line in said)
    assert [row[0] for row in rows(result.methods)] == [
        m for m in result.methods if result.methods[m]
    ]
    assert {len(row) for row in rows(result.methods)} == {len(HEADER)}
    json.dumps(result.model_dump(mode="json"), allow_nan=False)


def test_llama_cpp_reads_the_models_gguf_file_and_stops_where_vanilla_does(
    decoder: Decoder, llama_cpp: type[FakeLlama], tmp_path: Path
) -> None:
    other = with_gguf(decoder, tmp_path / "base")
    result = bench(other, QUESTIONS[:1], 8, 2, LLAMA_CPP)
    plain, lookup = (result.methods[method] for method in LLAMA_CPP)
    assert plain.identical
    assert lookup.identical
    assert (plain.tokens, lookup.tokens) == (8, 8)
    assert (plain.tokens_per_step, lookup.tokens_per_step) == (1, 2)
    assert plain.check_ms is None
    for made, draft in zip(llama_cpp.made, (None, {"num_pred_tokens": 2}), strict=True):
        assert made.path == str(tmp_path / "base" / "toy.gguf")
        threads = made.settings["n_threads"], made.settings["n_threads_batch"]
        assert threads == (other.engine.threads, other.engine.threads)
        assert made.settings["n_ctx"] == other.base.context
        assert made.settings["draft_model"] == draft
    other.base.eos_ids = frozenset(decoder.generate("Say a.", 1).tokens)
    assert bench(other, QUESTIONS[:1], 8, 1, LLAMA_CPP).methods["llama_cpp"].tokens == 1


def test_llama_cpp_is_left_out_where_its_weights_would_be_others(
    decoder: Decoder, llama_cpp: type[FakeLlama], tmp_path: Path
) -> None:
    with pytest.raises(LabkitError, match="holds none"):
        bench(decoder, QUESTIONS[:1], 4, 1, ["llama_cpp"])
    rounded = with_gguf(decoder, tmp_path / "base", storage="bfloat16")
    with pytest.raises(LabkitError, match="not with 'weights once, bfloat16'"):
        bench(rounded, QUESTIONS[:1], 4, 1, ["llama_cpp"])
    assert llama_cpp.made == []


def test_contention_is_noticed_and_said(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "contention", lambda: 0.35)
    result = bench(decoder, QUESTIONS[:1], 2, 1, methods=["vanilla"])
    assert result.contended
    assert result.contention == pytest.approx(0.35)


def test_later_turns_are_asked_with_vanillas_answer_before_them(
    tmp_path: Path, decoder: Decoder
) -> None:
    from labkit.models import load

    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    make_toy(tmp_path, template)
    base = load(str(tmp_path), "cpu")
    talk = ["Hi", "Ho", "Again"]
    text = base.decode(conversation(base, talk, 8))
    assert text == "<user>Hi<assistant>Ho<user>Again<assistant>"
    assert base.decode(conversation(base, talk[:1], 8)) == "<user>Hi<assistant>"
    plain = decoder.base.decode(conversation(decoder.base, talk, 8))
    assert plain == "Hi\n\nHo\n\nAgain"
    with pytest.raises(LabkitError, match="smaller --max-new-tokens"):
        conversation(base, talk, 100)


@pytest.mark.parametrize(
    ("methods", "says"),
    [(["vanila"], "give some of vanilla"), (["medusa"], "no heads"), (["mlp", "x"], "'x'")],
)
def test_method_that_is_named_and_cannot_run_is_an_error(
    decoder: Decoder, methods: list[str], says: str
) -> None:
    with pytest.raises(LabkitError, match=says):
        bench(decoder, QUESTIONS[:1], 2, 1, methods)


def test_draft_model_that_is_not_named_or_of_another_tokenizer_is_told(
    toy_folder: Path, toy_heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(str(toy_folder), toy_heads)
    for method in ("draft_model", "transformers_assisted"):
        with pytest.raises(LabkitError, match="name one as the draft model"):
            bench(decoder, QUESTIONS[:1], 2, 1, [method])
    other = SimpleNamespace(name="other", tokenizer=SimpleNamespace(get_vocab=lambda: {"x": 0}))
    decoder.draft_base = other
    with pytest.raises(LabkitError, match="another tokenizer"):
        decoder.drafter("draft_model")


def test_draft_model_with_a_padded_table_works(
    toy_folder: Path, tmp_path: Path, toy_heads: Path
) -> None:
    shutil.copytree(toy_folder, tmp_path, dirs_exist_ok=True)
    module = load(str(toy_folder), "cpu").module
    module.resize_token_embeddings(module.config.vocab_size + 7)
    module.save_pretrained(tmp_path)
    decoder = Decoder(load(str(toy_folder), "cpu"), toy_heads, draft=load(str(tmp_path), "cpu"))
    result = bench(decoder, QUESTIONS[:1], 6, 1, ["draft_model"])
    assert result.methods["draft_model"].identical
    assert result.methods["draft_model"].tokens_per_step > 1
    with pytest.raises(LabkitError, match="tables of one size"):
        bench(decoder, QUESTIONS[:1], 6, 1, ["transformers_assisted"])


def test_shipped_prompts_are_eight_of_each_of_six_categories() -> None:
    questions = read_questions()
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.category] = counts.get(question.category, 0) + 1
    assert sorted(counts) == [
        "mathematical reasoning",
        "multi-turn conversation",
        "question answering",
        "retrieval-augmented generation",
        "summarisation",
        "translation",
    ]
    assert set(counts.values()) == {8}
    assert all(len(q.turns) == 2 for q in questions if q.category == "multi-turn conversation")
    assert len({said for question in questions for said in question.turns}) == 56


def test_shipped_prompts_are_not_phrased_like_the_training_prompts() -> None:
    kept = training.templates()
    names = ("questions", "passage_tasks", "code_forms", "letters")
    forms = [form for name in names for form in kept[name]]
    pieces = {max(re.split(r"\{\w\}", form), key=len).strip(" \n.?:") for form in forms}
    telling = {piece for piece in pieces if len(piece) >= 14}
    assert len(telling) > 40
    text = "\n".join(said for question in read_questions() for said in question.turns)
    assert [piece for piece in telling if piece in text] == []
    assert [phrase for phrase in kept["phrases"] if phrase in text] == []


def test_command_prints_one_json_object_or_tables(tmp_path: Path, toy_folder: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(asdict(question)) for question in QUESTIONS]
    path.write_text("\n".join(lines), encoding="utf-8")
    words = ["bench", "speculative", "--base", str(toy_folder), "--prompts", str(path)]
    words += ["--max-new-tokens", "4", "--repeats", "1", "--device", "cpu"]
    words += ["--methods", "vanilla,prompt_lookup"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["methods"]) == ["vanilla", "prompt_lookup"]
    needed = {
        "tokens_per_s",
        "tokens_per_step",
        "speedup_vs_vanilla",
        "speedup_vs_transformers",
        "identical",
        "ties",
    }
    assert needed <= set(result["methods"]["prompt_lookup"])
    assert set(result["categories"]) == {"letters", "more letters"}
    text = CliRunner().invoke(main, words)
    assert "prompt_lookup" in text.stdout
    assert "more letters" in text.stdout


def test_calibrate_prints_what_it_measured(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.kernels import weights_once
    from labkit.kernels.bandwidth import PIECE, Probe

    monkeypatch.setattr(weights_once, "Probe", lambda: Probe(PIECE))
    words = ["calibrate", "--base", str(toy_folder), "--repeats", "1", "--device", "cpu"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["verify_cost"]) == ["1", "2", "3", "4", "6", "8", "12", "16", "24", "32"]
    assert {"limit_ratio", "bandwidth_gb_s", "path", "threads", "contention"} <= set(result)
    assert "no heads" in done.stderr
    assert all(one > 0 for one, _ in result["parts"].values())
    assert "feed-forward" in result["parts"]
    text = CliRunner().invoke(main, words).stdout
    assert "one token" in text
    assert "feed-forward" not in text
    assert "feed-forward" in CliRunner().invoke(main, [*words, "--parts"]).stdout


def test_logits_of_a_tie_are_compared_as_the_loop_compares_them() -> None:
    from labkit.speculative.generate import tied

    assert tied(torch.tensor([1.0, 1.00005, 0.0]))
    assert not tied(torch.tensor([1.0, 1.001, 0.0]))


def test_an_encoder_decoder_is_refused_in_one_sentence() -> None:
    with pytest.raises(LabkitError, match="needs a causal language model"):
        Decoder("translator")


def test_a_turn_that_cannot_fit_is_found_before_anything_runs(decoder: Decoder) -> None:
    told: list[str] = []
    long = Question(id="b", category="letters", turns=("Say b.", "x" * decoder.base.context))
    with pytest.raises(LabkitError, match="smaller --max-new-tokens"):
        bench(decoder, [QUESTIONS[0], long], 4, 1, ["prompt_lookup"], told.append)
    assert told == []


def test_a_turn_that_the_answers_made_too_long_ends_its_conversation_only(decoder: Decoder) -> None:
    told: list[str] = []
    room = decoder.base.context - 60 - len("Say b.") - 8
    turns = ("Say b.", "x" * room)
    questions = [Question(id="b", category="letters", turns=turns), QUESTIONS[0]]
    result = bench(decoder, questions, 60, 1, ["vanilla"], told.append)
    assert result.methods["vanilla"].prompts == 2
    assert any("b ends before turn 2" in line for line in told)
