"""The lab's loop as a `custom_generate` of transformers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TextIteratorStreamer,
)

from labkit.errors import LabkitError
from labkit.models import load
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


def test_stopping_criteria_end_the_output_where_they_end_transformers_own(model: Any) -> None:
    """As `StopStringCriteria` does: it looks at the text after every token."""
    whole = model.generate(PROMPT, max_new_tokens=20, do_sample=False, eos_token_id=None)

    class After(StoppingCriteria):
        def __init__(self, length: int) -> None:
            self.length = length

        def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.tensor([ids.shape[1] >= self.length])

    for length in (6, 9, 13):
        how = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
        criteria = StoppingCriteriaList([After(length)])
        got = model.generate(PROMPT, custom_generate=speculate, stopping_criteria=criteria, **how)
        assert torch.equal(got, whole[:, :length])


def test_a_stop_string_ends_the_output(toy_folder: Path) -> None:
    lm = load(str(toy_folder), device="cpu")
    ids = torch.tensor([lm.encode("hello hello")])
    how = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None}
    whole = lm.module.generate(ids, **how)
    stop = lm.token_text(int(whole[0, ids.shape[1] + 5]))
    how["stopping_criteria"] = StoppingCriteriaList([StopStringCriteria(lm.tokenizer, [stop])])
    expected = lm.module.generate(ids, **how)
    assert expected.shape[1] < whole.shape[1]
    assert torch.equal(lm.module.generate(ids, custom_generate=speculate, **how), expected)


def test_no_time_gives_one_token_as_in_transformers(model: Any) -> None:
    how = {"max_new_tokens": 20, "do_sample": False, "max_time": 0.0, "eos_token_id": None}
    got = model.generate(PROMPT, custom_generate=speculate, **how)
    assert torch.equal(got, model.generate(PROMPT, **how))
    assert got.shape[1] == PROMPT.shape[1] + 1


def test_a_streamer_gets_prompt_and_tokens_in_order_and_its_end(toy_folder: Path) -> None:
    lm = load(str(toy_folder), device="cpu")
    ids = torch.tensor([lm.encode("hello hello")])
    streamer = TextIteratorStreamer(lm.tokenizer, skip_prompt=True, timeout=60)
    how = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    got = lm.module.generate(ids, custom_generate=speculate, streamer=streamer, **how)
    assert "".join(streamer) == lm.tokenizer.decode(got[0, ids.shape[1] :])


def test_a_dictionary_is_returned_where_one_was_asked_for(model: Any) -> None:
    how = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True}
    got = model.generate(PROMPT, custom_generate=speculate, **how)
    assert torch.equal(got.sequences, model.generate(PROMPT, **how).sequences)


def test_padding_on_the_left_changes_nothing(model: Any) -> None:
    how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), PROMPT], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    got = model.generate(padded, attention_mask=mask, custom_generate=speculate, **how)
    assert torch.equal(got[:, :8], padded)
    assert torch.equal(got[:, 3:], model.generate(PROMPT, **how))


@pytest.mark.parametrize(
    ("ids", "settings", "says"),
    [
        (PROMPT.repeat(2, 1), {}, "one by one"),
        (PROMPT, {"attention_mask": torch.tensor([[1, 0, 1, 1, 1]])}, "on the left"),
        (PROMPT, {"output_scores": True, "return_dict_in_generate": True}, "output_scores"),
        (None, {"inputs_embeds": torch.zeros(1, 3, 32)}, "give input_ids"),
        (PROMPT, {"repetition_penalty": 1.3}, "RepetitionPenalty"),
    ],
)
def test_what_drafts_cannot_follow_is_refused(
    ids: torch.Tensor | None, settings: dict[str, Any], says: str
) -> None:
    model = small_model("Llama")
    with pytest.raises(LabkitError, match=says):
        model.generate(
            ids, custom_generate=speculate, max_new_tokens=3, do_sample=False, **settings
        )
