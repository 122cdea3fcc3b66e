"""Serves vLLM's audio endpoints without a model, in the foreground; run by the vLLM environment's own Python:

    bin/python tests/engine/speech.py PORT        GET /health answers once it is up

The tiny model cannot hear, and no audio model comes without a download. So the app, its routes, its reading of forms,
its refusals, its answers and its streams are vLLM's own code here, and what is made up is only what a model would say:
a prompt of 7 tokens, and the words below. Nothing counts tokens here, so /metrics shows none.
"""

from __future__ import annotations

import asyncio
import io
import sys
import wave
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import uvicorn
from fastapi import Response
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.speech_to_text.transcription.serving import OpenAIServingTranscription
from vllm.entrypoints.speech_to_text.translation.serving import OpenAIServingTranslation
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.utils.argparse_utils import FlexibleArgumentParser

MODEL = "tiny"
PROMPT = list(range(11, 18))
WORDS = [" The", " price", " of", " it."]


class Models:
    """The one model that is served."""

    base_model_paths = (SimpleNamespace(name=MODEL),)
    lora_requests: Mapping[str, object] = MappingProxyType({})

    def is_base_model(self, name: str) -> bool:
        return name == MODEL

    def model_name(self) -> str:
        return MODEL


class Hearing:
    """What vLLM asks of the model's class."""

    supports_segment_timestamp = True
    supports_diarized_transcription = False
    no_space_languages: frozenset[str] = frozenset()

    def post_process_output(self, text: str) -> str:
        return text

    def get_num_audio_tokens(self, *_: object) -> int:
        return 0


class Engine:
    """Says WORDS, a token each."""

    errored = False

    def check_admission(self, _: int) -> None:
        return

    async def generate(self, _: object, parameters: Any, request_id: str, **__: object) -> Any:
        pieces = WORDS if parameters.output_kind is RequestOutputKind.DELTA else ["".join(WORDS)]
        for number, text in enumerate(pieces):
            ended = number == len(pieces) - 1
            tokens = [number] if len(pieces) > 1 else list(range(len(WORDS)))
            output = CompletionOutput(0, text, tokens, None, [{}], finish_reason="stop" if ended else None)
            if not ended:
                await asyncio.sleep(0.01)  # a chunk of its own for each
            yield RequestOutput(request_id, None, PROMPT, None, [output], ended)


class Unheard:
    """Lies over vLLM's audio serving: audio is measured and not decoded, and no model is loaded."""

    def __init__(self, task_type: str) -> None:
        self.engine_client = Engine()
        self.models = Models()
        self.model_config = SimpleNamespace(max_model_len=448)
        self.request_logger = None
        self.task_type = task_type
        self.default_sampling_params: dict[str, object] = {}
        self.asr_config = SimpleNamespace(max_audio_clip_s=30)
        self.enable_force_include_usage = False
        self.streaming_post_processor_cls = lambda: SimpleNamespace(process_delta=lambda text, _: text)

    model_cls = Hearing()

    async def _preprocess_speech_to_text(self, audio_data: bytes, **_: object) -> Any:
        try:
            with wave.open(io.BytesIO(audio_data)) as audio:
                return [None], audio.getnframes() / audio.getframerate(), [0.0]
        except (wave.Error, EOFError):
            raise ValueError("Invalid or unsupported audio file.") from None

    def _get_verbose_segments(self, segment_class: Any, **_: object) -> list[Any]:
        text = "".join(WORDS)
        whole: dict[str, Any] = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": 1.2,
            "temperature": 0.0,
            "tokens": [0, 1, 2, 3],
        }
        return [segment_class(**whole, text=text, avg_logprob=-0.5, compression_ratio=0.7)]


class Transcription(Unheard, OpenAIServingTranscription):
    pass


class Translation(Unheard, OpenAIServingTranslation):
    pass


def main(port: int) -> None:
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    app = build_app(arguments, supported_tasks=("transcription",))
    app.state.log_stats = False
    app.state.openai_serving_transcription = Transcription("transcribe")
    app.state.openai_serving_translation = Translation("translate")
    # vLLM's own asks an engine how it is.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/health"]
    app.add_api_route("/health", lambda: Response())
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
