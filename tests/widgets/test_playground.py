"""Playground in a notebook: the kernel answers the view's questions."""

from __future__ import annotations

import json
import threading

import pytest

from labkit.errors import LabkitError
from labkit.records import Step, Trace
from labkit.sampling import Sampling
from labkit.speculative.decoder import Decoder
from labkit.widgets import Playground
from widgets.node import evaluate

PROMPT = "I like to cook. What do you like to do"
OWN = [[0], [1], [0, 0], [0, 1], [0, 0, 0]]


@pytest.fixture(scope="module")
def decoder():
    return Decoder("tiny")


@pytest.fixture(scope="module")
def player(decoder):
    return decoder.player()


def asked(player, question, stopped=lambda: False, **args):
    parts = []
    return player.ask(question, args, parts.append, stopped), parts


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"nodes": 1},
        {"nodes": 12, "heads": 2},
        {"tree": OWN},
        {"tree": OWN, "heads": 1},
        {"method": "ngram"},
    ],
)
def test_kernel_writes_vanillas_text_whatever_drafts(decoder, player, how):
    trace, parts = asked(player, "generate", prompt=PROMPT, maxNewTokens=32, **how)
    wanted = decoder.generate(PROMPT, 32, "vanilla")
    read = Trace.from_json(json.dumps(trace))
    assert [token.id for token in read.tokens] == wanted.tokens
    assert len(read.steps) < len(wanted.steps)
    assert parts[0]["first"]["id"] == wanted.first
    assert [part["step"]["committed"] for part in parts[1:]] == [
        step["committed"] for step in trace["steps"]
    ]
    deepest = max((node.depth for step in read.steps for node in step.nodes), default=0)
    assert deepest <= how.get("heads", 8)


def test_drawn_tree_has_the_shape_that_was_built(player):
    trace, _ = asked(
        player, "generate", prompt=PROMPT, maxNewTokens=12, tree=OWN, temperature=1.0, seed=3
    )
    again, _ = asked(
        player, "generate", prompt=PROMPT, maxNewTokens=12, tree=OWN, temperature=1.0, seed=3
    )
    assert trace["text"] == again["text"]
    nodes = trace["steps"][0]["nodes"]  # the last drafts are cut to the room that is left
    assert [node["parent"] for node in nodes] == [-1, -1, 0, 0, 2]
    assert len({(node["parent"], node["id"]) for node in nodes}) == 5


def test_stop_and_one_step_keep_what_was_decoded(player):
    trace, _ = asked(player, "generate", prompt=PROMPT, maxNewTokens=32, steps=2)
    assert len(trace["steps"]) == 2
    trace, _ = asked(player, "generate", lambda: True, prompt=PROMPT, maxNewTokens=32)
    assert len(trace["steps"]) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_reader_and_heads_are_judged_after_the_same_text(decoder, player, temperature):
    ids = decoder.encode(PROMPT, 4)
    right = decoder.generate(ids, 3, "vanilla").tokens
    found, _ = asked(player, "judge", tokens=ids, draft=right[:2], temperature=temperature)
    reader, heads = (Step.model_validate(found[name]) for name in ("reader", "heads"))
    assert [node.id for node in reader.nodes] == right[:2]
    assert len(heads.nodes) == 3
    if not temperature:
        assert [token.id for token in reader.committed] == right
    else:
        assert reader.nodes[0].q == 1.0


def test_samples_carry_the_models_own_log_probability(decoder, player):
    how = {"prompt": PROMPT, "maxNewTokens": 6, "temperature": 0.8}
    samples, parts = asked(player, "draw", count=3, seed=1, **how)
    assert [part["sample"] for part in parts] == samples
    ids = decoder.encode(PROMPT, 6)
    whole = Sampling(temperature=1.0)
    how = {**how, "seed": 1000}
    tokens = player._run(ids, 6, how, player._drafter(how)).tokens
    assert samples[0]["text"] == decoder.base.decode(tokens)
    logprob = 0.0
    for place, token in enumerate(tokens):
        _, out = player._read([*ids, *tokens[:place]])
        logprob += float(whole.probabilities(out.logits[-1:])[0, token].log())
    assert samples[0]["logprob"] == pytest.approx(logprob, abs=1e-3)


def test_widget_answers_messages_and_tells_errors_in_one_sentence(decoder):
    widget = Playground(decoder, state="tab=bayes")
    sent, whole = [], threading.Event()

    def send(message, *_):
        sent.append(message)
        if len(sent) == 3:
            whole.set()

    widget.send = send
    for name, question, args in (
        ("a", "info", {}),
        ("b", "generate", {"prompt": " "}),
        ("c", "sing", {}),
    ):
        widget._hear(widget, {"id": name, "ask": question, "args": args}, [])
    assert whole.wait(60)
    answers = {message["id"]: message for message in sent}
    assert answers["a"]["done"] == {"base": "tiny", "heads": 3}
    assert "The prompt is empty" in answers["b"]["error"]
    assert "sing" in answers["c"]["error"]
    assert set(json.loads(widget.views)) == {"TokenStepper", "RiskMatrix"}
    with pytest.raises(LabkitError):
        decoder.player().ask("sing", {}, print, lambda: False)


def test_settings_are_kept_in_the_address_and_wrong_ones_are_their_defaults():
    expression = """data.map((text) => m.format(m.parse(text)))"""
    texts = [
        "",
        "prompt=%F0%9F%99%82+a%26b&seed=7&temperature=0.5&tree=1+2+1.1",
        "seed=-1&temperature=hot&method=eagle&tree=1.1&tab=none&nodes=99&unknown=1",
    ]
    found = evaluate("playground/state.js", expression, texts)
    assert found == ["", "prompt=%F0%9F%99%82+a%26b&seed=7&temperature=0.5&tree=1+2+1.1", ""]


def test_branches_move_and_keep_within_the_heads():
    expression = """[
        m.moved(data, [1], [0], 3), m.moved(data, [0], [0, 0], 3), m.moved(data, [0], [1], 2),
    ]"""
    tree = [[0], [1], [0, 0]]
    found = evaluate("playground/tree.js", expression, tree)
    assert found == [[[0], [0, 0], [0, 1]], tree, tree]
