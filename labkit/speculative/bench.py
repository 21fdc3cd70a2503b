"""Methods against each other over prompts, in turn, as Spec-Bench measures (Xia et al. 2024).

Greedy decoding, one sequence. A prompt's speed is its tokens over its seconds, prefill inside; a
method's speed is the mean over prompts, a speedup the ratio of two such means. Tokens per step
count the base model's own token, so that vanilla is 1.00. All methods take turns at each prompt,
since a machine's speed moves within seconds, and of the repeats the median counts. Of a
conversation every turn is asked with vanilla's answers before it, so that all methods get the same
text.

Peers are decoding by transformers (plain, with prompt lookup, with an assistant model) and, where
the package llama-cpp-python is installed, by llama.cpp (plain, with its own prompt lookup).
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch

from labkit import threads
from labkit.devices import clock
from labkit.errors import LabkitError
from labkit.kernels.engine import Engine
from labkit.models import LanguageModel
from labkit.questions import Question
from labkit.records.base import Part
from labkit.sampling import Sampling
from labkit.speculative.decoder import METHODS, Decoder, same_output
from labkit.speculative.generate import prefill, tied

VANILLA, TRANSFORMERS = "vanilla", "transformers"
LLAMA_CPP = ("llama_cpp", "llama_cpp_prompt_lookup")
PEERS = (TRANSFORMERS, "transformers_prompt_lookup", "transformers_assisted", *LLAMA_CPP)
"""The same base model decoded by other libraries."""

PARTS = ("prefill", "draft", "check", "rest")
"""The parts of a generation that are timed: the prefill once, the others at each step."""

LOOKUP_TOKENS = 10
"""Tokens that transformers' prompt lookup drafts, as its documentation has it."""

LLAMA_CPP_LOOKUP_TOKENS = 2
"""Tokens that llama.cpp's prompt lookup drafts: what its documentation recommends on a CPU."""


@dataclass(frozen=True)
class Run:
    """One output of one method; times in seconds. ``steps`` are passes of the base model.

    The first token comes from the prefill for the lab's own methods, and ``steps`` does not count
    it; peers' passes count it.
    """

    tokens: tuple[int, ...]
    seconds: float
    gained: int
    steps: int
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Turn:
    """The outputs of all arms (methods) for one turn of one prompt: a list of repeats for each."""

    question: Question
    ids: tuple[int, ...]
    runs: dict[Any, list[Run]]


Runner = Callable[[list[int]], Run]


def own_runner(decoder: Decoder, method: str, max_new_tokens: int) -> Runner:
    """Return a function that decodes by one of the lab's own methods."""
    decoder.warm_up(method)

    def run(ids: list[int]) -> Run:
        made = decoder.generate(ids, max_new_tokens, method)
        parts = {"prefill": made.prefill_s}
        for part in PARTS[1:]:
            parts[part] = sum(getattr(step, f"{part}_s") for step in made.steps)
        tokens = tuple(made.tokens)
        return Run(tokens, made.seconds, len(tokens) - 1, len(made.steps), parts)

    return run


def peer_runner(decoder: Decoder, name: str, max_new_tokens: int) -> Runner:
    """Return a function that decodes with transformers.

    Raises `LabkitError` if assisted generation has no assistant that fits.
    """
    from transformers import GenerationConfig

    base, extra = decoder.base, dict[str, Any]()
    if name == "transformers_prompt_lookup":
        extra["prompt_lookup_num_tokens"] = LOOKUP_TOKENS
    if name == "transformers_assisted":
        assistant = decoder.smaller_model
        if assistant.config.vocab_size != base.config.vocab_size:
            raise LabkitError(
                f"transformers' assisted generation needs tables of one size, and those of "
                f"{base.name!r} and {assistant.name!r} have {base.config.vocab_size:,} and "
                f"{assistant.config.vocab_size:,} rows."
            )
        extra["assistant_model"] = assistant.module
    module: Any = base.module
    ends = sorted(base.eos_ids)
    how = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )

    def run(ids: list[int], how: GenerationConfig = how) -> Run:
        passes: list[object] = []
        given = torch.tensor([ids], device=base.device)
        with module.base_model.register_forward_pre_hook(lambda *_: passes.append(1)):
            began = clock(base.device)
            out = module.generate(
                given, attention_mask=torch.ones_like(given), generation_config=how, **extra
            )
            tokens = tuple(out[0, len(ids) :].tolist())
            seconds = clock(base.device) - began
        return Run(tokens, seconds, len(tokens), len(passes))

    run(ids=[0, 1, 2], how=GenerationConfig(**{**how.to_diff_dict(), "max_new_tokens": 2}))
    return run


