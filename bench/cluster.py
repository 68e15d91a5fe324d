# SPDX-License-Identifier: BSD-3-Clause
"""The part of bench/run that measures servers that begin cold together.

delayed-cluster  three servers with a store each, one image center, three
                 memcached nodes on this machine

A server is ready when a client (nbdcopy) has read the whole disk.  Each turn
begins with stores that never saw the image and with nodes that are empty.
"""

import os
import statistics
import subprocess
import time

import __main__ as base
import delayed

MiB = 1 << 20
NODES, SERVERS = 3, 3
DISK = 128                              # MiB


class Cluster(delayed.Delayed):
    def __init__(self, bench):
        super().__init__(bench)
        self.segcache = os.path.join(bench.args.build, "filters/segcache/.libs/nbdkit-segcache-filter.so")
        if not os.path.exists(self.segcache):
            base.die("%s is not there: build first (make)" % self.segcache)

    # --- nodes -------------------------------------------------------------
    def start_nodes(self):
        nodes = []
        for i in range(NODES):
            self.n += 1
            path = os.path.join(self.b.tmp, "node-%d.sock" % self.n)
            user = ["-u", "root"] if os.getuid() == 0 else []
            p = subprocess.Popen(["memcached", "-s", path, "-m", "512", "-t", "2", *user])
            for _ in range(500):
                if os.path.exists(path):
                    break
                time.sleep(0.01)
            nodes.append((p, path))
        return nodes

    @staticmethod
    def stop_nodes(nodes):
        for p, _ in nodes:
            p.terminate()
            p.wait()

    def node_counts(self, nodes):
        """Of all nodes together: gets, and those that found something."""
        sums = {"cmd_get": 0, "get_hits": 0, "cmd_set": 0}
        for _, path in nodes:
            s = base.socket.socket(base.socket.AF_UNIX)
            s.connect(path)
            s.sendall(b"stats\r\n")
            text = b""
            while not text.endswith(b"END\r\n"):
                text += s.recv(65536)
            s.close()
            for line in text.decode().splitlines():
                word = line.split()
                if len(word) == 3 and word[1] in sums:
                    sums[word[1]] += int(word[2])
        return sums

    # --- servers -----------------------------------------------------------
    def cold(self, url, nodes, *extra):
        """A server that never saw the image."""
        store = self.pull(url)
        more = ["segcache-nodes=" + ",".join("unix:" + path for _, path in nodes)] if nodes else []
        filters = ["--filter=" + self.b.overlay, "--filter=" + self.segcache, "--filter=" + self.filter]
        server = self.b.nbdkit("cluster-%d" % self.n, *filters, self.b.venue, "store=" + store,
                               "delayload-background=off", *more, *extra, threads=4, export="v@seat-%d")
        return store, server

    def turn(self, kind, directory, servers, with_nodes):
        """(seconds until the last is ready, bytes sent, unique bytes, requests)."""
        origin = delayed.Origin(self.b, kind, directory)
        nodes = self.start_nodes() if with_nodes else []
        cold = [self.cold(origin.url, nodes) for _ in range(servers)]
        t = time.perf_counter()
        clients = [subprocess.Popen(["nbdcopy", server.uri % 0, "null:"]) for _, server in cold]
        for client in clients:
            if client.wait() != 0:
                base.die("nbdcopy failed")
        seconds = time.perf_counter() - t
        self.cpu = sum(server.cpu() for _, server in cold)
        if nodes:
            self.counts = self.node_counts(nodes)
        for store, server in cold:
            server.stop()
            self.drop(store)
        self.stop_nodes(nodes)
        origin.stop()
        if kind == "a":                 # nginx keeps no log
            return seconds, 0, 0, 0
        return seconds, origin.sent(), origin.unique(), len(origin.requests(".pack"))

    # --- the parts -----------------------------------------------------------
    def together(self):
        directory, _ = self.center_with(self.image(DISK * MiB, range(DISK)), "256K,none")
        alone, three, ratio, bytes_ratio = [], [], [], []
        for _ in range(self.rounds(3)):
            one, _, _, one_requests = self.turn("c", directory, 1, True)
            seconds, sent, unique, requests = self.turn("c", directory, SERVERS, True)
            alone.append(one)
            three.append(seconds)
            ratio.append(seconds / one)
            bytes_ratio.append(sent / unique)
            print("  one %.2f s, %d requests; three %.2f s, %d requests, %.2f s CPU; nodes %s"
                  % (one, one_requests, seconds, requests, self.cpu, self.counts), flush=True)
        add = self.b.table.add
        add("three cold servers on (c): the last is ready", statistics.median(three), statistics.median(alone),
            statistics.median(ratio), base.at_most(1.2), "s", "one alone")
        add("three cold servers on (c): bytes sent", sent / MiB, unique / MiB, statistics.median(bytes_ratio),
            base.at_most(1.02), "MiB", "unique bytes")

    def asking(self):
        """What it costs to ask a cluster that has nothing."""
        directory, _ = self.center_with(self.image(DISK * MiB, range(DISK)), "256K,none")
        # On (a) and (b) the two cores that all of this shares are the limit.
        for kind, target in (("c", base.at_most(1.1)), ("d", base.at_most(1.1)), ("a", None), ("b", None)):
            self.b.pair("one cold server on (%s), empty nodes: time" % kind,
                        lambda: self.turn(kind, directory, 1, True)[0],
                        lambda: self.turn(kind, directory, 1, False)[0], target, "s", "without nodes",
                        rounds=self.rounds(3 if kind == "c" else 5))

    def cluster(self):
        self.together()
        self.asking()


PARTS = {"delayed-cluster": "cluster"}
