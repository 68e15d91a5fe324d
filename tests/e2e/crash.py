#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""crash.py: kill a server again and again while clients write and flush as
fast as they can; what was flushed must be there afterwards.

Each client writes whole blocks, many at once, each stamped with its number
and the round in which it was written, and flushes now and then.  A block must
hold its stamp of the last flush that was answered, or a later one; or the
base's bytes where it was never flushed.
"""

import argparse
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import nbd

BLOCK = 4096


def stamp(block, serial):
    return struct.pack("<QQ", block, serial) * (BLOCK // 16)


class Client(threading.Thread):
    def __init__(self, uri, nblocks, seed):
        super().__init__()
        self.uri, self.nblocks = uri, nblocks
        self.rng = random.Random(seed)
        self.flushed = {}               # block -> serial
        self.written = {}               # block -> highest serial sent
        self.serial = 0
        self.stop = False
        self.flushes = 0

    def run(self):
        h = nbd.NBD()
        try:
            h.connect_uri(self.uri)
            while not self.stop:
                self.burst(h)
        except nbd.Error:
            pass                        # killed: what we are here for

    def burst(self, h):
        """Some writes in flight at once, then perhaps a flush."""
        sent, cookies = {}, []
        for _ in range(self.rng.randrange(1, 24)):
            b = self.rng.randrange(self.nblocks)
            if b in sent:
                continue
            self.serial += 1
            sent[b] = self.written[b] = self.serial
            cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(stamp(b, self.serial))),
                                        b * BLOCK))
        while cookies:
            h.poll(-1)
            cookies = [c for c in cookies if not h.aio_command_completed(c)]
        self.done = getattr(self, "done", {})
        self.done.update(sent)
        if self.rng.random() < 0.5:
            h.flush()
            self.flushed.update(self.done)
            self.done = {}
            self.flushes += 1

    def check(self, base):
        h = nbd.NBD()
        h.connect_uri(self.uri)
        for b in range(self.nblocks):
            got = h.pread(BLOCK, b * BLOCK)
            low, high = self.flushed.get(b, 0), self.written.get(b, 0)
            if low == 0 and got == base[b * BLOCK:(b + 1) * BLOCK]:
                continue
            number, serial = struct.unpack_from("<QQ", got)
            if got != stamp(b, serial) or number != b or not low <= serial <= high:
                sys.exit("%s: block %d holds (%d, %d), not its flushed %d to %d"
                         % (self.uri, b, number, serial, low, high))
            # It is there now; a second kill may take back what was not flushed.
        h.shutdown()


def listens(path):
    """A socket is there before its server listens: try it."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
            return True
        except OSError:
            return False


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--clients", type=int, default=2)
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    p.add_argument("--base", required=True)
    p.add_argument("--dir", default=".")
    p.add_argument("server", nargs="+")
    args = p.parse_args()
    print("# seed %d" % args.seed, flush=True)
    sock = os.path.join(args.dir, "crash.sock")
    argv = [a.replace("@SOCK@", sock) for a in args.server]
    with open(args.base, "rb") as f:
        base = f.read()
    rng = random.Random(args.seed)
    clients, flushes = [None] * args.clients, 0
    for kill in range(args.kills + 1):
        if os.path.exists(sock):
            os.unlink(sock)
        server = subprocess.Popen(argv)
        try:
            while not listens(sock):
                if server.poll() is not None:
                    sys.exit("the server ended with status %d" % server.returncode)
                time.sleep(0.005)
            for i in range(args.clients):
                uri = "nbd+unix:///cafe@c%d?socket=%s" % (i, sock)
                fresh = Client(uri, len(base) // BLOCK, rng.randrange(1 << 30))
                if clients[i]:
                    fresh.flushed, fresh.written = clients[i].flushed, clients[i].written
                    fresh.serial = clients[i].serial
                    # All clients are checked now and then, one each time.
                    if kill % args.clients == i or kill == args.kills:
                        fresh.check(base)
                clients[i] = fresh
            if kill == args.kills:
                break
            for c in clients:
                c.start()
            clients[0].join(0.02 + rng.random() * 0.15)
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
        for c in clients:
            c.stop = True
            c.join()
            flushes += c.flushes
    print("# %d kills, %d flushes, %d blocks written: every flushed one was found"
          % (args.kills, flushes, sum(len(c.written) for c in clients)))
    if flushes < args.kills:
        sys.exit("too few flushes to prove anything")
    return 0


if __name__ == "__main__":
    sys.exit(main())
