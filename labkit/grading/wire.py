"""What passes between the tests and a student's kernel: plain data, and nothing that can run.

A message is a list of values: None, true and false, numbers, texts, lists, tuples, dictionaries
with texts as keys, numpy's arrays and torch's tensors, numpy's generators, and functions, which
stay where they are and are called from afar. It is written as JSON with the arrays' bytes behind
it. Reading makes such values and no others, no matter who wrote it; pickle, which can run
anything, is not used.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST_BYTES = 1 << 28
"""The longest message that is read."""
DEEPEST = 50
"""How deep lists may be nested."""
KINDS = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64",
}  # fmt: skip
"""The number formats of arrays that are passed on."""
COLLECTIONS = {list: "list", range: "list", tuple: "tuple", set: "set", frozenset: "set"}
"""The types that are written as a list of their items, and the kind that is read again."""

Functions = Callable[[Callable[..., Any]], Any]
"""From a function to the name under which the other side may call it."""
Callables = Callable[[Any], Callable[..., Any]]
"""From such a name to something that can be called here."""


class WireError(Exception):
    """A value that cannot be sent, or a message that cannot be read; one sentence."""


class ClosedError(WireError):
    """The other side is gone."""


class LateError(WireError):
    """The other side has not answered in time."""


def pack(value: object, functions: Functions) -> bytes:
    """Return the value as a message; raises `WireError` for anything but plain data.

    ``functions`` gives a name to each function in it.
    """
    writer = _Writer(functions)
    try:
        head = json.dumps(writer.plain(value)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"it gives something that cannot be passed on ({error})") from None
    return b"".join([struct.pack("!I", len(head)), head, *writer.buffers])


def unpack(message: bytes, callables: Callables) -> Any:
    """Return the value of a message; raises `WireError` if it cannot be read.

    ``callables`` makes of a function's name something to call.
    """
    try:
        (size,) = struct.unpack_from("!I", message)
        head = json.loads(message[4 : 4 + size])
        return _Reader(memoryview(message)[4 + size :], callables).value(head)
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"a message makes no sense ({type(error).__name__})") from None


class _Writer:
    """Makes JSON of values: plain ones as they are, others as lists that begin with their kind."""

    def __init__(self, functions: Functions) -> None:
        self.buffers: list[bytes] = []
        self._functions = functions

    def plain(self, value: Any, depth: int = 1) -> Any:
        """Return JSON for a value; the bytes of arrays are added to ``buffers``."""
        value = value.item() if isinstance(value, np.generic) else value
        kind: Any = type(value)
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return value
        if depth > DEEPEST:
            raise WireError("it gives lists within lists without end")
        torch = sys.modules.get("torch")
        made: list[Any]
        if kind in COLLECTIONS:
            made = [COLLECTIONS[kind], [self.plain(item, depth + 1) for item in value]]
        elif kind is dict:
            if any(type(key) is not str for key in value):
                raise WireError("it gives a dictionary whose keys are not all texts")
            made = ["dict", {key: self.plain(item, depth + 1) for key, item in value.items()}]
        elif value is ...:
            made = ["..."]
        elif kind is float:
            made = ["float", repr(value)]
        elif kind is np.random.Generator:
            made = ["generator", value.bit_generator.state]
        elif isinstance(value, np.ndarray):
            made = ["array", *self._array(value)]
        elif torch is not None and isinstance(value, torch.Tensor):
            plain = value.detach().cpu()
            plain = plain.float() if plain.dtype == torch.bfloat16 else plain
            made = ["tensor", *self._array(plain.numpy())]
        elif callable(value):
            made = ["function", self._functions(value)]
        else:
            raise WireError(
                f"it gives a {kind.__name__}, and plain numbers, texts or lists are needed"
            )
        return made

    def _array(self, value: np.ndarray) -> tuple[str, tuple[int, ...]]:
        array = np.asarray(value)  # of a subclass too
        if array.dtype.name not in KINDS:
            raise WireError(f"it gives an array of {array.dtype.name}, and numbers are needed")
        if array.nbytes > MOST_BYTES:
            raise WireError(f"it gives an array of {array.nbytes:,} bytes, which is too much")
        self.buffers.append(array.tobytes())
        return array.dtype.name, array.shape


class _Reader:
    """Reads values out of JSON and the bytes behind it, in the order in which they were written."""

    def __init__(self, rest: memoryview, callables: Callables) -> None:
        self._rest = rest
        self._depth = 0
        self._kinds: dict[str, Callable[..., Any]] = {
            "list": lambda items: [self.value(item) for item in items],
            "tuple": lambda items: tuple(self.value(item) for item in items),
            "set": lambda items: {self.value(item) for item in items},
            "dict": lambda items: {str(key): self.value(item) for key, item in items.items()},
            "array": self._array,
            "tensor": self._tensor,
            "float": float,
            "generator": _generator,
            "function": callables,
            "...": lambda: ...,
        }

    def value(self, given: Any) -> Any:
        """Return the value that ``given`` stands for; raises whatever it stumbles over."""
        if not isinstance(given, (list, dict)):
            return given
        self._depth += 1
        if isinstance(given, dict) or self._depth > DEEPEST:
            raise WireError("a message makes no sense")
        made = self._kinds[given[0]](*given[1:])
        self._depth -= 1
        return made

    def _array(self, dtype: str, shape: list[int]) -> Any:
        if dtype not in KINDS or any(type(n) is not int or n < 0 for n in shape):
            raise WireError("a message holds a strange array")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        array = np.frombuffer(self._rest[:size], dtype).reshape(shape).copy()
        self._rest = self._rest[size:]
        return array

    def _tensor(self, dtype: str, shape: list[int]) -> Any:
        import torch

        return torch.from_numpy(self._array(dtype, shape))


def _generator(state: dict[str, Any]) -> np.random.Generator:
    made = np.random.default_rng()
    made.bit_generator.state = state
    return made


def generators(args: Sequence[Any]) -> list[np.random.Generator]:
    """Return the generators among the arguments of a call, which the call may move."""
    return [one for one in args if type(one) is np.random.Generator]


def bring_up_to_date(args: Sequence[Any], moved: Sequence[Any]) -> None:
    """Move the generators among ``args`` to the state in which the other side left its copies."""
    ours = generators(args)
    if len(ours) != len(moved) or generators(moved) != list(moved):
        raise WireError("the other side's answer makes no sense")
    for generator, there in zip(ours, moved, strict=True):
        generator.bit_generator.state = there.bit_generator.state


class Line:
    """One end of a connection that carries whole messages."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def send(self, message: bytes) -> None:
        """Send a message; raises `ClosedError` if the other side is gone."""
        try:
            self._connection.settimeout(None)
            self._connection.sendall(struct.pack("!Q", len(message)) + message)
        except OSError:
            raise ClosedError("the other side is gone") from None

    def receive(self, deadline: float | None = None) -> bytes:
        """Return the next message; raises `ClosedError`, or `LateError` at ``deadline``."""
        (size,) = struct.unpack("!Q", self._read(8, deadline))
        if size > MOST_BYTES:
            raise WireError(f"it gives {size:,} bytes, which is too much")
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float | None) -> bytes:
        read = bytearray()
        while len(read) < size:
            left = None if deadline is None else deadline - time.monotonic()
            try:
                if left is not None and left <= 0:
                    raise TimeoutError
                self._connection.settimeout(left)
                part = self._connection.recv(min(size - len(read), 1 << 20))
            except TimeoutError:
                raise LateError("no answer in time") from None
            except OSError:
                part = b""
            if not part:
                raise ClosedError("the other side is gone")
            read += part
        return bytes(read)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
