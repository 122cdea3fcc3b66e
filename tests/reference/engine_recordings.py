"""Recordings of a real vLLM: one JSON file per request, `tests/recordings/SET/NAME.json`, and how they are read.

    {"server": ["--enable-prompt-tokens-details"],
     "request": {"method": "POST", "path": "/v1/chat/completions",
                 "headers": [["Content-Type", "application/json"]],
                 "body": "{\\"model\\": \\"tiny\\", …}", "hang_up_after": null},
     "answer": {"status": 200, "reason": "OK", "headers": [["content-type", "application/json"], …],
                "pieces": ["{\\"id\\":\\"chatcmpl-0000…\\", …}"], "whole": true},
     "counters": {"vllm:prompt_tokens_total": 22,
                  "vllm:request_success_total{finished_reason=\\"length\\"}": 1, …}}

`pieces` are the chunks of the body as the server cut them. `counters` are the differences that the request made to
the engine's own counters, zeros left out; null where the server has none (audio). What changes from run to run is
made constant: the Date header is dropped, random ids are zeros of their length, `created` is CREATED.
`tests/recordings/metrics.json` lists the families that `/metrics` shows: name, type, help, names of labels.
The model is tiny and random, so its words mean nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from engine_exchange import Answer, Request

FOLDER = Path(__file__).parents[1] / "recordings"
CREATED = 1_700_000_000

# Families of counters that say what was used; times and caches' inner workings are left out.
_USAGE = re.compile(
    r"vllm:(prompt_tokens_total|prompt_tokens_by_source_total|prompt_tokens_cached_total|generation_tokens_total"
    r"|request_success_total|request_(prompt|generation)_tokens_(sum|count)|request_params_(n|max_tokens)_(sum|count)"
    r"|request_prefill_kv_computed_tokens_(sum|count)|prefix_cache_(queries|hits)_total"
    r"|time_to_first_token_seconds_count|e2e_request_latency_seconds_count)$"
)
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Recording:
    """One request, the real engine's answer to it, and what it did to the engine's counters."""

    name: str
    server: tuple[str, ...]
    request: Request
    answer: Answer
    counters: dict[str, int] | None


def usage_counters(exposition: str, model: str = "tiny") -> dict[str, int]:
    """The usage counters of one model, summed over engines, by name and those labels that are left."""
    totals: dict[str, int] = {}
    for line in exposition.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or _USAGE.fullmatch(sample["name"]) is None:
            continue
        labels = dict(_LABEL.findall(sample["labels"]))
        labels.pop("engine", None)
        if labels.pop("model_name", model) != model:
            continue
        rest = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        key = sample["name"] + (f"{{{rest}}}" if rest else "")
        totals[key] = totals.get(key, 0) + int(float(sample["value"]))
    return totals


def idle(exposition: str) -> bool:
    """True when the engine neither runs a request nor has one waiting."""
    return not any(
        float(sample["value"])
        for line in exposition.splitlines()
        if (sample := _SAMPLE.match(line))
        and sample["name"] in ("vllm:num_requests_running", "vllm:num_requests_waiting")
    )


def differences(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


def families(exposition: str) -> dict[str, dict[str, object]]:
    """What `/metrics` shows of vLLM: `{family: {"type", "help", "labels"}}`, labels sorted, without `le`."""
    found: dict[str, dict[str, object]] = {}
    for line in exposition.splitlines():
        if line.startswith("# HELP vllm:"):
            name, text = line[len("# HELP ") :].split(" ", 1)
            found[name] = {"type": "", "help": text, "labels": []}
        elif line.startswith("# TYPE vllm:"):
            name, kind = line[len("# TYPE ") :].split(" ", 1)
            found[name]["type"] = kind
        elif sample := _SAMPLE.match(line):
            family = re.sub(r"_(bucket|sum|count)$", "", sample["name"])
            entry = found.get(sample["name"]) or found.get(family)
            if entry is not None:
                entry["labels"] = sorted(dict(_LABEL.findall(sample["labels"])).keys() - {"le"})
    return found


def made_constant(answer: Answer) -> Answer:
    """The answer without what changes from run to run; lengths stay, so Content-Length stays true."""
    pieces = tuple(_constant(piece) for piece in answer.pieces)
    headers = tuple((name, _constant(value)) for name, value in answer.headers if name.lower() != "date")
    return Answer(answer.status, answer.reason, headers, pieces, answer.whole)


def _constant(text: str) -> str:
    text = re.sub(r'("created(?:_at)?":)\d{10}', rf"\g<1>{CREATED}", text)
    return re.sub(r"(?<![0-9a-f])[0-9a-f]{16,32}(?![0-9a-f])", lambda found: "0" * len(found[0]), text)


def write(folder: Path, recording: Recording) -> None:
    request, answer = recording.request, recording.answer
    document = {
        "server": recording.server,
        "request": {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "body": request.body,
            "hang_up_after": request.hang_up_after,
        },
        "answer": {
            "status": answer.status,
            "reason": answer.reason,
            "headers": answer.headers,
            "pieces": answer.pieces,
            "whole": answer.whole,
        },
        "counters": recording.counters and dict(sorted(recording.counters.items())),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (folder / f"{recording.name}.json").write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Recording:
    document = json.loads(path.read_text(encoding="utf-8"))
    request, answer = document["request"], document["answer"]
    return Recording(
        name=path.stem,
        server=tuple(document["server"]),
        request=Request(
            method=request["method"],
            path=request["path"],
            headers=_pairs(request["headers"]),
            body=request["body"],
            hang_up_after=request["hang_up_after"],
        ),
        answer=Answer(
            status=answer["status"],
            reason=answer["reason"],
            headers=_pairs(answer["headers"]),
            pieces=tuple(answer["pieces"]),
            whole=answer["whole"],
        ),
        counters=document["counters"],
    )


def read_set(name: str) -> dict[str, Recording]:
    """All recordings of one set, by name, in the order of their names."""
    return {path.stem: read(path) for path in sorted((FOLDER / name).glob("*.json"))}


def _pairs(pairs: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs)
