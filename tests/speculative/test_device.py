"""The step on the device: nothing is read back inside it, and its output is `generate`'s."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.kernels import cuda
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.llama import LlamaWeights
from labkit.models import LanguageModel, load
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, Drafting
from labkit.speculative.checkpoint import load_heads
from labkit.speculative.context import ContextConfig
from labkit.speculative.decoder import ON_DEVICE, Decoder, heads_folder
from labkit.speculative.device import DeviceStep
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.drafters.remembering import ContextDrafter, EagleDrafter, EagleHeads
from labkit.speculative.drafters.static import (
    ASSUMED,
    StaticEagle,
    StaticHeads,
    StaticTree,
    best_static,
    chain_of,
)
from labkit.speculative.eagle import Eagle
from labkit.speculative.generate import generate
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.speculative.tree import ROOT, Draft

CPU = torch.device("cpu")
TREES = {"chain": chain_of(3), "tree": best_static((ASSUMED,) * 3, 12)}
KINDS = ("mlp", "medusa", "eagle", "context", "layers")
RULES = {"greedy": Sampling(), "sampled": Sampling(temperature=0.8, top_k=40, top_p=0.95)}
aten = torch.ops.aten
PROMPT = "Why is the sky blue?"


@cache
def base() -> LanguageModel:
    return load("tiny", "cpu")


@cache
def engine() -> CudaEngine:
    return CudaEngine(LlamaWeights(base().config, base().weights()), CPU, torch.float32)


@cache
def heads(kind: str) -> tuple[Speculator | Eagle, np.ndarray]:
    """The heads that the lab ships for `tiny`, or random ones of shapes that it ships for none."""
    if kind in ("mlp", "medusa", "eagle"):
        return load_heads(heads_folder("tiny", kind), engine().embedding)
    extra: dict[str, Any] = {"layers": (2,)}
    if kind == "context":
        extra["context"] = ContextConfig(heads=6, inner_dim=128)
    config = SpeculatorConfig(
        base="tiny", vocab_size=engine().vocabulary, emb_dim=192, inner_dim=64, n_predict=3, **extra
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Speculator(config, engine().embedding).eval(), np.arange(engine().vocabulary)


def on_device(kind: str, tree: StaticTree, rule: Sampling, room: int = 200) -> DeviceStep:
    module, ids = heads(kind)
    make = StaticEagle if isinstance(module, Eagle) else StaticHeads
    drafter = make(module.requires_grad_(False), ids, tree, room + 64)
    return DeviceStep(engine(), drafter, rule, room)


def grow(drafter: MLPDrafter, tree: StaticTree, z: np.ndarray, root: int) -> Draft:
    """Draft the static tree node by node with the heads of the host, the slow and obvious way."""
    first = drafter.heads.start(z)
    states: dict[tuple[int, ...], np.ndarray] = {(): first}
    tokens: dict[tuple[int, ...], int] = {(): root}
    choices: dict[tuple[int, ...], np.ndarray] = {}
    for path in tree.paths:
        above = path[:-1]
        if above not in choices:
            source = states[above] if drafter.heads.config.hierarchical else first
            found = drafter.heads.step(len(above), source, np.array([tokens[above]]), 8)
            choices[above], states_after = found[2][0], found[0]
            states[(*above, -1)] = states_after
        states[path], tokens[path] = states[(*above, -1)], int(choices[above][path[-1]])
    place = {(): ROOT, **{path: node for node, path in enumerate(tree.paths)}}
    many = len(tree.paths)
    return Draft(
        tuple(tokens[path] for path in tree.paths),
        tuple(place[path[:-1]] for path in tree.paths),
        (None,) * many,
        tuple(f"head {len(path)}" for path in tree.paths),
    )


def on_host(kind: str, tree: StaticTree) -> Any:
    """A drafter of the same tree for the loops of the host, by the heads of the host."""
    module, ids = heads(kind)
    made: type[MLPDrafter] = MLPDrafter
    if isinstance(module, Eagle):
        made = EagleDrafter
    elif module.context is not None:
        made = ContextDrafter

    class Static(made):  # type: ignore[valid-type,misc]
        def grown(self, roots: Sequence[int], hidden: np.ndarray, most: int) -> list[Draft]:
            pairs = zip(roots, hidden, strict=True)
            return [grow(self, tree, z, root) for root, z in pairs]

    taken = EagleHeads(module, ids) if isinstance(module, Eagle) else TorchHeads(module, ids)
    return Static(taken, max_nodes=len(tree.paths))


READS = (
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten._unique2,
    aten.bincount,
    aten.lift_fresh,
)
"""Operators that wait for the device, or bring numbers to it."""

CALLS = {"item", "tolist", "numpy", "cpu", "cuda", "__bool__", "__int__", "__float__", "__index__"}
"""Methods that bring a tensor to the host; on a CPU some of them are no operators."""


class LeftDeviceError(AssertionError):
    """A step left the device."""


class NoOperator(TorchDispatchMode):
    """Refuses every operator that moves a value between host and device, or waits for one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kind = func.overloadpacket
        flat = [each for each in args if isinstance(each, torch.Tensor)]
        if kind in (aten.index, aten.index_put, aten.index_put_):
            masks = [each for each in args[1] if each is not None and each.dtype == torch.bool]
            if masks:
                raise LeftDeviceError(f"{func} with a mask waits to know how many there are")
        moved = kind is aten._to_copy and (kwargs or {}).get("device") not in (None, CPU)
        if kind in READS or moved or len({each.device for each in flat}) > 1:
            raise LeftDeviceError(f"{func} leaves the device")
        return func(*args, **(kwargs or {}))


