"""The heads as drafters: the best tree there is, and children drawn as they say they are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from labkit.errors import LabkitError
from labkit.kernels.heads import PanelHeads
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.drafters.prompt_lookup import MLPLookup, PromptLookup
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.speculative.tree import ROOT, Draft, join
from tests.speculative.test_tree import spelled

VOCABULARY, WIDTH, HEADS = 40, 12, 3
DRAFT_IDS = np.arange(3, 19)  # 16 of the tokens


def speculator(
    hierarchical: bool = True,
    seed: int = 0,
    scale_input: bool = True,
    layers: tuple[int, ...] = (),
) -> Speculator:
    """Heads of random weights with opinions."""
    config = SpeculatorConfig(
        base="toy",
        vocab_size=VOCABULARY,
        emb_dim=WIDTH,
        inner_dim=20,
        n_predict=HEADS,
        hierarchical=hierarchical,
        scale_input=scale_input,
        layers=layers,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Speculator(config, torch.randn(VOCABULARY, WIDTH))
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


def hidden(seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=width).astype(np.float32))


def test_heads_of_the_last_layer_pass_over_what_other_heads_read() -> None:
    made = speculator()
    wide = hidden(5, 3 * WIDTH)
    weights = {name: value.numpy() for name, value in made.state_dict().items()}
    for heads in (
        TorchHeads(made, DRAFT_IDS),
        PanelHeads(made.config, weights, made.table.numpy(), DRAFT_IDS),
    ):
        alone, among = (heads.start(z.numpy()) for z in (wide[-WIDTH:], wide))
        np.testing.assert_array_equal(alone, among)


@torch.no_grad()
def path_probability(made: Speculator, z: torch.Tensor, root: int, path: tuple[int, ...]) -> float:
    """The product of the heads' probabilities along a path, over the draft vocabulary."""
    table = made.table[torch.from_numpy(DRAFT_IDS)]
    first = state = made.start(z)
    chance = 1.0
    for head, (before, token) in enumerate(zip((root, *path), path, strict=False)):
        source = state if made.config.hierarchical else first
        state = made.step(head, source, torch.tensor(before))
        probs = made.logits(head, state, table).softmax(-1)
        chance *= float(probs[DRAFT_IDS.tolist().index(token)])
    return chance


@pytest.mark.parametrize("hierarchical", [True, False], ids=["hierarchical", "medusa"])
@pytest.mark.parametrize("nodes", [1, 4, 11])
def test_tree_holds_the_paths_that_are_most_probably_reached(
    nodes: int, hierarchical: bool
) -> None:
    made, z, root = speculator(hierarchical), hidden(), 5
    drafter = MLPDrafter(TorchHeads(made, DRAFT_IDS), nodes, width=300, top_k=16)
    draft = drafter.draft([1, root], z)
    every = [path for depth in (1, 2) for path in product(DRAFT_IDS.tolist(), repeat=depth)]
    chances = {path: path_probability(made, z, root, path) for path in every}
    best = sorted(chances, key=lambda path: -chances[path])[: nodes + 1]
    third = {path for path in spelled(draft) if len(path) == 3}
    bar = chances[best[nodes - 1]]
    for path in spelled(draft):
        assert path_probability(made, z, root, path) >= bar * (1 - 1e-5)
    assert len(draft) == nodes
    assert spelled(draft) - third <= set(best)


@pytest.mark.parametrize("hierarchical", [True, False], ids=["hierarchical", "medusa"])
def test_q_is_the_heads_probability_after_the_parent(hierarchical: bool) -> None:
    made, z = speculator(hierarchical), hidden(1)
    draft = MLPDrafter(TorchHeads(made, DRAFT_IDS), 14, 5, 5).draft([7], z)
    for node in range(len(draft)):
        path = tuple(draft.tokens[i] for i in draft.path(node))
        below = path_probability(made, z, 7, path)
        above = path_probability(made, z, 7, path[:-1])
        assert draft.q[node] == pytest.approx(below / above, rel=1e-4)
        assert draft.sources[node] == f"head {len(path)}"
    shown = dict(draft.considered)[ROOT]
    assert list(shown) == sorted(shown, key=lambda pair: -pair[1])


