"""The lines: what the witness writes, byte for byte. Format version 1.

Every process that has something to say writes files of its own into the folder that `TALLY_ENGINE_LINES` names:

    <start, µs since 1970, 16 digits>-<pid>-<role>-<part, 6 digits>.jsonl      role: scheduler | frontend

One process's files are a stream. It goes on in the next part when one has grown beyond `TALLY_ENGINE_LINES_BYTES`
(64 MiB). A line is one JSON object in ASCII without blanks, and a newline, written by a single write(2) at the end of
the file: a killed process loses none that it had written, and at most the last line of a file is torn (by a power cut,
or a full disk). fsync follows within 50 ms. Every line begins with

    v       1, the format version
    n       0, 1, 2, … through the parts of a stream; a number that is missing is a line that could not be written
    at_us   when, in µs since 1970 (UTC; vLLM's machine's clock)
    kind    what it says

and goes on, by kind, with

    opened         first in every part: role, part, pid, engine, model, plugin, vllm (versions)
    request        the engine freed a request, whatever the reason: engine, model, lora, id, external, status,
                   prompt_tokens, cached_tokens, output_tokens, sampled
    after_end      a step gave tokens for a request that had ended meanwhile; the engine threw them away: engine, id,
                   external, output_tokens
    late           tokens reached the front end after it had let the request go: model, id, external, prompt_tokens,
                   output_tokens
    stepped-aside  the witness does not know this engine and writes nothing more: vllm, why
    faults         something failed in the witness (never in the engine): count since the start, what was last
    ended          last in a part: next, the number of the next part, or null where the stream ends

`engine` is the index of the engine (data parallel rank), as in the label of vLLM's counters. `model` is the name it is
served under, `lora` an adapter's name or null. `id` is the engine's id for the request, `external` the id which the
HTTP server gave it: without `<i>_`, which vLLM puts before the choices of n > 1, and `-<8 hex>`, which it appends.
`X-Request-Id` lies within `external` (`chatcmpl-<id>`, `cmpl-<id>-<i>`). Ids are cut at 256 characters. `status` is
stopped, length_capped, aborted, ignored, error or repetition. `prompt_tokens` contain `cached_tokens`. `sampled` says
whether the request gave anything at all; only then do vLLM's counters contain its prompt. `engine` and `model` are
null where a process does not know them. No prompt and no output is in a line, and nothing that vLLM would not log.

Over the streams of an engine and its front ends

    vllm:generation_tokens_total = Σ request.output_tokens − Σ late.output_tokens
    vllm:prompt_tokens_total     = Σ request.prompt_tokens where sampled − Σ late.prompt_tokens

and `after_end` is in neither. A client that hangs up after 12 tokens, one of them after the front end knew:

    {"v":1,"n":0,"at_us":1760000000000000,"kind":"opened","role":"scheduler","part":0,"pid":4711,"engine":0,"model":"tiny","plugin":"0.1.0","vllm":"0.32.0"}
    {"v":1,"n":1,"at_us":1760000004200000,"kind":"request","engine":0,"model":"tiny","lora":null,"id":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9-1a2b3c4d","external":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9","status":"aborted","prompt_tokens":31,"cached_tokens":16,"output_tokens":12,"sampled":true}
    {"v":1,"n":2,"at_us":1760000004201000,"kind":"after_end","engine":0,"id":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9-1a2b3c4d","external":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9","output_tokens":1}
    {"v":1,"n":3,"at_us":1760000009000000,"kind":"ended","next":null}

and in the stream of the front end, where the counter stands at 11:

    {"v":1,"n":1,"at_us":1760000004199000,"kind":"late","model":"tiny","id":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9-1a2b3c4d","external":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9","prompt_tokens":0,"output_tokens":1}
"""

from __future__ import annotations

import json
import re
from typing import Any

FORMAT_VERSION = 1
SUFFIX = ".jsonl"
LONGEST_ID = 256

_CHILD = re.compile(r"^\d+_")
_RANDOM = re.compile(r"-[0-9a-f]{8}$")


def line(n: int, at_us: int, kind: str, said: dict[str, object]) -> bytes:
    """One line, its newline included."""
    whole = {"v": FORMAT_VERSION, "n": n, "at_us": at_us, "kind": kind, **said}
    return json.dumps(whole, separators=(",", ":")).encode("ascii") + b"\n"


def file_name(start_us: int, pid: int, role: str, part: int) -> str:
    """The name of a part of a stream."""
    return f"{start_us:016d}-{pid}-{role}-{part:06d}{SUFFIX}"


def served_name(config: Any) -> str:
    """The name under which vLLM's counters show the model, from vLLM's configuration."""
    served = config.model_config.served_model_name
    return str(served if isinstance(served, str) else served[0])


def ids(engine_id: str) -> dict[str, object]:
    """`id` and `external` of a request, from the engine's id for it."""
    external = _RANDOM.sub("", _CHILD.sub("", engine_id))
    return {"id": engine_id[:LONGEST_ID], "external": external[:LONGEST_ID]}
