"""Answers to what a `Playground` asks in a notebook: the kernel's side of its view.

The page's side is `labkit/widgets/playground/lab.js`; both answer the same questions with the same
plain values. A question comes with its arguments; ``tell`` sends a part of the answer ahead, and
``stopped`` says that nobody waits for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from labkit.devices import torch_generator
from labkit.errors import LabkitError
from labkit.sampling import Sampling
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.mlp import Heads, MLPDrafter, Path, drawn_shape, shaped_tree
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.generate import GeneratedStep, Generation, generate, prefill, verify_draft
from labkit.speculative.tracing import traced
from labkit.speculative.tree import ROOT, Draft, chain

Tell = Callable[[Any], None]
Stopped = Callable[[], bool]

QUESTIONS = ("info", "encode", "generate", "outlook", "judge", "draw")
"""What a view asks: methods of `Player`. It also asks to ``warm``, which needs no answer here."""


class _EnoughError(Exception):
    """Raised out of the loop when no further step is wanted."""


class Player:
    """Plays for a view with a `Decoder`: decodes, judges a reader's draft, draws samples."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def ask(self, question: str, args: dict[str, Any], tell: Tell, stopped: Stopped) -> Any:
        """Answer ``question``; raises `LabkitError` for one that is unknown or cannot be met."""
        if question == "warm":
            return None
        if question not in QUESTIONS:
            raise LabkitError(f"A Playground asks no question named {question!r}.")
        return getattr(self, question)(args, tell, stopped)

    def info(self, _args: dict[str, Any], _tell: Tell, _stopped: Stopped) -> dict[str, Any]:
        """Return the model's name and the number of its heads."""
        return {"base": self.decoder.base.name, "heads": self.decoder.plain_heads.config.n_predict}

    def encode(self, args: dict[str, Any], _tell: Tell, _stopped: Stopped) -> list[Any]:
        """Return the tokens of a text; as a user's turn where it is a whole ``prompt``."""
        chat = None if args.get("prompt") else False
        return [self._token(token) for token in self.decoder.base.encode(args["text"], chat)]

    def generate(self, args: dict[str, Any], tell: Tell, stopped: Stopped) -> Any:
        """Continue a prompt; the parts are ``first`` and each ``step``, the answer is a `Trace`."""
        decoder, most = self.decoder, int(args.get("maxNewTokens", 64))
        ids = decoder.encode(args["prompt"], most)
        method = str(args.get("method", "mlp"))
        first = self._run(ids, 1, args, None).first
        tell({"first": self._token(first)})
        steps: list[GeneratedStep] = []

        def watch(step: GeneratedStep) -> None:
            steps.append(step)
            tell({"step": self._step(step)})
            if stopped() or len(steps) >= args.get("steps", most):
                raise _EnoughError

        seconds = 0.0
        with suppress(_EnoughError):
            seconds = self._run(ids, most, args, self._drafter(args), watch).prefill_s
        done = Generation(tuple(ids), first, tuple(steps), seconds)
        temperature = float(args.get("temperature", 0))
        seed = int(args.get("seed", 0)) if temperature else None
        made = decoder.record(done, args["prompt"], method, temperature, seed)
        return made.model_dump(mode="json")

    def outlook(self, args: dict[str, Any], _tell: Tell, _stopped: Stopped) -> list[Any]:
        """Return the base model's most probable tokens after some."""
        logits = self._read(args["tokens"])[1].logits[-1].float()
        top = logits.softmax(-1).topk(int(args.get("many", 5)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [self._token(token) | {"prob": prob} for token, prob in pairs]

    def judge(self, args: dict[str, Any], _tell: Tell, _stopped: Stopped) -> dict[str, Any]:
        """Return the reader's draft and the heads' own chain, each judged by the real rule."""
        tokens, sampling = [int(token) for token in args["tokens"]], _sampling(args)
        cache, out = self._read(tokens[:-1])
        hidden = out.hidden[-1].clone()

        def judged(draft: Draft, generator: torch.Generator) -> Any:
            out = self.decoder.engine.forward([draft.rows(tokens[-1])], cache)
            verdict = verify_draft(out.logits, draft, sampling, generator)
            committed = (*(draft.tokens[node] for node in verdict.path), verdict.token)
            thoughts = out.logits.float().softmax(-1)
            step = GeneratedStep(draft, verdict, committed, False, 0.0, 0.0, 0.0, thoughts)
            return self._step(step)

        many = self.decoder.plain_heads.config.n_predict
        drafter = ShapedDrafter(self.decoder.plain_heads, [(0,) * (d + 1) for d in range(many)])
        generator = None if sampling.greedy else _generator(args)
        heads = drafter.draft(tokens, hidden, generator, sampling.temperature)
        reader = chain([int(token) for token in args["draft"]], "you")
        return {
            "reader": judged(reader, _generator(args)),
            "heads": judged(heads, _generator(args)),
        }

    def draw(self, args: dict[str, Any], tell: Tell, stopped: Stopped) -> list[Any]:
        """Draw continuations by speculation; each is told when it is whole."""
        most, seed = int(args.get("maxNewTokens", 24)), int(args.get("seed", 0))
        ids = self.decoder.encode(args["prompt"], most)
        start = self._read(ids)[1].logits[-1].float().log_softmax(-1)
        samples: list[Any] = []
        for index in range(int(args["count"])):
            if stopped():
                break
            how = {**args, "seed": seed * 1000 + index}
            done = self._run(ids, most, how, self._drafter({**how, "method": "mlp"}))
            logprob = float(start[done.first])
            for step in done.steps:
                assert step.probs is not None
                rows = [ROOT, *step.verdict.path]
                for row, token in zip(rows, step.committed, strict=False):
                    logprob += float(step.probs[row + 1, token].log())
            text = self.decoder.base.decode(done.tokens)
            sample = {"text": text, "count": 1, "logprob": min(0.0, logprob)}
            samples.append(sample | {"tokens": len(done.tokens)})
            tell({"sample": samples[-1]})
        return samples

    # ---- what the answers share

    def _token(self, token: int) -> dict[str, Any]:
        return {"id": int(token), "text": self.decoder.base.token_text(int(token))}

    def _step(self, step: GeneratedStep) -> dict[str, Any]:
        """Return a step as a `Trace` has it."""
        return traced(step, self.decoder.base.token_text).model_dump(mode="json")

    def _read(self, tokens: Sequence[int]) -> tuple[Any, Any]:
        """Return a cache that holds ``tokens``, and what the last pass gave."""
        engine = self.decoder.engine
        cache = engine.new_cache(len(tokens) + 16)
        layers = self.decoder.plain_heads.config.layers
        return cache, prefill(engine, [int(token) for token in tokens], cache, layers=layers)

    def _run(
        self,
        ids: Sequence[int],
        most: int,
        args: dict[str, Any],
        drafter: Drafter | None,
        watch: Callable[[GeneratedStep], None] | None = None,
    ) -> Generation:
        ends, sampling = self.decoder.base.eos_ids, _sampling(args)
        generator = None if sampling.greedy else _generator(args)
        return generate(
            self.decoder.engine, ids, most, drafter, sampling, ends, generator, True, watch
        )

    def _drafter(self, args: dict[str, Any]) -> Drafter | None:
        """Return what drafts under the view's switches; None for vanilla."""
        method, nodes = args.get("method", "mlp"), int(args.get("nodes", 8))
        if method == "vanilla":
            return None
        if method == "ngram":
            return PromptLookup(nodes)
        if method != "mlp":
            raise LabkitError(f"There is no method {method!r}: give vanilla, mlp or ngram.")
        heads = self.decoder.plain_heads
        deepest = int(args.get("heads", heads.config.n_predict))
        if args.get("tree") is not None:
            paths = [tuple(path) for path in args["tree"] if len(path) <= deepest]
            return ShapedDrafter(heads, paths)
        return ShallowDrafter(heads, nodes, shape=drawn_shape(nodes)[:deepest], deepest=deepest)


class ShallowDrafter(MLPDrafter):
    """The heads' own trees, cut below the head ``deepest``."""

    def __init__(self, *args: Any, deepest: int, **how: Any) -> None:
        super().__init__(*args, **how)
        self.deepest = deepest

    def draft(self, *args: Any, **how: Any) -> Draft:
        """Return a tree after the last token; see `Drafter.draft`."""
        return super().draft(*args, **how).no_deeper(self.deepest)


class ShapedDrafter:
    """The heads in a tree of a fixed shape: ``paths`` of ranks, 0 a head's best guess.

    Under sampling a node gets as many children as the shape has there, drawn without replacement.
    """

    def __init__(self, heads: Heads, paths: Sequence[Path]) -> None:
        self.heads, self.layers = heads, heads.config.layers
        self.paths = sorted(paths, key=lambda path: (len(path), path))
        self.max_nodes = len(self.paths)

    def begin(self, prompt: Sequence[int]) -> None:
        """Do nothing: the heads read only Z and the root."""

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Return a tree after the last of ``tokens``; see `Drafter.draft`."""
        root, z = int(tokens[-1]), hidden.float().cpu().numpy()
        if generator is None:
            return shaped_tree(self.heads, root, z, self.paths)

        def draw(probs: torch.Tensor, counts: list[int]) -> list[list[int]]:
            return [
                torch.multinomial(p, min(count, int((p > 0).sum())), generator=generator).tolist()
                for p, count in zip(probs, counts, strict=True)
            ]

        return shaped_tree(self.heads, root, z, self.paths, draw, temperature)


def _sampling(args: dict[str, Any]) -> Sampling:
    return Sampling(temperature=float(args.get("temperature", 0)), top_k=int(args.get("topK", 0)))


def _generator(args: dict[str, Any]) -> torch.Generator:
    return torch_generator(int(args.get("seed", 0)), torch.device("cpu"))