def llama_cpp_runner(decoder: Decoder, name: str, max_new_tokens: int) -> Runner:
    """Return a runner of llama.cpp on the base model's GGUF file, with as many threads.

    It rounds activations to 8 bits, as `q4_1_int8` does, so its text may differ from vanilla's.
    Raises `LabkitError` where the package or the file is missing, or the weights are others.
    """
    base, engine = decoder.base, decoder.engine
    try:
        llama_cpp: Any = importlib.import_module("llama_cpp")
        speculative: Any = importlib.import_module("llama_cpp.llama_speculative")
    except (ImportError, OSError, RuntimeError) as error:  # the last two: its library is unusable
        raise LabkitError(f"llama-cpp-python cannot be imported ({error}).") from None
    files = sorted(base.folder.glob("*.gguf"))
    if not files:
        raise LabkitError(
            f"llama.cpp needs a GGUF file, and {base.folder} holds none; for the model real, "
            "remove that folder and run `labkit fetch real`."
        )
    if engine.device.type != "cpu" or decoder.storage == "bfloat16":
        raise LabkitError(
            f"llama.cpp is compared on a CPU and with the GGUF file's own weights, not with "
            f"{engine.name!r} on {engine.device.type}: give --storage q4_1 or q4_1_int8."
        )
    lookup = speculative.LlamaPromptLookupDecoding(num_pred_tokens=LLAMA_CPP_LOOKUP_TOKENS)
    model = llama_cpp.Llama(
        str(files[0]),
        n_ctx=base.context,
        n_threads=engine.threads,
        n_threads_batch=engine.threads,
        draft_model=lookup if name == "llama_cpp_prompt_lookup" else None,
        verbose=False,
    )
    evaluate, passes = model.eval, [0]

    def count(tokens: Sequence[int]) -> None:
        passes[0] += 1
        evaluate(tokens)

    model.eval = count

    def run(ids: list[int], most: int = max_new_tokens) -> Run:
        passes[0], tokens = 0, []
        began = time.perf_counter()
        model.reset()  # or it would reuse the last run's cache where the prompts agree
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            tokens.append(int(token))
            if len(tokens) == most or token in base.eos_ids:
                break
        return Run(tuple(tokens), time.perf_counter() - began, len(tokens), passes[0])

    run([0, 1, 2], 2)
    return run


