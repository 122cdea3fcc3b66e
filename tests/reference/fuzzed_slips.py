"""What becomes of a good site file when somebody slips, pastes from elsewhere, knows YAML too well, or means harm.

fuzzed_file(4711)     bytes: four in ten a good file, five a good file with slips or YAML's tricks, one any bytes
"""

from __future__ import annotations

import re
from random import Random

from fuzzed_sites import good_site

ODD_WORDS = (
    r"NO yes ~ null .inf .nan 1e400 -0 0x1F 0o17 01100 1__0 _1 1_ +1 1. .5 1,5 1:30 15 15% 101% -1% 0.0000001% 2026-02-30",
    r"2026-10-25 0001-01-01 9999-12-31 [] {} [a] {a:b} '' * & ! | > @ ` % ? - : , # *a &a !!int !!python/object:os.x",
    r"acme vilnius telecentras first last true false base holiday Asia/Kolkata Europe/Vilnius KWD SEK XX 00:00-24:00",
    r"24:00-24:00 23:30-05:00 2026-10-01T00:30:00Z README.md ../.. . \u0000 é 🙂",
)
ODD_TEXTS = (
    *" ".join(ODD_WORDS).split(),
    *(
        "\u0661\u0662",
        "\u00bd",
        "\uff10.5",
        "\u2028",
        "\ufeff",
        "\x85",
        "\x07",
        "\t",
        "\n",
        "\r\n",
        " ",
    ),  # digits and blanks of other scripts
    *("9" * 5000, "9" * 12, "1" * 16, "0." + "1" * 400, "a" * 3000, "*" * 150, "-" * 60),
)
TRICKS = (
    "a: &a [x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c]\n",
    "<<: {input: 1, output: 2}\n",
    "prices: &rows [{models: [m], input: 1}]\nwindows: *rows\n",
    "!!python/object/apply:os.system ['true']\n",
    "!!binary aGVsbG8=\n",
    "%YAML 1.1\n---\n",
    "%TAG ! tag:example.com,2000:\n--- !x\n",
    "...\n---\n...\n",
    "? [a, b]\n: c\n",
    "? {a: b}\n: ? c\n",
    "valid_from: 2026-10-01\nvalid_from: 2026-10-02\n",
    "prices: " + "[" * 200 + "]" * 200 + "\n",
    "prices: " + "[" * 5000 + "\n",
    "segments: " + "{a: " * 23 + "1" + "}" * 23 + "\n",
    "prices: [" + "{models: [m], input: 1}, " * 300 + "]\n",
    "windows: [" + ", ".join(f"{{name: w{number}, factor: 0.{number}}}" for number in range(300)) + "]\n",
    "name: |\n  one\n  two\n",
    "name: >-\n  one\n\n  two\n",
    "name: 'it''s'\nname: \"\\u0000\\x00\\ud800\"\n",
    "kind: tariff\nkind: contract\n",
    "supersedes: first\nreason: a wrong price\n",
    "supersedes: 2026-10-01\nreason: a wrong price\nvalid_from: 2026-10-01\n",
    "\ufeff",
    "\t\tx: y\n",
    "# " + "x" * 10_000 + "\n",
    "x: " + "y, " * 5000 + "\n",
    "'" * 3 + "\n",
    "\x00\x01\x02\n",
)
_WORD = re.compile(r"[^\s:,{}\[\]]+")


def slipped(random: Random, text: str) -> str:
    """A text with one to four slips: lines, words, characters, or one of YAML's tricks."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        text = random.choice((_slip_of_line, _slip_of_word, _slip_of_word, _slip_of_letter, _trick))(
            random, text
        )
    return text


def _slip_of_line(random: Random, text: str) -> str:
    lines = text.split("\n")
    at = random.randrange(len(lines))
    match random.choice(("drop", "double", "move", "value", "key", "indent", "cut", "swap")):
        case "drop":
            del lines[at]
        case "double":
            lines.insert(at, lines[at])
        case "move":
            lines.insert(random.randrange(len(lines)), lines.pop(at))
        case "value":
            lines[at] = f"{lines[at].partition(':')[0]}: {random.choice(ODD_TEXTS)}"
        case "key":
            lines[at] = f"{random.choice(ODD_TEXTS)}:{lines[at].partition(':')[2]}"
        case "indent":
            lines[at] = " " * random.randint(0, 4) + lines[at].strip()
        case "cut":
            lines[at] = lines[at][: random.randint(0, len(lines[at]))]
        case _:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines)


def _slip_of_word(random: Random, text: str) -> str:
    """Another word of the file, or an odd one, in the place of a word."""
    words = list(_WORD.finditer(text))
    if not words:
        return random.choice(ODD_TEXTS)
    at = random.choice(words)
    word = random.choice(ODD_TEXTS) if random.random() < 0.5 else random.choice(words)[0]
    return text[: at.start()] + word + text[at.end() :]


def _slip_of_letter(random: Random, text: str) -> str:
    at = random.randint(0, len(text))
    letter = random.choice("0129.,-_%:;#'\"[]{}&*!|>?@` \n\tazé🙂\x00\u2028")
    return text[:at] + random.choice((letter, "")) + text[at + random.choice((0, 1)) :]


def _trick(random: Random, text: str) -> str:
    """A snippet at the beginning of some line, indented as that line or not at all."""
    lines = text.split("\n")
    at = random.randrange(len(lines))
    indent = random.choice(("", " " * (len(lines[at]) - len(lines[at].lstrip()))))
    lines.insert(at, indent + random.choice(TRICKS))
    return "\n".join(lines)


def fuzzed_file(seed: int) -> bytes:
    random = Random(seed)
    kind = random.random()
    if kind < 0.05:
        return random.randbytes(random.randint(0, 300))
    if kind < 0.1:
        letters = ":-[]{}&*!|>'\"#%@`, \n\tkindaowe0123.é"
        return "".join(random.choices(letters, k=random.randint(0, 200))).encode()
    text = good_site(random)
    if kind < 0.5:
        return text.encode()
    raw = slipped(random, text).encode("utf-8", "surrogatepass")
    if kind < 0.52:
        at = random.randint(0, len(raw))
        raw = raw[:at] + random.randbytes(random.randint(1, 4)) + raw[at:]
    return raw
