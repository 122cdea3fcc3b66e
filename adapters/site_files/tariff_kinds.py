"""The pricing language as tables of keys: price rows, windows, series, fees, and what tariffs and contracts share.

The text beside each key is what editors show (`tally tariff schema`); what the words mean is said by
docs/site-files.md, what they come to by docs/arithmetic.md.
"""

from __future__ import annotations

from adapters.site_files.scalars import AMOUNT, BOOLEAN, PERCENT, SEGMENTS, TEXT
from adapters.site_files.schema import Either, Field, Listing, Table
from adapters.site_files.series import load_series
from adapters.site_files.tariff_rules import (
    check_fees,
    check_named,
    check_once,
    check_pricing,
    check_row,
    check_series,
    check_steps,
    check_tiers,
    check_window,
    check_windows,
)
from adapters.site_files.tariff_scalars import (
    CALENDAR,
    DAY_OF_WINDOW,
    EVERY,
    FACTOR,
    FIRST_HOUR,
    HOURS,
    MODEL_GLOB,
    OUTCOME,
    PRICE,
    PROMPT_OVER,
    REGION_GLOB,
    SERIES_FILE,
    SERIES_PRICE,
    UNITS,
    WINDOW_NAME,
)
from billing.tariff import METERS, PRICE_BASE

_PER = {
    "input": "tokens of prompts",
    "cached_input": "tokens of prompts that the engine had in its cache; absent: counted as input",
    "output": "tokens of answers",
    "reasoning": "tokens of answers that were thought, not said; absent: counted as output",
    "requests": "requests; absent: free",
    "audio_seconds": "seconds of audio",
}

_TIER = Table(
    {
        "up_to": Field(UNITS, "Up to and including so many units of the period; the last tier has none."),
        "price": Field(PRICE, f"Per {PRICE_BASE:,} units.", required=True),
    }
)
_TIERS = Listing(
    _TIER,
    "tier",
    check_tiers,
    "write tiers, [{up_to: 50_000_000, price: 1.60}, {price: 1.20}], or a price alone",
)
_PACKAGE = Table(
    {
        "size": Field(UNITS, "Units in a package; each started one is charged.", required=True),
        "price": Field(PRICE, "Of a package.", required=True),
    }
)
_PRICING = Either(
    PRICE,
    Table(
        {
            "graduated": Field(_TIERS, "Each unit at the price of the tier that it falls in."),
            "volume": Field(
                _TIERS,
                "All units at the price of the tier that their total falls in.",
            ),
            "package": Field(_PACKAGE, "A price for each started package; windows have no effect on it."),
        },
        check_pricing,
        {"minProperties": 1, "maxProperties": 1},
    ),
    ({"graduated": [{"up_to": 50_000_000, "price": 1.60}, {"price": 1.20}]},),
)
_ROW = {
    "models": Field(
        Listing(
            MODEL_GLOB,
            "model",
            if_empty='write ["*"] for every model, or name those that the row prices: ["qwen3-*", llama-4]',
        ),
        "Models that the row prices, as the engine names them; only * is special.",
        required=True,
    ),
    "regions": Field(
        Listing(
            REGION_GLOB, "region", if_empty="leave the key out for every region, or name some: [LT-*, IT-RM]"
        ),
        "Regions of nodes; absent: every region.",
    ),
    "prompt_over": Field(PROMPT_OVER, "Only requests whose whole prompt is longer than so many tokens."),
    **{meter: Field(_PRICING, f"Price per {PRICE_BASE:,} {_PER[meter]}.") for meter in METERS},
}
_ONLY = Field(BOOLEAN, "What this row lacks of the tariff row that it hides is meant to be unpriced here.")
_SOME_METER = {"anyOf": [{"required": [meter]} for meter in METERS]}

