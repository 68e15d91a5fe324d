#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""http-attack KIND PORT: be a bad HTTP client of 127.0.0.1:PORT; after it, and
while it goes on, the server must answer within a second.  Fails with a message."""
import random
import resource
import socket
import sys
import time

KIND, PORT = sys.argv[1], int(sys.argv[2])
AT = ("127.0.0.1", PORT)
GOOD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(source="127.0.0.1", timeout=5):
    s = socket.socket()
    s.settimeout(timeout)
    s.bind((source, 0))
    s.connect(AT)
    return s


def answer(s):
    """The whole of what comes until the end, or until nothing has come for a while."""
    data = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                break
            data += part
    except OSError:
        pass
    return data


def status(data):
    assert data.startswith(b"HTTP/1."), data[:200]
    return int(data.split()[1])


def well(source="127.0.0.9"):
    """Somebody at another address is served, at once: a machine that does much else
    may need a second try to be as fast."""
    for _ in range(5):
        begin = time.monotonic()
        with connect(source) as s:
            s.sendall(GOOD)
            data = s.recv(4096)
        took = time.monotonic() - begin
        assert status(data) == 200, data
        if took < 1:
            return
    raise AssertionError(f"a good request took {took:.2f} s")


def ask(raw, expect):
    with connect(timeout=3) as s:
        try:
            s.sendall(raw)
            s.shutdown(socket.SHUT_WR)
        except OSError:         # it has answered, or closed, before all of it was sent
            pass
        data = answer(s)
    if None in expect and not data:
        return
    assert data and status(data) in expect, (raw[:200], data[:300])


def request(target, *headers, method=b"GET", version=b"HTTP/1.1"):
    return b"\r\n".join([method + b" " + target + b" " + version, b"Host: x", b"Connection: close", *headers, b"", b""])


def targets():
    for bad in (b"/%", b"/%0", b"/%zz", b"/%00", b"/a%00b", b"/%ff", b"/%c0%af", b"/%ed%a0%80", b"/../etc/passwd", b"/a/../b",
                b"/a/./b", b"//", b"/a//b", b"/%2e%2e/x", b"/%2E", b"/a%2fb", b"/a%2Fb", b"/%0a", b"/x%0d%0aSet-Cookie:%20y",
                b"/%7f", b"/%c2%85", b"healthz", b"?", b"/healthz?%", b"/healthz?a=%f",
                b"/healthz?" + b"&".join(b"p%d" % i for i in range(200))):
        ask(request(bad), (400,))
    for good in (b"/healthz", b"/healthz?", b"/healthz?&&=&a&a=1&a=2&%ff=%00", b"http://other.host/healthz", b"/healthz?a=%00",
                 b"/healthz?x=" + b"y" * 4000):
        ask(request(good), (200,))
    for page in (b"/", b"http://x"):
        ask(request(page), (200,))
    for none in (b"/healthz/", b"/healthz/x", b"/Healthz", b"/nothing", b"/%e2%82%ac", b"/a%20b", b"/..a", b"/...", b"/*",
                 b"/\\..\\x"):
        ask(request(none), (404,))
    ask(request(b"/" + b"x" * 9000), (414,))
    ask(request(b"/" + b"x" * 100000), (414, 431, None))
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"get", b"GETX"):
        with connect(timeout=3) as s:
            s.sendall(request(b"/healthz", method=method))
            data = answer(s)
        assert status(data) == 405 and b"Allow: GET, HEAD" in data, (method, data)


def bodies():
    ask(request(b"/healthz", b"Content-Length: 5") + b"hello", (413,))
    ask(request(b"/healthz", b"Content-Length: 99999999999999999999"), (400, 413, None))
    ask(request(b"/healthz", b"Content-Length: -1"), (400, 413, None))
    ask(request(b"/healthz", b"Content-Length: 4611686018427387904"), (413,))
    ask(request(b"/healthz", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", (413,))
    ask(request(b"/healthz", b"Transfer-Encoding: chunked") + b"zz\r\n", (413, 400))
    ask(request(b"/healthz", b"Expect: 100-continue", b"Content-Length: 3"), (413, 417))
    ask(request(b"/healthz", b"Content-Length: 0"), (200,))
    ask(request(b"/healthz", b"Content-Length: 3", b"Content-Length: 4") + b"abcd", (400, 413))


def headers():
    ask(request(b"/healthz", *[b"X-%d: y" % i for i in range(100)]), (200, 431))
    ask(request(b"/healthz", b"X: " + b"y" * 60000), (431, 413, 400, None))
    ask(request(b"/healthz", *[b"X-%d: " % i + b"y" * 500 for i in range(1000)]), (431, 413, 400, None))
    ask(b"GET /healthz HTTP/1.1\r\n\r\n", (200, 400))
    ask(b"GET /healthz HTTP/1.0\r\n\r\n", (200,))
    ask(b"GET /healthz HTTP/9.9\r\n\r\n", (505, 400, None))
    ask(b"GET /healthz\r\n\r\n", (200, 400, 505, None))
    ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: evil.example\r\nNoColon\r\n: empty\r\n\r\n", (200, 400))
    with connect() as s:                # nothing that it says comes back
        s.sendall(b"GET /nothing?evil=1 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b"evil" not in answer(s)


def garbage():
    r = random.Random(7)
    words = [b"GET", b" ", b"/", b"healthz", b"HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host:", b"%", b"?", b"\0", b"\xff", b"Range: bytes=",
             b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"99", b"-", b",", b":", b"\t"]
    for i in range(400):
        raw = r.randbytes(r.randrange(1, 3000)) if i % 2 else b"".join(r.choice(words) for _ in range(r.randrange(1, 60)))
        try:
            with connect() as s:
                s.sendall(raw)
                if i % 3:
                    s.shutdown(socket.SHUT_WR)
                s.settimeout(0.02)
                answer(s)
        except OSError:
            pass
        if i % 50 == 0:
            well()


def halves():
    """Requests cut off at every byte, and resets."""
    for i in range(len(GOOD)):
        with connect() as s:
            s.sendall(GOOD[:i])
            if i % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with connect() as s:                # byte by byte is fine
        for i in range(len(GOOD)):
            s.sendall(GOOD[i:i + 1])
        assert status(s.recv(4096)) == 200


def pipeline():
    n = 300
    with connect() as s:
        s.sendall(GOOD * n)
        data = b""
        while data.count(b"\r\n\r\nok\n") < n:
            part = s.recv(65536)
            assert part, "closed in the middle"
            data += part
    assert data.count(b"HTTP/1.1 200") == n


def many():
    """2,000 connections that say nothing, of one address, then of many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = []
    for i in range(2000):
        held.append(connect())
        if i % 500 == 499:
            well()
    for s in held:
        s.close()
    time.sleep(0.1)
    well("127.0.0.1")
    # Of many addresses: all that there are, for a while.  Then who only sits
    # there has to go.
    held = [connect(f"127.0.1.{1 + i % 20}") for i in range(2000)]
    end = time.monotonic() + 15
    while True:
        try:
            well()
            break
        except (OSError, AssertionError):
            assert time.monotonic() < end, "not served for 15 s"
    for s in held:
        s.close()


def slow():
    """Slowloris: a byte of a header now and then.  It is cut after half a minute
    whatever it does; meanwhile others are served."""
    held = [connect() for _ in range(100)]
    for s in held:
        s.sendall(b"GET /healthz HTTP/1.1\r\n")
    begin = time.monotonic()
    alive = held
    while alive:
        assert time.monotonic() - begin < 45, f"{len(alive)} are still there"
        well()
        left = []
        for s in alive:
            try:
                s.sendall(b"X")
                left.append(s)
            except OSError:
                s.close()
        alive = left
        time.sleep(0.5)
    assert time.monotonic() - begin > 20, "cut too early"


globals()[KIND]()
well()
well("127.0.0.1")
