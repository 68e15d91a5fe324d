#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""http-hostile ROUTES.c PORT SECONDS [SEED]: ask every route of the daemon for
what nobody should ask, with queries and headers likewise.  No answer may be a
500, take more than 10 s, or miss; afterwards all is well."""
import http.client
import random
import re
import sys
import time
import urllib.parse

ROUTES, PORT, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)
print(f"# seed {SEED}", flush=True)
R = random.Random(SEED)
PATTERNS = re.findall(r'^  \{ "([^"]+)"', open(ROUTES).read(), re.M)
assert len(PATTERNS) >= 5, PATTERNS

PARTS = ["cafe", "empty", "none", "0", "1", "255", "256", "-1", "+0", "00", "4294967296", "1e3", "0x0", " 0", "x" * 128, "x" * 129, "x" * 4000,
         "café", "中文", "rp:base", "cafe@seat", "cafe+t", "..a", "...", "*", "%", "%s%n", "a'b", 'a"b', "; DROP TABLE venues", "a?b", "a#b",
         "${net0/mac}", "cafe\\..", "\u202e", "index.html", "page.js", "~", "0.0", "٣"]
NAMES = ["mac", "uuid", "ip", "venue", "need", "needs", "page", "t", "tip", "export", "ipxe", "stack", "tree", "choose", "show", "match", "try",
         "n", "limit", "arch", "platform", "manufacturer", "asset", "serial", "buildarch", "x", ""]
VALUES = PARTS + ["52:54:00:12:34:56", "52-54-00-12-34-56", "525400123456", "ff:ff:ff:ff:ff:ff", "52:54:00:12:34", "gg:54:00:12:34:56",
                  "00000000-0000-0000-0000-000000000000", "123e4567-e89b-12d3-a456-426614174000", "10.0.0.1", "::1", "999.1.1.1", "Office", "games", "on", "1", "",
                  "cafe/0@seat+" + "A" * 54, "A" * 54, "A" * 1024, "B" * 1025, "-" * 54, "a\nb", "a\0b", "a\tb", "\xff", "a b", "a&b=c", "<script>", "#!ipxe", "\r\nshell\r\n"]
HEADERS = [("Range", ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-1", "bytes=99999999999999999999-", "bytes=0-1,5-6", "bytes=", "x", "bytes=0-" + "9" * 300,
                      "bytes=511-512", "bytes=" + ",".join("0-0" for _ in range(500))]),
           ("If-Range", ['"x"', "W/\"x\"", "Mon, 23 Nov 2026 00:00:00 GMT", ""]),
           ("If-None-Match", ['"x"', "*", '"', "W/", ",,,", '"a", "b"', "x" * 2000]),
           ("If-Match", ['"x"', "*", '"']),
           ("If-Modified-Since", ["yesterday"]),
           ("Accept", ["text/html", "application/json", "*/*;q=x", ""]),
           ("Accept-Encoding", ["gzip", "identity;q=0"]),
           ("Host", ["evil.example", "a:b:c", "", "[::1", "x" * 300]),
           ("X-Forwarded-For", ["1.2.3.4", "' OR 1=1"]),
           ("User-Agent", ["iPXE/1.21", "\xe9"]),
           ("Cookie", ["a=b; " * 100])]


def quote(text, safe=""):
    if R.random() < 0.1:                # other bytes than UTF-8's
        text = R.choice([b"%c0%af", b"%ff", b"%ed%a0%80", b"%00", b"%7f"]).decode()
        return text
    return urllib.parse.quote(text, safe=safe, encoding="latin-1" if text == "\xff" else "utf-8")


def target():
    path = "/".join(quote(R.choice(PARTS)) if part == "*" else part for part in R.choice(PATTERNS).split("/"))
    if R.random() < 0.05:
        path += R.choice(["/", "/x", "%20", "?", "//"])
    n = R.choice([0, 1, 2, 3, 8, 100])
    query = "&".join(quote(R.choice(NAMES)) + R.choice(["=", "=", "=", ""]) + quote(R.choice(VALUES)) for _ in range(n))
    return path + ("?" + query if query else "")


def headers():
    return {name: R.choice(values) for name, values in R.sample(HEADERS, R.choice([0, 0, 1, 2, 4]))}


def ask(c, method, url, head):
    c.putrequest(method, url, skip_host="Host" in head, skip_accept_encoding=True)
    for name, value in head.items():
        c.putheader(name, value.encode("latin-1"))
    c.endheaders()
    answer = c.getresponse()
    body = answer.read()
    return answer, body


def judge(answer, body, method):
    assert 200 <= answer.status < 500 or answer.status in (501, 502, 503, 505), answer.status
    assert answer.getheader("X-Content-Type-Options") == "nosniff" or answer.status in (400, 413, 414, 431), answer.getheaders()
    if method == "HEAD":
        assert not body
    if answer.status == 206:
        first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.getheader("Content-Range")).groups())
        assert 0 <= first <= last < size and (method == "HEAD" or len(body) == last - first + 1)


n, seen, end = 0, {}, time.monotonic() + SECONDS
conn = None
while time.monotonic() < end:
    if conn is None or R.random() < 0.02:
        conn = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    method, url, head = R.choice(["GET", "GET", "GET", "HEAD"]), target(), headers()
    try:
        answer, body = ask(conn, method, url, head)
        judge(answer, body, method)
        seen[answer.status] = seen.get(answer.status, 0) + 1
        if answer.will_close:
            conn = None
    except http.client.RemoteDisconnected:
        # A head that fits into no buffer may have no answer.
        if len(url) < 8192:
            print(f"# {method} {url[:600]} {head}", flush=True)
            raise
        conn = None
    except Exception:
        print(f"# {method} {url[:600]} {head}", flush=True)
        raise
    n += 1
for path in ("/healthz", "/healthz?stack"):
    assert ask(http.client.HTTPConnection("127.0.0.1", PORT, timeout=10), "GET", path, {})[0].status == 200
print(f"# {n} requests: {dict(sorted(seen.items()))}")
assert n > 20 and 200 in seen and 400 in seen and 404 in seen, (n, seen)