def runners(
    decoder: Decoder, methods: Sequence[str], max_new_tokens: int
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Return a runner for each method, and for each that cannot run here a sentence why.

    Vanilla always runs, and first, as what the others are compared with.
    """
    every = (*METHODS, *PEERS)
    strange = sorted(set(methods) - set(every))
    if strange:
        raise LabkitError(f"There is no method {strange[0]!r}: give some of {', '.join(every)}.")
    ready: dict[str, Runner] = {}
    lacking: dict[str, str] = {}
    for method in dict.fromkeys((VANILLA, *methods)):
        make = peer_runner if method in PEERS else own_runner
        make = llama_cpp_runner if method in LLAMA_CPP else make
        try:
            ready[method] = make(decoder, method, max_new_tokens)
        except LabkitError as error:
            lacking[method] = str(error)
    return ready, lacking


def check_prompts(base: LanguageModel, questions: Sequence[Question], max_new_tokens: int) -> None:
    """Raise `LabkitError` for a prompt that is too long, before an hour has passed."""
    for question in questions:
        talk: list[str] = []
        for said in question.turns:
            conversation(base, [*talk, said], max_new_tokens)
            talk += [said, "."]  # the shortest answer that there can be


def ask(
    base: LanguageModel,
    questions: Sequence[Question],
    ready: Mapping[Any, Runner],
    max_new_tokens: int,
    repeats: int,
    say: Callable[[str], None],
    order: Callable[[list[Any]], Iterable[Any]] = iter,
) -> Iterator[Turn]:
    """Decode every turn of every prompt by every arm, in ``order``, ``repeats`` times.

    A conversation goes on with the first arm's answers. One that becomes too long for the context
    ends there, with a message to ``say``.
    """
    for question in questions:
        talk: list[str] = []
        for said in question.turns:
            talk.append(said)
            try:
                ids = conversation(base, talk, max_new_tokens)
            except LabkitError as error:
                if len(talk) == 1:
                    raise
                say(f"{question.id} ends before turn {len(talk) // 2 + 1}: {error}")
                break
            runs: dict[Any, list[Run]] = {arm: [] for arm in ready}
            for _ in range(repeats):
                for arm in order(list(ready)):
                    runs[arm].append(ready[arm](ids))
            yield Turn(question, tuple(ids), runs)
            talk.append(base.decode(next(iter(runs.values()))[0].tokens))


def conversation(base: LanguageModel, talk: Sequence[str], max_new_tokens: int) -> list[int]:
    """Return the token ids of a conversation in which the model's turn is next.

    Raises `LabkitError` where the answer would not fit the model's context.
    """
    ids = base.encode_chat(talk)
    if len(ids) + max_new_tokens > base.context:
        raise LabkitError(
            f"A prompt has {len(ids):,} tokens, which leaves no room for {max_new_tokens:,} in the "
            f"context of {base.context:,}: give shorter prompts or a smaller --max-new-tokens."
        )
    return ids


def by_category(turns: Iterable[Turn]) -> dict[str, list[Turn]]:
    """Return the turns of each category of prompts."""
    groups: dict[str, list[Turn]] = {}
    for turn in turns:
        groups.setdefault(turn.question.category, []).append(turn)
    return groups


class Score(Part):
    """A method's figures over some prompts; the milliseconds are means.

    ``prefill_ms`` is a prompt's, the other three a step's. They are null for peers, whose loop is
    not ours to time.
    """

    tokens_per_s: float
    tokens_per_step: float
    speedup_vs_vanilla: float
    speedup_vs_transformers: float | None
    identical: bool
    ties: int
    prompts: int
    tokens: int
    prefill_ms: float | None = None
    draft_ms: float | None = None
    check_ms: float | None = None
    rest_ms: float | None = None


def speeds(turns: Sequence[Turn], arm: Any) -> list[float]:
    """Return an arm's tokens per second of each prompt; of repeats the median counts."""
    totals: dict[str, tuple[int, float]] = {}
    for turn in turns:
        tokens, seconds = totals.get(turn.question.id, (0, 0.0))
        typical = statistics.median(run.seconds for run in turn.runs[arm])
        totals[turn.question.id] = tokens + len(turn.runs[arm][0].tokens), seconds + typical
    return [tokens / seconds for tokens, seconds in totals.values()]


def speed(turns: Sequence[Turn], arm: Any) -> float:
    """Return the mean over prompts of tokens per second."""
    return statistics.fmean(speeds(turns, arm))


def score(
    turns: Sequence[Turn], method: str, alike: Callable[[Turn, str], tuple[bool, int]]
) -> Score:
    """Return a method's figures over ``turns``; ``alike`` compares its outputs with vanilla's."""
    runs = [run for turn in turns for run in turn.runs[method]]
    steps = sum(run.steps for run in runs)
    compared = [alike(turn, method) for turn in turns]
    fast = speed(turns, method)
    peer = speed(turns, TRANSFORMERS) if TRANSFORMERS in turns[0].runs else None
    parts: dict[str, float] = {}
    if runs[0].parts:
        for part in PARTS:
            over = len(runs) if part == "prefill" else max(steps, 1)
            parts[f"{part}_ms"] = 1e3 * sum(run.parts[part] for run in runs) / over
    return Score(
        tokens_per_s=fast,
        tokens_per_step=sum(run.gained for run in runs) / steps if steps else 1.0,
        speedup_vs_vanilla=fast / speed(turns, VANILLA),
        speedup_vs_transformers=fast / peer if peer else None,
        identical=all(same for same, _ in compared),
        ties=sum(ties for _, ties in compared),
        prompts=len({turn.question.id for turn in turns}),
        tokens=sum(len(turn.runs[method][0].tokens) for turn in turns),
        **parts,
    )


def identical_on_device(decoder: Decoder, turn: Turn, method: str, max_new_tokens: int) -> bool:
    """Return whether ``method``'s outputs are those of its own graph with all drafts rejected.

    That graph is vanilla at the same width, whose bits the drafted output has to the last; vanilla
    at its own best width may differ from both where two logits tie.
    """
    step = decoder.step(method, Sampling(), len(turn.ids) + max_new_tokens)
    plain = step.generate(turn.ids, max_new_tokens, decoder.base.eos_ids, drafts=False)
    return all(list(run.tokens) == plain.tokens for run in turn.runs[method])


def compare(engine: Engine, turn: Turn, method: str) -> tuple[bool, int]:
    """Return whether ``method``'s outputs are vanilla's, and how many needed a tie as an excuse.

    On an exact engine the lab's own methods get no such excuse; see `same_output`.
    """
    excusable = method in PEERS or not engine.exact

    def tied_at(ours: tuple[int, ...], place: int) -> bool:
        """Process the text up to ``place`` again, for the logits there."""
        text = [*turn.ids, *ours[:place]]
        return excusable and tied(prefill(engine, text, engine.new_cache(len(text))).logits[-1])

    results = [
        same_output(vanilla.tokens, other.tokens, partial(tied_at, vanilla.tokens))
        for vanilla, other in zip(turn.runs[VANILLA], turn.runs[method], strict=True)
    ]
    same = all(alike for alike, _ in results)
    return same, sum(ties for _, ties in results) if same else 0


class Result(Part):
    """A benchmark's outcome. ``methods`` holds null where ``notes`` says why it could not run."""

    base: str
    path: str
    device: str
    threads: int
    torch_threads: int
    waiting: str
    contention: float
    contended: bool
    max_new_tokens: int
    max_nodes: int
    repeats: int
    prompts: int
    methods: dict[str, Score | None]
    notes: dict[str, str]
    categories: dict[str, dict[str, Score]]


def bench(
    decoder: Decoder,
    questions: Sequence[Question],
    max_new_tokens: int = 96,
    repeats: int = 3,
    methods: Sequence[str] | None = None,
    watch: Callable[[str], None] | None = None,
) -> Result:
    """Decode every prompt by every method, in turn, and compare; ``watch`` gets progress.

    ``methods`` None stands for all that can run; one that is named and cannot is an error.
    """
    if min(max_new_tokens, repeats) < 1:
        raise LabkitError(
            f"Give at least 1 new token and 1 repeat; got {max_new_tokens} and {repeats}."
        )
    say = watch or (lambda _: None)
    check_prompts(decoder.base, questions, max_new_tokens)
    ready, notes = runners(decoder, methods or (*METHODS, *PEERS), max_new_tokens)
    if methods and notes:
        raise LabkitError(next(iter(notes.values())))
    for method, why in notes.items():
        say(f"Without {method}: {why}")
    taken = [threads.contention()]
    turns: list[Turn] = []
    for turn in ask(decoder.base, questions, ready, max_new_tokens, repeats, say):
        turns.append(turn)
        taken.append(threads.contention())
        say(f"{turn.question.id} ({turn.question.category})")
    contention = statistics.fmean(taken)

    @cache
    def alike(turn: Turn, method: str) -> tuple[bool, int]:
        if method != VANILLA and decoder.whole_step(method):
            return identical_on_device(decoder, turn, method, max_new_tokens), 0
        return compare(decoder.engine, turn, method)

    order = dict.fromkeys([*ready, *notes])
    return Result(
        base=decoder.base.name,
        path=decoder.engine.name,
        device=str(decoder.engine.device),
        threads=decoder.engine.threads,
        torch_threads=torch.get_num_threads(),
        waiting=threads.waiting(),
        contention=contention,
        contended=contention > threads.CONTENDED,
        max_new_tokens=max_new_tokens,
        max_nodes=decoder.max_nodes,
        repeats=repeats,
        prompts=len(questions),
        methods={m: score(turns, m, alike) if m in ready else None for m in order},
        notes=notes,
        categories={
            category: {method: score(group, method, alike) for method in ready}
            for category, group in by_category(turns).items()
        },
    )


COLUMNS = {
    "tokens/s": ("tokens_per_s", 1),
    "tokens/step": ("tokens_per_step", 2),
    "x vanilla": ("speedup_vs_vanilla", 2),
    "x transformers": ("speedup_vs_transformers", 2),
    "identical": ("identical", 0),
    **{f"{part} ms": (f"{part}_ms", 1) for part in PARTS},
}
"""The columns of `rows` after the method's: a field of `Score`, and its decimal places."""

HEADER = ("method", *COLUMNS)


def rows(scores: dict[str, Score | None]) -> list[tuple[str, ...]]:
    """Return one row of text for each method that ran; see `HEADER`."""

    def cell(found: Score, name: str, places: int) -> str:
        value = getattr(found, name)
        if name == "identical":
            return f"{'yes' if value else 'no'}{f' ({found.ties} ties)' if found.ties else ''}"
        return "" if value is None else f"{value:.{places}f}"

    return [
        (method, *(cell(found, *column) for column in COLUMNS.values()))
        for method, found in scores.items()
        if found is not None
    ]
