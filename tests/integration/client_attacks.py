"""What attackers send: by name the bytes, the statuses of the answers that they must get, whether the connection ends."""

from __future__ import annotations

from attacked_world import CHAT, FORBIDDEN, SMUGGLED, asking, chunks, post
from scripted_engine import SECRET

OWN = asking("mark-own")
END = b"0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
ENDS = True
GOES_ON = False
Attack = tuple[bytes, list[int], bool]


def head(line: str) -> bytes:
    """A good request but for one more line in its head."""
    return post(OWN, line + "\r\n")


def raw(first: str, *, body: bytes = b"") -> bytes:
    """A request with that request line."""
    return f"{first}\r\nHost: s\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode("latin-1") + body


# Two ideas of where a request ends: with another length or encoding, the second request hides in the first one's body.
LENGTHS: dict[str, Attack] = {
    "length before chunked": (post(END + SMUGGLED, CHUNKED), [400], ENDS),
    "chunked before length": (
        post(END + SMUGGLED, CHUNKED + f"Content-Length: {len(END + SMUGGLED)}\r\n", length=""),
        [400],
        ENDS,
    ),
    "two lengths": (post(OWN + SMUGGLED, f"Content-Length: {len(OWN)}\r\n"), [400], ENDS),
    "one length twice": (post(OWN, f"Content-Length: {len(OWN)}\r\n"), [400], ENDS),
    "no length": (
        post(OWN, length="") + SMUGGLED,
        [200, 400],
        ENDS,
    ),  # an empty body, then what is no request
    **{
        f"length {length!r}": (post(OWN, length=length) + SMUGGLED, [400], ENDS)
        for length in (
            "5, 5",
            "+5",
            "-0",
            "0x5",
            "5 5",
            "5x",
            "1e2",
            "\xb2",
            "99999999999999999999",
            " ",
            "5;",
        )
    },
}

# Ways of writing an encoding that one server takes for chunked and another does not.
ENCODINGS: dict[str, Attack] = {
    **{
        f"encoding {line!r}": (post(END + SMUGGLED, line + "\r\n"), [400], ENDS)
        for line in (
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            'Transfer-Encoding: "chunked"',
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: \x00chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
            "tRANSFER-eNCODING:\tCHUNKED",
        )
    },
    # These are no encoding by any name: they are headers like others, and the length says how long the body is.
    **{
        f"no encoding {line!r}": (post(OWN, line + "\r\n"), [200], GOES_ON)
        for line in (
            "X-Transfer-Encoding: chunked",
            "Transfer_Encoding: chunked",
            "Content_Length: 1",
            "TE: chunked",
        )
    },
    "chunked as it should be": (post(chunks(OWN), CHUNKED, length=""), [200], GOES_ON),
    "chunked in capitals": (post(chunks(OWN), "TRANSFER-ENCODING:CHUNKED\r\n", length=""), [200], GOES_ON),
    "gzip, chunked": (post(chunks(OWN), "Transfer-Encoding: gzip, chunked\r\n", length=""), [501], ENDS),
    "chunked and behind it another": (post(chunks(OWN), CHUNKED, length="") + SMUGGLED, [200, 404], GOES_ON),
}

