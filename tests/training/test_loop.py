"""Training goes where the recipe says: killed, interrupted, spread or cut, it ends the same."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.models import load
from labkit.models.store import locked
from labkit.paths import data_dir
from labkit.records.base import RecordError
from labkit.records.losslog import LossLog
from labkit.training import features, loop, tiny, translator
from labkit.training.answers import read_answers, write_shard
from labkit.training.heads import join_folders
from labkit.training.loop import LOG_NAME
from labkit.training.train import train_all
from tests.training.conftest import count_up

HERE = Path(__file__).resolve()
LAUNCH = [
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]


def start(
    recipe: Path, out: Path, kill_at: int | None = None, launcher: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Train in a process of its own, which kills itself once its log has ``kill_at`` lines."""
    command = [sys.executable, *launcher, str(HERE.parent / "run_small.py"), str(recipe), str(out)]
    command += [] if kill_at is None else [str(kill_at)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parents[2]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def figures(process: subprocess.Popen[str]) -> dict:
    """The result that a process printed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.strip().splitlines()[-1])


@pytest.mark.parametrize("kind", ["mlp", "mlp with context", "eagle"])
def test_heads_learn_what_comes_next_and_the_log_tells_it(small_world, make_recipe, kind):
    recipe = make_recipe(steps=150, kind=kind.split()[0], context="context" in kind)
    result = train_all(recipe, small_world / "out", write=count_up)
    log = LossLog.load(Path(result["heads"]) / "losslog.json")
    first, last = log.validation[0], log.validation[-1]
    assert all(now < before - 1 for now, before in zip(last.loss, first.loss, strict=True))
    assert last.tokens_per_step > first.tokens_per_step
    assert log.points[-1].step == result["steps"] == 300
    assert {point.phase for point in log.points} == {1, 2}
    assert list(last.loss) == pytest.approx(result["final_loss"])


@pytest.mark.parametrize("shape", ["own weights", "tied", "context"])
def test_killed_at_a_random_moment_it_ends_at_the_same_losses(small_world, make_recipe, shape):
    special = {} if shape == "own weights" else {shape: True}
    recipe = make_recipe(steps=30, labels="soft", sampled=64, **special)
    out = small_world / "killed"
    log, lines = out / LOG_NAME, random.randrange(3, 60)
    process = start(recipe, out, lines)
    process.communicate(timeout=300)
    assert process.returncode not in (0, 1)  # killed, not ended by itself or by an error
    assert log.read_bytes().count(b"\n") == lines < 60
    assert not (out / "heads").exists()
    whole = train_all(recipe, small_world / "whole", write=count_up)
    again = train_all(recipe, out, write=count_up)
    assert again["final_loss"] == pytest.approx(whole["final_loss"], abs=1e-5)
    assert again["steps"] == whole["steps"]
    assert again["tokens"] == whole["tokens"]
    steps = [point.step for point in LossLog.follow(log).points]
    assert steps == list(range(1, 61))


def test_training_goes_on_from_other_heads_of_the_same_shape(small_world, make_recipe):
    recipe = make_recipe(steps=20)
    first = train_all(recipe, small_world / "first", write=count_up)
    second = train_all(recipe, small_world / "second", write=count_up, start=first["heads"])
    logs = [LossLog.load(Path(end["heads"]) / "losslog.json") for end in (first, second)]
    assert logs[1].validation[0].loss == pytest.approx(logs[0].validation[-1].loss, abs=0.02)
    assert second["final_loss"][0] < first["final_loss"][0]
    assert f"--start {first['heads']}" in logs[1].provenance.command
    medusa = make_recipe(steps=1, hierarchical=False)
    third = train_all(medusa, small_world / "third", write=count_up, start=first["heads"])
    made = [load_file(Path(end["heads"]) / "model.safetensors") for end in (first, third)]
    for head in range(2):  # each of the independent heads begins as the one that reads Z
        moved = made[1][f"proj.{head}.weight"] - made[0]["proj.0.weight"]
        assert moved.abs().max() < 0.02
    eagle = make_recipe(steps=20, kind="eagle")
    with pytest.raises(LabkitError, match="not of the recipe's shape"):
        train_all(eagle, small_world / "fourth", write=count_up, start=first["heads"])


def test_joined_heads_are_trained_further(small_world, make_recipe, base_folder):
    parts = [
        Path(train_all(make_recipe(steps=20), small_world / name, write=count_up)["heads"])
        for name in ("one", "other")
    ]
    join_folders(load(str(base_folder)), *parts, small_world / "joined")
    recipe = make_recipe(steps=60, inner=64, groups=2)
    end = train_all(recipe, small_world / "third", write=count_up, start=small_world / "joined")
    first, *_, last = LossLog.load(Path(end["heads"]) / "losslog.json").validation
    own = LossLog.load(parts[0] / "losslog.json").validation
    assert first.loss[0] < own[0].loss[0]  # not from the beginning
    assert last.loss[0] < min(first.loss[0], own[-1].loss[0])


def test_two_processes_end_where_one_does(small_world, make_recipe):
    recipe = make_recipe(labels="soft", sampled=64)
    two = figures(start(recipe, small_world / "two", launcher=LAUNCH))
    one = train_all(recipe, small_world / "one", write=count_up)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["final_loss"] == pytest.approx(one["final_loss"], abs=1e-5)


def test_micro_batches_give_the_same_gradient(small_world, make_recipe):
    whole = train_all(make_recipe(micro_batches=1), small_world / "whole", write=count_up)
    cut = train_all(make_recipe(micro_batches=4), small_world / "cut", write=count_up)
    assert cut["final_loss"] == pytest.approx(whole["final_loss"], abs=1e-5)


def test_interrupted_it_saves_and_goes_on(small_world, make_recipe, monkeypatch):
    recipe, out = make_recipe(), small_world / "out"
    whole = train_all(recipe, small_world / "whole", write=count_up)
    monkeypatch.setattr(features, "last_hidden", _interrupting(features.last_hidden, call=6))
    with pytest.raises(KeyboardInterrupt):
        train_all(recipe, out, write=count_up)
    monkeypatch.undo()
    state = loop.load_latest(out)[1]["progress"]
    assert 0 < state["total_steps"] < 12
    monkeypatch.setenv("LABKIT_CACHE", str(small_world / "cache"))
    monkeypatch.setattr(loop.Run, "save", lambda _self, writes: None)
    for user in ("prompts", "train"):
        monkeypatch.setattr(f"labkit.training.{user}.read_documents", _documents)
    again = train_all(recipe, out, write=count_up)
    assert again["final_loss"] == pytest.approx(whole["final_loss"], abs=1e-5)


def _interrupting(function, call: int):
    """``function``, during whose ``call``-th call the user presses Ctrl-C."""
    calls = 0

    def wrapped(*arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        return function(*arguments)

    return wrapped


def _documents(_names):
    from tests.training.conftest import documents

    return documents()


def test_two_runs_at_once_into_one_folder_the_second_is_refused(small_world, make_recipe):
    recipe, out = make_recipe(steps=4), small_world / "out"
    with locked(out):
        other = start(recipe, out)
        _, said = other.communicate(timeout=300)
    assert other.returncode != 0
    assert said.strip().splitlines()[-1].startswith("refused: Another process is writing to")
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert train_all(recipe, out, write=count_up)["steps"] == 8


@pytest.mark.parametrize("taken", ["train all", "train ablate", "tiny", "translator"])
def test_a_folder_in_use_is_one_sentence_and_status_two(taken, small_world, make_recipe, capsys):
    recipe, out = make_recipe(), small_world / "out"
    recipes = data_dir() / "recipes"
    pairs = small_world / "pairs.tsv"
    pairs.write_text("Hund\tdog\n", encoding="utf-8")
    study = small_world / "study.toml"
    study.write_text('name = "s"\nrecipe = "recipe.toml"\n', encoding="utf-8")
    with locked(out):
        if taken.startswith("train"):
            given = study if taken == "train ablate" else recipe
            words = [*taken.split(), "--recipe", str(given), "--out", str(out)]
            result = CliRunner().invoke(main, words)
            status, said = result.exit_code, result.stderr
        else:
            command, more = {
                "tiny": (tiny.main, []),
                "translator": (translator.main, ["--pairs", str(pairs)]),
            }[taken]
            base = recipes / f"{'tiny-base' if taken == 'tiny' else taken}.toml"
            with pytest.raises(SystemExit) as ended:
                command([str(base), "--out", str(out), *more])
            status, said = ended.value.code, capsys.readouterr().err
    assert status == 2
    assert said.strip().endswith("wait until it ends, or give another folder.")
    assert len(said.strip().splitlines()) == 1
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_the_log_names_the_command_that_ran(small_world, make_recipe, monkeypatch):
    monkeypatch.chdir(small_world)
    recipe = make_recipe(steps=2).relative_to(small_world)
    train_all(recipe, "out", write=count_up)
    (folder,) = [
        path.parent
        for path in (small_world / "cache" / "answers").glob("*/shard-00000.safetensors")
        if len(read_answers(path.parent).sequences) > 4
    ]
    done = train_all(recipe, "two", phases=[2], answers_dir=folder, write=count_up)
    commands = [
        LossLog.load(Path(heads) / "losslog.json").provenance.command
        for heads in ("out/heads", done["heads"])
    ]
    answers = folder.relative_to(small_world).as_posix()
    assert commands == [
        "labkit train all --recipe recipe.toml --out out",
        f"labkit train phase2 --recipe recipe.toml --out two --answers {answers}",
    ]


def test_a_run_of_another_recipe_is_refused(small_world, make_recipe):
    train_all(make_recipe(), small_world / "out", write=count_up)
    with pytest.raises(LabkitError, match="another recipe"):
        train_all(make_recipe(labels="soft"), small_world / "out", write=count_up)


def test_other_heads_to_start_from_are_refused_by_a_run_that_began_otherwise(
    small_world, make_recipe
):
    recipe, out = make_recipe(), small_world / "out"
    heads = train_all(recipe, small_world / "first", write=count_up)["heads"]
    began = train_all(recipe, out, write=count_up, start=heads)
    assert train_all(recipe, out, write=count_up, start=heads)["steps"] == began["steps"]
    assert train_all(recipe, out, write=count_up)["steps"] == began["steps"]
    with pytest.raises(LabkitError, match="did not start from those heads"):
        train_all(recipe, out, write=count_up, start=began["heads"])


def test_an_earlier_phase_asked_for_again_leaves_finished_heads_alone(small_world, make_recipe):
    recipe, out = make_recipe(), small_world / "out"
    recipe.write_text(
        recipe.read_text("utf-8").replace("[heads]", "[heads]\ndraft_vocabulary = 64"), "utf-8"
    )
    train_all(recipe, out, write=count_up)
    made = {path: path.read_bytes() for path in (out / "heads").iterdir()}
    train_all(recipe, out, phases=[1], write=count_up)
    assert {path: path.read_bytes() for path in (out / "heads").iterdir()} == made


def test_answers_that_the_base_model_cannot_have_written_are_refused(small_world, make_recipe):
    def refused(rows, given):
        folder = small_world / str(len(list(small_world.iterdir())))
        folder.mkdir()
        write_shard(folder / "shard-00000.safetensors", rows, given)
        with pytest.raises(LabkitError) as caught:
            train_all(make_recipe(), small_world / "out", [2], folder, write=count_up)
        return str(caught.value)

    assert "have the token 300" in refused([[1, 2, 300, 4]], [1])
    assert "up to 600 tokens with their prompts, beyond the 512" in refused([[5] * 600], [1])
    assert "No answer is long enough" in refused([[1, 2]], [1])
    assert "There are no answers in" in refused([[1, 2]], [2])


def test_a_window_beyond_the_context_and_another_kind_of_model_are_refused(
    small_world, make_recipe
):
    recipe = make_recipe()
    text = recipe.read_text("utf-8")
    recipe.write_text(re.sub(r"window = \d+", "window = 513", text, count=1), "utf-8")
    with pytest.raises(LabkitError, match="513 tokens long, beyond the 512"):
        train_all(recipe, small_world / "out", write=count_up)
    recipe.write_text(re.sub(r'base = ".*"', 'base = "translator"', text), "utf-8")
    with pytest.raises(LabkitError, match="is an encoder-decoder"):
        train_all(recipe, small_world / "out", write=count_up)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(small_world, make_recipe):
    recipe, out = make_recipe(), small_world / "out"
    whole = train_all(recipe, out, write=count_up)
    latest = out / loop.LATEST
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged"):
        again = train_all(recipe, out, write=count_up)
    assert again["final_loss"] == pytest.approx(whole["final_loss"], abs=1e-5)
    for name in (loop.LATEST, loop.PREVIOUS):
        (out / name).write_bytes(b"no checkpoint")
    with (
        pytest.warns(UserWarning),
        pytest.raises(LabkitError, match="safetensors and"),
    ):
        train_all(recipe, out, write=count_up)


def test_a_bit_that_flips_in_a_checkpoint_is_noticed(tmp_path):
    loop.save_checkpoint(tmp_path, {"x": torch.ones(64)}, {"a": 1})
    path = tmp_path / loop.LATEST
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(LabkitError, match="No checkpoint"),
    ):
        loop.load_latest(tmp_path)


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    good = {"x": torch.ones(3)}, {"step": 1}
    loop.save_checkpoint(tmp_path, *good)

    def full(path, _data):
        raise RecordError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr(loop, "write_whole", full)
    with pytest.raises(LabkitError, match="No space left on device") as caught:
        loop.save_checkpoint(tmp_path, {}, {"step": 2})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"to continue from {tmp_path / loop.LATEST}.")
    with pytest.raises(LabkitError, match="start again: no checkpoint was saved yet") as caught:
        loop.save_checkpoint(tmp_path / "new", *good)
    assert "previous" not in str(caught.value)
    assert loop.load_latest(tmp_path)[1] == {"step": 1}


def test_rows_that_processes_cannot_share_are_named(small_world, make_recipe, monkeypatch):
    monkeypatch.setattr(loop.Accelerator, "num_processes", 3)
    with pytest.raises(LabkitError, match="4 rows, which 3 processes"):
        train_all(make_recipe(), small_world / "out", write=count_up)


def test_phase_two_alone_is_logged_as_phase_two(small_world, make_recipe):
    result = train_all(make_recipe(), small_world / "out", phases=[2], write=count_up)
    log = LossLog.load(Path(result["heads"]) / "losslog.json")
    assert {point.phase for point in (*log.points, *log.validation)} == {2}
    assert result["steps"] == 12
