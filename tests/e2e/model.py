#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""model.py: clients do at random what clients do, and every byte is compared
with a naive twin.

Several clients, each with two connections, read, write, zero, trim, flush and
ask for extents, with and without FUA, aligned and not; they reconnect; the
server is restarted, politely or by kill -9, under their hands.  A twin is a
plain array of bytes.  After a kill, a block must be what the last flush made
durable, or what one of the later writes made of it: never anything else.

    model.py --seed N --ops N --clients N --base FILE --export NAME -- SERVER ...

SERVER is the command that serves; @SOCK@ in it becomes the socket, --export
the name without "@CLIENT".  FILE holds the bytes of the base.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time

import nbd

BLOCK = 4096
CHUNK = 1 << 20


class Failure(Exception):
    """What the test is there to find."""


class Killed(Exception):
    """The server was killed on purpose: this round is over."""


class Server:
    def __init__(self, argv, sock):
        self.argv = [a.replace("@SOCK@", sock) for a in argv]
        self.sock = sock
        self.p = None
        self.restarts = self.kills = 0

    def start(self):
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.p = subprocess.Popen(self.argv)
        for _ in range(6000):
            if self.p.poll() is not None:
                raise Failure("the server ended with status %d" % self.p.returncode)
            if os.path.exists(self.sock):
                return
            time.sleep(0.01)
        raise Failure("the server does not listen")

    def stop(self, kill):
        self.p.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self.p.wait(90)
        except subprocess.TimeoutExpired:
            raise Failure("the server does not end")
        if kill:
            self.kills += 1
        else:
            self.restarts += 1


