"""The dialect of transcriptions and translations, key by key in vLLM's order.

What is easily missed: a whole transcription's usage is seconds, a stream's is tokens and only when asked for, and a
translation's, like that of anything verbose, is not there at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from adapters.simulated_engine.dialect import DONE, Answering, Body, event, words
from adapters.simulated_engine.generation import Step
from adapters.simulated_engine.speech_asked import CLIP_S, AskedSpeech


class Speech:
    """One answer about sound."""

    def __init__(self, answering: Answering, speech: AskedSpeech) -> None:
        self._answering = answering
        self._speech = speech
        self._told_tokens = 0
        self._transcribes = answering.asked.endpoint == "transcriptions"
        self._reports = answering.options.fault != "drop-usage"

    def whole(self, reported_tokens: int) -> Body:  # noqa: ARG002  (it reports seconds)
        speech = self._speech
        texts = [words(0, each.completion_tokens, each) for each in self._answering.asked.sequences]
        if speech.answer_format == "verbose_json":
            return self._verbose(texts)
        body: Body = {"text": " ".join(texts)}
        if self._transcribes and self._reports:
            body["usage"] = {"type": "duration", "seconds": math.ceil(speech.duration_s)}
        return body

    def opened(self) -> Iterator[bytes]:
        return iter(())

    def started(self) -> Iterator[bytes]:
        return iter(())

    def told(self, step: Step) -> Iterator[bytes]:
        sequence = self._answering.asked.sequences[step.index]
        self._told_tokens += step.tokens
        choice: Body = {"delta": {"content": words(step.before, step.before + step.tokens, sequence)}}
        if step.last:
            choice |= {"finish_reason": sequence.finish, "stop_reason": None}
        chunk = self._chunk([choice])
        if self._answering.asked.continuous_usage:
            chunk["usage"] = self._usage(self._told_tokens)
        yield event(chunk)

    def ended(self, reported_tokens: int) -> Iterator[bytes]:
        if self._answering.asked.include_usage and self._reports:
            yield event({**self._chunk([]), "usage": self._usage(reported_tokens)})
        yield DONE

    def _chunk(self, choices: list[Body]) -> Body:
        return {
            "id": self._answering.id,
            "object": "transcription.chunk" if self._transcribes else "translation.chunk",
            "created": self._answering.created,
            "model": self._answering.asked.served.shown,
            "choices": choices,
        }

    def _usage(self, completion_tokens: int) -> Body:
        # Of several clips vLLM says the last one's prompt.
        prompt_tokens = self._answering.asked.sequences[-1].prompt_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
        }

    def _verbose(self, texts: list[str]) -> Body:
        segments = [
            {
                "id": 0,
                "avg_logprob": -0.5,
                "compression_ratio": 0.7,
                "end": min((clip + 1) * float(CLIP_S), float(self._speech.duration_s)),
                "no_speech_prob": None,
                "seek": clip * CLIP_S,
                "start": clip * float(CLIP_S),
                "temperature": 0.0,
                "text": text,
                "tokens": list(range(sequence.shown_tokens)),
            }
            for clip, (text, sequence) in enumerate(zip(texts, self._answering.asked.sequences, strict=True))
        ]
        return {
            "duration": float(self._speech.duration_s),
            "language": self._speech.language,
            "text": " ".join(texts),
            "segments": segments,
            "words": None,
        }