class NoCall(TorchFunctionMode):
    """Refuses every method of a tensor that brings it to the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in CALLS:
            raise LeftDeviceError(f"{func.__name__} leaves the device")
        return func(*args, **(kwargs or {}))


def guarded(step: DeviceStep) -> DeviceStep:
    """The step, refusing from now on to leave the device."""

    def run() -> torch.Tensor:
        with NoCall(), NoOperator():
            return step.compute()

    step._run = run
    return step


def encoded(text: str = PROMPT) -> list[int]:
    return base().encode(text)


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_output_and_every_step_are_those_of_generate(kind: str, shape: str) -> None:
    tree = TREES[shape]
    device = guarded(on_device(kind, tree, Sampling()))
    ids = encoded()
    ours = device.generate(ids, 30, base().eos_ids)
    theirs = generate(engine(), ids, 30, on_host(kind, tree), eos_ids=base().eos_ids)
    assert ours.tokens == theirs.tokens
    for our, their in zip(ours.steps, theirs.steps, strict=True):
        assert our.draft.tokens == their.draft.tokens
        assert our.draft.parents == their.draft.parents
        assert our.verdict == their.verdict
        assert our.committed == their.committed
    if kind in ("mlp", "medusa", "eagle"):
        assert ours.tokens_per_step > 1.1


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_output_is_that_of_the_batch_with_and_without_drafts(kind: str, shape: str) -> None:
    tree, rule, ids = TREES[shape], RULES["sampled"], encoded()
    ours = guarded(on_device(kind, tree, rule)).generate(ids, 24, base().eos_ids, seed=1)
    drafting = Drafting(lambda: on_host(kind, tree))
    drafted = Batch(engine(), 1, 200, base().eos_ids, drafting).run([ids], 24, rule, [1])
    assert ours.tokens == drafted[0].output == sampled_alone()


@cache
def sampled_alone() -> list[int]:
    rows = Batch(engine(), 1, 200, base().eos_ids).run([encoded()], 24, RULES["sampled"], [1])
    return rows[0].output


def test_without_a_drafter_it_is_vanilla() -> None:
    ids = encoded()
    ours = DeviceStep(engine(), None, Sampling(), 200).generate(ids, 30, base().eos_ids)
    assert ours.tokens == generate(engine(), ids, 30, eos_ids=base().eos_ids).tokens
    assert ours.tokens_per_step == 1


def test_rejecting_every_draft_gives_the_same_output_bit_for_bit() -> None:
    device = on_device("mlp", TREES["tree"], Sampling())
    ids = encoded()
    drafted = device.generate(ids, 24, base().eos_ids)
    plain = device.generate(ids, 24, base().eos_ids, drafts=False)
    assert plain.tokens == drafted.tokens
    assert plain.tokens_per_step == 1
    assert all(not step.verdict.path for step in plain.steps)


def test_a_read_inside_a_step_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (
        int,
        torch.Tensor.cpu,
        torch.nonzero,
        lambda root: root[root > 0],
        lambda root: torch.tensor([1]),
        torch.Tensor.tolist,
    ):
        device = guarded(on_device("mlp", TREES["chain"], Sampling()))
        draft = device.drafter.draft

        def leaky(root: torch.Tensor, z: torch.Tensor, read=read, draft=draft) -> torch.Tensor:
            read(root)
            return draft(root, z)

        monkeypatch.setattr(device.drafter, "draft", leaky)
        with pytest.raises(LeftDeviceError):
            device.generate(encoded(), 3)


@pytest.mark.parametrize(("shape", "rule"), [("chain", "greedy"), ("tree", "sampled")])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_card_every_tensor_of_a_step_would_be_the_cards(
    kind: str, shape: str, rule: str
) -> None:
    """Fake tensors refuse every read of a value, and any that is elsewhere than the others."""
    module, ids = heads(kind)
    moved = deepcopy(module)
    weights = LlamaWeights(base().config, base().weights())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        card = torch.device("meta")
        fake = CudaEngine(weights, card, torch.bfloat16)
        fake.recording = False
        for part in moved.modules():
            for named in (part._parameters, part._buffers):
                for name, value in named.items():
                    if value is not None:
                        named[name] = mode.from_tensor(value.detach()).to(card, torch.bfloat16)
        make = StaticEagle if isinstance(module, Eagle) else StaticHeads
        drafter = make(moved, ids, TREES[shape], 300)
        step = DeviceStep(fake, drafter, RULES[rule], 200)
        told = step.compute()
        assert told.device == card
        assert told.shape == (2 + TREES[shape].depth + 1 + len(TREES[shape].paths),)


def replaying(run, device: torch.device):
    """What recording does, without a card: warm up, then replay on the same tensors."""
    for _ in range(4):
        told = run()

    def replay():
        new = run()
        for old, value in zip(*(map(tensors, (told, new))), strict=True):
            old.copy_(value)
        return told

    return replay


def tensors(told: Any) -> list[torch.Tensor]:
    return list(told) if isinstance(told, tuple) else [told]


def broken(*_: Any) -> Any:
    raise RuntimeError("operation not permitted\nwhen the stream is capturing")


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> CudaEngine:
    """An engine that believes it is on a card, whose compiler returns what it was given."""
    monkeypatch.setattr(torch, "compile", lambda plain, **_: plain)
    made = CudaEngine(LlamaWeights(base().config, base().weights()), CPU, torch.float32)
    made.recording = True
    return made


@pytest.mark.parametrize("kind", ["mlp", "eagle", "context"])
def test_recorded_steps_give_the_same_output(
    kind: str, recording: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "capture", replaying)
    device = on_device(kind, TREES["tree"], Sampling())
    expected = [device.generate(encoded(text), 12).tokens for text in (PROMPT, "Rain")]
    device.engine, device.cache, device._run = recording, recording.new_cache(device.end), None
    assert [device.generate(encoded(text), 12).tokens for text in (PROMPT, "Rain")] == expected
    assert recording.recording


def test_where_recording_fails_steps_run_unrecorded_and_a_sentence_says_so(
    recording: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "capture", broken)
    expected = DeviceStep(engine(), None, Sampling(), 100).generate(encoded(), 5).tokens
    with pytest.warns(UserWarning, match="could not be recorded.*operation not permitted$"):
        found = DeviceStep(recording, None, Sampling(), 100).generate(encoded(), 5)
    assert found.tokens == expected
    assert not recording.recording


@pytest.mark.parametrize("breaks_at", ["compiling", "running"])
def test_where_compiling_fails_the_plain_layer_runs_and_a_sentence_says_so(
    breaks_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(plain: Any, **_: Any) -> Any:
        return broken() if breaks_at == "compiling" else broken

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.warns(UserWarning, match="torch.compile failed.*operation not permitted$"):
        run = cuda.compiled(lambda a, b: a + b)
        assert run(1, 2) == 3
    assert run(3, 4) == 7


def test_a_layer_is_compiled_once_as_one_graph_for_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    fast = torch.compile(cuda.layer_pass, backend=backend, fullgraph=True, dynamic=False)
    device = on_device("mlp", TREES["tree"], Sampling())
    expected = device.generate(encoded(), 6).tokens
    device.engine = copy(engine())
    device.engine.recording = True  # as on a card, where layers are compiled
    device.engine.__dict__["compiled_layer"] = fast
    monkeypatch.setattr(cuda, "capture", lambda run, _: run)
    assert device.generate(encoded(), 6).tokens == expected
    assert len(graphs) == 1


def test_a_decoder_on_the_device_decodes_by_every_method_as_its_own_loop_does() -> None:
    decoder = Decoder(base(), max_nodes=6, on_device=True)
    decoder.__dict__["engine"] = engine()
    ids, rule = encoded(), Sampling(temperature=0.8)
    plain = generate(engine(), ids, 12, eos_ids=base().eos_ids).tokens
    for method in ON_DEVICE:
        assert decoder.whole_step(method)
        done = decoder.generate(ids, 12, method)
        assert done.tokens == plain
        assert all(step.draft_s == 0 for step in done.steps)
        assert {len(step.draft) for step in done.steps[:1]} == {0 if method == "vanilla" else 6}
        assert decoder.trace(PROMPT, 12, method, detail=False).text == base().decode(plain)
        seeds = {tuple(decoder.generate(ids, 12, method, rule, seed).tokens) for seed in (0, 1, 2)}
        assert len(seeds) == 3
        assert tuple(decoder.generate(ids, 12, method, rule, 1).tokens) in seeds
    assert not decoder.whole_step("prompt_lookup")
    assert decoder.generate(ids, 12, "prompt_lookup").tokens == plain
    detailed = decoder.trace(PROMPT, 4, "mlp", detail=True)
    assert any(step.nodes for step in detailed.steps)


def test_a_decoder_takes_the_step_on_the_device_where_the_base_is_on_a_card() -> None:
    assert not Decoder(base()).on_device
    card = SimpleNamespace(device=torch.device("cuda"), config=base().config, name="tiny")
    assert Decoder(card).on_device


def test_each_row_of_a_tree_reads_its_own_path_in_the_order_that_it_has_once_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = TREES["tree"]
    step = on_device("mlp", tree, Sampling())
    step.begin(encoded(), limit=20, seed=0, drafts=True)
    length, seen = len(encoded()), []
    step.engine = copy(engine())
    compute = engine().compute
    monkeypatch.setattr(
        step.engine,
        "compute",
        lambda given, *rest, **lean: (seen.append(given), compute(given, *rest, **lean))[1],
    )
    step.compute()
    (given,) = seen
    for row, depth in enumerate(tree.depths):
        reads = given.order[row][given.mask[0, 0, row]].tolist()
        path = tree.ancestors[row][: depth + 1]
        assert reads == [*range(length), *(length + above for above in path)]
        assert given.mask[0, 0, row, : len(reads)].all(), "in the places that they have once kept"
        assert given.positions[0, row] == length + depth
