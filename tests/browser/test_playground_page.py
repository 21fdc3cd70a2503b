"""The Playground's page as a reader meets it: play, proof, game, matrix, links, keys, themes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from labkit import gallery

SECONDS = 60
TABS = ("Speculative decoding", "Be the drafter", "Minimum Bayes risk")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page in a plain folder."""
    file = tmp_path_factory.mktemp("site") / gallery.PLAYGROUND
    file.parent.mkdir()
    file.write_text(gallery.playground(), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module", params=[("light", 1300), ("dark", 400)], ids=["light", "dark"])
def page(request, chromium, address):
    """One page for all tests of a theme; nothing may be complained of or loaded."""
    theme, width = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
    )
    opened, complaints = context.new_page(), []
    opened.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    opened.on("request", lambda asked: complaints.append(asked.url))
    opened.goto(address)
    opened.wait_for_function("window.labkitPlayground")
    opened.theme = theme
    yield opened
    context.close()
    expect.set_options(timeout=5000)
    assert [each for each in complaints if each != address and not each.startswith("blob:")] == []


def go(page, name: str):
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel", name=name)


def fine(page, violations) -> None:
    assert page.locator(".lk-Playground").get_attribute("data-theme") == page.theme
    assert violations(page, "html") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")


def test_play_shows_the_same_text_and_every_step(page, violations):
    panel = go(page, TABS[0])
    page.get_by_role("button", name="A speech").click()
    expect(panel.locator(".pg-same")).to_be_visible()
    texts = panel.locator(".pg-lane .pg-text")
    assert texts.nth(0).inner_text() == texts.nth(1).inner_text()
    assert panel.locator(".lk-TokenStepper .ts-node").count() > 2
    said = panel.locator(".pg-proof").inner_text()
    passes = [int(number) for number in re.findall(r"\d+", said)]
    assert passes[1] < passes[2]
    fine(page, violations)


def test_proof_is_given_anew_after_each_switch(page):
    panel = go(page, TABS[0])
    panel.get_by_role("radio", name="n-grams").check()
    expect(panel.locator(".pg-same")).to_contain_text("both settings")
    panel.get_by_role("radio", name="heads").check()
    panel.locator(".pg-switches select").nth(1).select_option("own")
    panel.get_by_role("button", name="Add a child").click()
    expect(panel.locator(".pg-same")).to_contain_text(re.compile(r"all \d settings"))


def test_nodes_of_the_tree_are_added_dragged_and_removed_by_hand(page, violations):
    panel = go(page, TABS[0])
    page.evaluate("location.hash = 'shape=own&tree=1+2+1.1'")
    tree = panel.get_by_role("tree", name="Shape of the draft tree")
    items = tree.get_by_role("treeitem")
    expect(items).to_have_count(4)
    tree.scroll_into_view_if_needed()
    tree.locator("[data-index='1']").drag_to(tree.locator("[data-index='0']"))
    assert "tree=1+1.1+1.2" in page.url
    items.nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    expect(items).to_have_count(3)
    page.keyboard.press("Enter")
    expect(items).to_have_count(4)
    fine(page, violations)


def test_sampled_steps_show_the_numbers_drawn(page):
    panel = go(page, TABS[0])
    page.get_by_role("button", name="Sampled").click()
    expect(panel.locator(".pg-proof")).to_contain_text("same distribution")
    expect(panel.locator(".ts-facts")).to_contain_text("temperature 0.9")
    panel.get_by_role("button", name="Next rejection").click()
    expect(panel.locator(".ts-detail")).to_contain_text(re.compile(r"Rejected: drawn 0\.\d+"))


def test_one_step_at_a_time(page):
    panel = go(page, TABS[0])
    page.evaluate("location.hash = 'prompt=Hello!+How+are+you&tokens=24'")
    expect(page.get_by_label("Your prompt")).to_have_value("Hello! How are you")
    expect(panel.get_by_role("button", name="One step")).to_be_enabled()
    page.wait_for_function("document.querySelector('.pg-status').textContent.includes('First')")
    before = panel.locator(".ts-strip").get_attribute("aria-valuemax")
    for number in (1, 2):
        panel.get_by_role("button", name="One step").click()
        expect(panel.locator(".ts-strip")).to_have_attribute("aria-valuemax", str(number))
    assert int(before) > 2


