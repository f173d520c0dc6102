"""Malformed requests for any service of ours that takes JSON: each holds `MARK`, and must be refused without repeating it."""

import random

import httpx

MARK = "xylophone"
TYPES = ("application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data; boundary=b", None)


def request(seed, field):
    """The headers and body of a malformed request: `field` is a text that the endpoint asks for."""
    draw = random.Random(seed)
    quoted = f'"{MARK} {draw.randrange(10**6)}"'
    value = draw.choice(
        [
            *(f'"{MARK}{half}"' for half in ("\\ud800", "\\udfff\\ud800", "\\udc00 x")),
            *("NaN", "-Infinity", "1e999", "null", "true", "-7", "9" * 5000),
            *(f"[{quoted}]", f'{{"{MARK}": {quoted}}}', "[" * draw.choice([3, 30_000]), '"' + MARK * 500 + '"'),
        ]
    )
    body = draw.choice(
        [
            f'{{"{field}": {value}}}',
            f'{{"{field}": {value}, "stream": "{MARK}", "{MARK}": NaN}}',
            f'{{"{field}": {quoted}, "stream": {draw.choice(["NaN", "[]", quoted])}}}',
            f'{{"{field}": {quoted}, ' + draw.choice(["", "}", "NaN}", "'x'}"]),
            f"[{quoted}, {value}]",
            *(value, quoted, MARK, ""),
        ]
    ).encode()
    for _ in range(draw.choice([0, 0, 3])):
        at = draw.randrange(len(body) + 1)
        body = body[:at] + bytes([draw.randrange(128, 256)]) + body[at:]
    kind = draw.choice(TYPES)
    return {"Content-Type": kind} if kind else {}, body


async def problems(app, path, field, count=400):
    """What a service does with malformed requests that it must not do, a line each."""
    found = []
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for seed in range(count):
            headers, body = request(seed, field)
            got = await client.post(path, content=body, headers=headers)
            refused = 400 <= got.status_code < 500 and isinstance(got.json().get("detail"), str)
            if not refused or MARK in got.text or "\n" in got.text:
                found.append(f"{seed}: {headers} {body[:80]!r}: {got.status_code} {got.text[:200]}")
    return found
