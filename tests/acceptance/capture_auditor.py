"""The auditor of a capture world. It believes nobody and imports nothing of Tallygrid.

Three books lie side by side: the clients', the engine's (what it heard, and its witness's lines), and the events.

    lost      a whole answer, or a request that the engine heard, without its event
    double    a request with two events, or amended twice
    wrong     other tokens than were asked for or generated; an event that does not say what could not be known
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from capture_clients import CUT, LEFT, REFUSED, WHOLE, Sent
from kill_auditor import Event, Findings


def check_capture(
    book: Sequence[Sent],
    heard: set[str],
    generated: Mapping[str, int] | None,
    events: Sequence[Event],
    findings: Findings,
) -> None:
    """`heard`: ids of the requests that the engine heard of; `generated`: the tokens that its lines say, by id, None
    where nobody reads them."""
    usage = [event for event in events if event["kind"] == "usage"]
    by_id = {event["request"].hex(): event for event in usage}
    counts = Counter(event["request"].hex() for event in usage)
    findings.double += [f"request {name} has {count} events" for name, count in counts.items() if count > 1]
    findings.lost += [f"the engine heard {name}, no event" for name in sorted(heard - set(by_id))]
    if generated is None:
        witnessed = sum(
            event["generated_tokens"] is not None for event in events if event["endpoint"] != "embeddings"
        )
        findings.expect(witnessed, 0, "events with a witness, where there is none")
    else:
        _check_generated(events, generated, findings)
    for name, event in by_id.items():
        _check_reason(name, event, name in heard, findings)
    _check_sound(book, by_id, findings)
    _check_book([sent for sent in book if sent.ask.endpoint != "transcriptions"], by_id, findings)
    fates = Counter(sent.fate for sent in book)
    certain = fates[WHOLE] + fates[LEFT]
    if not certain <= len(by_id) <= certain + fates[CUT]:
        findings.wrong.append(f"{len(by_id)} events of {dict(fates)}")


def check_spans(spans: Mapping[int, Mapping[str, str]], events: Sequence[Event], findings: Findings) -> None:
    """What the engine counted, and known causes, is what the events say, to the token; nothing was skipped.

    The engine lived through all of it, so nothing of its counters may be lost.
    """
    findings.expect(sorted(spans), list(range(min(spans, default=0), max(spans, default=-1) + 1)), "spans")
    total: Counter[str] = Counter()
    for span in spans.values():
        total.update({name: int(value) for name, value in span.items() if value.isdecimal()})
    for figure, elsewhere in (("prompt", ("repeated_prompt", "audio_prompt")), ("generated", ())):
        causes = total[f"late_{figure}"] - total[f"unmetered_{figure}"]
        findings.expect(total[f"lost_{figure}"], 0, f"lost {figure} tokens of an engine that lived on")
        counted = total[f"engine_{figure}"] + causes - sum(total[each] for each in elsewhere)
        said = sum(_said(event, figure) for event in events)
        findings.expect(said, counted, f"{figure} tokens of all events")
    findings.expect(total["lines_missing"], 0, "lines that are missing")


def _said(event: Event, figure: str) -> int:
    if figure == "prompt" or event["generated_tokens"] is not None:
        tokens: int = event[f"{figure}_tokens"]
        return tokens
    unwitnessed: int = event["completion_tokens"]
    return unwitnessed


def _check_generated(events: Sequence[Event], generated: Mapping[str, int], findings: Findings) -> None:
    """Usage and amendment together say what the engine's lines say, to the token."""
    said: dict[str, list[int | None]] = defaultdict(list)
    for event in events:
        name = (event["names"] or event["request"]).hex()
        said[name].append(event["generated_tokens"])
    for name, figures in said.items():
        if len(figures) > 2:
            findings.double.append(f"request {name} is amended {len(figures) - 1} times")
        known = [figure for figure in figures if figure is not None]
        if known:
            findings.expect(sum(known), generated.get(name, 0), f"generated tokens of {name}")
        else:
            findings.expect(generated.get(name, 0), 0, f"lines of {name}, whose event has no witness")


def _check_reason(name: str, event: Event, heard: bool, findings: Findings) -> None:
    """What could not be known is marked, and what an engine never heard of has no tokens."""
    if event["outcome"] == "interrupted" and event["reason"] not in ("sidecar_killed", "sidecar_stopped"):
        findings.wrong.append(f"{name} is interrupted, its reason {event['reason']}")
    if event["outcome"] == "failed" and event["reason"] is None:
        findings.wrong.append(f"{name} failed without a reason")
    if not heard:
        tokens = [event[figure] for figure in ("prompt_tokens", "completion_tokens")]
        findings.expect(tokens, [0, 0], f"tokens of {name}, which no engine heard of")
        if event["outcome"] not in ("interrupted", "failed", "aborted"):
            findings.wrong.append(f"{name} is {event['outcome']}, and no engine heard of it")


def _check_sound(book: Sequence[Sent], by_id: Mapping[str, Event], findings: Findings) -> None:
    """Sound is charged by seconds: its events have no prompt to be known by, so they are only counted."""
    sounds = [event for event in by_id.values() if event["endpoint"] == "transcriptions"]
    finished = [event for event in sounds if event["outcome"] == "finished"]
    whole = [sent for sent in book if sent.ask.endpoint == "transcriptions" and sent.fate == WHOLE]
    if len(finished) < len(whole):
        findings.lost.append(f"{len(whole)} whole answers to transcriptions, {len(finished)} events")
    findings.expect({event["prompt_tokens"] for event in finished} - {0}, set(), "prompt tokens of sound")


def _check_book(book: Sequence[Sent], by_id: Mapping[str, Event], findings: Findings) -> None:
    by_prompt: dict[int, list[Event]] = defaultdict(list)
    for event in by_id.values():
        by_prompt[event["prompt_tokens"]].append(event)
    for sent in book:
        ask, found = sent.ask, by_prompt[sent.ask.prompt_tokens]
        findings.double += [f"{ask.endpoint} {ask.prompt_tokens} has {len(found)} events"] * (len(found) > 1)
        if sent.fate == REFUSED:
            findings.wrong.append(f"{ask.endpoint} {ask.prompt_tokens} was refused: {sent.answer!r}")
        if sent.fate == WHOLE and not ask.is_background:
            if not found:
                findings.lost.append(f"the whole answer to {ask.endpoint} {ask.prompt_tokens} has no event")
            for event in found:
                _check_whole(sent, event, findings)


def _check_whole(sent: Sent, event: Event, findings: Findings) -> None:
    ask, what = sent.ask, f"{sent.ask.endpoint} {sent.ask.prompt_tokens}"
    findings.expect(event["endpoint"], ask.endpoint, f"endpoint of {what}")
    findings.expect(event["outcome"], "finished", f"outcome of the whole {what}")
    if ask.completion_tokens is not None:
        findings.expect(event["completion_tokens"], ask.completion_tokens, f"completion tokens of {what}")
