"""Loads: users who send requests, and the latencies that they see.

There are two kinds of load, as in vLLM's benchmark. *Closed loop*: each of so many users sends a
request, waits for the answer, and sends the next. *Open loop*: requests arrive at a rate (a
Poisson process), whether or not earlier ones were answered.

The definitions are vLLM's as well (`vllm bench serve`):

* **TTFT**, time to first token: from a request being sent to its first streamed output.
* **ITL**, inter-token latency: the gaps between streamed outputs, of all requests together. With
  speculation an output can hold several tokens, so this is *not* the time per token, and what the
  lecture calls inter-token latency is the next one.
* **TPOT**, time per output token: (end to end - TTFT) / (output tokens - 1), of each request.
* **end to end**: from a request being sent to its last output.

Requests that fail count as errors and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from labkit.errors import LabkitError
from labkit.records import ServingRow, Spread

GRACE = 0.05
"""Seconds between checks whether all users are done, so that an interruption is noticed."""


@dataclass(frozen=True)
class Answer:
    """One request as its user saw it; times in seconds on one clock.

    ``arrivals`` are the times of the streamed outputs, ``tokens`` is the number of output tokens,
    ``output`` holds them (token ids, or text from a server elsewhere). ``error`` says in one
    sentence why the answer is not whole.
    """

    prompt: str
    sent: float
    arrivals: tuple[float, ...]
    tokens: int
    output: tuple[int, ...] | str = ""
    error: str | None = None

    @property
    def ttft(self) -> float:
        """Time to first token."""
        return self.arrivals[0] - self.sent

    @property
    def e2e(self) -> float:
        """Time to the last output."""
        return self.arrivals[-1] - self.sent

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None for an answer of one token."""
        return (self.e2e - self.ttft) / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def gaps(self) -> list[float]:
        """Times between outputs."""
        return np.diff(self.arrivals).tolist()


class Target(Protocol):
    """Something that answers requests, from many threads at once."""

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        """Send a request and read its answer to the end; a failure is an `Answer` with an error."""

    def lost(self) -> str | None:
        """Return in a sentence why no further request will be answered; None if one may be."""


@dataclass(frozen=True)
class Load:
    """The result of a load: the answers to the requests that were sent, and how long it took.

    ``lost`` says why the target stopped answering, if it did; the answers before that count.
    ``tokens_per_step`` and ``nodes_per_step`` are the tokens and the draft nodes of one request's
    step on average, where they are known.
    """

    answers: tuple[Answer, ...]
    seconds: float
    lost: str | None = None
    tokens_per_step: float | None = None
    nodes_per_step: float | None = None

    @property
    def good(self) -> list[Answer]:
        """The whole answers."""
        return [answer for answer in self.answers if answer.error is None and answer.arrivals]

    @property
    def errors(self) -> int:
        """Requests that failed."""
        return len(self.answers) - len(self.good)

    @property
    def in_flight(self) -> float:
        """The requests under way on average (Little's law)."""
        return sum(answer.e2e for answer in self.good) / self.seconds if self.seconds else 0.0


def closed_loop(target: Target, prompts: Sequence[str], users: int, max_new_tokens: int) -> Load:
    """Let ``users`` send the ``prompts`` between them, each the next one after an answer."""
    if users < 1 or not prompts:
        raise LabkitError(f"{users} users with {len(prompts)} prompts: give at least 1 of each.")
    return _run(target, prompts, [0.0] * len(prompts), users, max_new_tokens)


def open_loop(
    target: Target,
    prompts: Sequence[str],
    rate: float,
    max_new_tokens: int,
    rng: np.random.Generator,
) -> Load:
    """Send the ``prompts`` at ``rate`` a second on average, as a Poisson process."""
    if rate <= 0 or not prompts:
        raise LabkitError(f"{rate} requests a second of {len(prompts)}: give more than 0 of each.")
    due = np.cumsum(rng.exponential(1 / rate, len(prompts))).tolist()
    return _run(target, prompts, due, len(prompts), max_new_tokens)


def _run(
    target: Target, prompts: Sequence[str], due: Sequence[float], users: int, max_new_tokens: int
) -> Load:
    """Let each user, in a thread, take the next prompt and send it when it is due.

    They stop when there are no prompts left, or the target is lost.
    """
    began = time.perf_counter()
    lock, over = threading.Lock(), threading.Event()
    line = iter(zip(prompts, due, strict=True))
    answers: list[Answer] = []
    losses: list[str] = []

    def use() -> None:
        while True:
            with lock:
                prompt, wait = next(line, (None, 0.0))
            if prompt is None or over.wait(max(0.0, began + wait - time.perf_counter())):
                return
            sent = time.perf_counter()
            try:
                answer = target.ask(prompt, max_new_tokens)
            except Exception as error:  # of any kind, so that no user drops out unnoticed
                answer = Answer(prompt, sent, (), 0, error=f"{type(error).__name__}: {error}")
            lost = target.lost() if answer.error else None
            with lock:
                answers.append(answer)
                if lost:
                    losses.append(lost)
                    over.set()

    threads = [threading.Thread(target=use, daemon=True) for _ in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(GRACE)
    ends = [answer.arrivals[-1] for answer in answers if answer.arrivals]
    seconds = max(ends) - min(answer.sent for answer in answers) if ends else 0.0
    in_order = tuple(sorted(answers, key=lambda answer: answer.sent))
    return Load(in_order, seconds, next(iter(losses), None))


def spread(seconds: Sequence[float]) -> Spread:
    """Return mean and percentiles (as numpy has them) in milliseconds; all 0 for no values.

    >>> spread([0.001, 0.002, 0.003]).p50
    2.0
    """
    ms = 1e3 * np.asarray(seconds if len(seconds) else [0.0])
    p50, p90, p99 = np.percentile(ms, [50, 90, 99])
    return Spread(mean=float(ms.mean()), p50=float(p50), p90=float(p90), p99=float(p99))


def summarise(
    load: Load,
    users: int,
    method: str,
    origin: Literal["measured", "simulated"] = "measured",
    rate: float | None = None,
) -> ServingRow:
    """Return a load as a row of the record; raises `LabkitError` if nothing was answered.

    At a ``rate``, the row's users are the requests under way on average.
    """
    good = load.good
    if not good:
        said = next((answer.error for answer in load.answers if answer.error), load.lost)
        raise LabkitError(f"None of {len(load.answers)} requests was answered: {said}")
    return ServingRow(
        users=max(1, round(load.in_flight)) if rate else users,
        method=method,
        origin=origin,
        ttft_ms=spread([answer.ttft for answer in good]),
        itl_ms=spread([gap for answer in good for gap in answer.gaps]),
        tpot_ms=spread([tpot for answer in good if (tpot := answer.tpot) is not None]),
        e2e_ms=spread([answer.e2e for answer in good]),
        tokens_per_s=sum(answer.tokens for answer in good) / load.seconds if load.seconds else 0.0,
        tokens_per_step=load.tokens_per_step,
        nodes_per_step=load.nodes_per_step,
        rate_per_s=rate,
        requests=len(load.answers),
        errors=load.errors,
    )
