"""`ServingLog`: latency against the number of concurrent users; what ServingCurves reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from labkit.records.base import Count, NotNegative, Part, Record


class Spread(Part):
    """A latency's distribution over requests (TTFT, TPOT) or over gaps (ITL), in milliseconds."""

    mean: NotNegative
    p50: NotNegative
    p90: NotNegative
    p99: NotNegative


class ServingRow(Part):
    """One method under one load.

    TTFT: request sent to first streamed output. ITL: gaps between consecutive streamed outputs,
    pooled over requests; one output can hold several tokens under speculation. TPOT: (end to end
    - TTFT) / (output tokens - 1), per request: the lecture's "inter-token latency".

    ``nodes_per_step`` is the number of draft nodes after a row in a step on average: if it falls as
    users grow, speculation was turned down. ``rate_per_s`` is the rate of requests in an open loop;
    ``users`` is then the number of requests under way on average.
    """

    users: Annotated[int, Field(ge=1)]
    method: str
    origin: Literal["measured", "simulated"]
    ttft_ms: Spread
    itl_ms: Spread
    tpot_ms: Spread
    e2e_ms: Spread
    tokens_per_s: float
    tokens_per_step: float | None = None
    nodes_per_step: float | None = None
    rate_per_s: float | None = None
    requests: Count
    errors: Count


class ServingLog(Record):
    """TTFT, ITL and TPOT against the number of users, vanilla and speculative."""

    KIND: ClassVar[str] = "servinglog"

    name: str
    base: str
    target: str
    max_new_tokens: Count
    rows: tuple[ServingRow, ...]


def gains(rows: Sequence[ServingRow], origin: str) -> dict[tuple[int, str], float]:
    """Return vanilla's mean time per token over each other method's, by users and method."""
    plain = {
        row.users: row.tpot_ms.mean
        for row in rows
        if (row.method, row.origin) == ("vanilla", origin)
    }
    return {
        (row.users, row.method): plain[row.users] / row.tpot_ms.mean
        for row in rows
        if row.origin == origin and row.method != "vanilla"
        if row.users in plain and row.tpot_ms.mean > 0
    }
