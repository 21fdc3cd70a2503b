"""TokenStepper, Race and TreeLab in a real browser: keys, pointer, themes, axe, hostile text."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect
from widgets.studies import make_study
from widgets.traces import HOSTILE, hostile_trace, make_trace

from labkit.widgets import Race, TokenStepper, TreeLab
from labkit.widgets.base import page as page_of
from labkit.widgets.token_stepper import telling

MODEL = "document.querySelector('[id^=labkit-]').model"

TREE = make_trace(widths=(3, 2, 1), seed=1)
SAMPLED = make_trace(temperature=0.8, seed=2, steps=40)
VANILLA = make_trace(steps=40, widths=())
QUICK = make_trace(steps=16)

MAKERS = {
    "stepper": lambda: TokenStepper(TREE, step=4),
    "sampled": lambda: TokenStepper(SAMPLED, step=9, head=2),
    "hostile stepper": lambda: TokenStepper(hostile_trace(temperature=1.0), step=5),
    "race": lambda: Race(VANILLA, QUICK, time=0.4),
    "race over": lambda: Race(VANILLA, QUICK, TREE, time=Race(VANILLA, QUICK, TREE).seconds),
    "hostile race": lambda: Race(hostile_trace(), time=hostile_trace().seconds),
    "tree lab": lambda: TreeLab(make_study(), selected=2),
    "empty tree": lambda: TreeLab(make_study(), nodes=[]),
    "problem": lambda: TokenStepper("{}"),
}


def get(page: Page, trait: str):
    return page.evaluate(f"{MODEL}.get({json.dumps(trait)})")


def put(page: Page, trait: str, value) -> None:
    page.evaluate(f"value => {MODEL}.set({json.dumps(trait)}, value)", value)


def show(open_page, widget, **how) -> Page:
    return open_page(page_of([widget], "Widget"), **how)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("name", MAKERS)
def test_no_axe_violation_and_nothing_wider_than_the_page(
    open_page, violations, name, width, theme
):
    page = show(open_page, MAKERS[name](), theme=theme, width=width)
    assert page.locator(".labkit").get_attribute("data-theme") == theme
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", ["stepper", "race", "tree lab"])
def test_every_control_is_reached_by_the_tab_key(open_page, name):
    page = show(open_page, MAKERS[name]())
    page.evaluate("document.body.focus()")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        at = page.evaluate(
            """() => {
                const all = [...document.querySelectorAll('.labkit *')];
                return all.indexOf(document.activeElement);
            }"""
        )
        if at < 0 or at in reached:
            break
        reached.add(at)
    wanted = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll('.labkit *')];
            return all.flatMap((node, index) => {
                if (!node.matches('button, select, input, [tabindex="0"]')) return [];
                if (node.disabled) return [];
                if (node.type === 'radio' && !node.checked) return [];
                return [index];
            });
        }"""
    )
    assert set(wanted) <= reached
    assert len(wanted) >= 5


