"""What passes between tests and kernel: plain data comes through as it is, nothing else at all."""

from __future__ import annotations

import math
import pickle
import socket
import struct
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.grading.wire import (
    MOST_BYTES,
    ClosedError,
    LateError,
    Line,
    WireError,
    pack,
    unpack,
)


def refuse(_function):
    raise WireError("no functions here")


def there_and_back(value):
    return unpack(pack(value, refuse), refuse)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_values_come_through_as_they_are(value):
    assert there_and_back(value) == value


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)])
def test_arrays_come_through_bit_for_bit(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, size=shape).astype(dtype)
    found = there_and_back([array, {"again": array}])
    for one in (found[0], found[1]["again"]):
        assert one.dtype == array.dtype
        assert one.shape == shape
        assert (one == array).all()


def test_tensors_numpy_numbers_and_odd_floats_come_through():
    assert there_and_back(torch.tensor([[1.5, 2.0]])).tolist() == [[1.5, 2.0]]
    assert there_and_back(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).sum() == 2
    assert there_and_back([np.int64(3), np.float32(0.5), np.str_("a")]) == [3, 0.5, "a"]
    assert math.isnan(there_and_back(float("nan")))
    assert there_and_back(float("-inf")) == -math.inf
    assert there_and_back(...) is ...
    assert there_and_back({3, 4}) == {3, 4}
    assert there_and_back(range(3)) == [0, 1, 2]
    assert there_and_back(np.ones((3, 4))[:, ::2].T).shape == (2, 3)


def test_a_generator_goes_on_where_it_was():
    ours = np.random.default_rng(5)
    ours.random(3)
    theirs = there_and_back(ours)
    assert theirs.random(4).tolist() == ours.random(4).tolist()


def endless():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [object(), {1: "a"}, b"bytes", np.array([object()]), np.array(["text"]), 1j, endless()],
)
def test_what_is_no_plain_data_is_refused_where_it_is_sent(value):
    with pytest.raises(WireError, match="it gives"):
        pack(value, refuse)


class Cruel:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def message(head: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("!I", len(head)) + head + rest


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"abc",
        message(b"{"),
        message(b'{"a": 1}'),
        message(b'["spell", 1]'),
        message(b'["array", "float64", [4]]', b"12345678"),
        message(b'["array", "object", [1]]', b"12345678"),
        message(b'["array", "float64", [-1]]', b"12345678"),
        message(b'["generator", {"state": 3}]'),
        message(b'["list"]'),
        message(b"[" * 5000 + b"]" * 5000),
        message(b'["list", [' * 60 + b"1" + b"]]" * 60),
        pickle.dumps(Cruel()),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_runs_nothing(given):
    with pytest.raises(WireError):
        unpack(given, refuse)


def test_functions_stay_where_they_are():
    names = []

    def name(function):
        names.append(function)
        return 7

    assert unpack(pack([len], name), lambda name: ("called", name)) == [("called", 7)]
    assert names == [len]


@pytest.fixture
def lines():
    ours, theirs = socket.socketpair()
    if ours.family != socket.AF_INET:
        ours.close(), theirs.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    yield Line(ours), Line(theirs)
    ours.close()
    theirs.close()


def test_a_line_carries_whole_messages(lines):
    ours, theirs = lines
    long = bytes(range(256)) * 20_000
    threading.Thread(target=lambda: [ours.send(b"short"), ours.send(b""), ours.send(long)]).start()
    assert [theirs.receive(), theirs.receive(), theirs.receive()] == [b"short", b"", long]


def test_nobody_waits_longer_than_the_deadline(lines):
    with pytest.raises(LateError):
        lines[0].receive(time.monotonic() + 0.05)


def test_the_end_of_the_other_side_is_noticed(lines):
    lines[1].close()
    with pytest.raises(ClosedError):
        lines[0].receive()


def test_a_message_that_claims_to_be_endless_is_not_read(lines):
    ours, theirs = lines
    theirs._connection.sendall(struct.pack("!Q", MOST_BYTES + 1))
    with pytest.raises(WireError, match="too much"):
        ours.receive()