class Client:
    """A client, its connections and its twin."""

    def __init__(self, name, export, sock, base, seed, ops):
        self.uri = "nbd+unix:///%s@%s?socket=%s" % (export, name, sock)
        self.name = name
        self.twin = bytearray(base)
        self.durable = bytearray(base)      # as of the last flush
        self.later = {}                     # block -> what it was made since
        self.rng = random.Random(seed)
        self.ops = ops
        self.done = 0
        self.handles = []
        self.error = None
        self.killed = threading.Event()

    # --- connections -----------------------------------------------------
    def connect(self):
        deadline = time.monotonic() + 90
        while True:
            try:
                self.handles = []
                for _ in range(2):
                    h = nbd.NBD()
                    h.set_handle_name(self.name)
                    h.add_meta_context("base:allocation")
                    h.connect_uri(self.uri)
                    self.handles.append(h)
                break
            except nbd.Error as e:
                # The server is starting, or was killed.
                if self.killed.is_set():
                    raise Killed()
                if time.monotonic() > deadline:
                    raise Failure("%s cannot connect: %s" % (self.name, e))
                time.sleep(0.02)
        if self.handles[0].get_size() != len(self.twin):
            raise Failure("%s: the disk has another size" % self.name)

    def disconnect(self):
        for h in self.handles:
            try:
                h.shutdown()
            except nbd.Error:
                pass
        self.handles = []

    # --- what is allowed -------------------------------------------------
    @staticmethod
    def blocks(offset, count):
        return range(offset // BLOCK, (offset + count - 1) // BLOCK + 1)

    def touch(self, offset, count):
        """The twin of [offset, offset+count) has changed and is not durable."""
        for b in self.blocks(offset, count):
            self.later.setdefault(b, []).append(bytes(self.twin[b * BLOCK:(b + 1) * BLOCK]))

    def flushed(self):
        for b in self.later:
            self.durable[b * BLOCK:(b + 1) * BLOCK] = self.twin[b * BLOCK:(b + 1) * BLOCK]
        self.later = {}

    def settle(self, offset, count):
        """[offset, offset+count) is durable: older bytes are impossible there."""
        self.durable[offset:offset + count] = self.twin[offset:offset + count]
        for b in self.blocks(offset, count):
            lo, hi = max(offset, b * BLOCK), min(offset + count, (b + 1) * BLOCK)
            piece, at = bytes(self.twin[lo:hi]), lo - b * BLOCK
            self.later[b] = [v[:at] + piece + v[at + len(piece):] for v in self.later.get(b, [])]

    def expect(self, got, offset, what):
        want = self.twin[offset:offset + len(got)]
        if got != want:
            at = next(i for i in range(len(got)) if got[i] != want[i])
            raise Failure("%s: %s at %d: byte %d is %02x, not %02x (operation %d)"
                          % (self.name, what, offset, offset + at, got[at], want[at], self.done))

    def read_all(self, h):
        size, got = len(self.twin), bytearray()
        while len(got) < size:
            got += h.pread(min(CHUNK, size - len(got)), len(got))
        return got

    def after_kill(self):
        """Every block is durable, or one of the later versions, or made of
        bytes of those, where a partial write was cut off."""
        got = self.read_all(self.handles[0])
        for b in range((len(got) + BLOCK - 1) // BLOCK):
            now = bytes(got[b * BLOCK:(b + 1) * BLOCK])
            versions = [bytes(self.durable[b * BLOCK:(b + 1) * BLOCK])] + self.later.get(b, [])
            if now in versions:
                continue
            for i, byte in enumerate(now):
                if not any(v[i] == byte for v in versions):
                    raise Failure("%s: after a kill byte %d is %02x, which nobody wrote (%d versions)"
                                  % (self.name, b * BLOCK + i, byte, len(versions)))
        # What is there stays there, but the next kill may still undo it.
        for b, versions in self.later.items():
            versions.append(bytes(got[b * BLOCK:(b + 1) * BLOCK]))
        self.twin[:] = got

    # --- operations ------------------------------------------------------
    def place(self):
        """An offset and a length: small, large, aligned, unaligned, at the end."""
        r, size = self.rng, len(self.twin)
        count = r.choice((1, r.randrange(1, 600), 512, BLOCK, BLOCK, r.randrange(1, 3 * BLOCK),
                          16 * BLOCK, r.randrange(1, 80 * BLOCK), r.randrange(1, CHUNK)))
        count = min(count, size)
        offset = r.randrange(0, size - count + 1)
        where = r.random()
        if where < 0.5:
            offset -= offset % BLOCK
        elif where < 0.6:
            offset = size - count
        elif where < 0.75:                  # around a tile's border
            tile = r.randrange(0, size // CHUNK + 1) * CHUNK
            offset = max(0, min(size - count, tile - count // 2))
        return offset, count

    def write(self, h, offset, count):
        fua = self.rng.random() < 0.1
        data = self.rng.randbytes(count)
        self.twin[offset:offset + count] = data
        self.touch(offset, count)
        h.pwrite(data, offset, nbd.CMD_FLAG_FUA if fua else 0)
        if fua:
            self.settle(offset, count)

    def zero(self, h, offset, count, trim):
        self.twin[offset:offset + count] = bytes(count)
        self.touch(offset, count)
        if trim:
            # The protocol lets a trimmed range read as anything; the overlay
            # promises zeroes.
            h.trim(count, offset)
        else:
            h.zero(count, offset, self.rng.choice((0, nbd.CMD_FLAG_NO_HOLE)))

    def extents(self, h, offset, count):
        runs = []
        h.block_status(count, offset, lambda _c, _o, e, _err: runs.extend(e) or 0)
        at = offset
        for length, flags in zip(runs[0::2], runs[1::2]):
            end = min(at + length, offset + count)
            if flags & nbd.STATE_ZERO and any(self.twin[at:end]):
                raise Failure("%s: the extent at %d, %d long, is said to be zero and is not"
                              % (self.name, at, length))
            at = end
        if not runs:
            raise Failure("%s: no extents at %d" % (self.name, offset))

    def operation(self):
        h = self.rng.choice(self.handles)
        offset, count = self.place()
        kind = self.rng.random()
        if kind < 0.35:
            self.expect(h.pread(count, offset), offset, "read")
        elif kind < 0.70:
            self.write(h, offset, count)
        elif kind < 0.78:
            self.zero(h, offset, count, False)
        elif kind < 0.85:
            self.zero(h, offset, count, True)
        elif kind < 0.92:
            h.flush()
            self.flushed()
        elif kind < 0.96:
            self.extents(h, offset, count)
        elif kind < 0.98:
            if h.can_cache():
                h.cache(count, offset)
        else:
            self.disconnect()
            self.connect()
        self.done += 1

    def round(self, n):
        """N operations, or as many as the server lives for: a thread's work."""
        try:
            for _ in range(n):
                try:
                    self.operation()
                except nbd.Error as e:
                    if self.killed.is_set():
                        return
                    raise Failure("%s: %s (operation %d)" % (self.name, e, self.done))
        except Killed:
            pass
        except Failure as e:
            self.error = e
        except Exception as e:      # a fault of this program: a failure, too
            self.error = Failure("%s: %r" % (self.name, e))


class Model:
    def __init__(self, args, base):
        self.args = args
        self.rng = random.Random(args.seed)
        sock = os.path.join(args.dir, "model.sock")
        self.server = Server(args.server, sock)
        self.clients = [Client("c%d" % i, args.export, sock, base, args.seed * 1000 + i,
                               args.ops // args.clients) for i in range(args.clients)]

    def round(self, kill):
        most = min(400, max(11, self.args.ops // self.args.clients // 3))
        n = self.rng.randrange(10, most)
        threads = [threading.Thread(target=c.round, args=(n,)) for c in self.clients]
        for c in self.clients:
            c.killed.clear()
        for t in threads:
            t.start()
        if kill:                    # in mid-operation: at a random moment
            threads[0].join(self.rng.random() * 0.5)
            for c in self.clients:
                c.killed.set()
            self.server.stop(True)
        for t in threads:
            t.join()
        for c in self.clients:
            if c.error:
                raise c.error
            c.killed.clear()

    def restart(self, kill):
        if not kill:
            for c in self.clients:
                c.disconnect()
            self.server.stop(False)
        self.server.start()
        for c in self.clients:
            c.connect()
            if kill:
                c.after_kill()
            else:
                c.expect(c.read_all(c.handles[1]), 0, "read after a restart")

    def run(self):
        self.server.start()
        for c in self.clients:
            c.connect()
        while any(c.done < c.ops for c in self.clients):
            kill = self.args.kill and self.rng.random() < 0.6
            self.round(kill)
            self.restart(kill)
        for c in self.clients:
            c.expect(c.read_all(c.handles[0]), 0, "last read")
            c.disconnect()
        self.server.stop(False)


def parser(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--ops", type=int, default=4000, help="operations of all clients (default 4000)")
    p.add_argument("--clients", type=int, default=3)
    p.add_argument("--base", required=True, help="a file with the base's bytes")
    p.add_argument("--export", required=True)
    p.add_argument("--dir", default=".", help="for the socket")
    p.add_argument("--no-kill", dest="kill", action="store_false", help="only polite restarts")
    p.add_argument("server", nargs="+")
    return p


def parse(p):
    args = p.parse_args()
    if args.seed is None:
        args.seed = int.from_bytes(os.urandom(4), "little")
    print("# seed %d" % args.seed, flush=True)
    return args


def run(model, args):
    try:
        model.run()
    except Failure as e:
        print("# FAILED with --seed %d: %s" % (args.seed, e), flush=True)
        return 1
    finally:
        if model.server.p and model.server.p.poll() is None:
            model.server.p.kill()
            model.server.p.wait()
    print("# %d operations, %d restarts, %d kills: every byte right"
          % (sum(c.done for c in model.clients), model.server.restarts, model.server.kills))
    return 0


def main():
    args = parse(parser(__doc__))
    with open(args.base, "rb") as f:
        return run(Model(args, f.read()), args)


if __name__ == "__main__":
    sys.exit(main())