# Chunks that are read in two ways.
CHUNKS: dict[str, Attack] = {
    **{
        f"chunk {size!r}": (post(chunks(OWN, size=size), CHUNKED, length="") + SMUGGLED, [400], ENDS)
        for size in (
            "0x20",
            "+20",
            "-20",
            " 20",
            "20 ",
            "20\t",
            "zz",
            "1" * 17,
            "20\n20",
        )
    },
    "longer than it says": (post(b"3\r\nabcdef\r\n" + END, CHUNKED, length="") + SMUGGLED, [400], ENDS),
    "ended by a bare line feed": (post(b"3\nabc\n0\n\n", CHUNKED, length="") + SMUGGLED, [400], ENDS),
    "with an extension": (post(chunks(OWN, size=f"{len(OWN):x};a=b"), CHUNKED, length=""), [200], GOES_ON),
    "with a quoted extension": (
        post(chunks(OWN, size=f'{len(OWN):x};a="b;c"'), CHUNKED, length=""),
        [200],
        GOES_ON,
    ),
    "an extension that hides a line": (
        post(chunks(OWN, size=f"{len(OWN):x};a=\n0"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
    "with trailers": (
        post(chunks(OWN, end=b"0\r\nAuthorization: Bearer x\r\nX-A: b\r\n\r\n"), CHUNKED, length=""),
        [200],
        GOES_ON,
    ),
    "a length among the trailers": (
        post(chunks(OWN, end=b"0\r\nContent-Length: 99\r\n\r\n"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
    "a folded trailer": (
        post(chunks(OWN, end=b"0\r\nX: a\r\n b\r\n\r\n"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
}

# Heads that one server reads as one line and another as two.
HEADS: dict[str, Attack] = {
    **{
        f"line {line!r}": (head(line), [400], ENDS)
        for line in (
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\nY: b",
            "X: a\rY: b",
            "X: a\x00b",
            "X\x00: a",
            "X: a\x0bb",
            "X : a",
            ": a",
            "X",
            "X(: a",
            "X\xe9: a",
            "Host: another",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Upgrade: websocket\r\nConnection: Upgrade",
        )
    },
    "bare line feeds": (post(OWN).replace(b"\r\n", b"\n"), [400], ENDS),
    "bare carriage returns": (post(OWN).replace(b"\r\n", b"\r"), [400], ENDS),
    "empty lines before": (b"\r\n\r\n" + post(OWN), [200], GOES_ON),
    "a space before": (b" " + post(OWN), [400], ENDS),
    "a response": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + SMUGGLED, [400], ENDS),
    "TLS where there is none": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400], ENDS),
    "PROXY protocol": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + post(OWN), [400], ENDS),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505], ENDS),
    "a header a megabyte long": (head("X: " + "a" * 2**20), [431], ENDS),
    "a thousand headers": (head("\r\n".join(f"X-{number}: a" for number in range(1000))), [431], ENDS),
    "a target of 9 kB": (post(OWN, path=CHAT + "?" + "a" * 9000), [431], ENDS),
    "headers named by Connection": (
        head("Connection: keep-alive, content-type, x-request-id, host"),
        [200],
        GOES_ON,
    ),
    "an expectation that nobody knows": (head("Expect: the-unexpected"), [417], ENDS),
}

# Requests for what is not listed, in disguise.
TARGETS: dict[str, Attack] = {
    **{
        f"target {target!r}": (post(OWN, path=target), [status], status == 400)
        for target, status in {
            "http://s/v1/chat/completions": 400,
            "https://elsewhere/v1/chat/completions": 400,
            "//s/v1/chat/completions": 404,
            "/v1/../invocations": 404,
            "/v1/chat/completions/../../../invocations": 404,
            "/v1/%2e%2e/invocations": 404,
            "/v1/chat/completions/%2e%2e/%2e%2e/%2e%2e/metrics": 404,
            "/v1/chat/completions%2f..%2f..": 404,
            "/v1/chat/completions/": 404,
            "/v1/chat/completions;a=b": 404,
            "/v1//chat/completions": 404,
            "/V1/CHAT/COMPLETIONS": 404,
            "/%76%31/chat/completions": 404,
            "/v1/chat/completions%00": 404,
            "/v1/chat/completions\\..\\..": 404,
            "/v1/chat/completions#x": 400,
            "*": 400,
            "s:80": 400,
            "": 400,
        }.items()
    },
    **{
        f"target GET {target!r}": (raw(f"GET {target} HTTP/1.1"), [404], GOES_ON)
        for target in (
            "/v1/models/../../metrics",
            "/v1/models/..",
            "/v1/models/%2e%2e/%2e%2e/metrics",
            "/v1/models/a/../../../metrics",
            "/v1/models/..%2f..%2fmetrics",
            "/v1/models//metrics",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/server_info",
            "/v1/models/",
        )
    },
    "two targets": (raw("GET /v1/models /metrics HTTP/1.1"), [400], ENDS),
    "no version": (b"GET /v1/models\r\n\r\n", [400], ENDS),
    "a query": (post(OWN, path=CHAT + "?a=/../../metrics"), [200], GOES_ON),
}

METHODS: dict[str, Attack] = {
    **{
        f"method {method}": (raw(f"{method} {CHAT} HTTP/1.1"), [405], GOES_ON)
        for method in ("TRACE", "PUT", "DELETE", "PATCH", "PROPFIND", "GET")
    },
    "a preflight": (raw(f"OPTIONS {CHAT} HTTP/1.1"), [200], GOES_ON),
    "a preflight of what is not listed": (raw(f"OPTIONS {FORBIDDEN} HTTP/1.1"), [404], GOES_ON),
    "a preflight with a body": (
        raw(f"OPTIONS {CHAT} HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
        )
        + SMUGGLED,
        [413],
        ENDS,
    ),
    "CONNECT": (raw("CONNECT s:80 HTTP/1.1", body=SMUGGLED), [400], ENDS),
    "CONNECT to a path": (raw(f"CONNECT {CHAT} HTTP/1.1", body=SMUGGLED), [400], ENDS),
    **{
        f"method {method}": (raw(f"{method} {CHAT} HTTP/1.1"), [400], ENDS)
        for method in ("post", "FOO", "POST\x00", "", "PO ST")
    },
    "a GET with a body that is a request": (
        raw("GET /v1/nothing HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
        )
        + SMUGGLED,
        [404],
        GOES_ON,
    ),
    "a refused request with a body that is a request": (
        post(SMUGGLED, path="/nowhere"),
        [404],
        GOES_ON,
    ),
    "a request behind the last one": (post(OWN, "Connection: close\r\n") + SMUGGLED, [200], ENDS),
    "HTTP/1.0 keeps nothing": (
        post(OWN, "Connection: keep-alive\r\n").replace(b"/1.1", b"/1.0") + SMUGGLED,
        [200],
        ENDS,
    ),
    "a wrong key and the body of a request": (
        post(SMUGGLED).replace(SECRET.encode(), b"tg_wrong", 1),
        [401],
        GOES_ON,
    ),
}

ATTACKS = {**LENGTHS, **ENCODINGS, **CHUNKS, **HEADS, **TARGETS, **METHODS}
