#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""cold.py: clients of a cold server, and judges of what its center was asked.

    cold.py read  --image FILE [--clients N] [--ops N] [--seed N] ... URI...
        Client processes, one connection each, spread over the URIs, read at
        random and compare with FILE.  Wrong bytes: exit 1.  What they read goes
        to --touched.  --errors: errors are counted and not failures; --leave:
        a connection that ends is none (its server is to be killed).

    cold.py once  LOG CENTER --image FILE --base FILE [--touched FILE] [--again BYTES]
        By the origin's LOG no byte of a pack was sent twice (but --again), and
        not more than 1.01 times the segments that --touched needs.

    cold.py whole LOG CENTER HAVE...
        No line of LOG asks for an entry that is CHECKED in a copy of a `have`.

    cold.py power STORE
        Make STORE look as after a loss of power: `have` of another boot, not
        closed cleanly, with some states as they never were, and some of the data zeroes.
"""

import argparse
import collections
import glob
import json
import os
import random
import signal
import struct
import sys
import time

BLOCK = 4096


def fail(text):
    print("FAILED: " + text, flush=True)
    sys.exit(1)


# --- clients ---------------------------------------------------------------

def place(rng, size, most):
    """Small and large, aligned and not, some where everybody reads."""
    count = rng.choice((512, 4096, 4096, 65536, rng.randrange(1, most), most))
    offset = rng.randrange(0, size - count)
    if rng.random() < 0.3:
        offset = rng.randrange(0, size // 8)
    if rng.random() < 0.6:
        offset -= offset % BLOCK
    return offset, min(count, size - offset)


def client(args, number, data, out):
    import nbd
    rng = random.Random(args.seed * 1000 + number)
    lo, hi = args.begin, args.end or len(data)
    touched, errors, slowest = [], collections.Counter(), 0.0
    signal.alarm(args.limit)            # nothing waits for ever
    h = nbd.NBD()
    try:
        h.connect_uri(args.uri[number % len(args.uri)])
        plan = ([(at, min(args.most, hi - at)) for at in range(lo, hi, args.most)] if args.ops == 0
                else (place(rng, hi - lo, args.most) for _ in range(args.ops)))
        for offset, count in plan:
            offset += 0 if args.ops == 0 else lo
            begin = time.monotonic()
            try:
                got = h.pread(count, offset)
            except nbd.Error as e:
                if not h.aio_is_ready():
                    raise
                if not args.errors:
                    fail("client %d: read of %d at %d: %s" % (number, count, offset, e))
                errors[e.errno] += 1
                continue
            finally:
                slowest = max(slowest, time.monotonic() - begin)
            if got != data[offset:offset + count]:
                fail("client %d: wrong bytes in %d at %d" % (number, count, offset))
            touched.append((offset, count))
        h.shutdown()
    except nbd.Error as e:
        if not args.leave:
            fail("client %d: %s" % (number, e))
    json.dump({"touched": touched, "errors": errors, "slowest": slowest}, out)
    out.close()


def read(args):
    with open(args.image, "rb") as f:
        data = f.read()
    base = "%s.%d" % (args.touched or "touched", os.getpid())
    children = {}
    for n in range(args.clients):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                client(args, n, data, open("%s.%d" % (base, n), "w"))
                code = 0
            except SystemExit as e:
                code = e.code
            finally:
                os._exit(code)
        children[pid] = n
    bad = []
    while children:
        pid, status = os.wait()
        n = children.pop(pid)
        if os.WIFSIGNALED(status):
            bad.append("client %d waited longer than %d s" % (n, args.limit))
        elif status:
            bad.append("client %d" % n)
    if bad:
        fail("seed %d: %s" % (args.seed, ", ".join(bad)))
    touched, errors, slowest = [], collections.Counter(), 0
    for n in range(args.clients):
        with open("%s.%d" % (base, n)) as f:
            r = json.load(f)
        os.unlink("%s.%d" % (base, n))
        touched += r["touched"]
        errors.update(r["errors"])
        slowest = max(slowest, r["slowest"])
    if args.touched:
        old = json.load(open(args.touched)) if os.path.exists(args.touched) else []
        with open(args.touched, "w") as f:
            json.dump(old + touched, f)
    print("reads %d errors %d slowest %.2f %s" % (len(touched), sum(errors.values()), slowest, dict(errors)))


# --- what lies at a center, and what it was asked for ---------------------------

class Pack:
    """A variant's index: the place of each entry in the pack."""

    def __init__(self, index):
        b = open(index, "rb").read()
        magic, version, self.shift, n, self.size = struct.unpack_from("<8sIIQQ", b)
        assert magic == b"ESPINDEX" and version == 1
        self.name = "/".join(index[:-len("index")].split("/")[-2:]) + "pack"
        self.entries = [struct.unpack_from("<IIQ", b, 32 + 48 * i) for i in range(n)]

    def inside(self, first, last):
        """Entries that [first, last] touches."""
        return {i for i, (_, stored, at) in enumerate(self.entries) if at <= last and first < at + stored}


def packs(center):
    return {p.name: p for p in map(Pack, glob.glob(center + "/restore-points/*/*.index"))}


def ranges(log):
    """Of each pack: first byte, and how many were sent."""
    for line in open(log):
        _, method, path, span, status, sent, _, _ = line.split()
        if method == "GET" and path.endswith(".pack") and status == "206" and span != "-":
            first = span.replace("bytes=", "").split("-")[0]    # as nginx logs it
            yield "/".join(path.split("/")[-2:]), int(first), int(sent)