_STEP = Table(
    {
        "up_to": Field(SERIES_PRICE, "Hours whose price is at most this; ascending; the last step has none."),
        "factor": Field(FACTOR, "Multiplies unit prices in these hours.", required=True),
    }
)
SERIES_PRICES = Listing(
    SERIES_PRICE, "price", if_empty="name the price of each hour from `first` on: [41.2, 38]"
)
_SERIES = Either(
    SERIES_FILE,
    Table(
        {
            "file": Field(SERIES_FILE, "The file that it was read from."),
            "first": Field(FIRST_HOUR, "The UTC hour of the first price.", required=True),
            "prices": Field(SERIES_PRICES, "One for each hour from the first on.", required=True),
        },
        check_series,
    ),
    ("day-ahead.csv",),
    load_series,
)
_WINDOW = Table(
    {
        "name": Field(WINDOW_NAME, "Printed on documents.", required=True),
        "days": Field(
            Listing(
                DAY_OF_WINDOW,
                "day",
                check_once,
                "leave the key out for every day, or name some: [mon, sat, holiday]",
            ),
            "Days on which it begins; absent: all of them.",
        ),
        "hours": Field(
            HOURS, "Hours of the tariff's zone; absent: the whole day.", examples=("22:00-06:00",)
        ),
        "factor": Field(FACTOR, "Multiplies unit prices in these hours.", examples=(0.5,)),
        "series": Field(_SERIES, "An hourly price that the factor follows."),
        "steps": Field(
            Listing(
                _STEP,
                "step",
                check_steps,
                "write a factor for each step of the series' price: [{up_to: 40, factor: 0.6}, {factor: 1}]",
            ),
            "The factor by the series' price of the hour.",
        ),
    },
    check_window,
    {
        "oneOf": [
            {"required": ["factor"], "not": {"anyOf": [{"required": ["series"]}, {"required": ["steps"]}]}},
            {"required": ["series", "steps"], "not": {"required": ["factor"]}},
        ]
    },
)
_SEGMENTS = Table({segment: Field(PERCENT, "Off the tariff's prices.") for segment in SEGMENTS}, check_named)
_INCLUDED = Table({meter: Field(UNITS, "Free units in each period.") for meter in METERS}, check_named)
_FEE = Table(
    {
        "name": Field(TEXT, "Printed on documents.", required=True),
        "amount": Field(AMOUNT, "In the operator's currency, without VAT.", required=True),
        "every": Field(EVERY, "month (default; parts of it by days) or once, where the fee is first stated."),
    }
)

TARIFF_KEYS = {
    "bill_outcomes": Field(
        Listing(
            OUTCOME,
            "outcome",
            check_once,
            "leave the key out for all but failed, or name those that are charged: [finished, aborted]",
        ),
        "Outcomes of requests that are charged; the rest is shown at price 0. Default: all but failed.",
    ),
    "prices": Field(
        Listing(
            Table(_ROW, check_row, _SOME_METER),
            "price row",
            if_empty='write a price row: [{models: ["*"], input: 0.40, output: 1.60}]',
        ),
        "The first row that matches model, region and prompt prices all meters.",
        required=True,
    ),
    "windows": Field(
        Listing(_WINDOW, "window", check_windows), "Hours with another factor; the first that matches counts."
    ),
    "holidays": Field(CALENDAR, "Whose public holidays; default: those of the operator's country."),
    "segments": Field(_SEGMENTS, "Percent off by the customer's segment."),
    "included": Field(_INCLUDED, "Free units of each meter in each period."),
    "minimum": Field(AMOUNT, "The least net amount of a month with usage."),
}
CONTRACT_KEYS = {
    "prices": Field(
        Listing(Table({**_ROW, "only": _ONLY}, check_row, _SOME_METER), "price row"),
        "Rows that are tried before the tariff's.",
    ),
    "discount": Field(PERCENT, "Off everything but fees, after the segment's."),
    "commitment": Field(AMOUNT, "The least net amount of a month, also without usage."),
    "included": Field(_INCLUDED, "Free units in each period, instead of the tariff's for that meter."),
    "fees": Field(Listing(_FEE, "fee", check_fees), "Fixed amounts."),
}
