"""No binary fraction is made in billing/: amounts are whole minor units, prices decimals, ratios fractions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import billing

MODULES = sorted(Path(next(iter(billing.__path__))).glob("**/*.py"))
_FLOAT_TYPES = {"float", "float16", "float32", "float64", "longdouble", "double", "Float32", "Float64"}
_WHOLE = {"gcd", "lcm"}  # of `math`, these make whole numbers of whole numbers
_FLOAT_FUNCTIONS = {"true_divide", "divide", "mean", "average", "sqrt", "random"}


def floats_in(source: str) -> list[str]:
    """Each place where the source could make a float, with its line."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=float() | complex()):
                found.append(f"{node.lineno}: a literal with a point")
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                found.append(f"{node.lineno}: true division")
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _FLOAT_TYPES | _FLOAT_FUNCTIONS:
                found.append(f"{node.lineno}: {name}")
            case ast.Call(func=ast.Attribute(attr="bincount"), args=args, keywords=named) if len(
                args
            ) > 1 or any(
                each.arg == "weights" for each in named
            ):  # without weights it counts, in whole numbers
                found.append(f"{node.lineno}: bincount with weights")
            case ast.Import(names=names) if any(each.name in ("math", "statistics") for each in names):
                found.append(f"{node.lineno}: a module that works on floats")
            case ast.ImportFrom(module="math" | "statistics", names=names) if not _WHOLE.issuperset(
                each.name for each in names
            ):
                found.append(f"{node.lineno}: a module that works on floats")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_of_billing_makes_a_float(path: Path) -> None:
    assert floats_in(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 0.5",
        "x = a / b",
        "x /= 2",
        "float(x)",
        "pa.float64()",
        "np.bincount(a, b)",
        "np.bincount(a, weights=b)",
        "import math",
        "from math import log",
    ],
)
def test_the_check_sees_each_way_to_make_one(source: str) -> None:
    assert floats_in(source)


def test_billing_is_all_there() -> None:
    assert {"money.py", "rating.py", "bill.py", "close.py", "tax.py"} <= {path.name for path in MODULES}
