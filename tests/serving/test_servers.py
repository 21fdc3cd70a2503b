"""Servers elsewhere: a real one that nobody here wrote, alive, misaddressed, and killed midway.

`transformers serve` is started on the loopback with the toy model.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.serving.bench import Level, Loads, bench_server
from labkit.serving.load import Answer
from labkit.serving.targets import RemoteServer, Said, read_events
from tests.conftest import make_toy

START = "from transformers.cli.transformers import main; main()"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(home: Path, *model: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`transformers serve`, pinned to a model or not: its address and its process."""
    port = free_port()
    said = home / f"serve-{port}.txt"
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    words = ["serve", *model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *words],
            env={**os.environ, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(6000):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            assert process.poll() is None, said.read_text(encoding="utf-8", errors="replace")
            time.sleep(0.1)
        else:
            raise AssertionError("the server did not come up within ten minutes")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The toy model without and with a chat template."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("plain", "chatting")}
    make_toy(folders["plain"])
    make_toy(
        folders["chatting"],
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}",
    )
    return folders


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("home")) as (url, _):
        yield url


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("kind", ["plain", "chatting"])
@pytest.mark.parametrize("ending", ["", "/v1", "/v1/"])
def test_a_server_is_asked_in_the_way_it_can_and_its_own_count_is_taken(
    address: str, models: dict[str, Path], kind: str, ending: str
) -> None:
    server = RemoteServer(address + ending, str(models[kind]))
    answer = server.ask("Hello there", 12)
    assert answer.error is None
    assert 1 <= answer.tokens <= 12
    assert 1 <= len(answer.arrivals) <= answer.tokens + 1
    assert answer.output
    assert 0 < answer.ttft <= answer.e2e
    assert server.ask("Hello there", 12).output == answer.output, "greedy"
    assert server.lost() is None


def test_levels_of_users_and_rates_give_rows(address: str, models: dict[str, Path]) -> None:
    server = RemoteServer(address, str(models["plain"]))
    said: list[str] = []
    levels = [Level(1), Level(3), Level(rate=20.0)]
    outcome = bench_server(server, ["Hello", "Good day"], Loads(levels, 6, 10), said.append)
    assert outcome.lost is None
    assert [row.method for row in outcome.log.rows] == ["server"] * 3
    assert [row.users for row in outcome.log.rows][:2] == [1, 3]
    assert [row.rate_per_s for row in outcome.log.rows] == [None, None, 20.0]
    for row in outcome.log.rows:
        assert (row.requests, row.errors) == (6, 0)
        assert row.tokens_per_s > 0
        assert row.ttft_ms.mean > 0
        assert row.e2e_ms.mean >= row.ttft_ms.mean
    assert len(said) == 3


def test_by_default_the_first_model_that_the_server_lists_is_asked(
    address: str, models: dict[str, Path]
) -> None:
    RemoteServer(address, str(models["plain"]))  # from then on the server has it loaded
    assert RemoteServer(address).model in {str(folder) for folder in models.values()}


def test_a_model_that_the_server_has_not_is_told_with_what_it_said(address: str) -> None:
    with pytest.raises(LabkitError, match=r"answers neither chat .* nor plain completion"):
        RemoteServer(address, "no/such-model")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "nonsense"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(LabkitError, match="is not a server's address"):
        RemoteServer(url)


