"""The batch: whoever stands beside a row, the row gets what it gets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.overrides import TorchFunctionMode

from labkit.errors import LabkitError
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.heads import PanelHeads
from labkit.kernels.weights_once import WeightsOnce
from labkit.sampling import Sampling
from labkit.speculative.batch import (
    Batch,
    Drafting,
    Row,
    common_beginning,
    drafting_for,
    drawn,
    uniform,
)
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.drafters.remembering import EagleDrafter, EagleHeads
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.generate import PREFILL_ROWS, generate
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.speculative.tree import ROOT, Draft
from tests.kernels.shapes import llama, small_model
from tests.speculative.fakes import Planned, ToyEngine

WARM = Sampling(temperature=0.9, top_k=8)


def draw(how: Sampling, logits: torch.Tensor, numbers: Sequence[float]) -> list[int]:
    return drawn(how, logits, torch.tensor(numbers, dtype=torch.float64)).tolist()


def run(batch: Batch, arrivals: list[tuple[int, list[int], int, Sampling]]) -> list[list[int]]:
    """Serve requests (step of arrival, prompt, limit, sampling); the outputs, in their order."""
    waiting = sorted(enumerate(arrivals), key=lambda item: (item[1][0], item[0]))
    outputs: list[list[int]] = [[] for _ in arrivals]
    rows: dict[Row, int] = {}
    step = 0
    while waiting or rows:
        while waiting and waiting[0][1][0] <= step and batch.free:
            index, (_, prompt, limit, sampling) = waiting.pop(0)
            rows[batch.join(prompt, limit, sampling, seed=index)] = index
        for emitted in batch.step().emitted:
            outputs[rows[emitted.row]] += emitted.tokens
            if emitted.ended:
                del rows[emitted.row]
        step += 1
        assert step < 5000, "the batch does not come to an end"
    return outputs


prompts = st.one_of(
    st.lists(st.integers(0, 10), min_size=1, max_size=6),
    st.lists(st.integers(0, 10), min_size=60, max_size=90),
)


@given(
    requests=st.lists(
        st.tuples(st.integers(0, 12), prompts, st.integers(1, 15), st.booleans()),
        min_size=1,
        max_size=7,
    ),
    slots=st.integers(1, 4),
    length=st.integers(0, 4),
    decoys=st.integers(0, 2),
    nodes=st.integers(0, 12),
    plan=st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_every_request_gets_what_it_gets_alone(
    requests: list[tuple[int, list[int], int, bool]],
    slots: int,
    length: int,
    decoys: int,
    nodes: int,
    plan: list[int],
) -> None:
    toy = ToyEngine()
    drafting = None
    if length:
        drafting = Drafting(
            lambda: Planned(toy, length, lambda step: plan[step % len(plan)], decoys)
        )
    arrivals = [
        (step, prompt, limit, WARM if warm else Sampling())
        for step, prompt, limit, warm in requests
    ]
    most = min(nodes, drafting.max_nodes) if drafting else 0
    batch = Batch(toy, slots, 120, {4}, drafting, lambda _: most)
    together = run(batch, arrivals)
    assert sorted(batch.free) == list(range(slots))
    for index, (_, prompt, limit, sampling) in enumerate(arrivals):
        if sampling.greedy:
            assert together[index] == generate(toy, prompt, limit, eos_ids={4}).tokens
        alone = Batch(toy, 1, 120, {4})
        row = alone.join(prompt, limit, sampling, seed=index)
        while alone.running:
            alone.step()
        assert together[index] == row.output


@pytest.fixture(scope="module")
def panels() -> tuple[WeightsOnce, Callable[[int], MLPDrafter]]:
    """A small Llama on the exact fast path, and heads of random weights over its table."""
    model = small_model("Llama", vocab_size=96)
    engine = WeightsOnce(llama(model))
    config = SpeculatorConfig(
        base="small", vocab_size=96, emb_dim=engine.width, inner_dim=32, n_predict=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        speculator = Speculator(config, torch.from_numpy(engine.embedding))
    weights = {name: value.numpy() for name, value in speculator.state_dict().items()}
    heads = PanelHeads(config, weights, engine.embedding, np.arange(96))
    return engine, lambda nodes: MLPDrafter(heads, nodes)


@pytest.mark.parametrize("method", ["vanilla", "mlp", "prompt_lookup"])
def test_on_the_fast_path_a_batch_of_trees_writes_what_generate_writes(
    panels: tuple[WeightsOnce, Callable[[int], MLPDrafter]], method: str
) -> None:
    engine, heads = panels
    drafting: Drafting | None = {
        "vanilla": lambda: None,
        "mlp": lambda: Drafting(lambda: heads(6)),
        "prompt_lookup": lambda: Drafting(PromptLookup),
    }[method]()
    rng = np.random.default_rng(0)
    arrivals = [
        (2 * index, rng.integers(1, 96, size).tolist(), 20, Sampling())
        for index, size in enumerate((5, 70, 1, 30, 64, 9))
    ]
    together = run(Batch(engine, 3, 100, {0}, drafting), arrivals)
    for output, (_, prompt, limit, _) in zip(together, arrivals, strict=True):
        assert output == generate(engine, prompt, limit, eos_ids={0}).tokens


@pytest.mark.parametrize(
    ("decoys", "length", "right"), [(0, 3, 3), (2, 3, 3), (1, 4, 2), (0, 2, 0)]
)
def test_every_row_takes_exactly_the_steps_its_drafts_deserve(
    decoys: int, length: int, right: int
) -> None:
    toy = ToyEngine()
    batch = Batch(toy, 3, 80, (), Drafting(lambda: Planned(toy, length, lambda _: right, decoys)))
    for prompt in ([1], [2, 3], [4, 5, 6]):
        batch.join(prompt, 25)
    steps = []
    while batch.running:
        steps.append(batch.step())
    assert len(steps) == -(-24 // (right + 1))
    assert sum(step.committed for step in steps) == 3 * 24
    assert steps[0].prompt_rows == 6
    unhindered = (23 - length) // (right + 1) + 1  # steps before the limit cuts the drafts
    assert all(step.drafted == 3 * length * (1 + decoys) for step in steps[:unhindered])
    assert sum(map(sum, (step.taken for step in steps[:-1]))) == 3 * right * (len(steps) - 1)


def test_a_long_prompt_is_read_in_chunks_while_others_are_answered() -> None:
    toy = ToyEngine()
    batch = Batch(toy, 2, 300)
    quick = batch.join([1, 2], 40)
    batch.step()
    slow = batch.join([3] * (3 * PREFILL_ROWS + 5), 4)
    seen = [batch.step() for _ in range(4)]
    assert [step.prompt_rows for step in seen] == [PREFILL_ROWS] * 3 + [5]
    assert [step.batch for step in seen] == [1, 1, 1, 2]
    assert len(quick.output) == 2 + 4
    assert len(slow.output) == 2
    assert max(toy.passes) <= PREFILL_ROWS


def test_prompts_share_a_chunk_in_the_order_in_which_they_came() -> None:
    batch = Batch(ToyEngine(), 3, 200)
    rows = [batch.join([7] * 40, 2) for _ in range(3)]
    batch.step()
    assert [row.read for row in rows] == [40, 24, 0]
    batch.step()
    assert [row.read for row in rows] == [40, 40, 40]


def test_no_draft_reaches_beyond_what_a_row_may_still_answer() -> None:
    toy = ToyEngine()
    batch = Batch(toy, 1, 40, (), Drafting(lambda: Planned(toy, 5, lambda _: 5)))
    batch.join([1], 4)
    step = batch.step()
    assert (step.drafted, step.committed) == (2, 3)
    assert not batch.running


def test_leaving_midway_frees_the_slot_and_leaves_the_others_alone() -> None:
    toy = ToyEngine()
    batch = Batch(toy, 2, 60, (), Drafting(lambda: Planned(toy, 3, lambda step: step % 3)))
    first, second = batch.join([1, 2, 3], 30), batch.join([4], 30)
    for _ in range(3):
        batch.step()
    batch.leave(first)
    assert list(batch.free) == [first.slot]
    assert batch.cache.lengths[first.slot] == 0
    third = batch.join([5, 6], 9)
    while batch.running:
        batch.step()
    assert second.output == toy.greedy([4], 30)
    assert third.output == toy.greedy([5, 6], 9)


@pytest.mark.parametrize(
    ("prompt", "limit", "sampling", "said"),
    [
        ([], 4, Sampling(), "The prompt is empty"),
        ([1], 0, Sampling(), "max_new_tokens is 0"),
        ([1], 2.5, Sampling(), "max_new_tokens is 2.5: give a whole number"),
        ([1] * 20, 21, Sampling(), "20 tokens and 21 more .* holds 40"),
        ([1], 4, Sampling(temperature=1, typical=True), "not lossless"),
    ],
)
def test_what_no_slot_could_serve_is_refused(
    prompt: list[int], limit: int, sampling: Sampling, said: str
) -> None:
    batch = Batch(ToyEngine(), 1, 40)
    with pytest.raises(LabkitError, match=said):
        batch.join(prompt, limit, sampling)
    assert list(batch.free) == [0]


@pytest.mark.parametrize("sizes", [(0, 40), (2, 1)])
def test_a_batch_without_room_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(LabkitError, match="at least 1 slot"):
        Batch(ToyEngine(), *sizes)


@pytest.mark.parametrize("keep", [0, 4])
def test_sampled_tokens_are_distributed_as_the_base_model_says(keep: int) -> None:
    """Chi-square over 4,000 seeds at two places; false-alarm rate 1e-3, seeds fixed."""
    shares = [[0.5, 0.2, 0.2, 0.1, 0.0], [0.05, 0.0, 0.3, 0.15, 0.5]]
    p = torch.tensor(shares, dtype=torch.float64)
    counts = np.zeros((2, 5))
    for seed in range(4000):
        numbers = [uniform(seed, 3), uniform(seed, 4)]
        for place, token in enumerate(
            draw(Sampling(temperature=1.0, top_k=keep), p.log(), numbers)
        ):
            counts[place, token] += 1
    assert counts[0, 4] == 0
    assert chisquare(counts[0, :4], 4000 * p[0, :4].numpy()).pvalue > 1e-3
    seen = p[1].numpy() > 0
    assert counts[1, ~seen] == 0
    assert chisquare(counts[1, seen], 4000 * p[1].numpy()[seen]).pvalue > 1e-3


def test_two_places_are_drawn_independently() -> None:
    """How often both are equal, over 2,000 seeds: within 4 deviations of sum p^2 = 0.34."""
    p = torch.tensor([[0.5, 0.2, 0.2, 0.1]] * 2).double()
    how = Sampling(temperature=1.0)
    found = [draw(how, p.log(), [uniform(seed, 0), uniform(seed, 1)]) for seed in range(2000)]
    equal = sum(first == second for first, second in found) / 2000
    assert abs(equal - 0.34) < 4 * (0.34 * 0.66 / 2000) ** 0.5


def test_random_number_belongs_to_a_seed_and_a_place() -> None:
    assert uniform(1, 5) == uniform(1, 5)
    assert len({uniform(1, 5), uniform(2, 5), uniform(1, 6), uniform(-1, 5)}) == 4


def test_no_token_without_probability_is_drawn_at_either_end() -> None:
    logits = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log()
    for number in (0.0, 1 - 2.0**-53):
        assert draw(Sampling(temperature=1.0), logits, [number])[0] in (1, 2)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    count = draw(st.integers(0, 9))
    parents = tuple(draw(st.integers(ROOT, node - 1)) for node in range(count))
    q = tuple(draw(st.one_of(st.none(), st.floats(0, 1))) for _ in range(count))
    return Draft(tuple(range(count)), parents, q, ("drawn",) * count)


def spelled(draft: Draft) -> set[tuple[int, ...]]:
    return {tuple(draft.tokens[i] for i in draft.path(node)) for node in range(len(draft))}


@given(draft=drafts(), nodes=st.integers(1, 10))
def test_a_smaller_budget_buys_the_likeliest_part_of_the_tree(draft: Draft, nodes: int) -> None:
    part = draft.best_part(nodes)
    assert len(part) == min(nodes, len(draft))
    assert spelled(part) <= spelled(draft)
    places = draft.ranks()
    assert sorted(places) == list(range(len(draft)))
    assert {draft.tokens[node] for node, place in enumerate(places) if place < nodes} == set(
        part.tokens
    )


@given(draft=drafts(), depth=st.integers(0, 5))
def test_a_shallower_tree_keeps_every_node_above_the_cut(draft: Draft, depth: int) -> None:
    assert spelled(draft.no_deeper(depth)) == {p for p in spelled(draft) if len(p) <= depth}


def row_of(text: list[int], z: torch.Tensor, slot: int) -> Row:
    return Row(slot, tuple(text), 50, Sampling(), 0, list(text), len(text), z)


def test_the_heads_of_a_batch_draft_for_each_row_what_they_draft_alone(
    panels: tuple[WeightsOnce, Callable[[int], MLPDrafter]],
) -> None:
    engine, heads = panels
    drafter = heads(9)
    rng = np.random.default_rng(2)
    hidden = torch.from_numpy(rng.normal(size=(5, engine.width)).astype(np.float32))
    texts = [[3, 9 + row] for row in range(5)]
    rows = [row_of(text, z, slot) for slot, (text, z) in enumerate(zip(texts, hidden, strict=True))]
    for nodes in (1, 4, 9):
        together = Drafting(lambda: drafter).draft(rows, nodes)
        for text, z, draft in zip(texts, hidden, together, strict=True):
            alone = drafter.draft(text, z).best_part(nodes)
            assert (draft.tokens, draft.parents, draft.q) == (alone.tokens, alone.parents, alone.q)


def test_heads_are_shared_and_drafters_with_a_memory_are_not(
    panels: tuple[WeightsOnce, Callable[[int], MLPDrafter]],
) -> None:
    made = []

    def counted(make: Callable[[], object]) -> Callable[[], object]:
        return lambda: made.append(make()) or made[-1]

    for make, most in ((lambda: panels[1](3), 1), (PromptLookup, 3)):
        made.clear()
        drafting = Drafting(counted(make))
        for slot in (0, 1, 0):
            drafting.begin(slot, [1, 2])
        assert len(made) == most
    assert drafting_for(lambda: None) is None


def test_a_batch_tells_each_drafter_the_states_of_its_own_row(
    panels: tuple[WeightsOnce, Callable[[int], MLPDrafter]],
) -> None:
    """EAGLE reads every state that was committed: its drafts are those it makes alone."""
    engine, _ = panels
    config = EagleConfig(
        base="small", vocab_size=96, emb_dim=engine.width, inner_dim=16, n_predict=3, heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        heads = EagleHeads(Eagle(config, torch.from_numpy(engine.embedding)), np.arange(96))
    prompts = [[5, 9, 5], [7, 7, 7, 7], [11, 2]]
    batch = Batch(engine, 2, 40, (), Drafting(lambda: EagleDrafter(heads, 6)))
    rows = batch.run(prompts, 15)
    for row, prompt in zip(rows, prompts, strict=True):
        alone = generate(engine, prompt, 15, EagleDrafter(heads, 6))
        assert row.output == alone.tokens
    steps = [generate(engine, prompt, 15, EagleDrafter(heads, 6)).steps for prompt in prompts[:1]]
    single = Batch(engine, 1, 40, (), Drafting(lambda: EagleDrafter(heads, 6)))
    single.join(prompts[0], 15)
    drafted = []
    while single.running:
        drafted.append(single.step().drafted)
    assert drafted == [len(step.draft) for step in steps[0]]


@pytest.mark.parametrize("warm", [False, True])
def test_what_all_prompts_begin_with_is_processed_once(warm: bool) -> None:
    sampling = Sampling(temperature=1.0) if warm else Sampling()
    prompts = [[3] * 70 + tail for tail in ([1], [2, 5], [], [1, 4])]
    assert common_beginning(prompts) == [3] * 70
    outputs, rows = [], []
    for shared in (common_beginning(prompts), ()):
        toy = ToyEngine()
        batch = Batch(toy, 2, 90, {4}, shared=shared)
        outputs.append([row.output for row in batch.run(prompts, 9, sampling, range(4))])
        rows.append(sum(toy.passes))
        assert batch.passes == len(toy.passes)
    assert outputs[0] == outputs[1]
    assert rows[1] - rows[0] == 3 * 70


@pytest.mark.parametrize("drafted", [False, True])
def test_kept_states_and_log_probabilities_are_those_of_each_token(drafted: bool) -> None:
    toy = ToyEngine()
    drafting = Drafting(lambda: Planned(toy, 3, lambda step: step % 4, 1)) if drafted else None
    batch = Batch(toy, 2, 90, {4}, drafting, keep=("states", "logprobs"))
    for row in batch.run([[1, 2], [3], [5]], 12, Sampling(temperature=1.0), range(3)):
        text = list(row.prompt)
        logprob = 0.0
        for token, state in zip(row.output, torch.cat(row.states), strict=True):
            assert torch.equal(state, toy.hidden_after(text))
            logprob += float(toy.after(tuple(text)).log_softmax(-1)[token])
            text.append(token)
        assert row.logprob == pytest.approx(logprob, abs=1e-4)


@pytest.mark.parametrize("length", [0, 3])
def test_drafts_change_no_sampled_token(length: int) -> None:
    toy = ToyEngine()
    how = Sampling(temperature=1.2, top_p=0.9)
    drafting = Drafting(lambda: Planned(toy, length, lambda _: 2)) if length else None
    batch = Batch(toy, 3, 60, {4}, drafting)
    together = [row.output for row in batch.run([[1, 2]] * 6, 20, how, range(6))]
    alone = Batch(toy, 1, 60, {4})
    assert together == [alone.run([[1, 2]], 20, how, [seed])[0].output for seed in range(6)]
    assert len(set(map(tuple, together))) > 1


def test_a_row_that_repeats_itself_ends() -> None:
    class Stuck(ToyEngine):
        def _after(self, text: tuple[int, ...]) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.tensor((text[-1] + 1) % 3), 11).float()

    whole, cut = (
        Batch(Stuck(), 1, 90, repeats=repeats).run([[0]], 40)[0].output for repeats in (0, 6)
    )
    assert len(whole) == 40
    assert cut == whole[:18]


class Transfers(TorchFunctionMode):
    """Counts the calls that bring a tensor to the host."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        self.count += name in {"item", "tolist", "cpu", "numpy", "__int__", "__float__", "__bool__"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", [(), ("states", "logprobs")], ids=["tokens", "everything"])
def test_a_step_brings_the_tokens_of_all_rows_to_the_host_at_once(keep: tuple[str, ...]) -> None:
    engine = CudaEngine(llama(small_model("Llama")), torch.device("cpu"), torch.float32)
    rules = [Sampling(), Sampling(temperature=1.0), Sampling(temperature=0.7, top_k=5)]
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    batch = Batch(engine, 3, 40, keep=keep)
    rows = [batch.join(*given) for given in zip(prompts, [9] * 3, rules, (1, 2, 3), strict=True)]
    with Transfers() as transfers:
        batch.step()
        assert transfers.count == 2, "one for the prompts, one for the tokens after the first"
        for many in range(3, 6):
            batch.step()
            assert transfers.count == many
    while batch.running:
        batch.step()
    for row, prompt, rule in zip(rows, prompts, rules, strict=True):
        alone = Batch(engine, 1, 40, keep=keep).run([prompt], 9, rule, [row.seed])[0]
        assert row.output == alone.output
        assert row.logprob == pytest.approx(alone.logprob, rel=1e-5)
        assert (row.logprob < 0) == ("logprobs" in keep)