class Sure:
    """Heads whose best guess has the probability ``first``, others sharing the rest; they count."""

    draft_ids = DRAFT_IDS
    config = speculator().config

    def __init__(self, first: float) -> None:
        rest = (1 - first) / (len(DRAFT_IDS) - 1)
        self.logp = np.log(np.array([first] + [rest] * (len(DRAFT_IDS) - 1), np.float32))
        self.asked: list[int] = []

    def start(self, z: np.ndarray) -> np.ndarray:
        return z[None]

    def step(self, head: int, state: np.ndarray, tokens: np.ndarray, many: int):
        self.asked.append(head)
        logp = np.tile(self.logp, (len(tokens), 1))
        return state, logp, np.tile(DRAFT_IDS[:many], (len(tokens), 1)), logp[:, :many]


@pytest.mark.parametrize(("first", "asked"), [(0.9, HEADS), (0.3, 2), (0.15, 1)])
def test_a_head_is_asked_only_where_it_may_be_worth_its_time(first: float, asked: int) -> None:
    heads = Sure(first)
    draft = MLPDrafter(heads, 5).draft([7], hidden())
    assert heads.asked == list(range(asked))
    assert len(draft) == 5


def test_width_and_top_k_of_one_give_the_greedy_chain() -> None:
    made, z = speculator(), hidden(2)
    draft = MLPDrafter(TorchHeads(made, DRAFT_IDS), 3, 1, 1).draft([7], z)
    assert draft.parents == (-1, 0, 1)
    table = made.table[torch.from_numpy(DRAFT_IDS)]
    state, token = made.start(z), 7
    for head in range(HEADS):
        state = made.step(head, state, torch.tensor(token))
        token = int(DRAFT_IDS[int(made.logits(head, state, table).argmax())])
        assert draft.tokens[head] == token


def test_medusas_heads_do_not_see_what_was_drafted_and_hierarchical_ones_do() -> None:
    def after(draft: Draft) -> list[tuple[tuple[int, float], ...]]:
        return [draft.considered[node] for node in draft.children(ROOT) if node in draft.considered]

    z = hidden(3)
    independent = MLPDrafter(TorchHeads(speculator(False), DRAFT_IDS), 30, 6, 6)
    first, *others = after(independent.draft([7], z))
    assert others
    assert all(outlook == first for outlook in others)
    chained = MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), 30, 6, 6)
    first, *others = after(chained.draft([7], z))
    assert any(outlook != first for outlook in others)


@pytest.mark.parametrize("hierarchical", [True, False], ids=["hierarchical", "medusa"])
@pytest.mark.parametrize(
    ("scale_input", "many", "layers"),
    [(True, 16, ()), (False, 16, ()), (True, 21, ()), (True, 16, (2,)), (False, 16, (1, 3))],
)
def test_heads_on_panels_are_torchs_heads(
    hierarchical: bool, scale_input: bool, many: int, layers: tuple[int, ...]
) -> None:
    made = speculator(hierarchical, scale_input=scale_input, layers=layers)
    weights = {name: value.numpy() for name, value in made.state_dict().items()}
    ids = np.arange(3, 3 + many)
    panels = PanelHeads(made.config, weights, made.table.numpy(), ids)
    plain = TorchHeads(made, ids)
    z = hidden(4, made.config.z_dim).numpy()
    np.testing.assert_allclose(panels.start(z), plain.start(z), atol=1e-5)
    state, tokens = plain.start(z), np.array([7])
    for head in range(HEADS):
        exact = plain.step(head, state, tokens, 5)
        rough = panels.step(head, np.ascontiguousarray(state), tokens, 5)
        scale = np.abs(exact[1]).max()
        assert rough[1].shape == (len(tokens), many)
        np.testing.assert_allclose(rough[1] / scale, exact[1] / scale, atol=0.02)
        assert rough[2][0, 0] in exact[2][0, :2]
        np.testing.assert_allclose(np.exp(rough[3]).sum(-1), np.exp(exact[3]).sum(-1), atol=0.05)
        source = plain.start(z) if not hierarchical else exact[0]
        tokens = exact[2][0, :4]
        state = np.repeat(source[:1], 4, axis=0)


