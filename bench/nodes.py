# SPDX-License-Identifier: BSD-3-Clause
"""The part of bench/run that measures hits on cache nodes.

cluster     hits of 256 KiB by 1, 4 and 16 threads, from one memcached on the
            loopback, against libmemcached's own get with as many connections
"""

import os
import statistics
import subprocess
import time

import __main__ as base

KEYS = 256                              # 64 MiB


class Node:
    """A memcached on a free port of the loopback."""

    def __init__(self, bench):
        with base.socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        user = ["-u", "root"] if os.getuid() == 0 else []
        self.p = subprocess.Popen(["memcached", *user, "-l", "127.0.0.1", "-p", str(port), "-m", "256", "-t", "2"])
        bench.servers.append(self)
        self.name = "127.0.0.1:%d" % port
        for _ in range(500):
            with base.socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.01)
        base.die("memcached does not listen")

    def stop(self):
        if self.p.poll() is None:
            self.p.terminate()
            self.p.wait()


class Nodes:
    def __init__(self, bench):
        self.bench = bench
        self.tool = os.path.join(bench.args.build, "bench/cluster")
        if not os.path.exists(self.tool):
            base.die("%s is not there: it is built where libmemcached 1.1.4 is" % self.tool)

    def turn(self, who, node, threads):
        def once():
            out = base.run(self.tool, who, node.name, str(KEYS), str(threads), str(self.bench.args.seconds))
            return tuple(float(x) for x in out.split())
        return once

    def cluster(self):
        b = self.bench
        node = Node(b)
        base.run(self.tool, "fill", node.name, str(KEYS))
        for threads in (1, 4, 16):
            ours, peer = self.turn("ours", node, threads), self.turn("peer", node, threads)
            turns = [(ours(), peer()) for _ in range(b.args.rounds)]
            what = "cluster hits, 256 KiB, %d thread%s" % (threads, "s" if threads > 1 else "")
            for i, (name, unit, target) in enumerate(((": speed", "op/s", base.at_least(0.7)),
                                                      (": the client's CPU", "us/op", None))):
                b.table.add(what + name, statistics.median(o[i] for o, _ in turns),
                            statistics.median(p[i] for _, p in turns),
                            statistics.median(o[i] / p[i] for o, p in turns), target, unit, "libmemcached")
        node.stop()


PARTS = {"cluster": "cluster"}
