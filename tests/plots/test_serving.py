from __future__ import annotations

import numpy as np
import pytest

from labkit.plots import plot_serving
from labkit.records import ServingLog, ServingRow, Spread


def row(users: int, method: str, origin: str, tpot: float) -> ServingRow:
    def spread(mean: float) -> Spread:
        return Spread(mean=mean, p50=mean - 1, p90=mean + 2, p99=mean + 9)

    return ServingRow(
        users=users,
        method=method,
        origin=origin,
        ttft_ms=spread(50.0 * users),
        itl_ms=spread(30),
        tpot_ms=spread(tpot),
        e2e_ms=spread(900),
        tokens_per_s=10,
        requests=8,
        errors=0,
    )


LOG = ServingLog(
    name="n",
    base="b",
    target="t",
    max_new_tokens=8,
    rows=(
        row(4, "vanilla", "measured", 24),
        row(1, "vanilla", "measured", 20),
        row(1, "mlp", "measured", 10),
        row(1, "mlp", "simulated", 11),
    ),
)


def test_a_line_for_each_method_and_origin_by_users():
    axes = plot_serving(LOG).axes[1]
    assert [line.get_label() for line in axes.lines] == [
        "vanilla, measured",
        "mlp, measured",
        "mlp, simulated",
    ]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 20], [4, 24]])


def test_simulated_lines_are_dashed_and_hollow_in_the_methods_colour():
    _, measured, simulated = plot_serving(LOG).axes[0].lines
    assert measured.get_color() == simulated.get_color()
    assert simulated.get_linestyle() == "--"
    assert simulated.get_markerfacecolor() == "white"


def test_bands_run_from_median_to_ninetieth():
    band = plot_serving(LOG).axes[1].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (19, 26)


def test_users_double_along_the_axis_and_stand_once_above_the_highest_point():
    axes = plot_serving(LOG).axes[1]
    assert axes.get_xscale() == "log"
    assert {text.get_text(): text.xy for text in axes.texts} == {"4": (4, 24), "1": (1, 20)}


def test_the_second_panel_is_time_per_token_or_gap():
    assert plot_serving(LOG).axes[1].get_title(loc="left").startswith("TPOT")
    gaps = plot_serving(LOG, gap="itl").axes[1]
    assert gaps.get_title(loc="left").startswith("ITL")
    np.testing.assert_allclose(gaps.lines[0].get_ydata(), [30, 30])


@pytest.mark.filterwarnings("error")
def test_a_log_without_rows_is_an_empty_figure():
    empty = LOG.model_copy(update={"rows": ()})
    assert plot_serving(empty).png()[:4] == b"\x89PNG"