@pytest.mark.parametrize("hierarchical", [True, False], ids=["hierarchical", "medusa"])
def test_sampled_children_come_with_the_distribution_they_were_drawn_from(
    hierarchical: bool,
) -> None:
    made, z = speculator(hierarchical), hidden(5)
    drafter = MLPDrafter(TorchHeads(made, DRAFT_IDS), 15, shape=(3, 2, 1))
    draft = drafter.draft([7], z, torch.Generator().manual_seed(0), temperature=1.0)
    assert [len(draft.children(node)) for node in (ROOT, 0, 3)] == [3, 2, 1]
    for parent, (ids, values) in draft.outlooks.items():
        assert float(values.sum()) == pytest.approx(1)
        children = [draft.tokens[node] for node in draft.children(parent)]
        assert len(set(children)) == len(children)
        path = tuple(draft.tokens[i] for i in draft.path(parent))
        for node in draft.children(parent):
            token = draft.tokens[node]
            q = float(values[ids.tolist().index(token)])
            whole = path_probability(made, z, 7, (*path, token))
            assert q == pytest.approx(whole / path_probability(made, z, 7, path), rel=1e-4)
            assert draft.q[node] == pytest.approx(q)


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_sampled_siblings_are_drawn_in_turn_without_being_put_back(temperature: float) -> None:
    """Chi-square over ordered pairs of siblings; false-alarm rate 1e-3, seed fixed."""
    made, z = speculator(), hidden(6)
    ids = DRAFT_IDS[:6]
    drafter = MLPDrafter(TorchHeads(made, ids), top_k=2, shape=(2,))
    generator = torch.Generator().manual_seed(1)
    table = made.table[torch.from_numpy(ids)]
    logits = made.logits(0, made.step(0, made.start(z), torch.tensor(7)), table)
    q = (logits.detach().double() / temperature).softmax(-1).tolist()
    samples = 2000
    seen = np.zeros((6, 6))
    for _ in range(samples):
        tokens = drafter.draft([7], z, generator, temperature).tokens
        first, second = (ids.tolist().index(token) for token in tokens)
        seen[first, second] += 1
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    hopes = np.array([q[a] * q[b] / (1 - q[a]) * samples for a, b in pairs])
    counts = np.array([seen[pair] for pair in pairs])
    assert seen.trace() == 0
    few = hopes < 5
    counts = np.append(counts[~few], counts[few].sum())
    hopes = np.append(hopes[~few], hopes[few].sum())
    kept = hopes > 0
    assert chisquare(counts[kept], hopes[kept] * counts.sum() / hopes.sum()).pvalue > 1e-3


def test_the_likeliest_nodes_of_heads_and_lookup_are_drafted() -> None:
    heads = MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), 6, 3, 3)
    lookup = PromptLookup(6)
    both = MLPLookup(heads, lookup)
    text, z = [1, 2, 3, 4, 30, 31, 32, 1, 2, 3, 4], hidden(7)
    both.begin(text)
    draft, every = both.draft(text, z), join(heads.draft(text, z), lookup.draft(text, z))
    assert len(draft) == both.max_nodes == 6
    assert spelled(draft) <= spelled(every)
    assert (30, 31) in spelled(draft)
    assert set(draft.sources) == {"lookup", "head 1"}
    both.begin([1, 2])
    assert both.draft([1, 2], z) == heads.draft([1, 2], z)


def test_under_sampling_a_long_match_stands_alone_and_a_short_one_is_left_out() -> None:
    heads = MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), 6, 3, 3, shape=(2, 1))
    both = MLPLookup(heads, PromptLookup(3))
    generator = torch.Generator().manual_seed(0)
    long, short = [5, 6, 1, 2, 30, 5, 6, 1, 2], [5, 1, 2, 30, 6, 1, 2]
    for text, source in ((long, "lookup"), (short, "head 1")):
        both.begin(text)
        draft = both.draft(text, hidden(8), generator, 1.0)
        assert draft.sources[0] == source
        assert bool(draft.outlooks) == (source != "lookup")


@pytest.mark.parametrize(
    "settings", [{"max_nodes": 0}, {"width": 0}, {"top_k": 0}, {"shape": (0,)}]
)
def test_tree_of_nothing_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(LabkitError, match="at least 1"):
        MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), **settings)


@pytest.mark.parametrize("nodes", range(1, 14))
def test_a_drawn_tree_has_no_more_nodes_than_it_may(nodes: int) -> None:
    drafter = MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), nodes)
    draft = drafter.draft([7], hidden(), torch.Generator().manual_seed(0), 1.0)
    assert 1 <= len(draft) <= nodes


def test_a_shape_of_too_many_nodes_is_refused() -> None:
    with pytest.raises(LabkitError, match="has 9 nodes, more than the 8"):
        MLPDrafter(TorchHeads(speculator(), DRAFT_IDS), 8, shape=(3, 1, 1))
