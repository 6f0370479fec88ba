"""Ways to damage an input, by a seeded generator: bytes, lines of TOML, values of JSON."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

DEEP = (100, 400, 900, 3000, 100_000)
"""How deep lists are nested, and how long keys are."""


def odd_value(rng: random.Random) -> Any:
    """Return a value that no reader expects, as JSON would give it."""
    deep = rng.choice(DEEP[:3])
    nested: Any = 1
    for _ in range(deep):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return rng.choice(
        [
            None,
            True,
            False,
            0,
            -1,
            1e308,
            -1e308,
            10**400,
            -(10**400),
            2**63,
            2**31,
            0.1,
            "",
            "x",
            "[/x]",
            "[red]",
            "\0",
            "a\0b",
            "\x1b[31m",
            ":smile:",
            "\ud800",
            "..",
            "../../x",
            "/",
            "nan",
            "1e999",
            [],
            {},
            [[]],
            [None],
            {"a": 1},
            [1, 2],
            ["a"],
            "0" * 64,
            "x" * 5000,
            nested,
            float("nan"),
            float("inf"),
        ]
    )


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove or add values somewhere in a JSON document."""
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        heap = [document]
        while heap:
            at = heap.pop()
            inner = (
                list(at.items())
                if isinstance(at, dict)
                else list(enumerate(at))
                if isinstance(at, list)
                else []
            )
            places += [(at, key) for key, _ in inner]
            heap += [value for _, value in inner if len(places) < 5000]
        if not places:
            return json.dumps(odd_value(rng)).encode()
        at, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.7:
            at[key] = odd_value(rng)
        elif kind < 0.85:
            del at[key]
        elif isinstance(at, dict):
            at[rng.choice(("x", "[/x]", "\0", "name"))] = odd_value(rng)
        else:
            at.append(at[key])
    with contextlib.suppress(RecursionError):
        return json.dumps(document).encode()
    return content


def tokens(rng: random.Random) -> bytes:
    """Return a piece of text that parsers stumble over."""
    deep = rng.choice(DEEP)
    return rng.choice(
        [
            b"[" * deep,
            b"{" * deep,
            b"[" * deep + b"]" * deep,
            b'{"a":' * deep,
            b"9" * 5000,
            b"9" * 400,
            b"1e400",
            b"-1e-400",
            b"\0",
            b"[/x]",
            b"\xff\xfe",
            b"\xed\xa0\x80",
            b"\r",
            b"\n",
            b",",
            b'"',
            b"'",
            b'"""',
            b"NaN",
            b"-Infinity",
            b"null",
            b"true",
            b"=",
            b"[[a]]",
            b"[a.b]",
            b"a." * deep,
            b"\x1b[31m",
            b"\\ud800",
            b"#",
            b"nan",
            b"inf",
            b"0x",
            b"1979-05-27",
            b" " * deep,
            b"../",
            b"\xef\xbb\xbf",
            b"\\u0000",
        ]
    )


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, insert."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end]
        elif kind == 3:
            data[at:end] = tokens(rng)
        elif rng.random() < 0.3:
            del data[at:]
        else:
            data[at:at] = tokens(rng)
    return bytes(data)


def mutate_toml(content: bytes, rng: random.Random) -> bytes:
    """Put an odd value behind the sign of a line, or change bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    lines = content.split(b"\n")
    places = [i for i, line in enumerate(lines) if b"=" in line]
    i = rng.choice(places)
    deep = rng.choice(DEEP[:4])
    value = rng.choice(
        [
            b"[" * deep + b"]" * deep,
            b"{a=" * deep + b"1" + b"}" * deep,
            b"9" * 5000,
            b"9" * 400,
            b"1e400",
            b"nan",
            b"-inf",
            b"-1",
            b"0",
            b"true",
            b'""',
            b'"[/x]"',
            b'"\\u0000"',
            b'"\\u001b[31m"',
            b"[]",
            b"{}",
            b"[1, [2]]",
            b'["a", 1]',
            b"1979-05-27",
            b"07:32:00",
            b'"0/0"',
            b'"1/0"',
            b'"1e400/255"',
            b'"' + b"9" * 5000 + b'/255"',
            b"2147483648",
            b"9223372036854775808",
            b'"' + b"x" * 5000 + b'"',
            b'":smile:"',
            b"0.1",
            b'"demo"',
        ]
    )
    lines[i] = lines[i].partition(b"=")[0] + b"= " + value
    return b"\n".join(lines)


def either(content: bytes, rng: random.Random) -> bytes:
    """Change a JSON document as one, or as bytes."""
    return (mutate_json if rng.random() < 0.75 else mutate_bytes)(content, rng)
