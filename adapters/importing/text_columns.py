"""What every decoding of a text column begins with: a text in each row, and what holds of which rows as numpy's mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]


def without_nulls(text: pa.Array) -> pa.Array:
    """The column with an empty text where there is none."""
    return pc.fill_null(text, "")


def mask(values: pa.Array) -> Mask:
    """Booleans as numpy's; there is no null among them."""
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)