def test_reader_drafts_by_typing_and_picking(page, violations):
    page.evaluate("location.hash = 'tab=draft&prompt=The+people+of+the+United'")
    panel = go(page, TABS[1])
    picks = panel.get_by_role("group", name="Or pick the next token").get_by_role("button")
    expect(picks).to_have_count(6)
    shown = picks.all_inner_texts()
    picks.first.click()
    slots = panel.get_by_label("Your draft").get_by_role("listitem")
    expect(slots.first).to_have_text(shown[0])
    panel.get_by_label("Your guess").fill("the people")
    page.keyboard.press("Enter")
    expect(slots.nth(1)).to_contain_text("the")
    panel.get_by_role("button", name="Let the model judge").click()
    expect(panel.locator(".pg-verdict > div")).to_have_count(2)
    numbers = [float(each) for each in panel.locator(".pg-score strong").all_inner_texts()]
    assert 1 <= numbers[0] <= 4
    assert 1 <= numbers[1] <= 4
    assert numbers[2] == 1
    fine(page, violations)


def test_matrix_fills_the_choice_moves_and_is_explained(page, violations):
    page.evaluate("location.hash = 'tab=bayes&samples=12&length=8'")
    panel = go(page, TABS[2])
    panel.get_by_role("button", name="Draw").click()
    expect(panel.locator(".pg-status")).to_contain_text("12 samples")
    expect(panel.locator(".lk-rm-caption")).to_contain_text(re.compile(r"^1?\d rows"))
    why = panel.get_by_role("region", name="Why this one")
    expect(why).to_contain_text("The candidates.")
    heard = set()
    for _ in range(4):
        why.get_by_role("button", name="Next reason").click()
        heard.add(why.inner_text())
    assert len(heard) == 4
    assert why.get_by_role("button", name="Next reason").is_disabled()
    winner = panel.locator(".lk-rm-facts").inner_text()
    panel.locator(".lk-rm-controls select").first.select_option("exact")
    expect(panel.locator(".lk-rm-facts")).not_to_have_text(winner)
    panel.locator(".pg-switches select").select_option("split")
    expect(panel.locator(".lk-rm-caption")).to_contain_text(re.compile(r"^[1-6] rows?:"))
    assert "hypotheses=split" in page.url
    fine(page, violations)


def test_long_drawing_is_stopped(page):
    page.evaluate("location.hash = 'tab=bayes&samples=64&length=40'")
    panel = go(page, TABS[2])
    panel.get_by_role("button", name="Draw").click()
    expect(panel.get_by_role("button", name="Stop")).to_be_enabled()
    panel.get_by_role("button", name="Stop").click()
    expect(panel.locator(".pg-status")).to_contain_text("Stopped: ")
    drawn = int(re.search(r"(\d+) sample", panel.locator(".pg-status").inner_text())[1])
    assert drawn < 64


def test_tabs_are_walked_by_arrow_keys_and_the_address_keeps_the_moment(page):
    page.evaluate("location.hash = ''")
    first = page.get_by_role("tab", name=TABS[0])
    expect(first).to_have_attribute("aria-selected", "true")
    first.focus()
    for name, tab in zip(TABS[1:], ("draft", "bayes"), strict=True):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        assert f"tab={tab}" in page.url
    page.get_by_label("Your prompt").fill("Peace & <b>commerce</b>")
    page.wait_for_url(re.compile("prompt=Peace"))
    assert page.locator(".lk-Playground b", has_text="commerce").count() == 0


def test_a_link_plays_the_moment_it_leads_to(chromium, address):
    page = chromium.new_page()
    page.goto(f"{address}#prompt=We+must+not+forget&tokens=16&nodes=3")
    page.wait_for_selector(".pg-same", timeout=SECONDS * 1000)
    assert page.get_by_label("Your prompt").input_value() == "We must not forget"
    assert page.locator(".lk-TokenStepper").count() == 1
    page.close()


def test_an_empty_prompt_is_told_in_one_sentence(page):
    panel = go(page, TABS[0])
    page.get_by_label("Your prompt").fill("   ")
    page.wait_for_url(re.compile(r"prompt=\+"))
    panel.get_by_role("button", name="Play").first.click()
    expect(panel.locator(".pg-status")).to_have_text("The prompt is empty: give some text.")
