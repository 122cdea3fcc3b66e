"""A general plugin: counts the outputs that reach vLLM's front end after it let their request go.

A client hangs up, the front end forgets the request and tells the engine; outputs that were on their way are dropped
before vLLM counts them, though the engine's scheduler has counted them as the request's. They are the whole difference
between the lines and the counters, so each becomes a line of kind `late`.

vLLM runs general plugins in every process, also in those that have no front end. The stream is opened by the first
output that passes. Whose model the front end serves, vLLM's output processor does not know; the engine's client that
makes it does, and is told to leave a note there.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from tallygrid_vllm import __version__
from tallygrid_vllm.lines import ids, served_name
from tallygrid_vllm.versions import CLIENT_METHODS, FRONT_END_METHODS, objection
from tallygrid_vllm.writer import FOLDER_VARIABLE, LineWriter, logger, open_writer

_MARK = "tallygrid_witness"
_MODEL = "tallygrid_model"


def install() -> None:
    """The entry point. Does nothing without TALLY_ENGINE_LINES; never raises; twice is once."""
    if not os.environ.get(FOLDER_VARIABLE):
        return
    try:
        from vllm import __version__ as vllm_version
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.engine.output_processor import OutputProcessor

        if hasattr(OutputProcessor.process_outputs, _MARK):
            return
        why = objection(vllm_version, OutputProcessor, FRONT_END_METHODS) or objection(
            vllm_version, AsyncLLM, CLIENT_METHODS
        )
        if why is None:
            AsyncLLM.__init__ = _noting(AsyncLLM.__init__)
            OutputProcessor.process_outputs = _witnessed(OutputProcessor.process_outputs, vllm_version)
        elif multiprocessing.parent_process() is None:  # said once, not by every process of the server
            _step_aside(vllm_version, why)
    except Exception:
        logger.exception("tallygrid: the front end's witness could not begin; the engine goes on without it")


def late(model: str | None, states: Any, outputs: Any) -> list[dict[str, object]]:
    """What each output of a request that is not among `states` would have added to the counters of `model`."""
    found = []
    for output in outputs:
        if output.request_id not in states:
            prefill = output.prefill_stats
            prompt_tokens = prefill.num_prompt_tokens if prefill else 0
            output_tokens = len(output.new_token_ids)
            if prompt_tokens or output_tokens:
                said = {
                    "model": model,
                    **ids(output.request_id),
                    "prompt_tokens": prompt_tokens,
                    "output_tokens": output_tokens,
                }
                found.append(said)
    return found


def _noting(begin: Callable[..., None]) -> Callable[..., None]:
    """AsyncLLM.__init__, which then notes the model's name at the output processor that it made."""

    @functools.wraps(begin)
    def noting(self: Any, vllm_config: Any, *args: Any, **named: Any) -> None:
        begin(self, vllm_config, *args, **named)
        try:
            setattr(self.output_processor, _MODEL, served_name(vllm_config))
        except Exception as error:
            logger.warning("tallygrid: late lines will name no model (%r)", error)

    return noting


def _witnessed(process_outputs: Callable[..., Any], vllm_version: str) -> Callable[..., Any]:
    streams: list[LineWriter | None] = []

    def look(processor: Any, outputs: Any) -> None:
        model = getattr(processor, _MODEL, None)
        if not streams:
            streams.append(open_writer("frontend", _opened(vllm_version, model)))
        if writer := streams[0]:
            for said in late(model, processor.request_states, outputs):
                writer.write("late", said)

    @functools.wraps(process_outputs)
    def witnessed(self: Any, engine_core_outputs: Any, *args: Any, **named: Any) -> Any:
        try:
            look(self, engine_core_outputs)
        except Exception as error:
            if streams and streams[0]:
                streams[0].fault("late", error)
        return process_outputs(self, engine_core_outputs, *args, **named)

    setattr(witnessed, _MARK, True)
    return witnessed


def _step_aside(vllm_version: str, why: str) -> None:
    logger.warning("tallygrid: %s; the front end runs without its witness", why)
    if writer := open_writer("frontend", _opened(vllm_version, None)):
        writer.write("stepped-aside", {"vllm": vllm_version, "why": why})
        writer.close()


def _opened(vllm_version: str, model: str | None) -> dict[str, object]:
    return {"engine": None, "model": model, "plugin": __version__, "vllm": vllm_version}
