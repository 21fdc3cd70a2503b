from __future__ import annotations

import json

import numpy as np
import pytest
from playwright.sync_api import Page
from widgets.made import different, risk_table, sentences

from labkit.mbr.utilities import matrix
from labkit.records import RiskTable, Sample
from labkit.widgets import RiskMatrix
from labkit.widgets.base import page as page_of

MODEL = "document.querySelector('[id^=labkit-]').model"
HOSTILE = (
    "<img src=x onerror=\"document.title='stolen'\">",
    "</script><script>document.title='stolen'</script>",
    "שלום עולם، مرحبا",
    "a\u202eb\n\nc  d\t",
    "e\u0301\u0323 नमस्ते 👩🏽‍🚀",
    "",
)


@pytest.fixture
def open_matrix(open_page):
    """A function that opens a page with one matrix and waits until it is drawn."""

    def open_it(table: RiskTable, *, theme: str = "light", width: int = 1200, **state) -> Page:
        html = page_of([RiskMatrix(table, **state)], "Risk")
        page = open_page(html, theme=theme, width=width)
        page.wait_for_selector(".lk-rm-panel .lk-rm-loss, .lk-rm-panel button")
        return page

    return open_it


def get(page: Page, trait: str):
    return page.evaluate(f"{MODEL}.get({json.dumps(trait)})")


def settled(page: Page, words: str) -> None:
    """Wait until the page says that it is done."""
    page.wait_for_function(
        "w => document.querySelector('.lk-rm-status').textContent === w", arg=words
    )


def choose(page: Page, box: str, value: str) -> None:
    page.get_by_role("combobox", name=box).select_option(value)


def cell_label(page: Page) -> str:
    return page.locator("[role=gridcell]").get_attribute("aria-label")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_no_axe_violation_and_nothing_wider_than_the_page(open_matrix, violations, theme, width):
    page = open_matrix(risk_table(), theme=theme, width=width, weighting="model")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_matrix_follows_the_page_from_wide_to_narrow_and_back(open_matrix):
    page = open_matrix(risk_table(different(64)))
    fits = "document.documentElement.scrollWidth <= innerWidth"
    drawn = "document.querySelector('.lk-rm-canvas').getBoundingClientRect().width"
    wide = page.evaluate(drawn)
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_function(fits)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.wait_for_function(f"Math.abs({drawn} - {wide}) < 2 && {fits}")


def test_with_nothing_switched_the_recorded_decision_is_shown(open_matrix):
    table = risk_table()
    page = open_matrix(table)
    settled(page, "as recorded")
    assert page.locator(".lk-rm-winner").inner_text().endswith(table.hypotheses[table.best].text)
    assert f"{table.risk[table.best]:.4f}" in page.locator(".lk-rm-facts").inner_text()
    assert page.get_by_role("button", name="As recorded").is_disabled()


@pytest.mark.parametrize("utility", ["bleu", "chrf++", "f1", "exact"])
def test_another_loss_gives_the_decoders_decision(open_matrix, utility):
    table = risk_table()
    page = open_matrix(table)
    choose(page, "Loss", utility)
    settled(page, "recomputed in this page")
    texts = [sample.text for sample in table.evidence]
    risk = (1 - matrix(utility, texts, texts)) @ np.array(table.weights)
    assert risk[get(page, "best")] == pytest.approx(risk.min(), abs=1e-9)
    assert f"{risk.min():.4f}" in page.locator(".lk-rm-facts").inner_text()
    page.get_by_role("button", name="As recorded").click()
    settled(page, "as recorded")
    assert get(page, "best") == table.best