class Scripted(BaseHTTPRequestHandler):
    """A server that says what the test has it say, for what no real one does on demand.

    ``refuse`` returns a status and its headers for a request that is not to be answered. An event
    is an object, a line as it is, or a number of seconds to wait.
    """

    models: ClassVar[object] = ["m"]
    models_status: ClassVar[int] = 200
    events: ClassVar[list[object]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    refuse: ClassVar[Callable[[dict[str, Any]], tuple[int, str] | None]] = lambda _: None

    def do_GET(self) -> None:
        listed = self.models
        if isinstance(listed, list):
            listed = {"data": [{"id": name, "object": "model"} for name in listed]}
        self._begin(self.models_status, "application/json")
        self.wfile.write(json.dumps(listed).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        refusal = type(self).refuse(body)
        if refusal:
            self._begin(refusal[0], "application/json", refusal[1])
            self.wfile.write(json.dumps({"error": {"message": "no, sorry"}}).encode())
            return
        self._begin(200, "text/event-stream")
        for event in self.events:
            if isinstance(event, float):
                time.sleep(event)
            else:
                line = event if isinstance(event, str) else f"data: {json.dumps(event)}"
                self.wfile.write(f"{line}\n\n".encode())

    def _begin(self, status: int, kind: str, retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    script = type("Script", (Scripted,), {"events": [piece("Hi", "stop")], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), script)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", script
    server.shutdown()
    thread.join()
    server.server_close()


def piece(text: str, ending: str | None = None, tokens: int | None = None) -> dict[str, object]:
    """An event of a chat's stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": ending}
    event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1}
    return {**event, "choices": [choice], **({"usage": usage} if tokens else {})}


def delta(**fields: object) -> dict[str, object]:
    """An event of a chat's stream with these fields of its delta."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_counts_as_streamed_output(scripted, name: str) -> None:
    url, script = scripted
    server = RemoteServer(url)
    thoughts = [delta(**{name: "hm"}), 0.15, delta(**{name: " so"}), 0.15]
    script.events = [*thoughts, delta(content="Yes"), piece("", "stop", tokens=3)]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, len(answer.arrivals)) == ("hm soYes", 3, 3)
    assert answer.ttft < 0.14
    assert answer.tpot == pytest.approx((answer.arrivals[-1] - answer.arrivals[0]) / 2)
    assert answer.tpot > 0.1


def test_content_as_a_list_of_parts_is_read(scripted) -> None:
    url, script = scripted
    server = RemoteServer(url)
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. "}]}
    parts = [thinking, {"type": "text", "text": "Good"}, " day", {"type": "image"}, None]
    script.events = [delta(content=parts), piece("", "stop")]
    answer = server.ask("p", 9)
    assert (answer.output, len(answer.arrivals), answer.error) == ("Hm. Good day", 1, None)
    assert bench_server(server, ["p"], Loads([Level(2)], 4, 9)).log.rows[0].errors == 0


@pytest.mark.parametrize(
    ("refuses", "sent", "unsent"),
    [
        ({"stream_options"}, {"max_tokens", "temperature"}, {"stream_options"}),
        ({"max_tokens"}, {"max_completion_tokens", "stream_options"}, {"max_tokens"}),
        (
            {"max_tokens", "temperature", "stream_options"},
            {"max_completion_tokens"},
            {"max_tokens", "temperature", "stream_options"},
        ),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_fields_that_a_server_refuses_are_left_out(
    scripted, refuses: set[str], sent: set[str], unsent: set[str], status: int
) -> None:
    url, script = scripted
    script.refuse = lambda body: (status, "") if refuses & set(body) else None
    server = RemoteServer(url)
    row = bench_server(server, ["p"], Loads([Level(2)], 4, 9)).log.rows[0]
    assert (row.requests, row.errors) == (4, 0)
    for body in script.asked[-4:]:
        assert sent <= set(body)
        assert not unsent & set(body)


@pytest.mark.parametrize("status", [404, 405, 500, 501])
def test_a_gateway_without_a_list_of_models_and_one_refusal_do_not_end_a_load(
    scripted, status: int
) -> None:
    url, script = scripted
    script.models_status = status
    with pytest.raises(LabkitError, match=r"does not list its models .* name one with --model"):
        RemoteServer(url)
    server = RemoteServer(url, "m")
    refusals = iter([(429, "0.2"), (418, "")])
    script.refuse = lambda _: next(refusals, None)
    row = bench_server(server, ["p"], Loads([Level(1)], 6, 9)).log.rows[0]
    assert (row.requests, row.errors) == (6, 1), "429 is tried again, another refusal is an error"


def test_a_busy_server_is_tried_again_after_its_hint_but_not_for_ever(
    scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = scripted
    server = RemoteServer(url)
    waited: list[float] = []
    monkeypatch.setattr("labkit.serving.targets.time.sleep", waited.append)
    script.refuse = lambda _: (429, "3600")
    answer = server.ask("p", 9)
    assert waited == [20, 20, 20]
    assert answer.error == "The server failed midway (Error code: 429 - no, sorry)."
    hints = iter([(503, "0.5"), (429, ""), (429, "Wed, 21 Oct 2026 07:28:00 GMT")])
    script.refuse = lambda _: next(hints, None)
    assert server.ask("p", 9).error is None
    assert waited[3:] == [0.5, 2, 4]
    script.refuse = lambda _: (503, "")
    assert "503" in (server.ask("p", 9).error or "")
    assert len(waited) == 6, "a failure without a hint is counted at once"


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_that_ends_with_done_is_whole_though_it_names_no_reason(
    scripted, usage: bool
) -> None:
    url, script = scripted
    server = RemoteServer(url)
    counted = {"choices": [], "usage": {"completion_tokens": 7}}
    script.events = [delta(content="Good"), *([counted] if usage else []), "data: [DONE]"]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, answer.error) == ("Good", 7 if usage else 1, None)
    script.events = ["data: [DONE]"]
    assert "ended the stream before" in (server.ask("p", 9).error or "")


def test_what_is_no_part_of_an_answer_is_passed_over(scripted) -> None:
    url, script = scripted
    server = RemoteServer(url)
    odd = [
        ": ping",
        "event: x\nid: 4",
        "data:",
        {"choices": None},
        {"choices": ["x"]},
        {"usage": 3},
    ]
    line = "data:" + json.dumps(delta(content="a\u2028b"), ensure_ascii=False) + "\r"
    script.events = [*odd, {"choices": [{"delta": "x", "text": 3}]}, line, piece("", "stop")]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, answer.error) == ("a\u2028b", 1, None)


@pytest.mark.parametrize(
    "event",
    ["data: {oops", "data: [1]", "data: 3", "data: " + "[" * 10**5, 'data: {"error": "\\ud83d"}'],
)
def test_an_event_that_cannot_be_read_fails_its_request_and_no_other(scripted, event: str) -> None:
    url, script = scripted
    server = RemoteServer(url)
    good, bad = [piece("Hi", "stop")], [piece("Hi"), event]
    number = iter(range(99))

    def alternate(_: object) -> None:
        script.events = bad if next(number) == 2 else good

    script.refuse = alternate
    row = bench_server(server, ["p"], Loads([Level(1)], 6, 9)).log.rows[0]
    assert (row.requests, row.errors) == (6, 1)


@pytest.mark.parametrize(
    "models", [{"object": "list"}, {"data": ["x"]}, {"data": 3}, [[]], "hello"]
)
def test_an_address_that_answers_with_something_else_is_refused_in_a_sentence(
    scripted, models: object
) -> None:
    url, script = scripted
    script.models = models if not isinstance(models, list) else {"data": models}
    with pytest.raises(LabkitError, match="not with a list of models: name one with --model"):
        RemoteServer(url)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "choices",
                    "delta",
                    "content",
                    "text",
                    "usage",
                    "completion_tokens",
                    "error",
                    "message",
                    "finish_reason",
                    "reasoning",
                    "reasoning_content",
                    "thinking",
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    events=st.lists(json_values.map(lambda v: b"data: " + json.dumps(v).encode()) | st.binary()),
    cuts=st.lists(st.integers(1, 30)),
)
@settings(max_examples=300, deadline=None)
def test_any_stream_is_read_or_refused_and_never_breaks(
    events: list[bytes], cuts: list[int]
) -> None:
    stream = b"\n\n".join(events)
    places = [0, *(sum(cuts[:n]) for n in range(1, len(cuts) + 1)), len(stream) + sum(cuts)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]

    def read(chunks: list[bytes]) -> list[Said] | str:
        try:
            found = list(read_events(chunks))
        except LabkitError as error:
            return str(error)
        assert all(isinstance(said.text, str) for said in found)
        assert all(said.tokens is None or said.tokens > 0 for said in found)
        return found

    assert read(pieces) == read([stream]), "where the network cuts a stream changes nothing"


@given(texts=st.lists(st.text(min_size=1)), tokens=st.integers(1, 10**6))
def test_what_a_well_formed_stream_says_is_found(texts: list[str], tokens: int) -> None:
    events = [*(piece(text) for text in texts), piece("", "stop", tokens)]
    stream = "".join(f"data: {json.dumps(e, ensure_ascii=False)}\n\n" for e in events)
    found = list(read_events([stream.encode("utf-8", "surrogatepass")]))
    assert [said.text for said in found[:-1]] == texts
    assert found[-1] == Said("", tokens, True)


def test_a_server_without_a_model_to_offer_asks_for_its_name(scripted) -> None:
    url, script = scripted
    script.models = []
    with pytest.raises(LabkitError, match="lists no model: name one"):
        RemoteServer(url)


def test_outputs_are_counted_where_the_server_does_not_count_tokens(scripted) -> None:
    url, script = scripted
    server = RemoteServer(url)
    script.events = [piece(""), piece("Good"), piece(" day"), piece("", "stop")]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, len(answer.arrivals)) == ("Good day", 2, 2)
    script.events = [piece("Good day"), piece("", "stop", tokens=5)]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, len(answer.arrivals)) == ("Good day", 5, 1)
    script.events = [piece("", "stop", tokens=1)]
    answer = server.ask("p", 9)
    assert (answer.output, answer.tokens, len(answer.arrivals), answer.error) == ("", 1, 1, None)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"error": {"message": "out of memory"}}, "The server failed midway (out of memory)."),
        (None, "The server ended the stream before the answer was whole."),
    ],
)
def test_an_answer_that_breaks_off_is_an_error_and_the_server_is_still_there(
    scripted, event: object, said: str
) -> None:
    url, script = scripted
    server = RemoteServer(url)
    script.events = [piece("Good"), *([event] if event else [])]
    answer = server.ask("p", 9)
    assert answer.error == said
    assert server.lost() is None
    with pytest.raises(LabkitError, match=r"None of 3 requests was answered: The server"):
        bench_server(server, ["p"], Loads([Level(1)], 3, 9))


