"""How threads wait, and whether somebody else takes the cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from labkit import threads


@pytest.fixture
def quiet_environment(monkeypatch):
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)


def test_a_short_spin_is_chosen_where_the_user_chose_nothing(quiet_environment, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    threads.settle_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == threads.SPIN_COUNT


@pytest.mark.parametrize(("system", "policy"), [("linux", "active"), ("darwin", None)])
def test_only_gnus_openmp_is_told_to_wait_actively(quiet_environment, monkeypatch, system, policy):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "platform", system)
    threads.settle_waiting()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize("name", threads.WAITING)
def test_what_the_user_chose_stands(quiet_environment, monkeypatch, name):
    monkeypatch.setattr(os, "environ", {**os.environ, name: "7"})
    threads.settle_waiting()
    assert {key: os.environ[key] for key in threads.WAITING if key in os.environ} == {name: "7"}
    assert threads.waiting() == f"{name}=7"


def test_importing_labkit_settles_it_before_torch_is_there():
    code = "import labkit, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    clean = {key: value for key, value in os.environ.items() if key not in threads.WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [threads.SPIN_COUNT, "False"]


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= threads.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "limit"), [("max 100000", None), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_containers_limit_counts(tmp_path, monkeypatch, text, limit):
    path = tmp_path / "cpu.max"
    path.write_text(f"{text}\n", encoding="ascii")
    monkeypatch.setattr(threads, "CONTAINER_LIMIT", path)
    assert threads._container_limit() == limit
    monkeypatch.setattr(threads, "CONTAINER_LIMIT", tmp_path / "nowhere")
    assert threads._container_limit() is None


def test_contention_counts_the_time_that_the_threads_did_not_get(monkeypatch):
    """With clocks that say that each thread ran for 60% of the time, 40% is taken."""
    now = {"wall": 0.0}

    def wall() -> float:
        now["wall"] += 0.001
        return now["wall"]

    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(threads.time, "perf_counter", wall)
    monkeypatch.setattr(threads.time, "thread_time", lambda: 0.6 * now["wall"])
    assert threads.contention(0.5) == pytest.approx(0.4, abs=0.01)