def needed(args, all_packs):
    """Bytes of the segments that hold what was touched."""
    image, base = open(args.image, "rb").read(), open(args.base, "rb").read()
    blocks = {b for at, n in json.load(open(args.touched)) for b in range(at // BLOCK, (at + n - 1) // BLOCK + 1)}
    own = {p.name: {number: stored for number, stored, _ in p.entries} for p in all_packs.values()}
    # The child has few segments; the root has nearly all.
    child, root = sorted(all_packs.values(), key=lambda p: len(p.entries))
    want = set()
    for b in blocks:
        now, old = image[b * BLOCK:(b + 1) * BLOCK], base[b * BLOCK:(b + 1) * BLOCK]
        if now.count(0) == len(now):
            continue
        p = root if now == old else child
        want.add((p.name, b * BLOCK >> p.shift))
    return sum(own[name][number] for name, number in want)


def once(args):
    all_packs, total, again = packs(args.center), 0, 0
    seen = {name: bytearray(p.size) for name, p in all_packs.items()}
    for name, first, sent in ranges(args.log):
        total += sent
        again += sent - seen[name].count(0, first, first + sent)
        seen[name][first:first + sent] = b"\1" * sent
    print("sent %d, twice %d" % (total, again))
    if total == 0:
        fail("the center was asked for nothing")
    if again > args.again:
        fail("%d bytes were sent more than once" % again)
    if args.touched:
        need = needed(args, all_packs)
        print("needed %d: %.4f" % (need, total / need))
        if not 1 <= (total - again) / need <= 1.01:
            fail("%d bytes were sent for %d" % (total, need))


def whole(args):
    """The haves are named UUID.have."""
    all_packs, asked = packs(args.center), 0
    checked = {}
    for f in args.have:
        b = open(f, "rb").read()
        n = struct.unpack_from("<Q", b, 16)[0]
        checked[os.path.basename(f)[:-5]] = {i for i in range(n) if b[4096 + i] == 2}
    print("checked " + " ".join(str(len(c)) for c in checked.values()))
    if not any(checked.values()):
        fail("nothing was local")
    for name, first, sent in ranges(args.log):
        if sent == 0:
            continue
        asked += 1
        both = all_packs[name].inside(first, first + sent - 1) & checked[name.split("/")[0]]
        if both:
            fail("%s: entries %s were fetched again" % (name, sorted(both)))
    print("asked %d" % asked)
    if not asked:
        fail("nothing was fetched")


def power(args):
    rng, torn = random.Random(args.seed), 0
    for have in glob.glob(args.store + "/restore-points/*/have"):
        with open(have, "r+b") as f:
            b = f.read(4096)
            n, shift = struct.unpack_from("<QI", b, 16)
            for _ in range(n // 8):         # pages of states that were not written
                f.seek(4096 + rng.randrange(n))
                f.write(bytes([rng.choice((0, 1, 2, 3, 255))]))
            f.seek(12)
            f.write(bytes(4))
            f.seek(32)
            f.write(rng.randbytes(16))
        data = os.path.dirname(have) + "/data"
        os.chmod(data, 0o600)
        with open(data, "r+b") as f:
            size = os.fstat(f.fileno()).st_size
            for at in range(0, size, 1 << shift):
                f.seek(at)
                piece = f.read(1 << shift)
                if any(piece) and rng.random() < 0.3:
                    cut = rng.randrange(0, len(piece)) // BLOCK * BLOCK
                    f.seek(at + cut)
                    f.write(bytes(len(piece) - cut))
                    torn += any(piece[cut:])
    print("torn %d" % torn)
    if not torn and not args.maybe:
        fail("nothing was torn")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="mode", required=True)
    s = sub.add_parser("read")
    s.add_argument("uri", nargs="+")
    s.add_argument("--clients", type=int, default=1)
    s.add_argument("--ops", type=int, default=0, help="0: all of it, in order")
    s.add_argument("--most", type=int, default=262144, help="bytes of a read")
    s.add_argument("--begin", type=int, default=0)
    s.add_argument("--end", type=int, default=0)
    s.add_argument("--limit", type=int, default=150, help="seconds for a client")
    s.add_argument("--errors", action="store_true")
    s.add_argument("--leave", action="store_true")
    s = sub.add_parser("once")
    s.add_argument("log")
    s.add_argument("center")
    s.add_argument("--base", default="base.img")
    s.add_argument("--again", type=int, default=0)
    for s in sub.choices.values():
        s.add_argument("--image", default="v2.img")
        s.add_argument("--touched")
    s = sub.add_parser("whole")
    s.add_argument("log")
    s.add_argument("center")
    s.add_argument("have", nargs="+")
    s = sub.add_parser("power")
    s.add_argument("store")
    s.add_argument("--maybe", action="store_true", help="it may have nothing that could be torn")
    for s in sub.choices.values():
        s.add_argument("--seed", type=int, default=int(os.environ.get("ESPALIER_TEST_SEED", 0)) or random.randrange(1 << 30))
    args = p.parse_args()
    print("# seed %d" % args.seed)
    {"read": read, "once": once, "whole": whole, "power": power}[args.mode](args)


if __name__ == "__main__":
    main()
