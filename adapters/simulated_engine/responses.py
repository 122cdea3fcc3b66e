"""The dialect of `/v1/responses`: whole bodies and the named events of streams, key by key in vLLM's order.

Usage is in a finished body only, and so in a stream's last event; a background request's first answer has none.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.simulated_engine.answers import cache_tokens_made
from adapters.simulated_engine.dialect import Answering, Body, named_event, words
from adapters.simulated_engine.fields import number
from adapters.simulated_engine.generation import Step
from adapters.simulated_engine.responses_asked import AskedResponse


class OpenAiResponses:
    """The dialect of responses. Its stream has one item open at a time: reasoning, then a message."""

    def __init__(
        self, answering: Answering, response: AskedResponse, keep: Callable[[Body], None] | None
    ) -> None:
        """`keep` is given the body that the answer ends with, where it is to be kept."""
        self._keep = keep
        self._answering = answering
        self._response = response
        self._one = answering.asked.sequences[0]
        self._number = 0
        self._items: list[Body] = []
        self._open: _Item | None = None

    def whole(self, reported_tokens: int) -> Body:
        one = self._one
        output: list[Body] = []
        thought = words(0, one.reasoning_tokens, one) if self._answering.asked.reasons else ""
        if thought:
            output.append(_Item("reasoning", 0, thought).done())
        said = words(one.reasoning_tokens, one.completion_tokens, one)
        if said or not thought:
            output.append(_Item("message", 0, said).done())
        return self._ended_body(output, reported_tokens)

    def body(self, status: str, output: list[Body] | None = None, usage: Body | None = None) -> Body:
        """The response's body in some status."""
        given = self._response.echoed
        asked = self._answering.asked
        parallel = given.get("parallel_tool_calls")
        tools = given.get("tools") or []
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._response.id,
            "created_at": self._answering.created,
            "incomplete_details": incomplete,
            "instructions": given.get("instructions"),
            "metadata": given.get("metadata"),
            "model": asked.served.shown,
            "object": "response",
            "output": output or [],
            "parallel_tool_calls": True if parallel is None else parallel,
            "temperature": _float(given, "temperature", 1.0),
            "tool_choice": given.get("tool_choice", "auto") if tools else "none",
            "tools": tools,
            "top_p": _float(given, "top_p", 1.0),
            "background": self._response.background,
            "max_output_tokens": asked.max_tokens,
            "max_tool_calls": given.get("max_tool_calls"),
            "previous_response_id": self._response.previous,
            "prompt": None,
            "reasoning": given.get("reasoning"),
            "service_tier": given.get("service_tier", "auto"),
            "status": status,
            "text": given.get("text"),
            "top_logprobs": None,
            "truncation": given.get("truncation", "disabled"),
            "usage": usage,
            "user": given.get("user"),
            "presence_penalty": _float(given, "presence_penalty", 0.0),
            "frequency_penalty": _float(given, "frequency_penalty", 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def opened(self) -> Iterator[bytes]:
        for kind in ("created", "in_progress"):
            yield self._numbered({"response": self.body("in_progress")}, f"response.{kind}")

    def started(self) -> Iterator[bytes]:
        return iter(())

    def told(self, step: Step) -> Iterator[bytes]:
        said = words(step.before, step.before + step.tokens, self._one)
        if not said:
            return
        thinks = self._answering.asked.reasons and step.before < self._one.reasoning_tokens
        kind = "reasoning" if thinks else "message"
        if self._open is None or self._open.kind != kind:
            yield from self._close_item()
            item = self._open = _Item(kind, len(self._items))
            added = {"item": item.begun(), "output_index": item.index}
            yield self._numbered(added, "response.output_item.added")
            part = {"content_index": 0, **item.place, "part": item.part(begun=True)}
            yield self._numbered(part, "response.content_part.added")
        self._open.text += said
        yield self._numbered(self._open.delta(said), f"response.{self._open.event}.delta")

    def ended(self, reported_tokens: int) -> Iterator[bytes]:
        yield from self._close_item()
        body = self._ended_body(self._items, reported_tokens)
        yield self._numbered({"response": body}, "response.completed")

    def _close_item(self) -> Iterator[bytes]:
        item, self._open = self._open, None
        if item is None:
            return
        yield self._numbered(item.text_done(), f"response.{item.event}.done")
        part = {"content_index": 0, **item.place, "part": item.part()}
        yield self._numbered(part, "response.content_part.done")
        self._items.append(item.done())
        done = {"item": item.done(), "output_index": item.index}
        yield self._numbered(done, "response.output_item.done")

    def _numbered(self, said: Body, kind: str) -> bytes:
        number_, self._number = self._number, self._number + 1
        return named_event(_in_order({**said, "sequence_number": number_, "type": kind}))

    def _ended_body(self, output: list[Body], reported_tokens: int) -> Body:
        one, options = self._one, self._answering.options
        usage: Body | None = {
            "input_tokens": one.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": one.cached_tokens if options.prompt_tokens_details else 0,
                "cache_write_tokens": cache_tokens_made(one) if options.prompt_tokens_details else 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": reported_tokens,
            "output_tokens_details": {
                "reasoning_tokens": one.reasoning_tokens,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": one.prompt_tokens + reported_tokens,
        }
        if options.fault == "drop-usage":
            usage = None
        body = self.body("incomplete" if one.finish == "length" else "completed", output, usage)
        if self._keep is not None:
            self._keep(body)
        return body


@dataclass(slots=True)
class _Item:
    """One item of a response's output, as it grows."""

    kind: str
    index: int
    text: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        self.id = f"{'rs' if self.kind == 'reasoning' else 'msg'}_{secrets.token_hex(8)}"

    @property
    def event(self) -> str:
        return "reasoning_text" if self.kind == "reasoning" else "output_text"

    @property
    def place(self) -> Body:
        return {"item_id": self.id, "output_index": self.index}

    def begun(self) -> Body:
        return self._item("in_progress", None if self.kind == "reasoning" else [])

    def done(self) -> Body:
        return self._item("completed", [self.part()] if self.text else [])

    def part(self, *, begun: bool = False) -> Body:
        if self.kind == "reasoning":
            return {"text": self.text, "type": "reasoning_text"}
        logprobs: list[Body] | None = [] if begun else None
        return {"annotations": [], "text": self.text, "type": "output_text", "logprobs": logprobs}

    def delta(self, said: str) -> Body:
        return {"content_index": 0, "delta": said, **self._told()}

    def text_done(self) -> Body:
        return {"content_index": 0, **self._told(), "text": self.text}

    def _told(self) -> Body:
        logprobs: Body = {} if self.kind == "reasoning" else {"logprobs": []}
        return {"item_id": self.id, **logprobs, "output_index": self.index}

    def _item(self, status: str, content: list[Body] | None) -> Body:
        if self.kind == "reasoning":
            shown = {"id": self.id, "summary": [], "type": "reasoning", "content": content}
            return shown | {"encrypted_content": None, "status": status}
        shown = {"id": self.id, "content": content, "role": "assistant", "status": status}
        return shown | {"type": "message", "phase": None}


def _in_order(said: Body) -> Body:
    """`text` stands between the number and the type, where there is one."""
    if "text" in said:
        said["text"], said["type"] = said.pop("text"), said.pop("type")
    return said


def _float(given: Mapping[str, Any], field: str, default: float) -> float:
    value = number(given, field)
    return default if value is None else value
