"""What a load can be put on: the engine in this process, or a server that speaks OpenAI's protocol.

The protocol comes from the `openai` client library, which labkit only needs here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from labkit.errors import LabkitError
from labkit.serving.engine import ServingEngine
from labkit.serving.load import Answer

PATIENCE = 120.0
"""Seconds without a word from a server after which a request counts as failed."""

KNOCK = 5.0
"""Seconds that a server has to say that it is still there."""


class EngineTarget:
    """The `ServingEngine` of this process. ``encode`` makes token ids of a prompt."""

    def __init__(self, engine: ServingEngine, encode: Callable[[str], Sequence[int]]) -> None:
        self.name = "this process"
        self.engine, self.encode = engine, encode

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        """See `labkit.serving.load.Target.ask`."""
        ids = self.encode(prompt)
        sent = time.perf_counter()
        arrivals: list[float] = []
        output: list[int] = []
        try:
            for piece in self.engine.submit(ids, max_new_tokens):
                arrivals.append(time.perf_counter())
                output += piece.tokens
        except LabkitError as error:
            return Answer(prompt, sent, tuple(arrivals), len(output), tuple(output), str(error))
        return Answer(prompt, sent, tuple(arrivals), len(output), tuple(output))

    def lost(self) -> str | None:
        """See `labkit.serving.load.Target.lost`."""
        return str(self.engine.failure) if self.engine.failure else None


@dataclass(frozen=True)
class Said:
    """What an event of a stream held: new text, the tokens so far, whether it was the last."""

    text: str
    tokens: int | None
    last: bool


class RemoteServer:
    """A server at ``url`` that speaks OpenAI's protocol, streaming; greedy.

    ``model`` is the model to ask for, by default the first that the server lists. Which of the
    protocol's two ways the server can do, chat or plain completion, is found out by a first
    request. The environment's ``OPENAI_API_KEY`` is sent where there is one. Raises `LabkitError`
    where nothing at ``url`` answers so.
    """

    def __init__(self, url: str, model: str | None = None, patience: float = PATIENCE) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise LabkitError(
                f"{url!r} is not a server's address: give one such as http://localhost:8000/v1."
            )
        openai = _client_library()
        self.name = url
        self._failures = (openai.OpenAIError, ValueError)  # ValueError: an event that is not JSON
        self._client = openai.OpenAI(
            base_url=url if parts.path.strip("/") else f"{url.rstrip('/')}/v1",
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=2,  # a server may drop the connection on which it refused the first way
            timeout=patience,
        )
        self.model = model or self._first_model()
        self._events = self._find_endpoint()
        self._client = self._client.with_options(max_retries=0)  # whatever fails now is counted

    def _first_model(self) -> str:
        try:
            models = self._client.models.list(timeout=KNOCK).data
        except self._failures as error:
            raise LabkitError(
                f"No server with OpenAI's protocol answers at {self.name} ({_reason(error)}): "
                "start one, or give another address."
            ) from None
        if not models:
            raise LabkitError(f"The server at {self.name} lists no model: name one.")
        return str(models[0].id)

    def _find_endpoint(self) -> Callable[[str, int], Iterator[Said]]:
        """The first way of asking that the server answers with some text."""
        refusals = []
        for way in (self._chat, self._completion):
            try:
                if any(said.text or said.tokens for said in way("Hello", 2)):
                    return way
                refusals.append("an empty answer")
            except self._failures as error:
                refusals.append(_reason(error))
        chat, completion = refusals
        raise LabkitError(
            f"The server at {self.name} answers neither chat ({chat}) nor plain completion "
            f"({completion}) with the model {self.model!r}: name another model."
        )

    def _chat(self, prompt: str, max_new_tokens: int) -> Iterator[Said]:
        stream = self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_new_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        with stream:
            for chunk in stream:
                delta = chunk.choices[0].delta if chunk.choices else None
                yield _said(chunk, delta.content if delta else None)

    def _completion(self, prompt: str, max_new_tokens: int) -> Iterator[Said]:
        stream = self._client.completions.create(
            model=self.model,
            prompt=prompt,
            max_tokens=max_new_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        with stream:
            for chunk in stream:
                yield _said(chunk, chunk.choices[0].text if chunk.choices else None)

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        """See `labkit.serving.load.Target.ask`.

        Tokens are what the server says that it counted; where it says nothing, each output
        counts as one.
        """
        sent = time.perf_counter()
        arrivals: list[float] = []
        text, tokens, whole = "", None, False
        error = None
        try:
            for said in self._events(prompt, max_new_tokens):
                now = time.perf_counter()
                if said.text:
                    arrivals.append(now)
                    text += said.text
                if said.last and not arrivals:  # tokens without text, such as an end token alone
                    arrivals.append(now)
                tokens = said.tokens or tokens
                whole = whole or said.last
        except self._failures as failure:
            error = f"The server failed midway ({_reason(failure)})."
        if error is None and not whole:
            error = "The server ended the stream before the answer was whole."
        return Answer(prompt, sent, tuple(arrivals), tokens or len(arrivals), text, error)

    def lost(self) -> str | None:
        """See `labkit.serving.load.Target.lost`."""
        try:
            self._client.models.list(timeout=KNOCK)
        except self._failures as error:
            return f"The server at {self.name} does not answer any more ({_reason(error)})."
        return None


def _said(chunk: Any, text: str | None) -> Said:
    """An event of either way of asking."""
    last = bool(chunk.choices and chunk.choices[0].finish_reason)
    usage = getattr(chunk, "usage", None)
    return Said(text or "", usage.completion_tokens if usage else None, last)


def _reason(error: Exception) -> str:
    """What a client library's error comes down to, in half a line."""
    cause = error.__cause__ or error
    said = " ".join(str(cause).split())[:160].rstrip(". ")
    return said or type(cause).__name__


def _client_library() -> Any:
    try:
        import openai
    except ImportError:
        raise LabkitError(
            "Asking a server needs the package openai, which is not installed: run "
            "pip install 'labkit[serving]'."
        ) from None
    return openai