@pytest.mark.parametrize("name", ["sampled", "race", "tree lab"])
def test_a_page_that_narrows_and_widens_keeps_the_widget_inside(open_page, name):
    page = show(open_page, MAKERS[name]())
    for width in (1200, 400, 800, 320, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        inside = page.evaluate(
            """() => {
                const edge = document.querySelector('.labkit').getBoundingClientRect().right;
                return [...document.querySelectorAll('.labkit *')].filter(node =>
                    !node.closest('svg, .lk-tip, .lk-unseen, .lk-running, .ts-strip')
                    && node.getBoundingClientRect().right > edge + 1).map(node => node.outerHTML);
            }"""
        )
        assert inside == []


def test_focus_is_seen(open_page):
    page = show(open_page, MAKERS["stepper"]())
    for _ in range(8):
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => {
                const node = document.activeElement;
                const box = node.querySelector('.ts-box') ?? node;
                const {outlineStyle, outlineWidth} = getComputedStyle(node);
                return [outlineStyle, outlineWidth, getComputedStyle(box).strokeWidth];
            }"""
        )
        assert (style[0] != "none" and style[1] != "0px") or style[2] == "3.5px"


class TestTokenStepper:
    def test_strip_moves_by_keys(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        strip = page.get_by_role("slider", name="Step")
        strip.focus()
        for key, step in [
            ("ArrowRight", 1),
            ("PageDown", 11),
            ("ArrowLeft", 10),
            ("End", 39),
            ("ArrowRight", 39),
            ("PageUp", 29),
            ("Home", 0),
            ("ArrowLeft", 0),
        ]:
            page.keyboard.press(key)
            assert get(page, "step") == step
            assert get(page, "selected") == telling(SAMPLED.steps[step])
            assert strip.get_attribute("aria-valuenow") == str(step + 1)

    def test_strip_moves_by_pointer(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        box = page.locator(".ts-strip canvas").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 10)
        page.mouse.down()
        middle = get(page, "step")
        assert 18 <= middle <= 21
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 10)
        page.mouse.up()
        assert get(page, "step") == 39

    def test_text_so_far_grows_and_shrinks_with_the_step(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        tokens = [1]
        for step in SAMPLED.steps:
            tokens.append(tokens[-1] + len(step.committed))
        for step in (0, 20, 5, 39, 38):
            put(page, "step", step)
            shown = page.locator(".ts-running .lk-paragraph > .lk-token:not([hidden])")
            assert shown.count() == tokens[step + 1]
            now = page.locator(".ts-running .ts-now").all_text_contents()
            assert len(now) == len(SAMPLED.steps[step].committed)

    def test_clicking_a_token_goes_to_its_step(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED, step=12))
        page.locator(".ts-running [data-step='7']").first.click()
        assert get(page, "step") == 7

    def test_tree_is_walked_by_arrows(self, open_page):
        page = show(open_page, TokenStepper(TREE, step=4, selected=-1))
        page.locator(".ts-tree [tabindex='0']").focus()
        page.keyboard.press("ArrowRight")
        first = get(page, "selected")
        assert TREE.steps[4].nodes[first].depth == 1 if first < 15 else True
        page.keyboard.press("ArrowDown")
        assert get(page, "selected") != first
        focused = page.evaluate("document.activeElement.dataset.index")
        assert int(focused) == get(page, "selected")
        page.keyboard.press("Home")
        assert get(page, "selected") == -1

    def test_every_node_shows_its_numbers(self, open_page):
        step = SAMPLED.steps[3]
        page = show(open_page, TokenStepper(SAMPLED, step=3))
        for index, node in enumerate(step.nodes):
            page.locator(f".ts-node[data-index='{index}']").click()
            assert get(page, "selected") == index
            detail = page.locator(".ts-detail")
            values = detail.locator(".ts-ruler .lk-value").all_text_contents()
            assert values[0] == shown(node.p)
            assert values[1] == shown(node.q)
            if node.draw is not None:
                sign = "<" if node.draw < node.threshold else "≥"
                assert values[2] == f"{shown(node.draw)} {sign} {shown(node.threshold)}"
            state = "Accepted" if node.accepted else "Rejected" if node.tested else "Never tested"
            assert detail.inner_text().count(state) == 1

    def test_both_models_top_tokens_are_listed(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED, step=3, selected=0))
        outlook = next(each for each in SAMPLED.steps[3].outlooks if each.after == -1)
        rows = page.locator(".ts-outlook-p tbody tr")
        assert rows.count() == len(outlook.base)
        assert page.locator(".ts-outlook-q tbody tr").count() == len(outlook.drafter)
        assert rows.first.locator("td").inner_text() == shown(outlook.base[0].prob)

    def test_next_rejection_by_button_and_key(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        rejections = [i for i, step in enumerate(SAMPLED.steps) if step.ending == "replacement"]
        after = [index for index in rejections if index > 0]
        page.get_by_role("button", name="Next rejection").click()
        assert get(page, "step") == after[0]
        page.keyboard.press("n")
        assert get(page, "step") == after[1]
        put(page, "step", after[-1])
        assert page.get_by_role("button", name="Next rejection").is_disabled()

    def test_head_filter_by_key_reaches_its_rejections_only(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        page.get_by_role("radio", name="all").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert get(page, "head") == 2
        page.locator(".ts-strip").focus()
        page.keyboard.press("n")
        step = SAMPLED.steps[get(page, "step")]
        assert len(step.accepted) == 1
        matched = page.locator(".ts-running .ts-match").evaluate_all(
            "nodes => nodes.map(node => node.dataset.depth)"
        )
        assert set(matched) == {"2"}

    def test_play_moves_on_and_stops_at_the_end(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED, step=35))
        page.get_by_label("Speed").select_option("2000")
        page.locator(".ts-strip").focus()
        page.keyboard.press("Space")
        assert get(page, "playing") is True
        page.get_by_label("Speed").select_option("50")
        page.wait_for_function(f"{MODEL}.get('step') === 39 && !{MODEL}.get('playing')")
        page.get_by_role("button", name="Play").click()
        assert get(page, "step") < 39

    def test_play_is_stopped_from_python(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED, playing=True))
        page.get_by_label("Speed").select_option("50")
        page.wait_for_function(f"{MODEL}.get('step') > 2")
        put(page, "playing", False)
        step = get(page, "step")
        page.wait_for_timeout(200)
        assert get(page, "step") == step

    def test_five_hundred_steps_move(self, open_page):
        trace = make_trace(steps=500, temperature=0.7)
        page = show(open_page, TokenStepper(trace))
        page.locator(".ts-strip").focus()
        moved = page.evaluate(
            """() => {
                const strip = document.querySelector('.ts-strip');
                for (let step = 0; step < 499; step += 1) {
                    strip.dispatchEvent(
                        new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
                }
                return document.querySelectorAll('.ts-tree .ts-node').length;
            }"""
        )
        assert get(page, "step") == 499
        assert moved == 1 + len(trace.steps[-1].nodes) + 1

    def test_strip_has_one_mark_a_step_in_several_lines_where_it_is_narrow(self, open_page):
        trace = make_trace(steps=300)
        page = show(open_page, TokenStepper(trace), width=400)
        box = page.locator(".ts-strip canvas").bounding_box()
        assert box["height"] > 100
        page.locator(".ts-strip").focus()
        page.keyboard.press("ArrowDown")
        assert 60 <= get(page, "step") <= 100

    def test_a_trace_without_detail_says_so(self, open_page):
        page = show(open_page, TokenStepper(make_trace(detail=False), step=1))
        assert "recorded without the models' other choices" in page.inner_text(".ts-detail")
        assert page.locator(".ts-bar-p").count() == 0

    def test_another_record_replaces_the_view(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED, step=5))
        put(page, "records_json", "[" + make_trace(steps=3).to_json() + "]")
        assert "Step 3 of 3" in page.inner_text(".ts-told")
        put(page, "records_json", '[{"kind": "losslog", "version": 1}]')
        assert "needs a record of kind “trace”" in page.inner_text(".lk-problem")
        put(page, "records_json", "[" + SAMPLED.to_json() + "]")
        assert page.locator(".lk-problem").count() == 0
        put(page, "records_json", "nonsense")
        assert "no JSON" in page.inner_text(".lk-problem")
        page.complaints.clear()

    def test_a_damaged_record_leaves_a_sentence(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        put(page, "records_json", '[{"kind": "trace", "version": 1, "steps": 3}]')
        assert "The record is damaged" in page.inner_text(".lk-problem")
        page.complaints.clear()


class TestHostileText:
    @pytest.mark.parametrize("make", [TokenStepper, Race])
    def test_markup_in_tokens_stays_text(self, open_page, make):
        trace = hostile_trace()
        page = show(open_page, make(trace))
        put(page, "time" if make is Race else "step", trace.seconds if make is Race else 11)
        page.wait_for_timeout(200)
        assert page.title() == "Widget"
        assert page.locator(".labkit img, .labkit script").count() == 0
        assert "<img src=x onerror=" in page.inner_text(".lk-running")

    def test_every_hostile_token_is_shown_whole(self, open_page):
        trace = hostile_trace()
        page = show(open_page, TokenStepper(trace, step=11))
        text = page.evaluate(
            """() => [...document.querySelectorAll('.ts-running .lk-paragraph > .lk-token')]
                .map(node => node.textContent)"""
        )
        for token, shown_text in zip(trace.tokens, text, strict=True):
            plain = re.sub("[\u202e\u200b]", "", token.text)
            left = re.sub("⟨(202E|200B)⟩|↵|⇥", "", shown_text)
            assert left == plain
        assert {token.text for token in trace.tokens} >= set(HOSTILE[:6])

    def test_direction_overrides_do_not_reach_the_page(self, open_page):
        page = show(open_page, TokenStepper(hostile_trace(), step=11))
        assert "\u202e" not in page.inner_text(".labkit")

    def test_right_to_left_words_keep_their_order(self, open_page):
        trace = make_trace(steps=3, texts=("שלום", " עולם", " טוב"), widths=(1,))
        page = show(open_page, TokenStepper(trace, step=2))
        boxes = page.evaluate(
            """() => [...document.querySelectorAll('.ts-running .lk-paragraph > .lk-token')]
                .filter(node => !node.hidden).map(node => node.getBoundingClientRect().left)"""
        )
        assert boxes == sorted(boxes, reverse=True)


class TestRace:
    def test_time_moves_by_keys_and_ends_with_the_winner(self, open_page):
        race = Race(VANILLA, QUICK)
        page = show(open_page, race)
        page.get_by_role("button", name="Play").focus()
        page.keyboard.press("ArrowRight")
        assert get(page, "time") == pytest.approx(race.seconds / 50)
        assert page.locator(".rc-outcome").is_hidden()
        page.keyboard.press("End")
        assert get(page, "time") == pytest.approx(race.seconds)
        outcome = page.locator(".rc-outcome")
        expect(outcome).to_contain_text("mlp speculator wins")
        assert page.locator(".rc-crown:not([hidden])").count() == 1
        lane = page.locator(".rc-lane", has=page.locator(".rc-crown:not([hidden])"))
        assert "mlp speculator" in lane.inner_text()
        page.keyboard.press("Home")
        assert get(page, "time") == 0
        assert outcome.is_hidden()

    def test_lanes_show_what_stood_at_that_moment(self, open_page):
        page = show(open_page, Race(VANILLA, QUICK))
        for time in (0.0, 0.2, 0.5, 0.33):
            put(page, "time", time)
            for lane, trace in enumerate((VANILLA, QUICK)):
                ends, total = trace.prefill_s, 1 if time >= trace.prefill_s else 0
                for step in trace.steps:
                    ends += step.seconds
                    total += len(step.committed) if ends <= time else 0
                node = page.locator(".rc-lane").nth(lane)
                shown_tokens = node.locator(".rc-text .lk-paragraph > .lk-token:not([hidden])")
                assert shown_tokens.count() == total
                assert node.locator(".rc-figure").nth(1).inner_text() == str(total)

    def test_play_reaches_the_end_and_plays_again(self, open_page):
        race = Race(VANILLA, QUICK)
        page = show(open_page, race)
        page.get_by_label("Speed").select_option("20")
        assert get(page, "speed") == 20
        page.get_by_role("button", name="Play").click()
        page.wait_for_function(f"{MODEL}.get('time') >= {race.seconds} - 1e-9")
        assert get(page, "playing") is False
        page.get_by_label("Speed").select_option("0.02")
        page.get_by_role("button", name="Play").click()
        assert get(page, "playing") is True
        assert get(page, "time") < race.seconds / 2

    def test_slow_motion_shows_the_draft_that_is_being_checked(self, open_page):
        first = QUICK.steps[0]
        page = show(open_page, Race(QUICK, speed=0.02))
        put(page, "time", QUICK.prefill_s + first.draft_s + first.check_s / 2)
        lane = page.locator(".rc-lane")
        assert "checks 3 drafts" in lane.locator(".rc-doing").inner_text()
        drafted = "".join(node.text for node in first.nodes)
        assert lane.locator(".rc-ghost").text_content() == drafted

    def test_time_spent_is_told_part_by_part(self, open_page):
        page = show(open_page, Race(VANILLA, QUICK, time=Race(VANILLA, QUICK).seconds))
        widths = (
            page.locator(".rc-lane")
            .nth(0)
            .locator(".rc-part")
            .evaluate_all("nodes => nodes.map(node => parseFloat(node.style.width))")
        )
        assert sum(widths) == pytest.approx(100, abs=0.1)

    def test_a_live_race_follows_what_is_generated(self, open_page):
        part = VANILLA.model_copy(update={"steps": VANILLA.steps[:5]})
        page = show(open_page, Race(part, live=True, time=part.seconds))
        assert page.locator(".rc-outcome").is_hidden()
        spans = page.locator(".rc-text .lk-paragraph > .lk-token:not([hidden])")
        assert spans.count() == 6
        page.locator(".rc-text").focus()
        put(page, "records_json", "[" + VANILLA.to_json() + "]")
        assert spans.count() == 41
        assert page.evaluate("document.activeElement.classList.contains('rc-text')")
        put(page, "live", False)
        put(page, "time", VANILLA.seconds)
        expect(page.locator(".rc-outcome")).to_contain_text("tokens per second")

    def test_nothing_flashes_where_less_motion_is_asked_for(self, open_page):
        for motion in ("no-preference", "reduce"):
            page = show(open_page, Race(VANILLA, QUICK, speed=0.2), motion=motion)
            page.get_by_role("button", name="Play").click()
            page.wait_for_function(f"{MODEL}.get('time') > 0.1")
            put(page, "playing", False)
            assert (page.locator(".rc-new").count() > 0) == (motion == "no-preference")


class TestTreeLab:
    def test_nodes_come_and_go_by_keys(self, open_page):
        page = show(open_page, TreeLab(make_study(), nodes=[]))
        page.locator(".tl-tree [tabindex='0']").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert get(page, "nodes") == [[0], [0, 0]]
        assert get(page, "selected") == 1
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("+")
        assert get(page, "nodes") == [[0], [0, 0], [0, 1]]
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert get(page, "nodes") == [[0], [1], [0, 0], [0, 1]]
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Delete")
        assert get(page, "nodes") == [[1]]
        focused = page.evaluate("document.activeElement.getAttribute('role')")
        assert focused == "treeitem"

    def test_handles_add_by_pointer(self, open_page):
        page = show(open_page, TreeLab(make_study(), nodes=[[0]]))
        page.locator(".tl-handle[data-index='-1']").click()
        assert get(page, "nodes") == [[0], [1]]
        page.locator(".tl-node[data-index='0']").click()
        assert get(page, "selected") == 0
        page.get_by_role("button", name="Remove").click()
        assert get(page, "nodes") == [[1]]

    def test_readout_follows_the_tree(self, open_page):
        study = make_study()
        page = show(open_page, TreeLab(study))
        for size in (0, 1, 7, 30):
            tree = study.best_tree(size)
            put(page, "nodes", [list(path) for path in tree])
            assert page.inner_text(".tl-tokens").split()[0] == f"{study.tokens_per_step(tree):.2f}"
            assert page.inner_text(".tl-cost").split()[0] == f"{study.cost(tree):.2f}"
            assert page.inner_text(".tl-speed").split()[0] == f"{study.speedup(tree):.2f}"
            assert page.locator(".tl-node").count() == size + 1

    def test_best_trees_by_button_slider_and_chart(self, open_page):
        study = make_study()
        page = show(open_page, TreeLab(study, nodes=[]))
        page.get_by_role("button", name="Fastest tree").click()
        assert get(page, "nodes") == [list(path) for path in study.best_tree()]
        slider = page.get_by_role("slider", name="Best tree of")
        slider.focus()
        page.keyboard.press("End")
        assert get(page, "nodes") == [list(path) for path in study.best_tree(64)]
        page.keyboard.press("ArrowLeft")
        assert len(get(page, "nodes")) == 63
        page.locator(".tl-chart").click(position={"x": 32, "y": 60})
        assert len(get(page, "nodes")) == 0

    def test_grow_shrink_chain_and_clear(self, open_page):
        study = make_study()
        page = show(open_page, TreeLab(study, nodes=[]))
        page.get_by_role("button", name="Add the best node").click()
        assert get(page, "nodes") == [[0]]
        page.keyboard.press("a")
        page.keyboard.press("d")
        assert get(page, "nodes") == [[0]]
        page.get_by_role("button", name="Chain").click()
        assert get(page, "nodes") == [[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]
        page.get_by_role("button", name="Clear").click()
        assert get(page, "nodes") == []
        assert page.get_by_role("button", name="Drop the weakest").is_disabled()

    def test_mask_tells_what_the_chosen_node_sees(self, open_page):
        page = show(open_page, TreeLab(make_study(), nodes=[[0], [1], [0, 0]], selected=2))
        words = page.inner_text(".tl-sees")
        assert "node 1·1, at position +2, sees the text, the last committed token, node 1" in words
        label = page.locator(".tl-mask canvas").get_attribute("aria-label")
        assert label.startswith("Attention mask, 4 by 4.")

    def test_a_full_tree_offers_no_more_nodes(self, open_page):
        study = make_study(most=8)
        page = show(open_page, TreeLab(study, nodes=[list(p) for p in study.best_tree(8)]))
        assert page.locator(".tl-handle").count() == 0
        assert page.get_by_role("button", name="Add the best node").is_disabled()
        assert page.get_by_role("button", name="Add a child").is_disabled()


class TestThemes:
    @pytest.mark.parametrize(
        ("attribute", "value", "theme"),
        [
            ("data-jp-theme-light", "false", "dark"),
            ("data-jp-theme-light", "true", "light"),
            ("data-theme", "dark", "dark"),
            ("theme", "dark", "dark"),
            ("data-vscode-theme-kind", "vscode-dark", "dark"),
            ("data-vscode-theme-kind", "vscode-light", "light"),
        ],
    )
    @pytest.mark.parametrize("system", ["light", "dark"])
    def test_what_the_page_declares_comes_before_the_system(
        self, open_page, attribute, value, theme, system
    ):
        page = show(open_page, TokenStepper(QUICK), theme=system)
        page.evaluate(
            "([name, value]) => document.body.setAttribute(name, value)", [attribute, value]
        )
        expect(page.locator(".labkit")).to_have_attribute("data-theme", theme)

    def test_an_undeclared_page_is_judged_by_its_background(self, open_page):
        page = show(open_page, TokenStepper(QUICK), theme="dark")
        page.evaluate("document.body.style.background = '#fff'")
        expect(page.locator(".labkit")).to_have_attribute("data-theme", "light")

    def test_paper_is_light(self, open_page):
        page = show(open_page, TokenStepper(QUICK), theme="dark")
        expect(page.locator(".labkit")).to_have_attribute("data-theme", "dark")
        page.emulate_media(media="print")
        expect(page.locator(".labkit")).to_have_attribute("data-theme", "light")

    def test_keys_stay_inside_the_widget(self, open_page):
        page = show(open_page, TokenStepper(SAMPLED))
        page.evaluate(
            "window.heard = 0; document.addEventListener('keydown', () => { window.heard += 1; })"
        )
        page.locator(".ts-strip").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("a")
        assert page.evaluate("window.heard") == 0


def test_a_view_that_goes_leaves_no_listener(open_page):
    page = show(open_page, TokenStepper(QUICK))
    left = page.evaluate(
        f"""() => {{
            const model = {MODEL};
            const place = document.querySelector('[id^=labkit-]');
            const before = [...model.listeners.values()].flat().length;
            const second = document.createElement('div');
            document.body.append(second);
            const leave = place.widget.render({{model, el: second}});
            leave();
            return [before, [...model.listeners.values()].flat().length,
                second.children.length];
        }}"""
    )
    assert left[0] == left[1]
    assert left[2] == 0


def shown(value: float) -> str:
    """A probability as the page writes it."""
    if 0 < value < 0.005:
        return "<0.001" if value < 0.0005 else f"{value:.3f}"
    if 0.995 <= value < 1:
        return ">0.999" if value > 0.9995 else f"{value:.3f}"
    return f"{value:.2f}"
