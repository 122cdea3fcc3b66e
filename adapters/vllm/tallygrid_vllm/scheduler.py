"""vLLM's schedulers with a witness: every request that they free is written down.

`_free_request` is where every request ends, whether it stopped, ran out, was aborted or failed, and the scheduler
knows then what was computed and sampled for it. Around each overridden method vLLM's own runs exactly once, with what
it was given; the witness's work is guarded, and reads only.

Three things are gone by the time a request is freed, so they are noted when they pass: the cached tokens (in its
prefill figures, handed on with the first output), the output of earlier turns of a streamed-input session, and the
tokens of a step that was under way when its request ended.
"""

from __future__ import annotations

from typing import Any

from vllm import __version__ as vllm_version
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tallygrid_vllm import __version__
from tallygrid_vllm.lines import ids, served_name
from tallygrid_vllm.versions import SCHEDULER_METHODS, objection
from tallygrid_vllm.writer import LineWriter, logger, open_writer


def _opened(scheduler: Any) -> dict[str, object]:
    config = scheduler.vllm_config
    return {
        "engine": config.parallel_config.data_parallel_index,
        "model": served_name(config),
        "plugin": __version__,
        "vllm": vllm_version,
    }


class Witness:
    """What the witness of one scheduler remembers and writes. Its methods may raise; `LineWriter.guarded` calls them."""

    def __init__(self, opened: dict[str, object], writer: LineWriter) -> None:
        self.writer = writer
        self._engine = opened["engine"]
        self._model = opened["model"]
        self._ended_but_held: set[str] = set()

    def begun(self, request: Any) -> None:
        request.tallygrid_prefill = request.prefill_stats
        request.tallygrid_earlier_output = 0

    def continued(self, session: Any) -> None:
        """A session takes its next turn, and forgets the output of the last one."""
        session.tallygrid_earlier_output += session.num_output_tokens

    def freed(self, request: Any) -> None:
        prefill = getattr(request, "tallygrid_prefill", None)
        sampled = request.prefill_stats is None
        lora = request.lora_request
        self.writer.write(
            "request",
            {
                "engine": self._engine,
                "model": self._model,
                "lora": lora.lora_name if lora else None,
                **ids(request.request_id),
                "status": request.status.name.removeprefix("FINISHED_").lower(),
                "prompt_tokens": prefill.num_prompt_tokens
                if sampled and prefill
                else request.num_prompt_tokens,
                "cached_tokens": prefill.num_cached_tokens if prefill else 0,
                "output_tokens": request.num_output_tokens + getattr(request, "tallygrid_earlier_output", 0),
                "sampled": sampled,
            },
        )

    def held(self, request_id: str) -> None:
        """A freed request whose blocks a connector still sends: the scheduler keeps it among its requests."""
        self._ended_but_held.add(request_id)

    def stepped(self, requests: dict[str, Any], scheduled: dict[str, int], output: Any) -> None:
        """A step is over: what it sampled for requests that are no more, the engine will throw away."""
        self._ended_but_held &= requests.keys()
        gone = (scheduled.keys() - requests.keys()) | (scheduled.keys() & self._ended_but_held)
        for request_id in gone:
            tokens = output.sampled_token_ids
            count = len(tokens[output.req_id_to_index[request_id]]) if tokens else 0
            if count:
                said = {"engine": self._engine, **ids(request_id), "output_tokens": count}
                self.writer.write("after_end", said)


class Witnessing:
    """Lies over one of vLLM's schedulers and writes down what it frees."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._witness: Witness | None = None
        try:
            opened = _opened(self)
            writer = open_writer("scheduler", opened)
            self._witness = Witness(opened, writer) if writer else None
        except Exception:
            logger.exception("tallygrid: the witness could not begin; the engine goes on without it")

    def add_request(self, request: Any, *args: Any, **named: Any) -> Any:
        if witness := self._witness:
            witness.writer.guarded("begun", witness.begun, request)
        return super().add_request(request, *args, **named)  # type: ignore[misc]  # vLLM's scheduler lies below

    def update_from_output(
        self, scheduler_output: Any, model_runner_output: Any, *args: Any, **named: Any
    ) -> Any:
        if witness := self._witness:
            requests: Any = self.requests  # type: ignore[attr-defined]  # vLLM's scheduler lies below
            scheduled = scheduler_output.num_scheduled_tokens
            witness.writer.guarded("stepped", witness.stepped, requests, scheduled, model_runner_output)
        return super().update_from_output(  # type: ignore[misc]  # vLLM's scheduler lies below
            scheduler_output, model_runner_output, *args, **named
        )

    def _update_request_as_session(self, session: Any, *args: Any, **named: Any) -> Any:
        if witness := self._witness:
            witness.writer.guarded("continued", witness.continued, session)
        return super()._update_request_as_session(session, *args, **named)  # type: ignore[misc]  # as above

    def _free_request(self, request: Any, *args: Any, **named: Any) -> Any:
        if witness := self._witness:
            witness.writer.guarded("freed", witness.freed, request)
        freed = super()._free_request(request, *args, **named)  # type: ignore[misc]  # as above
        if witness and request.request_id in self.requests:  # type: ignore[attr-defined]  # as above
            witness.held(request.request_id)
        return freed

    def shutdown(self, *args: Any, **named: Any) -> Any:
        try:
            return super().shutdown(*args, **named)  # type: ignore[misc]  # vLLM's scheduler lies below
        finally:
            if witness := self._witness:
                witness.writer.close()


class SteppedAside:
    """Lies over one of vLLM's schedulers that the witness does not know: says so, and leaves it as it is."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        try:
            why = _OBJECTION or ""
            logger.warning("tallygrid: %s; the engine runs without its witness", why)
            if writer := open_writer("scheduler", _opened(self)):
                writer.write("stepped-aside", {"vllm": vllm_version, "why": why})
                writer.close()
        except Exception:
            logger.exception("tallygrid: the witness stepped aside and could not write that down")


_OBJECTION = objection(vllm_version, AsyncScheduler, SCHEDULER_METHODS)
_Layer: type = Witnessing if _OBJECTION is None else SteppedAside


class WitnessScheduler(_Layer, Scheduler):  # type: ignore[misc]  # chosen once, at import
    """For vLLM without async scheduling."""


class AsyncWitnessScheduler(_Layer, AsyncScheduler):  # type: ignore[misc]  # chosen once, at import
    """For vLLM with async scheduling, its default on GPUs."""
