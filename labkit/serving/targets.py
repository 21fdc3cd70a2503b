"""Targets of a load: the engine in this process, or a server that speaks OpenAI's protocol.

Connections come from the `openai` client library, which labkit needs only here. The streamed
events are read by `read_events`, because servers differ in what they put into them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import urlsplit

from labkit.errors import LabkitError
from labkit.serving.engine import ServingEngine
from labkit.serving.load import Answer

PATIENCE = 120.0
"""Seconds without any data from a server after which a request counts as failed."""

KNOCK = 5.0
"""Seconds that a server has to answer whether it is still up."""

TRIES = 4
"""Times a request is sent to a server that answers that it is too busy."""

LONGEST_WAIT = 20.0
"""The most seconds between two of these tries, whatever the server asks for."""

GONE = (502, 503, 504)
"""Status codes of a gateway whose server no longer answers."""


class EngineTarget:
    """The `ServingEngine` of this process. ``encode`` turns a prompt into token ids."""

    def __init__(self, engine: ServingEngine, encode: Callable[[str], Sequence[int]]) -> None:
        self.engine, self.encode = engine, encode

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        """See `labkit.serving.load.Target.ask`."""
        ids = self.encode(prompt)
        sent = time.perf_counter()
        arrivals: list[float] = []
        output: list[int] = []
        error = None
        try:
            for piece in self.engine.submit(ids, max_new_tokens):
                arrivals.append(time.perf_counter())
                output += piece.tokens
        except LabkitError as failure:
            error = str(failure)
        return Answer(prompt, sent, tuple(arrivals), len(output), tuple(output), error)

    def lost(self) -> str | None:
        """See `labkit.serving.load.Target.lost`."""
        return str(self.engine.failure) if self.engine.failure else None


@dataclass(frozen=True)
class Said:
    """An event of a stream: new text, the tokens so far (None: unknown), whether it ends it."""

    text: str = ""
    tokens: int | None = None
    last: bool = False


def forms(chat: bool, prompt: str, max_new_tokens: int) -> list[dict[str, Any]]:
    """Return every form of a request for a chat or a plain completion, the usual one first.

    Servers differ in what they accept: a temperature of 0 (some models take none), the question how
    many tokens there were, and the name of the most new tokens.
    """
    text = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    greedy: tuple[dict[str, Any], ...] = ({"temperature": 0}, {})
    usage: tuple[dict[str, Any], ...] = ({"stream_options": {"include_usage": True}}, {})
    limits = ("max_tokens", "max_completion_tokens") if chat else ("max_tokens",)
    return [
        {**text, "stream": True, limit: max_new_tokens, **with_usage, **with_greedy}
        for with_greedy, with_usage, limit in product(greedy, usage, limits)
    ]


class RemoteServer:
    """A server at ``url`` that speaks OpenAI's protocol, streaming; greedy where it allows that.

    ``model`` is the model to use, by default the first that the server lists. First requests find
    out whether the server does chat or plain completions, and which fields it accepts. The
    environment's ``OPENAI_API_KEY`` is sent if there is one. Raises `LabkitError` where nothing at
    ``url`` answers.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise LabkitError(
                f"{url!r} is not a server's address: give one such as http://localhost:8000/v1."
            )
        try:
            import openai
        except ImportError:
            raise LabkitError(
                "Asking a server needs the package openai, which is not installed: run "
                "pip install 'labkit[serving]'."
            ) from None
        self.name, self._openai = url, openai
        self._client = openai.OpenAI(
            base_url=url if parts.path.strip("/") else f"{url.rstrip('/')}/v1",
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=2,  # a server may drop the connection on which it refused the first form
            timeout=PATIENCE,
        )
        self.model = model or self._first_model()
        self._chat, self._form = self._find_form()
        self._client = self._client.with_options(max_retries=0)  # failures from now on are counted

    def _first_model(self) -> str:
        try:
            listed = json.loads(self._client.models.with_raw_response.list(timeout=KNOCK).text)
            models = [str(model["id"]) for model in listed["data"] or ()]
        except self._openai.APIStatusError as error:
            raise LabkitError(
                f"The server at {self.name} does not list its models ({_reason(error)}): name one "
                "with --model."
            ) from None
        except self._openai.OpenAIError as error:
            raise LabkitError(
                f"No server with OpenAI's protocol answers at {self.name} ({_reason(error)}): "
                "start one, or give another address."
            ) from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise LabkitError(
                f"{self.name} answers, but not with a list of models: name one with --model, or "
                "give another address."
            ) from None
        if not models:
            raise LabkitError(f"The server at {self.name} lists no model: name one with --model.")
        return models[0]

    def _find_form(self) -> tuple[bool, int]:
        """Return the first of the `forms` that the server answers with some output."""
        refusals = []
        for chat in (True, False):
            refused = []
            for place, body in enumerate(forms(chat, "Hello", 2)):
                try:
                    if any(said.text or said.tokens for said in self._events(chat, body)):
                        return chat, place
                    refused.append("an empty answer")
                except Exception as error:
                    refused.append(_reason(error))
                    if getattr(error, "status_code", None) not in (400, 422):
                        break  # no field is at fault
            refusals.append(refused[0])
        chats, completions = refusals
        raise LabkitError(
            f"The server at {self.name} answers neither chat ({chats}) nor plain completion "
            f"({completions}) with the model {_printable(self.model)!r}: name another model."
        )

    def _events(self, chat: bool, body: dict[str, Any]) -> Iterator[Said]:
        ends = self._client.chat.completions if chat else self._client.completions
        with ends.with_streaming_response.create(model=self.model, **body) as response:
            yield from read_events(response.iter_bytes())

    def _events_in_time(self, prompt: str, max_new_tokens: int) -> Iterator[Said]:
        """Return the events of an answer; wait and send again while the server is too busy."""
        body = forms(self._chat, prompt, max_new_tokens)[self._form]
        for attempt in range(TRIES):
            try:
                yield from self._events(self._chat, body)
                return
            except self._openai.APIStatusError as error:  # before the first event
                hint = error.response.headers.get("retry-after")
                busy = error.status_code == 429 or (error.status_code == 503 and hint)
                if not busy or attempt == TRIES - 1:
                    raise
                time.sleep(seconds_to_wait(hint, attempt))

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        """See `labkit.serving.load.Target.ask`.

        The number of tokens is the server's own count; without one, each output counts as one.
        """
        sent = time.perf_counter()
        arrivals: list[float] = []
        text, tokens, whole = "", None, False
        error = None
        try:
            for said in self._events_in_time(prompt, max_new_tokens):
                now = time.perf_counter()
                whole = whole or said.last
                if said.text or (whole and not arrivals):  # no text: an end token alone
                    arrivals.append(now)
                    text += said.text
                tokens = said.tokens or tokens
        except Exception as failure:  # from a client library over a server of any make
            error = f"The server failed midway ({_reason(failure)})."
        if error is None and not whole:
            error = "The server ended the stream before the answer was whole."
        return Answer(prompt, sent, tuple(arrivals), tokens or len(arrivals), text, error)

    def lost(self) -> str | None:
        """See `labkit.serving.load.Target.lost`. Any answer but a gateway's complaint will do."""
        try:
            self._client.models.with_raw_response.list(timeout=KNOCK)
        except Exception as error:
            if getattr(error, "status_code", None) in (None, *GONE):
                return f"The server at {self.name} does not answer any more ({_reason(error)})."
        return None