@pytest.mark.parametrize("beyond", [False, True], ids=["panel closed", "panel open"])
def test_every_switch_is_reached_and_turned_by_keyboard(open_matrix, beyond):
    page = open_matrix(risk_table(), weighting="model")
    page.evaluate(f"document.querySelector('.lk-rm-beyond').open = {str(beyond).lower()}")
    wanted = page.evaluate(
        "[...document.querySelectorAll('.labkit :is(select, input, button, summary, "
        '[tabindex="0"])\')].filter((n) => !n.disabled && n.checkVisibility() && '
        "(n.type !== 'radio' || n.checked)).length"
    )
    seen = set()
    page.locator("body").click(position={"x": 1, "y": 1})
    for _ in range(wanted):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "(() => { const n = document.activeElement; window.seen ??= []; "
                "if (!window.seen.includes(n)) window.seen.push(n); "
                "return n.closest('.labkit') ? window.seen.indexOf(n) : -1; })()"
            )
        )
    assert len(seen - {-1}) == wanted
    page.locator("input[type=radio]:checked").focus()
    page.keyboard.press("ArrowRight")
    assert get(page, "weighting") == "unique"
    page.locator("select").first.focus()
    page.keyboard.press("ArrowDown")
    assert get(page, "utility") == "chrf++"


def test_arrow_keys_move_the_cell_and_name_it(open_matrix):
    table = risk_table()
    page = open_matrix(table)
    order = sorted(range(len(table.risk)), key=table.risk.__getitem__)
    grid = page.get_by_role("grid")
    grid.focus()
    assert get(page, "selected")[0] == order[0]
    for place in (1, 2):
        page.keyboard.press("ArrowDown")
        assert get(page, "selected")[0] == order[place]
    label = cell_label(page)
    assert label.startswith(f"Hypothesis {order[2]}, place 3 of {len(order)}")
    row, column = get(page, "selected")
    assert f"loss {table.loss[row][column]:.4f}" in label
    assert grid.get_attribute("aria-activedescendant") == page.locator(
        "[role=gridcell]"
    ).get_attribute("id")
    page.keyboard.press("b")
    assert get(page, "selected")[0] == table.best
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    first = get(page, "selected")
    page.keyboard.press("End")
    assert get(page, "selected") != first


def test_a_sample_is_left_out_and_taken_back(open_matrix):
    table = risk_table()
    page = open_matrix(table)
    page.get_by_role("grid").focus()
    column = get(page, "selected")[1]
    page.keyboard.press("x")
    assert get(page, "left_out") == [column]
    assert "left out" in cell_label(page)
    weights = np.array(table.weights)
    weights[column] = 0
    risk = np.array(table.loss) @ (weights / weights.sum())
    assert risk[get(page, "best")] == pytest.approx(risk.min(), abs=1e-12)
    page.get_by_role("button", name="Take this sample back").click()
    assert get(page, "left_out") == []
    settled(page, "as recorded")