def test_later_levels_that_fail_leave_the_earlier_ones(scripted) -> None:
    url, script = scripted
    server = RemoteServer(url)

    def fail(_: str) -> None:
        script.events = [piece("Good")]

    outcome = bench_server(server, ["p"], Loads([Level(1), Level(2)], 3, 9), say=fail)
    assert [row.users for row in outcome.log.rows] == [1]
    assert "None of 3 requests was answered" in (outcome.lost or "")


def test_where_nobody_answers_the_command_says_so_in_a_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["bench", "serving", "--url", url, "--json"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"labkit: No server with OpenAI's protocol answers at {url}")
    assert result.stderr.count("\n") == 1


def test_a_server_killed_midway_leaves_the_figures_so_far_and_a_clear_error(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = 0
    enough = threading.Event()
    ask = RemoteServer.ask

    def counting(self: RemoteServer, prompt: str, max_new_tokens: int) -> Answer:
        nonlocal answered
        answer = ask(self, prompt, max_new_tokens)
        answered += 1
        if answered == 5:
            enough.set()
        return answer

    monkeypatch.setattr(RemoteServer, "ask", counting)
    with serving(tmp_path, str(models["plain"])) as (url, process):

        def kill() -> None:
            enough.wait()
            process.kill()

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        words = ["bench", "serving", "--url", url, "--users", "1,2", "--requests", "4"]
        result = CliRunner().invoke(main, [*words, "--max-new-tokens", "90", "--json"])
        enough.set()
    assert result.exit_code == 2, result.stderr
    said = json.loads(result.stdout)
    first, *others = said["rows"]
    assert (first["users"], first["requests"], first["errors"]) == (1, 4, 0)
    assert all(row["users"] == 2 and row["errors"] > 0 for row in others)
    assert f"The server at {url} does not answer any more" in said["lost"]
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"labkit: The server at {url} does not answer any more")
    assert "Traceback" not in result.stderr
