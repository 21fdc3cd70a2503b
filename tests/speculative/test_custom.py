"""The lab's loop as a `custom_generate` of transformers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from labkit.errors import LabkitError
from labkit.speculative.custom import speculate
from tests.kernels.shapes import small_model
from tests.speculative.fakes import Dice

PROMPT = torch.tensor([[5, 6, 7, 5, 6]])


@pytest.fixture(scope="module", params=["Llama", "GPT2"])
def model(request: pytest.FixtureRequest) -> Any:
    return small_model(request.param)


def test_greedy_output_is_transformers_own(model: Any) -> None:
    how = {"max_new_tokens": 20, "do_sample": False}
    expected = model.generate(PROMPT, **how)
    drafter = Dice(model.config.vocab_size, (2, 2), (False, False))
    assert torch.equal(model.generate(PROMPT, custom_generate=speculate, **how), expected)
    got = model.generate(PROMPT, custom_generate=speculate, drafter=drafter, **how)
    assert torch.equal(got, expected)


def test_end_token_ends_the_output(model: Any) -> None:
    whole = model.generate(PROMPT, max_new_tokens=10, do_sample=False, eos_token_id=None)
    end = int(whole[0, 8])
    how = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": [end, 1_000]}
    got = model.generate(PROMPT, custom_generate=speculate, **how)
    assert got[0].tolist() == model.generate(PROMPT, **how)[0].tolist()
    assert got[0, -1] == end


def test_samples_are_those_of_the_filtered_distribution_and_follow_the_seed() -> None:
    """Chi-square over one token; false-alarm rate 1e-3, seed fixed."""
    model = small_model("Llama")
    how = {"max_new_tokens": 1, "do_sample": True, "temperature": 3.0, "top_k": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [
            int(model.generate(PROMPT, custom_generate=speculate, **how)[0, -1]) for _ in range(200)
        ]
        torch.manual_seed(0)
        assert int(model.generate(PROMPT, custom_generate=speculate, **how)[0, -1]) == drawn[0]
    top = (model(PROMPT).logits[0, -1] / 3.0).topk(4)
    shares = top.values.softmax(-1).double()
    counts = Counter(drawn)
    assert set(counts) <= set(top.indices.tolist())
    seen = [counts[token] for token in top.indices.tolist()]
    assert chisquare(seen, (200 * shares / shares.sum()).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("ids", "settings", "says"),
    [
        (PROMPT.repeat(2, 1), {}, "one by one"),
        (PROMPT, {"attention_mask": torch.tensor([[0, 1, 1, 1, 1]])}, "padding"),
        (PROMPT, {"repetition_penalty": 1.3}, "RepetitionPenalty"),
    ],
)
def test_what_drafts_cannot_follow_is_refused(
    ids: torch.Tensor, settings: dict[str, Any], says: str
) -> None:
    model = small_model("Llama")
    with pytest.raises(LabkitError, match=says):
        model.generate(
            ids, custom_generate=speculate, max_new_tokens=3, do_sample=False, **settings
        )
