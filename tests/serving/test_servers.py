"""Servers elsewhere: a real one that nobody here wrote, alive, misaddressed, and killed midway.

`transformers serve` is started on the loopback with the toy model.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.serving.bench import Level, bench_server
from labkit.serving.load import Answer
from labkit.serving.targets import RemoteServer
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
    outcome = bench_server(server, levels, ["Hello", "Good day"], 6, 10, say=said.append)
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
    """A server that says what the test has it say, for what no real one does on demand."""

    models: ClassVar[list[str]] = ["m"]
    events: ClassVar[list[object]] = []

    def do_GET(self) -> None:
        listed = [{"id": name, "object": "model"} for name in self.models]
        self._send("application/json", json.dumps({"object": "list", "data": listed}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send("text/event-stream", "".join(f"data: {json.dumps(e)}\n\n" for e in self.events))

    def _send(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    script = type("Script", (Scripted,), {"events": [piece("Hi", "stop")]})
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
        bench_server(server, [Level(1)], ["p"], 3, 9)


def test_later_levels_that_fail_leave_the_earlier_ones(scripted) -> None:
    url, script = scripted
    server = RemoteServer(url)

    def fail(_: str) -> None:
        script.events = [piece("Good")]

    outcome = bench_server(server, [Level(1), Level(2)], ["p"], 3, 9, say=fail)
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
