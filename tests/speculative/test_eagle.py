"""The EAGLE-style drafter: what it trains on is what it drafts by, and it never sees ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from labkit.errors import LabkitError
from labkit.kernels.eagle import PanelEagle
from labkit.speculative.checkpoint import load_heads, save_heads
from labkit.speculative.context import rotated
from labkit.speculative.drafters.remembering import EagleDrafter, EagleHeads
from labkit.speculative.eagle import Eagle, EagleConfig

V, D, K, T = 50, 24, 3, 9
CONFIG = EagleConfig(base="toy", vocab_size=V, emb_dim=D, inner_dim=32, n_predict=K, heads=3)


@pytest.fixture(params=[(), (2, 5)], ids=["last layer", "three layers"])
def eagle(request) -> Eagle:
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"layers": request.param})
    return Eagle(config, torch.randn(V, D)).eval().requires_grad_(False)


@pytest.fixture
def text(eagle: Eagle) -> tuple[torch.Tensor, torch.Tensor]:
    """States (T, W) and tokens (T + K,), tokens[t] being what place t led to."""
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(T, eagle.config.z_dim, generator=generator)
    return states, torch.randint(V, (T + K,), generator=generator)


def taught(eagle: Eagle, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (K, T, V) at every depth and place under teacher forcing."""
    states = eagle.states(hidden[None], tokens[None])
    return torch.stack([eagle.logits(depth, state[0]) for depth, state in enumerate(states)])


def test_drafting_computes_what_training_did(eagle: Eagle, text) -> None:
    hidden, tokens = text
    expected = taught(eagle, hidden, tokens)
    heads = EagleHeads(eagle, np.arange(V))
    for place in range(T):
        state = heads.start(hidden[place].numpy())
        for depth in range(K):
            given = tokens[place + depth : place + depth + 1].numpy()
            state, logits, _, _ = heads.step(depth, state, given, 1)
            np.testing.assert_allclose(logits[0], expected[depth, place], atol=2e-5)
        heads.read(hidden[place : place + 1], tokens[place : place + 1].tolist())


@pytest.mark.parametrize("layers", [(), (2,)])
def test_packed_layer_is_torchs_of_the_same_rounded_weights(tmp_path, layers) -> None:
    torch.manual_seed(0)
    sizes = {"emb_dim": 64, "inner_dim": 96, "heads": 2, "layers": layers}
    config = CONFIG.model_copy(update=sizes)
    table, ids = torch.randn(V, 64), np.arange(3, 40)
    save_heads(tmp_path, Eagle(config, table), torch.from_numpy(ids), rounded=True)
    made, _ = load_heads(tmp_path, table)
    assert isinstance(made, Eagle)
    weights = {name: value.numpy() for name, value in made.state_dict().items()}
    packed = EagleHeads(PanelEagle(config, weights, table.numpy(), ids), ids)
    assert packed.eagle.join.dtype == np.int8
    plain = EagleHeads(made, ids)
    hidden, tokens = torch.randn(T, config.z_dim), torch.randint(V, (T,))
    for heads in (plain, packed):
        heads.read(hidden[:4], tokens[:4].tolist())
    state = plain.start(hidden[4].numpy())
    np.testing.assert_allclose(packed.start(hidden[4].numpy()), state, atol=0.05)
    for depth, nodes in enumerate((1, 2, 2)):
        state = np.repeat(state, nodes // len(state), axis=0)
        given = tokens[4 : 4 + nodes].numpy()
        exact, found = (heads.step(depth, state, given, 5) for heads in (plain, packed))
        scale = np.abs(exact[1]).max()
        np.testing.assert_allclose(found[1] / scale, exact[1] / scale, atol=0.04)
        np.testing.assert_allclose(found[0], exact[0], atol=0.04 * np.abs(exact[0]).max())
        np.testing.assert_array_equal(found[2], ids[np.argsort(-found[1], kind="stable")[:, :5]])
        state = exact[0]


def test_nodes_of_a_tree_do_not_see_each_others_branches(eagle: Eagle, text) -> None:
    hidden, tokens = text
    heads = EagleHeads(eagle, np.arange(V))
    heads.read(hidden[:4], tokens[:4].tolist())
    first, *_ = heads.step(0, heads.start(hidden[4].numpy()), np.array([7]), 1)
    together, logits, _, _ = heads.step(1, np.repeat(first, 2, axis=0), np.array([8, 9]), 1)
    _, deeper, _, _ = heads.step(2, together, np.array([3, 3]), 1)
    for branch, token in enumerate((8, 9)):
        alone, one, _, _ = heads.step(1, first, np.array([token]), 1)
        np.testing.assert_allclose(logits[branch], one[0], atol=2e-5)
        _, next_one, _, _ = heads.step(2, alone, np.array([3]), 1)
        np.testing.assert_allclose(deeper[branch], next_one[0], atol=2e-5)
    assert np.abs(deeper[0] - deeper[1]).max() > 1e-3


def test_no_place_depends_on_what_comes_later(eagle: Eagle, text) -> None:
    hidden, tokens = text
    before = taught(eagle, hidden, tokens)
    changed_hidden, changed = hidden.clone(), tokens.clone()
    changed_hidden[5:] += 1
    changed[5 + K - 1 :] = (changed[5 + K - 1 :] + 1) % V
    after = taught(eagle, changed_hidden, changed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().min(dim=-1).values.max() > 0


def test_every_depth_reads_the_features_before_it(eagle: Eagle, text) -> None:
    hidden, tokens = text
    before = taught(eagle, hidden, tokens)
    moved = hidden.clone()
    moved[2] += 1
    after = taught(eagle, moved, tokens)
    for depth in range(K):
        assert (after[depth, 6] - before[depth, 6]).abs().max() > 1e-4


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    near = (rotated(q, torch.tensor([3])) * rotated(k, torch.tensor([1]))).sum()
    far = (rotated(q, torch.tensor([90])) * rotated(k, torch.tensor([88]))).sum()
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)


def test_the_drafter_reads_each_committed_place_once(eagle: Eagle, text) -> None:
    """Told of places in pieces, it drafts what it drafts when told of all at once."""
    hidden, tokens = text
    prompt, written = [1, 2], tokens.tolist()

    def last_draft(pieces: list[int]):
        drafter = EagleDrafter(EagleHeads(eagle, np.arange(V)), 6)
        drafter.begin(prompt)
        at = 0
        for size in pieces:
            drafter.see(hidden[at : at + size])
            at += size
            draft = drafter.draft([*prompt, *written[:at]], hidden[at - 1])
        return draft.tokens, draft.parents

    assert last_draft([1, 3, 2]) == last_draft([1, 1, 1, 1, 1, 1]) == last_draft([6])
    assert last_draft([6]) != last_draft([5])


def test_it_is_kept_and_read_again(eagle: Eagle, text, tmp_path) -> None:
    save_heads(tmp_path, eagle, torch.arange(0, V, 2))
    again, ids = load_heads(tmp_path, eagle.table)
    assert isinstance(again, Eagle)
    assert ids.tolist() == list(range(0, V, 2))
    hidden, tokens = text
    torch.testing.assert_close(
        taught(again, hidden, tokens), taught(eagle, hidden, tokens), atol=0.05, rtol=0.05
    )
    with pytest.raises(LabkitError, match="do not fit"):
        load_heads(tmp_path, torch.randn(V, D + 6))


def test_a_shape_without_even_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match="parts of even width"):
        EagleConfig(base="toy", vocab_size=V, emb_dim=24, inner_dim=8, n_predict=2, heads=5)
