"""`GET /v1/models`."""

from __future__ import annotations

from adapters.simulated_engine.dialect import Body
from adapters.simulated_engine.options import EngineOptions


def model_list(options: EngineOptions, started: int) -> Body:
    """The first model under all of its names, the other models, and the adapters."""
    first = options.models[0]
    cards = [_card(name, name, None, options, started) for name in (*options.models, *options.aliases)]
    cards += [_card(name, name, first, options, started) for name in options.adapters]
    return {"object": "list", "data": cards}


def _card(name: str, root: str, parent: str | None, options: EngineOptions, started: int) -> Body:
    permission = {
        "id": "modelperm-" + "0" * 16,
        "object": "model_permission",
        "created": started,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": started,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": options.context_tokens if parent is None else None,
        "permission": [permission],
    }