def test_pointing_tells_and_clicking_chooses(open_matrix):
    table = risk_table(sentences(12))
    page = open_matrix(table)
    box = page.locator(".lk-rm-canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 100)
    tip = page.get_by_role("tooltip")
    assert "loss" in tip.inner_text()
    before = get(page, "selected")
    page.mouse.down()
    page.mouse.up()
    row, column = get(page, "selected")
    assert [row, column] != before
    assert f"{table.loss[row][column]:.4f}" in tip.inner_text()
    page.wait_for_function(
        "w => document.querySelector('.lk-rm-loss strong').textContent === w",
        arg=f"{table.loss[row][column]:.4f}",
    )


def test_fewer_draws_and_the_oracle(open_matrix):
    table = risk_table()
    page = open_matrix(table)
    page.get_by_role("slider", name="Draws").focus()
    page.keyboard.press("Home")
    assert get(page, "samples") == 1
    assert "1 column" in page.locator(".lk-rm-caption").inner_text()
    choose(page, "Evidence", "reference")
    texts = [sample.text for sample in table.hypotheses]
    loss = 1 - matrix("chrf", texts, [table.reference])[:, 0]
    least = np.flatnonzero(loss <= loss.min() + 1e-9).tolist()
    page.wait_for_function(f"{least}.includes({MODEL}.get('best'))")  # else it times out


def test_state_set_from_python_is_followed(open_matrix):
    page = open_matrix(risk_table())
    page.evaluate(f"{MODEL}.set('selected', [2, 1])")
    assert cell_label(page).startswith("Hypothesis 2,")
    page.evaluate(f"{MODEL}.set('weighting', 'unique')")
    assert page.locator("input[value=unique]").is_checked()


def test_model_weights_are_not_offered_without_log_probabilities(open_matrix):
    page = open_matrix(risk_table(logprobs=False))
    assert page.locator("input[value=model]").is_disabled()
    assert "log-probability" in page.locator("input[value=model]").get_attribute("title")
    page.evaluate(f"{MODEL}.set('weighting', 'model')")
    settled(page, "counts as weights: the record has no log-probability for every sample")


def test_a_utility_of_the_record_alone_is_shown_and_left(open_matrix):
    page = open_matrix(risk_table(utility="comet"))
    settled(page, "as recorded")
    assert page.locator("option[value=hypotheses]").is_disabled()
    choose(page, "Loss", "chrf")
    settled(page, "recomputed in this page")
    choose(page, "Loss", "comet")
    settled(page, "as recorded")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hostile_texts_are_only_texts(open_matrix, violations, theme):
    texts = [*HOSTILE, HOSTILE[0]]
    page = open_matrix(risk_table(texts, reference=HOSTILE[1]), theme=theme)
    for row in range(len(HOSTILE)):
        for column in range(len(HOSTILE)):
            page.evaluate(f"{MODEL}.set('selected', [{row}, {column}])")
    choose(page, "Loss", "bleu")
    settled(page, "recomputed in this page")
    assert page.title() == "Risk"
    assert page.locator(".labkit img").count() == 0
    assert violations(page) == []


def test_a_large_matrix_is_sorted_weighed_and_computed_anew(open_matrix):
    texts = different(256)
    samples = tuple(
        Sample(text=text, logprob=-0.1 * place, tokens=9) for place, text in enumerate(texts)
    )
    loss = 1 - matrix("f1", texts, texts)
    risk = loss.mean(1)
    table = RiskTable(
        base="b", source="s", utility="f1", weighting="uniform", hypotheses=samples,
        evidence=samples, weights=(1 / 256,) * 256, loss=tuple(map(tuple, loss.tolist())),
        risk=tuple(risk.tolist()), best=int(risk.argmin()),
    )  # fmt: skip
    page = open_matrix(table)
    weights = np.exp(-0.1 * np.arange(256))
    expected = loss @ (weights / weights.sum())
    page.evaluate(f"{MODEL}.set('weighting', 'model')")
    assert expected[get(page, "best")] == pytest.approx(expected.min(), abs=1e-9)
    page.evaluate(f"{MODEL}.set('utility', 'exact')")
    page.evaluate(f"{MODEL}.set('sort', 'similarity')")
    # The status said so before the switch as well; the decision itself is what to wait for.
    page.wait_for_function(f"{MODEL}.get('best') === 0")
    settled(page, "recomputed in this page")


def test_one_cell_is_a_matrix_too(open_matrix, violations):
    page = open_matrix(risk_table(["alone"], reference=None))
    page.get_by_role("grid").focus()
    for key in ("ArrowDown", "End", "x", "b"):
        page.keyboard.press(key)
    assert get(page, "selected") == [0, 0]
    assert get(page, "left_out") == []
    assert violations(page) == []


def test_a_wrong_record_leaves_one_sentence(open_page, violations):
    page = open_page(page_of([RiskMatrix('{"kind": "trace"}')], "Risk"))
    assert "'trace'" in page.get_by_role("alert").inner_text()
    assert violations(page) == []


def test_the_set_and_the_clusters_follow_the_sliders_and_select_rows(open_matrix):
    page = open_matrix(risk_table())
    page.evaluate("document.querySelector('.lk-rm-beyond').open = true")
    members = page.locator(".lk-rm-members")
    before = members.nth(0).locator("button").count()
    page.get_by_role("slider", name="Answers").fill("2")
    assert (before, members.nth(0).locator("button").count()) == (3, 2)
    kinds = members.nth(1).locator("button")
    page.get_by_role("slider", name="Cut at distance").fill("1")
    assert kinds.count() == 1
    page.get_by_role("slider", name="Cut at distance").fill("0")
    assert kinds.count() > 1
    members.nth(0).locator("button").nth(1).click()
    second = members.nth(0).locator("button").nth(1).inner_text().split()[1]
    assert (
        page.locator("[role=gridcell]")
        .get_attribute("aria-label")
        .startswith(f"Hypothesis {second.removeprefix('h')},")
    )
    assert "Confidence" in page.locator(".lk-rm-part").nth(0).inner_text()
