"""A server that a command starts: measured and stopped, or one sentence that says what failed."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request

import pytest

from labkit.errors import LabkitError
from labkit.serving import bench, bench_command

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(json.dumps({"data": [{"id": "made-up"}]}), "application/json")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        parts = [{"choices": [{"index": 0, "delta": {"content": "a "}, "text": "a "}]}] * 3
        lines = "".join(f"data: {json.dumps(part)}\\n\\n" for part in parts)
        self.answer(lines + "data: [DONE]\\n\\n", "text/event-stream")

    def answer(self, text, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0.1)


def test_a_server_is_started_measured_and_stopped(port):
    url = f"http://127.0.0.1:{port}"
    log = bench_command([sys.executable, "-c", SERVER, str(port)], url, users=(1, 2), requests=2)
    assert log.base == "made-up"
    assert [(row.users, row.errors) for row in log.rows] == [(1, 0), (2, 0)]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_a_command_that_ends_or_cannot_run_is_one_sentence(port):
    url = f"http://127.0.0.1:{port}"
    with pytest.raises(LabkitError, match="ended with status 3"):
        bench_command([sys.executable, "-c", "raise SystemExit(3)"], url)
    with pytest.raises(LabkitError, match="Cannot start 'no-such-server'"):
        bench_command(["no-such-server"], url)
    with pytest.raises(LabkitError, match="did not start in time"):
        bench_command([sys.executable, "-c", "import time; time.sleep(60)"], url, start_s=0.5)
