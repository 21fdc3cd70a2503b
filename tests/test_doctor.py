"""``labkit doctor``: it finds what is there, and says how to mend what is not."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from labkit import doctor
from labkit.cli import main


def only(findings) -> doctor.Finding:
    (finding,) = findings
    return finding


def test_one_screen_says_what_each_look_found():
    result = CliRunner().invoke(main, ["doctor"])
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 140
    for subject in ("python", "packages", "device", "fast path", "threads", "model real", "disk"):
        assert subject in result.stdout


def test_the_exit_status_says_whether_anything_keeps_the_lab_from_working(monkeypatch):
    def with_state(state):
        monkeypatch.setattr(doctor, "examine", lambda *_: [doctor.Finding("thing", state, "so")])
        return CliRunner().invoke(main, ["doctor", "--json"])

    assert with_state("ok").exit_code == 0
    assert with_state("note").exit_code == 0
    assert json.loads(with_state("note").stdout)["healthy"] is True
    assert with_state("bad").exit_code == 1
    assert json.loads(with_state("bad").stdout)["healthy"] is False


def test_a_missing_or_other_package_is_named_with_both_versions(monkeypatch):
    pins = dict(list(doctor.pinned_versions().items())[:2])
    first, second = pins
    monkeypatch.setattr(doctor, "pinned_versions", lambda: {**pins, first: "0.0.1"})
    finding = only(doctor.look_at_packages())
    assert finding.state == "note"
    assert "(pinned: 0.0.1)" in finding.found
    monkeypatch.setattr(doctor, "pinned_versions", lambda: {second: "1", "no-such-package": "1"})
    finding = only(doctor.look_at_packages())
    assert finding.state == "bad"
    assert "no-such-package" in finding.found
    assert finding.mend


def test_a_checkout_that_is_not_installed_is_examined_all_the_same(monkeypatch):
    installed = doctor.pinned_versions()

    def nothing(_):
        raise importlib.metadata.PackageNotFoundError("labkit")

    monkeypatch.setattr(importlib.metadata, "requires", nothing)
    assert doctor.pinned_versions() == installed


@pytest.mark.parametrize(
    ("built", "says"), [(None, "is the CPU build"), ("13.0", "built for CUDA 13.0")]
)
def test_a_card_that_torch_cannot_use_is_noted_with_what_would_mend_it(monkeypatch, built, says):
    monkeypatch.setenv("LABKIT_DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    listed = SimpleNamespace(stdout="Tesla T4, 470.57\n", returncode=0)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: listed)
    device, card = doctor.look_at_device()
    assert device.state == "ok"
    assert (card.subject, card.state) == ("card", "note")
    assert "Tesla T4, driver 470.57" in card.found
    assert says in card.found
    assert card.mend


def test_the_card_in_use_is_described(monkeypatch):
    card = SimpleNamespace(name="Tesla T4", total_memory=15 * doctor.GIB, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert "Tesla T4, 15 GiB, capability 7.5" in doctor.cuda_card(torch.device("cuda"))


def test_every_dependency_is_pinned():
    always = [line for line in importlib.metadata.requires("labkit") if "extra ==" not in line]
    assert len(doctor.pinned_versions()) == len(always)


def test_a_model_that_is_not_fetched_is_bad_and_the_command_stands_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    finding = only(doctor.look_at_real(deep=False))
    assert finding.state == "bad"
    assert "labkit fetch real" in finding.found


def test_a_shipped_model_that_is_damaged_is_bad(tmp_path, monkeypatch, toy_folder):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert only(doctor.look_at_shipped(deep=False)).state == "bad"
    folder = shutil.copytree(toy_folder, tmp_path / "models" / "tiny")
    assert only(doctor.look_at_shipped(deep=False)).state == "ok"
    (folder / "model.safetensors").write_bytes(b"cut off")
    finding = only(doctor.look_at_shipped(deep=False))
    assert finding.state == "bad"
    assert "model.safetensors" in finding.found


def test_missing_heads_are_noted_and_damaged_ones_are_bad(tmp_path, monkeypatch, toy_folder):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    shutil.copytree(toy_folder, tmp_path / "heads" / "tiny")
    finding = only(doctor.look_at_heads())
    assert (finding.state, finding.found) == ("note", "none for real")
    real = shutil.copytree(toy_folder, tmp_path / "heads" / "real")
    assert only(doctor.look_at_heads()).found == "for real, tiny"
    (real / "model.safetensors").write_bytes(b"cut off")
    assert only(doctor.look_at_heads()).state == "bad"


def test_an_impossible_device_is_bad(monkeypatch):
    monkeypatch.setenv("LABKIT_DEVICE", "abacus")
    finding = only(doctor.look_at_device())
    assert finding.state == "bad"
    assert "abacus" in finding.found


def test_other_processes_on_the_cores_are_noted(monkeypatch):
    monkeypatch.setattr(doctor.threads, "contention", lambda: 0.4)
    assert "40%" in only(doctor.look_at_threads()).found
    monkeypatch.setattr(doctor.threads, "contention", lambda: 0.01)
    assert only(doctor.look_at_threads()).state == "ok"


def test_a_processor_without_fused_multiply_add_is_told(monkeypatch):
    from labkit.kernels import panel

    monkeypatch.setenv("LABKIT_DEVICE", "cpu")
    monkeypatch.setattr(panel, "supported", lambda: False)
    finding = only(doctor.look_at_fast_paths())
    assert finding.state == "note"
    assert "plain" in finding.found
    assert "fused multiply-add" in finding.found


def test_little_room_is_noted(monkeypatch):
    usage = shutil._ntuple_diskusage(10 * doctor.GIB, 10 * doctor.GIB, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert only(doctor.look_at_disk()).state == "note"


@pytest.mark.parametrize(("needed", "state"), [(True, "bad"), (False, "note")])
def test_missing_test_tools_matter_to_the_tests_alone(monkeypatch, needed, state):
    monkeypatch.setattr(doctor, "find_chromium", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    finding = only(doctor.look_at_test_tools(needed))
    assert finding.state == state
    assert "playwright install chromium" in finding.mend
    assert "node" in finding.mend


def test_a_browser_named_by_the_environment_is_found(monkeypatch):
    monkeypatch.setenv("LABKIT_CHROMIUM", "/some/where/chromium")
    assert doctor.find_chromium() == "/some/where/chromium"
