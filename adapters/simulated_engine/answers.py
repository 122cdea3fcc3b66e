"""The bodies of chats' and completions' answers, key by key in vLLM's order: whole answers and the chunks of streams.

Three rules about usage are easily missed. A whole answer always carries it, unset parts as null. A stream
carries it only on a last chunk without choices, when asked (`stream_options.include_usage`), and leaves
unset parts out. With `continuous_usage_stats` each chunk also carries the running figures of its own
choice, never of the others, and never cached tokens. Chat and completions differ in small things (null
details on chat's chunks, `created_cache_tokens`): the recordings say where.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapters.simulated_engine.asked import Sequence
from adapters.simulated_engine.dialect import DONE, Answering, Body, event, words
from adapters.simulated_engine.generation import Step
from adapters.simulated_engine.lines import VLLM_VERSION

FINGERPRINT = f"vllm-{VLLM_VERSION}-simulated"
CACHE_BLOCK_TOKENS = 128


class OpenAi:
    """The dialect of chats and completions."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def whole(self, reported_tokens: int) -> Body:
        return whole_answer(self._answering, reported_tokens)

    def opened(self) -> Iterator[bytes]:
        return iter(())

    def started(self) -> Iterator[bytes]:
        if self._answering.asked.endpoint == "chat":
            for index in range(len(self._answering.asked.sequences)):
                yield event(role_chunk(self._answering, index))

    def told(self, step: Step) -> Iterator[bytes]:
        yield event(token_chunk(self._answering, step))

    def ended(self, reported_tokens: int) -> Iterator[bytes]:
        answering = self._answering
        if answering.asked.include_usage and answering.options.fault != "drop-usage":
            yield event(usage_chunk(answering, reported_tokens))
        yield DONE


def whole_answer(answering: Answering, completion_tokens: int) -> Body:
    """The body of an answer that is not streamed; `completion_tokens` is what its usage reports."""
    asked = answering.asked
    chat = asked.endpoint == "chat"
    usage = usage_of(answering, completion_tokens, sum(each.reasoning_tokens for each in asked.sequences))
    usage.setdefault("prompt_tokens_details", None)
    usage["completion_tokens_details"] = usage.pop("completion_tokens_details", None)
    if details := usage["prompt_tokens_details"]:
        details.setdefault("created_cache_tokens", None)
        details["multimodal_tokens"] = None
    body: Body = {
        "id": answering.id,
        "object": "chat.completion" if chat else "text_completion",
        "created": answering.created,
        "model": asked.served.shown,
        "choices": [
            _chat_choice(answering, index) if chat else _completion_choice(answering, index)
            for index in range(len(asked.sequences))
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": None if answering.options.fault == "drop-usage" else usage,
    }
    if chat:
        body |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return body | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}


def role_chunk(answering: Answering, index: int) -> Body:
    """The first chunk of a chat's choice: the role, no token yet."""
    delta = {"role": "assistant", "content": ""}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    body = _chunk(answering, [choice])
    if answering.asked.continuous_usage:
        body["usage"] = running_usage(answering, index, 0, 0)
    return body | {"prompt_token_ids": None, "prompt_text": None}


def token_chunk(answering: Answering, step: Step) -> Body:
    """Some tokens of one choice; the last ones say why it ended."""
    asked = answering.asked
    index, before, last = step.index, step.before, step.last
    sequence = asked.sequences[index]
    text = words(before, before + step.tokens, sequence)
    finish = sequence.finish if last else None
    choice: Body
    if asked.endpoint == "chat":
        reasoning = asked.reasons and before < sequence.reasoning_tokens
        delta = {"reasoning": text} if reasoning else {"content": text}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        if last:
            choice["stop_reason"] = None
    else:
        if before == 0 and asked.echoes is not None:
            text = asked.echoes[index // asked.n] + text
        choice = {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": finish,
            "stop_reason": None,
        }
        choice["prompt_token_ids"] = None
    choice["token_ids"] = None
    body = _chunk(answering, [choice])
    if last and not asked.include_usage:
        body["system_fingerprint"] = FINGERPRINT
    if asked.continuous_usage:
        done = before + step.tokens
        body["usage"] = running_usage(answering, index, done, min(done, sequence.reasoning_tokens))
    return body


def usage_chunk(answering: Answering, completion_tokens: int) -> Body:
    """The last chunk of a stream that was asked for usage: no choices, what is unset left out."""
    reasoning = sum(each.reasoning_tokens for each in answering.asked.sequences)
    body = _chunk(answering, [])
    body["usage"] = usage_of(answering, completion_tokens, reasoning)
    body["system_fingerprint"] = FINGERPRINT
    return body


def _chunk(answering: Answering, choices: list[Body]) -> Body:
    return {
        "id": answering.id,
        "object": "chat.completion.chunk" if answering.asked.endpoint == "chat" else "text_completion",
        "created": answering.created,
        "model": answering.asked.served.shown,
        "choices": choices,
    }


def usage_of(answering: Answering, completion_tokens: int, reasoning_tokens: int) -> Body:
    """Usage of the whole request: each prompt once, all choices; only what is set."""
    asked = answering.asked
    prompts = asked.sequences[:: asked.n]
    prompt_tokens = sum(each.prompt_tokens for each in prompts)
    usage: Body = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    if answering.options.prompt_tokens_details:
        # Of several prompts vLLM reports one: the first that it heard of in streams, the last in whole answers.
        sequence = prompts[0] if asked.stream else prompts[-1]
        details: Body = {"cached_tokens": sequence.cached_tokens}
        if asked.endpoint != "completions":
            details["created_cache_tokens"] = cache_tokens_made(sequence)
        usage["prompt_tokens_details"] = details
    if asked.reasons:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return usage


def cache_tokens_made(sequence: Sequence) -> int:
    """The prompt's tokens that the prefix cache has now and had not before: whole blocks."""
    blocks = sequence.prompt_tokens // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
    return max(0, blocks - sequence.cached_tokens)


def running_usage(answering: Answering, index: int, completion_tokens: int, reasoning_tokens: int) -> Body:
    asked = answering.asked
    prompt_tokens = asked.sequences[index].prompt_tokens
    usage: Body = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    if asked.endpoint != "completions":
        details = {"reasoning_tokens": reasoning_tokens} if asked.reasons else None
        usage["completion_tokens_details"] = details
    return usage


def _chat_choice(answering: Answering, index: int) -> Body:
    asked = answering.asked
    sequence = asked.sequences[index]
    reasoning = words(0, sequence.reasoning_tokens, sequence) if asked.reasons else None
    content = words(sequence.reasoning_tokens, sequence.completion_tokens, sequence)
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": None if reasoning and not content else content,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": reasoning,
        },
        "logprobs": None,
        "finish_reason": sequence.finish,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }


def _completion_choice(answering: Answering, index: int) -> Body:
    asked = answering.asked
    sequence = asked.sequences[index]
    echo = asked.echoes[index // asked.n] if asked.echoes is not None else ""
    return {
        "index": index,
        "text": echo + words(0, sequence.completion_tokens, sequence),
        "logprobs": None,
        "finish_reason": sequence.finish,
        "stop_reason": None,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }
