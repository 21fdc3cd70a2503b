"""Everything that a GPU is measured for, in one record: ``labkit bench gpu``.

Each part is measured by itself. One that fails is recorded with its sentence and the others go on;
one whose turn comes after the time is up is recorded as not run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from scipy.stats import chi2

from labkit.devices import clock, pick_device
from labkit.doctor import nvidia_cards
from labkit.errors import LabkitError
from labkit.kernels.cuda import CudaEngine
from labkit.mbr.conditional import conditional
from labkit.mbr.draws import Draws, draw
from labkit.mbr.pairs import read_pairs
from labkit.models import load
from labkit.paths import carried, data_dir
from labkit.provenance import FROM_PYTHON, provenance
from labkit.questions import read_questions
from labkit.sampling import Sampling
from labkit.serving.bench import Level, Loads
from labkit.serving.replay import bench_replayed
from labkit.speculative.bench import bench
from labkit.speculative.calibrate import calibrate, keep, passes_over, timed
from labkit.speculative.decoder import Decoder
from labkit.speculative.generate import prefill
from labkit.training.answers import Writing, continue_all
from labkit.training.train import train_all

FORM = "labkit bench gpu 1"
"""The form of the record."""

LARGEST = 32
"""Tokens of the largest check."""

REJECTED = 1e-3
"""A right sampler fails the chi-square test with this probability."""


@dataclass(frozen=True)
class Amounts:
    """How much of everything is measured; by default for a card, six minutes on a fast one."""

    base: str = "real"
    prompts: int = 12
    tokens: int = 96
    repeats: int = 3
    nodes: int | None = None
    seeds: int = 2000
    answers: int = 2048
    rows: int = 64
    window: int = 128
    steps: int = 60
    sources: int = 300
    samples: int = 64
    cpu_sources: int = 6
    shapes: tuple[str, ...] = ("llama2-13b", "llama3-8b", "llama2-7b", "smollm2-1.7b", "real")
    users: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    acceptance: tuple[float, ...] = (0.75, 0.6, 0.45)


WHOLE = Amounts()

QUICK = Amounts(
    base="tiny",
    prompts=1,
    tokens=8,
    repeats=1,
    nodes=4,
    seeds=60,
    answers=4,
    rows=2,
    window=16,
    steps=2,
    sources=2,
    samples=4,
    cpu_sources=1,
    shapes=("tiny-random",),
    users=(1, 2),
    acceptance=(0.6, 0.4),
)
"""A small form of every part, which shows on any machine that each one runs."""


class Measurement:
    """The parts, by name, on one device; what several of them need is opened once."""

    def __init__(self, amounts: Amounts, device: str | None, say: Callable[[str], None]) -> None:
        self.amounts, self.say = amounts, say
        self.device = pick_device(device)

    @cached_property
    def decoder(self) -> Decoder:
        """The base model with the whole step on the device."""
        base = load(self.amounts.base, str(self.device))
        return Decoder(base, max_nodes=self.amounts.nodes, on_device=True)

    @property
    def engine(self) -> CudaEngine:
        """The decoder's engine."""
        engine = self.decoder.engine
        if not isinstance(engine, CudaEngine):
            raise LabkitError(f"The device {self.device} has no CUDA path: give cuda or cpu.")
        return engine

    def prompts(self, many: int) -> list[list[int]]:
        """Return the token ids of ``many`` of the lab's prompts."""
        texts = [question.turns[0] for question in read_questions()]
        return [self.decoder.base.encode(texts[i % len(texts)]) for i in range(many)]

    def passes(self) -> dict[str, Any]:
        """Calibrate: one token, checks of up to 32, the heads, and the tree that pays best.

        One token is also timed by the layer that ``torch.compile`` makes.
        """
        found = calibrate(self.decoder.base, self.engine, self.decoder.heads, self.amounts.repeats)
        keep(found)  # the next parts draft its tree
        compiled = copy(self.engine)
        compiled.fused = None
        (one_token,) = passes_over((1,), compiled, found.cached_tokens)
        return {
            "fused": self.engine.fused is not None,
            "token_ms_compiled": self.median_ms(one_token),
            "calibration": found.model_dump(mode="json"),
            "token_ms": found.token_ms,
            "check_32_ratio": found.verify_cost[LARGEST],
            "launches_per_layer": (found.launches or 0) / self.engine.layer_count,
        }

    def speculation(self) -> dict[str, Any]:
        """Decode prompts by vanilla and by the heads; greedy, and identical without any excuse."""
        amounts = self.amounts
        questions = read_questions()[: amounts.prompts]
        sizes, methods = (amounts.tokens, amounts.repeats), ["vanilla", "mlp"]
        found = bench(self.decoder, questions, *sizes, methods, self.say)
        vanilla, mlp = (found.methods[method] for method in methods)
        assert vanilla and mlp
        return {
            "vanilla_tokens_per_s": vanilla.tokens_per_s,
            "mlp_tokens_per_s": mlp.tokens_per_s,
            "mlp_speedup": mlp.speedup_vs_vanilla,
            "mlp_tokens_per_step": mlp.tokens_per_step,
            "identical": mlp.identical,
            "ties_excused": mlp.ties,
            "tree": [list(path) for path in self.decoder.static_tree("mlp").paths],
        }

    def drafting(self) -> dict[str, Any]:
        """Time the heads' part of a step by itself."""
        step = self.decoder.step("mlp", Sampling(), 128)
        step.generate(self.prompts(1)[0][:64], 4)
        drafter = step.drafter
        if drafter is None:
            raise LabkitError("No tree of drafts pays here, so there is nothing to time.")
        with torch.no_grad():
            run = self.engine.recorded(lambda: drafter.draft(step.root, step.z))
            draft_ms = self.median_ms(run)
        return {"draft_ms": draft_ms, "nodes": len(step.tree.paths)}

    def median_ms(self, run: Callable[[], object]) -> float:
        """Time ``run`` after one run that compiles it; return the median in milliseconds."""
        run()
        seconds = (timed(run, self.engine) for _ in range(10 * self.amounts.repeats))
        return 1e3 * statistics.median(seconds)

    def sampling(self) -> dict[str, Any]:
        """Compare sampled output with the base model's own distribution, by chi-square.

        Three tokens, each from the two most probable, so that there are eight texts.
        """
        rule, ids = Sampling(temperature=1.0, top_k=2), self.prompts(1)[0]
        step = self.decoder.step("mlp", rule, len(ids) + 3)
        drawn = Counter(
            tuple(step.generate(ids, 3, seed=seed).tokens) for seed in range(self.amounts.seeds)
        )
        expected: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(3):
            longer: dict[tuple[int, ...], float] = {}
            for text, share in expected.items():
                out = prefill(self.engine, [*ids, *text], self.engine.new_cache(len(ids) + 4))
                probs, tokens = rule.probabilities(out.logits[-1:])[0].topk(2)
                for p, token in zip(probs.tolist(), tokens.tolist(), strict=True):
                    longer[*text, token] = share * p
            expected = longer
        return chi_square(drawn, expected)

    def answers(self) -> dict[str, Any]:
        """Write many answers at once, as phase 2's text is written; tokens per second."""
        amounts = self.amounts
        prompts = self.prompts(amounts.answers)
        slots = min(amounts.answers, 256)
        began = clock(self.device)
        writing, ends = Writing(amounts.tokens), self.decoder.base.eos_ids
        rows = continue_all(self.engine, prompts, writing, ends, slots=slots)
        seconds = clock(self.device) - began
        tokens = sum(len(row.output) for row in rows)
        return {"tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds}

    def training(self) -> dict[str, Any]:
        """Train heads for some steps, the base model's pass included; positions per second."""
        amounts = self.amounts
        recipe = f"""
            name = "bench gpu"
            base = "{amounts.base}"
            precision = "{"bfloat16" if self.device.type == "cuda" else "float32"}"
            heads = {{ count = 3, inner_width = 256 }}
            loss = {{ labels = "soft", sampled_vocabulary = 2048 }}
            watch = {{ validate_every = {amounts.steps}, checkpoint_every = {amounts.steps} }}
            [phase1]
            sources = ["sotu"]
            rows = {amounts.rows}
            window = {amounts.window}
            steps = {amounts.steps}
            learning_rate = 1e-3
        """
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "recipe.toml"
            path.write_text(recipe, encoding="utf-8")
            found = train_all(path, Path(folder) / "run", phases=(1,))
        positions, seconds = amounts.rows * amounts.window * amounts.steps, found["seconds"]
        return {"positions": positions, "seconds": seconds, "positions_per_s": positions / seconds}

    def translator(self) -> dict[str, Any]:
        """Draw samples of the translator here and on the CPU; sources per second."""
        amounts = self.amounts
        known = read_pairs(data_dir() / "sentences" / "deu-eng.tsv", None)[: amounts.sources]
        sources = [source for source, _ in known]

        def sources_per_s(device: str, given: Sequence[str]) -> float:
            model = conditional(load("translator", device))
            draw(model, given[:1], Draws(2, 8))  # loads everything
            began = clock(device)
            draw(model, given, Draws(amounts.samples, sampling=Sampling(temperature=1.0)))
            return len(given) / (clock(device) - began)

        here = sources_per_s(str(self.device), sources)
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            cpu = sources_per_s("cpu", sources[: amounts.cpu_sources])
        finally:
            torch.set_num_threads(threads)
        return {
            "samples": amounts.samples,
            "sources_per_s": here,
            "two_cpu_cores_sources_per_s": cpu,
            "times_as_fast": here / cpu,
        }

    def serving(self) -> dict[str, Any]:
        """Measure the largest shape that fits, with random weights, from one user on."""
        amounts = self.amounts
        too_large = {}
        for shape in amounts.shapes:
            for most in (len(amounts.users), -(-len(amounts.users) // 2)):
                users, device = amounts.users[:most], str(self.device)
                loads = Loads([Level(users=n) for n in users], requests=4, max_new_tokens=32)
                try:
                    found = bench_replayed(shape, amounts.acceptance, loads, device, say=self.say)
                except (LabkitError, torch.OutOfMemoryError) as error:
                    too_large[f"{shape}, {users[-1]} users"] = one_sentence(error)
                    continue
                rows = [row for row in found.log.rows if row.origin == "measured"]
                tpot = {(row.users, row.method): row.tpot_ms.mean for row in rows}
                return {
                    "shape": shape,
                    "too_large": too_large,
                    "acceptance": list(amounts.acceptance),
                    "tpot_ms": {f"{n} users, {method}": ms for (n, method), ms in tpot.items()},
                    "tpot_gain": {n: tpot[n, "vanilla"] / tpot[n, "mlp"] for n in users},
                    "log": json.loads(found.log.to_json()),
                }
        raise LabkitError(f"No shape fits: {' '.join(too_large.values())}")


PARTS = (
    "passes",
    "speculation",
    "drafting",
    "sampling",
    "answers",
    "training",
    "translator",
    "serving",
)
"""The parts in the order in which they run: methods of `Measurement`."""

WANTED = {
    ("speculation", "vanilla_tokens_per_s"): "at least 1000",
    ("passes", "check_32_ratio"): "at most 1.3",
    ("passes", "launches_per_layer"): "below 9",
    ("speculation", "mlp_speedup"): "at least 1.8",
    ("speculation", "identical"): "at least True",
    ("drafting", "draft_ms"): "at most 0.3",
    ("sampling", "p_value"): f"at least {REJECTED}",
    ("answers", "tokens_per_s"): "at least 150000",
    ("training", "positions_per_s"): "at least 150000",
    ("translator", "times_as_fast"): "at least 10",
}
"""What a data-centre card should reach with `WHOLE`; printed beside what was measured."""


def bench_gpu(
    device: str | None = None,
    quick: bool = False,
    minutes: float = 6,
    say: Callable[[str], None] = lambda _: None,
    command: str = FROM_PYTHON,
) -> dict[str, Any]:
    """Measure every part on ``device``; return the record.

    No part is started once ``minutes`` have passed.
    """
    amounts = QUICK if quick else WHOLE
    measurement = Measurement(amounts, device, say)
    began = time.monotonic()
    parts: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        at = time.monotonic()
        if at - began > 60 * minutes:
            parts[name] = {"error": f"Not run: {minutes:g} minutes had passed."}
            continue
        say(f"{name} ...")
        try:
            parts[name] = getattr(measurement, name)()
        except Exception as error:  # one part's fault must not cost the others
            say(traceback.format_exc())
            parts[name] = {"error": one_sentence(error)}
        parts[name]["part_seconds"] = time.monotonic() - at
    place = measurement.device
    return {
        "form": FORM,
        "device": str(place),
        "card": torch.cuda.get_device_name(place) if place.type == "cuda" else None,
        "cards_and_drivers": nvidia_cards(),
        "cuda": torch.version.cuda,
        "commit": commit(),
        "seconds": time.monotonic() - began,
        "provenance": provenance(command, 0).model_dump(mode="json"),
        "parts": parts,
    }


def as_rows(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a row for each figure of a record: part, name, value, and what is wanted of a card."""
    rows = []
    for part, found in record["parts"].items():
        for name, value in found.items():
            if name == "tpot_gain" or not isinstance(value, (dict, list)):
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                rows.append((part, name, shown, WANTED.get((part, name), "")))
    return rows


def chi_square(
    drawn: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]
) -> dict[str, Any]:
    """Compare counts of texts with their probabilities; rare texts are counted together."""
    many = drawn.total()
    cells = [(drawn[text], share) for text, share in expected.items() if share * many >= 5]
    rare = many - sum(n for n, _ in cells), max(0.0, 1 - sum(p for _, p in cells))
    cells += [rare] if rare[0] or rare[1] * many >= 1e-9 else []
    statistic = sum((n - many * p) ** 2 / max(many * p, 1e-9) for n, p in cells)
    freedom = max(1, len(cells) - 1)
    return {
        "draws": many,
        "texts": len(expected),
        "chi_square": float(statistic),
        "degrees_of_freedom": freedom,
        "p_value": float(chi2.sf(statistic, freedom)),
    }


def one_sentence(error: BaseException) -> str:
    """Return the first line of an error, with its kind where it is not one of ours."""
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, LabkitError) else f"{type(error).__name__}: {first}"


def commit() -> str | None:
    """Return the commit of the checkout that labkit runs from, or None."""
    git = ["git", "-C", str(carried("data").parent), "rev-parse", "HEAD"]
    try:
        return subprocess.check_output(
            git, text=True, stderr=subprocess.DEVNULL, timeout=20
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None
