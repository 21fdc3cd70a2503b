"""The whole speculative step on the device: draft, check, verify, commit, the next Z.

On a GPU a pass over a few tokens takes well under a millisecond, so a loop that brings drafts,
logits and states back to the host spends most of its time there. Here a step is one function on
tensors of fixed shapes that reads no value back; on CUDA it is recorded as one graph. The host gets
one short list of numbers after it: how many drafts were accepted, and which tokens.

Verification is the batch's (`speculative.batch`): a draft is accepted if it is the token that the
base model itself takes there: its most probable one, or the one that it draws with the random
number of that place (Daliri et al. 2024). So drafts change no token, sampled or not.

**Bit-identical to what?** In bfloat16 a row's logits may change in their last bits with the shape
of the pass, and with the order in which attention adds up its keys. Two things are held fixed here:

* The shape. A product of one shape adds up each row in one order, whatever the other rows hold. All
  steps of a generation have the same number of rows and read the same number of cache places.
* The order of keys. A node of a tree lies in the cache behind nodes that are not on its path, and
  moves when it is committed. So each row of a tree reads its own path's keys in the order that they
  have once committed (`kernels.cuda.Inputs.order`); in a chain they lie in that order already.

So the output is that of the same graph with every draft rejected (``drafts=False``), bit for bit.
It is *not* guaranteed to be that of a graph with other shapes, such as vanilla at its best width,
one row: there near ties may fall otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from labkit.kernels.cuda import BLOCK, CudaEngine, Inputs
from labkit.sampling import Sampling
from labkit.speculative.batch import drawn, uniform
from labkit.speculative.drafters.static import StaticDrafter, StaticTree
from labkit.speculative.generate import GeneratedStep, Generation, check_fits, prefill
from labkit.speculative.tree import ROOT, Draft
from labkit.speculative.verify import Test, Verdict, ending

GRAIN = 2 * BLOCK
"""Steps read a multiple of this many cache places, so that most texts share one recording."""


class DeviceStep:
    """Decodes texts of at most ``room`` tokens with a static tree; without a drafter, vanilla.

    n = N + 1 rows are the root and the N nodes, C = depth + 1 the most rows that a step commits.
    """

    def __init__(
        self,
        engine: CudaEngine,
        drafter: StaticDrafter | None,
        sampling: Sampling,
        room: int,
    ) -> None:
        self.engine, self.drafter, self.sampling = engine, drafter, sampling
        self.tree = tree = drafter.tree if drafter else StaticTree(())
        self.layers = drafter.layers if drafter else ()
        self.end = places_for(room, tree)
        self.cache = engine.new_cache(self.end)

        def put(values: object, kind: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(values, dtype=kind, device=engine.device)

        self.parents, self.depths = put(tree.parents), put(tree.depths)  # (n,)
        self.ancestors = put(tree.ancestors)  # (n, C)
        self.is_root = self.depths == 0
        self.places = torch.arange(self.end, device=engine.device)
        self.slot = put([0])
        # What a step reads and leaves for the next one.
        self.root, self.length, self.written = put([0]), put([0]), put([0])
        self.z = torch.zeros(
            1, (len(self.layers) + 1) * engine.width, device=engine.device, dtype=engine.dtype
        )
        # What the host sets before the first step.
        self.limit, self.deepest = put([0]), put([0])
        self.numbers = put([0.0] * (self.end + 1), torch.float64)
        self._run: Callable[[], Tensor] | None = None

    @torch.no_grad()
    def compute(self) -> Tensor:
        """Make one step; return (accepted drafts, the base model's own token, path, drafts)."""
        drafts = self.drafter.draft(self.root, self.z) if self.drafter else self.root[:0]  # (N,)
        tokens = torch.cat([self.root, drafts])  # (n,)
        states, logits = self.check(tokens)  # (n, W), (n, V)
        choices = self.choose(logits)  # (n,)
        path, accepted = self.verify(tokens, choices)  # (C,), (1,)
        last = path[accepted]
        own = choices[last]
        self.commit(path, accepted)
        if self.drafter:
            after = torch.where(self.places[: len(path)] == accepted, own, tokens[path].roll(-1))
            self.drafter.follow(states[path], after, accepted)
        self.z.copy_(states[last])
        self.root.copy_(own)
        return torch.cat([accepted, own, path, drafts])

    def check(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Process the root and all nodes in one pass: states (n, W) and logits (n, V).

        A row sees the committed places, then the nodes on its own path, by depth.
        """
        many = len(tokens)
        below = self.places - self.length  # (end,): a place's depth in the tree, from 0
        seen = below <= self.depths[:, None]  # (n, end)
        order = None
        if not self.tree.chain:
            along = below.clamp(0, self.tree.depth).expand(many, -1)
            on_path = self.length + self.ancestors.gather(1, along)
            order = torch.where(below < 0, self.places, on_path)  # (n, end)
        positions = (self.length + self.depths).clamp(max=self.engine.context - 1)
        written_to = self.length + self.places[:many]
        given = Inputs(
            tokens[None], positions[None], written_to[None], self.slot, seen[None, None], order
        )
        keys, values = self.cache.buffers.keys, self.cache.buffers.values
        states, logits = self.engine.compute(given, keys, values, self.layers, lean=True)
        return states[0], logits[0].float()

    def choose(self, logits: Tensor) -> Tensor:
        """Return the base model's own token after each row: (n, V) to (n,)."""
        if self.sampling.greedy:
            return logits.argmax(-1)
        return drawn(self.sampling, logits, self.numbers[self.written + self.depths])

    def verify(self, tokens: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the accepted path (C,), padded by its last, and its length (1,)."""
        right = (tokens == choices[self.parents]) | self.is_root  # (n,)
        alive = right[self.ancestors].all(-1)  # the whole path down to the row is right
        most = torch.minimum(self.deepest, self.limit - self.written - 1)
        reached = torch.where(alive & (self.depths <= most), self.depths, -1)
        last = reached.argmax(0, keepdim=True)
        return self.ancestors[last][0], self.depths[last]

    def commit(self, path: Tensor, accepted: Tensor) -> None:
        """Move the path's keys and values to its places; what lies behind them is overwritten."""
        new = self.length + self.places[: len(path)]
        for part in (self.cache.buffers.keys, self.cache.buffers.values):
            text = part[:, 0]  # (layers, kv, room, d)
            text.index_copy_(2, new, text.index_select(2, self.length + path))
        self.length.add_(accepted + 1)
        self.written.add_(accepted + 1)

    def begin(self, prompt: Sequence[int], limit: int, seed: int, drafts: bool) -> int:
        """Read the prompt and set the step's state; return the first token."""
        self.cache.truncate(0)
        out = prefill(self.engine, prompt, self.cache, layers=self.layers)
        if not self.sampling.greedy:
            places = range(limit + self.tree.depth + 1)
            numbers = torch.tensor([uniform(seed, place) for place in places], dtype=torch.float64)
            self.numbers[: len(numbers)].copy_(numbers)
        self.written.fill_(0)
        first = self.choose(out.logits[-1:].expand(len(self.depths), -1))[:1]
        self.root.copy_(first)
        self.z.copy_(out.hidden[-1:])
        self.length.fill_(len(prompt))
        self.written.fill_(1)
        self.limit.fill_(limit)
        self.deepest.fill_(self.tree.depth if drafts else 0)
        if self.drafter:
            rows = self.tree.depth + 1
            self.drafter.begin()
            self.drafter.follow(self.z.expand(rows, -1), first.expand(rows), self.slot)
        return int(first)

    def step(self) -> list[int]:
        """Make one step, recorded at the first call, and bring its numbers to the host."""
        if self._run is None:
            own = (self.root, self.length, self.written, self.z)
            state = (*own, *(self.drafter.state if self.drafter else ()))
            before = [tensor.clone() for tensor in state]
            self._run = self.engine.recorded(self.compute)
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)  # recording made steps of its own
        return self._run().tolist()

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        eos_ids: Collection[int] = (),
        seed: int = 0,
        drafts: bool = True,
    ) -> Generation:
        """Continue ``prompt`` until an end token or ``max_new_tokens``; see `generate.generate`.

        ``drafts=False`` rejects every draft: vanilla through the same graph, which the output with
        drafts is bit-identical to. A step's whole time is in ``check_s``.
        """
        check_fits(self.engine.context, prompt, max_new_tokens)
        clock = time.perf_counter
        began = clock()
        first = self.begin(prompt, max_new_tokens, seed, drafts)
        prefill_s = clock() - began
        steps: list[GeneratedStep] = []
        written, ended = 1, first in eos_ids
        while written < max_new_tokens and not ended:
            t0 = clock()
            numbers = self.step()
            t1 = clock()
            accepted, own = numbers[:2]
            path = tuple(row - 1 for row in numbers[3 : 3 + accepted])
            drafted = self.as_draft(numbers[3 + self.tree.depth :])
            draft = drafted.no_deeper(max_new_tokens - written - 1)
            committed = [*(draft.tokens[node] for node in path), own]
            stops = [at for at, token in enumerate(committed, 1) if token in eos_ids]
            kept = tuple(committed[: min(stops, default=len(committed))])
            verdict = followed(draft, path, own)
            cut, rest = len(kept) < len(committed), clock() - t1
            steps.append(GeneratedStep(draft, verdict, kept, cut, 0.0, t1 - t0, rest))
            written, ended = written + len(kept), bool(stops)
        return Generation(tuple(prompt), first, tuple(steps), prefill_s)

    def as_draft(self, tokens: Sequence[int]) -> Draft:
        """Return the tree with its tokens as a `Draft`."""
        parents = tuple(row - 1 for row in self.tree.parents[1:])
        sources = tuple(f"head {depth}" for depth in self.tree.depths[1:])
        return Draft(tuple(tokens), parents, (None,) * len(tokens), sources)


def places_for(room: int, tree: StaticTree) -> int:
    """Return the cache places that steps on texts of ``room`` tokens read."""
    return -(-(room + len(tree.paths) + 1) // GRAIN) * GRAIN


def followed(draft: Draft, path: tuple[int, ...], token: int) -> Verdict:
    """Return the verdict of a step that accepted ``path``: its tests are those down that path."""
    tests: list[Test] = []
    for above, accepted in zip((ROOT, *path), (*path, None), strict=True):
        for node in draft.children(above):
            tests.append(Test(node, node == accepted))
            if node == accepted:
                break
    last = path[-1] if path else ROOT
    return Verdict(path, token, ending(draft, last), tuple(tests))
