"""Many continuations of one prompt: each is what it would be alone, drafted or plain."""

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.kernels.llama import LlamaWeights
from labkit.kernels.weights_once import WeightsOnce
from labkit.sampling import Sampling
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.many import continue_many
from labkit.speculative.speculator import Speculator, SpeculatorConfig

PROMPT, WARM = [3, 1, 4, 1, 5], Sampling(temperature=1.0)


@pytest.fixture(scope="module")
def engine():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    module = LlamaForCausalLM(config).eval()
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    weights = {name: 4 * value if value.ndim == 2 else value for name, value in weights.items()}
    return WeightsOnce(LlamaWeights(config, weights))


@pytest.fixture(scope="module")
def drafter(engine):
    config = SpeculatorConfig(base="small", vocab_size=64, emb_dim=32, inner_dim=32, n_predict=3)
    torch.manual_seed(1)
    speculator = Speculator(config, torch.from_numpy(np.array(engine.embedding)))
    return MLPDrafter(TorchHeads(speculator, np.arange(64)), max_nodes=12, shape=(2, 2, 1))


def many(engine, count, drafter=None, slots=4):
    return continue_many(engine, PROMPT, count, 12, WARM, {0}, 7, drafter, slots)[0]


@pytest.mark.parametrize("drafted", [False, True])
def test_a_sample_does_not_depend_on_those_beside_it(engine, drafter, drafted):
    drafter = drafter if drafted else None
    wide, narrow = many(engine, 7, drafter), many(engine, 7, drafter, slots=1)
    assert wide == narrow
    assert wide[:3] == many(engine, 3, drafter)


def test_log_probabilities_are_the_models_own(engine):
    for sample in many(engine, 3):
        cache = engine.new_cache(64)
        from labkit.kernels.engine import Rows

        out = engine.forward([Rows([*PROMPT, *sample.tokens])], cache)
        logs = out.logits.log_softmax(-1)[len(PROMPT) - 1 : -1]
        expected = logs.gather(1, torch.tensor(sample.tokens)[:, None]).sum()
        assert sample.logprob == pytest.approx(float(expected), abs=1e-4)


def test_a_useful_drafter_saves_passes_and_keeps_the_distribution(engine, drafter):
    plain, plain_passes = continue_many(engine, PROMPT, 400, 3, WARM, (), 1, None, 16)
    drawn, passes = continue_many(engine, PROMPT, 400, 3, WARM, (), 2, drafter, 16)
    assert passes <= plain_passes
    first = [np.bincount([s.tokens[1] for s in some], minlength=64) for some in (plain, drawn)]
    both = first[0] + first[1]
    seen = both > 0
    statistic = (((first[0] - first[1]) ** 2)[seen] / both[seen]).sum()
    degrees = seen.sum() - 1
    # Two samples of one distribution: chi-square; beyond 6 deviations is no accident.
    assert statistic < degrees + 6 * np.sqrt(2 * degrees)


def test_a_count_below_one_and_a_greedy_choice_are_refused(engine):
    with pytest.raises(LabkitError, match="at least 1"):
        many(engine, 0)
    with pytest.raises(LabkitError, match="temperature"):
        continue_many(engine, PROMPT, 2, 4, Sampling())
