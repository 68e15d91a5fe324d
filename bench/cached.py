# SPDX-License-Identifier: BSD-3-Clause
"""The parts of bench/run that measure the segcache filter by itself.

cached-memory   reads that the memory tier answers, over nbdkit file, against
                nbdkit file alone and against nbdkit's cache filter
cached-misses   the 99th percentile of hits while 16 misses hang below
cached-idle     what the filter costs over venue when all is local
"""

import json
import os
import statistics
import subprocess
import sys

import __main__ as base

MiB = 1 << 20
HOT = 4 * MiB                           # of the slow disk: hits
COLD = 512 * MiB                        # from here on nothing is cached
SLOW_DISK = 1024 * MiB                  # of which each read takes 3 s

# 16 connections that read what hangs, again and again, each time elsewhere.
MISSES = """
import nbd, sys, threading
def run(i):
    h = nbd.NBD(); h.connect_uri(sys.argv[1])
    ready.release()
    k = 0
    while True:
        h.pread(4096, %d + (i * 200 + k) * 131072)
        k += 1
ready = threading.Semaphore(0)
for i in range(16):
    threading.Thread(target=run, args=(i,), daemon=True).start()
for i in range(16):
    ready.acquire()
print("ready", flush=True)
sys.stdin.readline()
""" % COLD


class Cached:
    def __init__(self, bench):
        self.bench = bench
        self.filter = os.path.join(bench.args.build, "filters/segcache/.libs/nbdkit-segcache-filter.so")
        self.delayload = os.path.join(bench.args.build, "filters/delayload/.libs/nbdkit-delayload-filter.so")

    # --- memory hits -------------------------------------------------------
    def memory(self):
        b = self.bench
        b.size = b.args.size * MiB
        path = os.path.join(b.tmp, "cached.raw")
        with open(path, "wb") as f:
            for _ in range(b.args.size):
                f.write(os.urandom(MiB))
        peer = b.nbdkit("c-file", "-r", "file", path)
        ours = b.nbdkit("c-segcache", "-r", "--filter=" + self.filter, "file", path,
                        "segcache-memory=%dM" % (b.args.size * 5 // 4))
        base.nbdcopy(ours)              # all of it comes into the memory
        base.nbdcopy(peer)
        b.pair("memory hits, 4 KiB random: CPU", b.cpu_us(ours, "randread", 4096),
               b.cpu_us(peer, "randread", 4096), base.at_most(0.9), "us/op", "nbdkit file")
        # What is left when nobody reads anything: no filter can cost less.
        floor = b.nbdkit("c-null", "-r", "null", str(b.size))
        b.pair("(nbdkit null, the floor), 4 KiB random: CPU", b.cpu_us(floor, "randread", 4096),
               b.cpu_us(peer, "randread", 4096), None, "us/op", "nbdkit file")
        floor.stop()
        b.both("memory hits, 256 KiB", b.turn(ours, "read", 256 * 1024), b.turn(peer, "read", 256 * 1024),
               base.at_least(1.2), "nbdkit file")
        b.pair("memory hits, nbdcopy: speed", lambda: 1 / base.nbdcopy(ours)[0],
               lambda: 1 / base.nbdcopy(peer)[0], base.at_least(1.2), "1/s", "nbdkit file",
               rounds=2 * b.args.rounds)
        peer.stop()
        old = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = b.tmp    # where nbdkit's cache keeps its file
        peer = b.nbdkit("c-cache", "-r", "--filter=cache", "file", path, "cache-on-read=true")
        if old is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = old
        base.nbdcopy(peer)
        b.both("memory hits, 4 KiB random", b.turn(ours, "randread", 4096), b.turn(peer, "randread", 4096),
               base.at_least(2), "nbdkit cache + file")
        peer.stop()
        ours.stop()
        os.unlink(path)

    # --- hits beside misses --------------------------------------------------
    def p99(self, server):
        """Of 4 KiB hits, one at a time, in microseconds."""
        out = base.run("fio", "--name=b", "--ioengine=nbd", "--uri=" + server.uri, "--rw=randread", "--bs=4096",
                       "--iodepth=1", "--size=%d" % HOT, "--time_based", "--runtime=%s" % (2 * self.bench.args.seconds),
                       "--output-format=json")
        job = json.loads(out[out.index("{"):])["jobs"][0]
        if job["error"]:
            base.die("fio: error %d on %s" % (job["error"], server.uri))
        return job["read"]["clat_ns"]["percentile"]["99.000000"] / 1000

    def beside(self, server):
        p = subprocess.Popen([sys.executable, "-c", MISSES, server.uri], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        try:
            if p.stdout.readline() != "ready\n":
                base.die("clients could not connect to " + server.uri)
            return self.p99(server)
        finally:
            p.kill()
            p.wait()

    def hanging(self, name, rounds, filters, *params):
        """(idle, beside misses) of each of ROUNDS."""
        slow = self.bench.nbdkit(name + "-slow", "--filter=delay", "memory", str(SLOW_DISK), "delay-read=3", threads=32)
        server = self.bench.nbdkit(name, "-r", *filters, "nbd", "socket=" + slow.sock, *params, threads=16)
        base.run(sys.executable, "-c", "import nbd,sys\nh=nbd.NBD(); h.connect_uri(sys.argv[1])\nh.pread(%d, 0)\n" % HOT,
                 server.uri)
        out = [(self.p99(server), self.beside(server)) for _ in range(rounds)]
        server.p.kill()                 # its readers sleep
        slow.p.kill()
        return out

    def misses(self):
        t = self.bench.table
        # The peer answers one hit in 48 s: one round is enough of it.
        for name, rounds, target in (
                ("segcache", self.hanging("m-segcache", self.bench.args.rounds, ["--filter=" + self.filter],
                                          "segcache-memory=64M"), base.at_most(2)),
                ("nbdkit cache", self.hanging("m-cache", 1, ["--filter=cache"], "cache-on-read=true"), None)):
            t.add("p99 of hits while 16 misses hang: " + name, statistics.median(b for _, b in rounds),
                  statistics.median(a for a, _ in rounds), statistics.median(b / a for a, b in rounds),
                  target, "us", "the same, idle")

    # --- nothing to do --------------------------------------------------------
    def idle(self):
        b = self.bench
        stack = ["--filter=" + b.overlay, "--filter=" + self.delayload, b.venue, "store=" + b.store]
        peer = b.nbdkit("i-without", *stack, export="d100@bench")
        ours = b.nbdkit("i-with", stack[0], "--filter=" + self.filter, *stack[1:], export="d100@other")
        for text, rw, bs in (("4 KiB random", "randread", 4096), ("256 KiB sequential", "read", 256 * 1024)):
            b.pair("all local, %s: CPU" % text, b.cpu_us(ours, rw, bs), b.cpu_us(peer, rw, bs),
                   base.at_most(1.03), "us/op", "without segcache", rounds=2 * b.args.rounds)
        peer.stop()
        ours.stop()


PARTS = {"cached-memory": "memory", "cached-misses": "misses", "cached-idle": "idle"}
ALONE = ("cached-memory", "cached-misses")