def seconds_to_wait(hint: str | None, attempt: int) -> float:
    """Return how long to wait after refusal number ``attempt``, by the server's hint if it helps.

    >>> [seconds_to_wait(hint, 1) for hint in ("0.5", "3600", None, "soon")]
    [0.5, 20.0, 2.0, 2.0]
    """
    try:
        seconds = float(hint or "nan")
    except ValueError:
        seconds = math.nan
    return min(seconds if seconds >= 0 else 2.0**attempt, LONGEST_WAIT)


def read_events(chunks: Iterable[bytes]) -> Iterator[Said]:
    """Read the server-sent events of a streamed chat or completion.

    ``[DONE]`` ends the answer if there was one, even where no event had a ``finish_reason``.
    Raises `LabkitError` for an error that the server reports, and for an event that is not JSON.

    >>> events = [b'data: {"choices": [{"delta": {"reasoning_content": "Hm"}}]}', b"data: [DONE]"]
    >>> list(read_events(event + bytes([10]) for event in events))
    [Said(text='Hm', tokens=None, last=False), Said(text='', tokens=None, last=True)]
    """
    answered = False
    for line in _lines(chunks):
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            yield Said(last=answered)
            return
        if not (line.startswith(b"data:") and data) and not line.startswith(b"{"):
            continue  # a comment, an empty line, or another field of the event
        try:
            said = _said(json.loads(data))
        except LabkitError:
            raise
        except (ValueError, RecursionError):
            raise LabkitError(f"it sent {_printable(repr(data[:80]))}, which is no event") from None
        answered = answered or bool(said.text or said.tokens)
        yield said


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines of a stream. Only a line feed ends one: JSON may hold U+2028 and others."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip(b"\r").removeprefix(b"\xef\xbb\xbf") for line in lines)
    yield rest


def _said(event: Any) -> Said:
    """Return what an event holds, by the names that servers have for it; the rest is ignored."""
    if not isinstance(event, dict):
        raise ValueError("an event is an object")
    if event.get("error"):
        told = event["error"]
        told = told.get("message") or told if isinstance(told, dict) else told
        raise LabkitError(told if isinstance(told, str) else json.dumps(told))
    choices, usage = event.get("choices"), event.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    thought = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
    text = thought + _text(delta.get("content")) + _text(choice.get("text"))
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    counted = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0
    return Said(text, tokens if counted else None, bool(choice.get("finish_reason")))


def _text(content: Any) -> str:
    """Return the text of a string, of a part of an answer, or of a list of parts."""
    if isinstance(content, dict):
        content = content.get("text") or content.get("thinking")
    if isinstance(content, list):
        return "".join(map(_text, content))
    return content if isinstance(content, str) else ""


def _reason(error: Exception) -> str:
    """Return what an error comes down to, in half a line."""
    cause = error.__cause__ or error
    said = " ".join(str(cause).split())[:160].rstrip(". ")
    return _printable(said) or type(cause).__name__


def _printable(text: str) -> str:
    """Return the text without the lone surrogates that JSON may hold and no terminal prints."""
    return text.encode("utf-8", "replace").decode("utf-8")
