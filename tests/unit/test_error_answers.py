"""Errors that count the members of a body: the client reads its own number."""

from __future__ import annotations

import pytest
from exchange_wire import Wire, sized

from metering.error_answers import without_added

FORM = '{"error":{"message":"%s","type":"Bad Request","param":"body.input","code":400}}'
MISSING = "  {'type': 'missing', 'loc': 'body.input', 'msg': 'Field required', 'input': '<dict of %d items>'}"
OTHERS = [
    "  {'type': 'missing', 'loc': 'body.messages.0.role', 'msg': 'Field required', 'input': '<dict of 3 items>'}",
    "  {'type': 'string_type', 'loc': 'body.model', 'msg': 'Input should be a string', 'input': '<dict of 3 items>'}",
    "  {'type': 'missing', 'loc': 'body.input', 'msg': 'Field required', 'input': '<list of 3 items>'}",
    "  {'type': 'int_type', 'loc': 'body.n', 'msg': 'x', 'input': 1}\\n<dict of 3 items>",
]
ASK = {"model": "tiny"}


def error(*lines: str) -> bytes:
    return (FORM % "\\n".join(["1 validation error:", *lines])).encode()


@pytest.mark.parametrize(("counted", "shown"), [(3, 2), (10, 9), (100, 99), (0, 0)])
def test_the_added_member_is_not_counted(counted: int, shown: int) -> None:
    assert without_added(error(MISSING % counted), 1) == error(MISSING % shown)
    of_the_body = (
        "  {'type': 'value_error', 'loc': 'body', 'msg': 'Value error, x', 'input': '<dict of %d items>'}"
    )
    assert without_added(error(of_the_body % counted), 1) == error(of_the_body % shown)


@pytest.mark.parametrize("line", OTHERS)
def test_what_counts_something_else_stays(line: str) -> None:
    assert without_added(error(line, MISSING % 3), 1) == error(line, MISSING % 2)


@pytest.mark.parametrize("keep_alive", ["keep-alive", "close"])
def test_the_client_reads_the_error_that_it_would_read_without_a_sidecar(keep_alive: str) -> None:
    told, plain = (sized(error(MISSING % count), status="400 Bad Request") for count in (10, 9))
    for at in range(0, len(told), 7):
        wire = (
            Wire(ASK, path="/v1/responses", head=f"Connection: {keep_alive}\r\n")
            .engine(told[:at])
            .engine(told[at:])
        )
        assert wire.seen.body == error(MISSING % 9)
        assert wire.sent.replace(b"connection: close\r\n", b"") == plain
        assert (wire.event.outcome, wire.event.reason) == ("failed", "engine_error")
        assert wire.steps[-1].over


def test_a_client_of_http_1_0_reads_it_too() -> None:
    wire = Wire(ASK, path="/v1/responses", version="1.0")
    wire.engine(sized(error(MISSING % 10), status="400 Bad Request"))
    assert wire.sent.endswith(error(MISSING % 9))
    assert not wire.steps[-1].keep_client


def test_what_the_client_wrote_itself_is_counted_as_it_is() -> None:
    told = sized(error(MISSING % 3), status="400 Bad Request")
    assert Wire(ASK | {"request_id": "mine"}, path="/v1/responses").engine(told).sent == told
    assert Wire(ASK, path="/v1/messages").engine(told).sent == told
    streamed = sized(error(MISSING % 2), status="400 Bad Request")
    assert Wire(ASK | {"stream": True}).engine(told).sent == streamed


@pytest.mark.parametrize(("end", "status"), [("lost", 502), ("stop", 503)])
def test_an_error_that_is_cut_off_is_told_as_nothing_had_come(end: str, status: int) -> None:
    wire = Wire(ASK, path="/v1/responses").engine(sized(error(MISSING % 3), status="400 Bad Request")[:-5])
    assert wire.sent == b""
    getattr(wire, end)()
    assert wire.seen.status == status
    assert wire.steps[-1].over


def test_a_client_that_leaves_before_the_error_is_whole_leaves_one_event() -> None:
    wire = (
        Wire(ASK, path="/v1/responses")
        .engine(sized(error(MISSING % 3), status="400 Bad Request")[:-5])
        .gone()
    )
    assert (wire.sent, wire.event.outcome) == (b"", "aborted")


def test_a_long_error_passes_as_it_comes() -> None:
    told = sized(error(MISSING % 3, "x" * 70_000), status="400 Bad Request")
    assert Wire(ASK, path="/v1/responses").engine(told).sent == told
