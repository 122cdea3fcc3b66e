"""Decoded rows → the columns of events: subjects become their random ids, texts become words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.rows import text_digests
from metering.event import ID, WORD

# Between a customer and its project or key where both stand in one text: no id contains it.
BETWEEN = "\n"


@dataclass(frozen=True, slots=True)
class SubjectIds:
    """Ids by slug: of customers, and of projects and keys by `customer BETWEEN slug`."""

    customers: Mapping[str, bytes]
    projects: Mapping[str, bytes]
    keys: Mapping[str, bytes]


def owned(rows: pa.Table, column: str) -> pa.Array:
    """`customer BETWEEN slug` for each row that names a project or key; null for the others."""
    joined = pc.binary_join_element_wise(rows.column("customer"), rows.column(column), BETWEEN)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def event_columns(rows: pa.Table, ids: SubjectIds) -> dict[str, pa.Array]:
    """The columns of EVENT_SCHEMA for these rows, but `sequence` and `request`, which their lane gives."""
    count = rows.num_rows
    digests = text_digests(rows.column("request_id"))
    given = np.asarray(pc.is_valid(rows.column("request_id")))
    numbers = (
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "generated_tokens",
        "audio_seconds",
    )
    return {
        "kind": _one_word("usage", count),
        "time": rows.column("time").combine_chunks().cast(pa.timestamp("us", "UTC")),
        "names": pa.nulls(count, ID),
        "customer": _ids(rows.column("customer").combine_chunks(), ids.customers),
        "project": _ids(owned(rows, "project"), ids.projects),
        "key": _ids(owned(rows, "key"), ids.keys),
        "endpoint": _one_word("import", count),
        "model": _words(rows.column("model")),
        "outcome": _words(rows.column("outcome")),
        **{name: rows.column(name).combine_chunks() for name in numbers},
        "request_digest": pa.array(
            [d.tobytes() if g else None for d, g in zip(digests, given, strict=True)], ID
        )
        if given.any()
        else pa.nulls(count, ID),
        "reason": pa.nulls(count, pa.string()).dictionary_encode(),
        "whole_prompt": pa.nulls(count, pa.int64()),
    }


def _one_word(word: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([word]))


def _words(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().dictionary_encode().cast(WORD)


def _ids(slugs: pa.Array, ids: Mapping[str, bytes]) -> pa.Array:
    """Each slug's id; null for null. Every slug that stands here has one: they were looked up before."""
    coded = slugs.dictionary_encode()
    known = pa.array([ids[slug] for slug in coded.dictionary.to_pylist()], ID)
    return known.take(coded.indices)
