"""A base model of a few thousand numbers, made-up text, and a recipe that trains in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from labkit.training import prompts, text, tiny, train
from labkit.training.answers import Writing, Written

RECIPE = """
name = "test"
base = "{base}"
seed = 3

[heads]
kind = "{kind}"
count = 2
inner_width = {inner}
groups = {groups}
hierarchical = {hierarchical}
tied = {tied}
context = {context}

[loss]
labels = "{labels}"
sampled_vocabulary = {sampled}

[phase1]
sources = ["sotu"]
rows = 4
window = 24
steps = {steps}
learning_rate = 3e-3

[phase2]
rows = 8
window = 16
steps = {steps}
learning_rate = 3e-3
micro_batches = {micro_batches}

[generation]
sources = ["sotu"]
prompt_tokens = 6
count = 24
held_out = 4
answer_tokens = 20

[watch]
validate_every = 6
checkpoint_every = 5
"""


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads gain nothing at this size, and wait for each other where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def documents() -> list[text.Document]:
    """Forty documents in which words follow each other by a simple rule."""
    words = [f"{stem}{end}" for stem in ("go", "sing", "read", "walk") for end in ("", "s", "ing")]
    made = []
    for number in range(40):
        line = (words[(number * 3 + place * place) % len(words)] for place in range(60))
        made.append(text.Document(f"test/{number}", " ".join(line)))
    return made


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Llama of width 32 with a tokenizer of 300 tokens, as a folder."""
    folder = tmp_path_factory.mktemp("base")
    shape = tiny.ModelShape(
        vocabulary=300, width=32, layers=1, inner=32, heads=2, key_value_heads=1, context=512
    )
    tokenizer = tiny.train_tokenizer([document.text for document in documents()], 300)
    tiny.save_model(tiny.build_model(shape, seed=1), tokenizer, folder)
    return folder


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and made-up text in place of the packages'."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    for user in (prompts, train):
        monkeypatch.setattr(user, "read_documents", lambda _names: documents())
    return tmp_path


@pytest.fixture
def make_recipe(base_folder: Path, tmp_path: Path):
    """A function that writes a recipe file with a few fields chosen."""

    def make(
        labels: str = "hard",
        sampled: int = 0,
        micro_batches: int = 1,
        steps: int = 12,
        kind: str = "mlp",
        hierarchical: bool = True,
        tied: bool = False,
        context: bool = False,
        inner: int = 32,
        groups: int = 1,
    ) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(
            RECIPE.format(
                base=base_folder.as_posix(),
                labels=labels,
                sampled=sampled,
                micro_batches=micro_batches,
                steps=steps,
                kind=kind,
                hierarchical=str(hierarchical).lower(),
                tied=str(tied).lower(),
                context=str(context).lower(),
                inner=inner,
                groups=groups,
            ),
            encoding="utf-8",
        )
        return path

    return make


def count_up(prompts: list[list[int]], manner: Writing, seed: int) -> Written:
    """A writer that needs no model: each token one more than the last."""
    del seed
    steps = torch.arange(1, manner.max_new_tokens + 1)
    return Written([((prompt[-1] + steps) % 300).tolist() for prompt in prompts])
