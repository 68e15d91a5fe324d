# SPDX-License-Identifier: BSD-3-Clause
"""The parts of bench/run that measure image centers and delayed load.

The center is a directory in the tmpfs, shown over HTTP on the loopback by an
origin of one of these kinds:

  a   nginx, unhindered
  b   tests/origin, which answers each request 20 ms later
  c   tests/origin, 5 ms and a line of 200 Mbit/s for all connections together
  d   tests/origin, 1 ms and a line of 1 Gbit/s (cluster.py alone)

Each turn begins with a store that never saw the image.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

import __main__ as base

HERE = os.path.dirname(os.path.abspath(__file__))
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
LINK = 25_000_000                       # bytes a second on (c)
ORIGINS = {"a": "unhindered", "b": "20 ms", "c": "5 ms, 200 Mbit/s"}
TRACE = os.path.join(HERE, "traces", "debian")
SMALL = os.path.join(HERE, "traces", "small-linux")     # where a peer would take minutes


class Origin:
    """An HTTP server of a directory, with what it sent."""

    def __init__(self, bench, kind, directory):
        self.dir = os.path.join(bench.tmp, "origin-%d" % time.monotonic_ns())
        os.mkdir(self.dir)
        self.log = os.path.join(self.dir, "log")
        if kind == "a":
            self.start_nginx(directory)
        else:
            options = {"free": [], "b": ["--delay", "20"], "c": ["--delay", "5", "--rate", str(LINK)],
                       "d": ["--delay", "1", "--rate", str(5 * LINK)]}[kind]
            self.p = subprocess.Popen(["/usr/bin/python3", os.path.join(HERE, "../tests/origin"), "--log", self.log,
                                       *options, directory], stdout=subprocess.PIPE, text=True)
            self.port = int(self.p.stdout.readline())
        self.url = "http://127.0.0.1:%d/" % self.port
        bench.servers.append(self)

    def start_nginx(self, directory):
        with base.socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        conf = os.path.join(self.dir, "nginx.conf")
        user = "user root;" if os.getuid() == 0 else ""
        with open(conf, "w") as f:
            f.write("""daemon off; %s worker_processes 2; pid %s/pid; error_log %s/errors;
events { worker_connections 512; }
http { access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path %s; proxy_temp_path %s;
fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
server { listen 127.0.0.1:%d; root %s; } }
""" % (user, self.dir, self.dir, *[self.dir] * 5, self.port, directory))
        self.p = subprocess.Popen(["nginx", "-c", conf, "-e", os.path.join(self.dir, "errors")])
        for _ in range(500):
            with base.socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        base.die("nginx does not listen")

    def requests(self, path):
        """(offset, bytes) of each answer for an object whose name ends with PATH."""
        out = []
        with open(self.log) as f:
            for line in f:
                _, verb, name, span, status, sent = line.split()[:6]
                if verb == "GET" and status in ("200", "206") and name.endswith(path):
                    out.append((0 if span == "-" else int(span.split("-")[0]), int(sent)))
        return out

    def sent(self, path=".pack"):
        return sum(n for _, n in self.requests(path))

    def unique(self, path=".pack"):
        """Bytes of the object that were sent at least once."""
        total, end = 0, 0
        for offset, n in sorted(self.requests(path)):
            total += max(0, offset + n - max(offset, end))
            end = max(end, offset + n)
        return total

    def stop(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            self.p.wait()


class Delayed:
    def __init__(self, bench):
        self.b = bench
        self.n = 0
        self.images = {}
        build = bench.args.build
        self.filter = os.path.join(build, "filters/delayload/.libs/nbdkit-delayload-filter.so")
        self.replay_tool = os.path.join(build, "bench/replay")
        for f in (self.filter, self.replay_tool):
            if not os.path.exists(f):
                base.die("%s is not there: build first (make)" % f)

    # --- stores and centers ---------------------------------------------
    def espalier(self, store, *argv):
        return base.run(self.b.espalier, "--store", store, "--quiet", *argv)

    def new_store(self, centers, where=None):
        """A store that knows CENTERS, {name: url}."""
        self.n += 1
        store = os.path.join(where or self.b.tmp, "cold-%d" % self.n)
        base.run(self.b.espalier, "init", store)
        for name, url in centers.items():
            self.espalier(store, "center", "add", name, url, "--unsigned")
        return store

    def image(self, size, fill):
        """A raw file of SIZE bytes in which the MiB whose numbers are in FILL
        have data: half of each block random, so that it compresses to a half."""
        path = os.path.join(self.b.tmp, "image-%d.raw" % self.n)
        self.n += 1
        r = random.Random(1)
        with open(path, "wb") as f:
            f.truncate(size)
            for mib in fill:
                f.seek(mib * MiB)
                f.write(b"".join(r.randbytes(2048) + bytes([mib % 251]) * 2048 for _ in range(MiB // 4096)))
        return path

    def center_with(self, image, variant):
        """A directory with the venue "v" of IMAGE; the store that made it."""
        self.n += 1
        directory = os.path.join(self.b.tmp, "center-%d" % self.n)
        os.mkdir(directory)
        store = self.new_store({"dir": directory})
        self.espalier(store, "root", "add", "image", image)
        self.espalier(store, "venue", "add", "v", "--disk", "image")
        self.espalier(store, "push", "v", "dir", "--variant", variant)
        return directory, store

    def pull(self, url, directory=None):
        store = self.new_store({"http": url, **({"dir": directory} if directory else {})})
        self.espalier(store, "pull", "http", "v")
        return store

    def pack(self, directory):
        for d, _, files in os.walk(directory):
            for f in files:
                if f.endswith(".pack"):
                    return os.path.relpath(os.path.join(d, f), directory)
        base.die("%s has no pack" % directory)

    def server(self, name, store, *extra, threads=4):
        return self.b.nbdkit(name, "--filter=" + self.b.overlay, "--filter=" + self.filter, self.b.venue,
                             "store=" + store, *extra, threads=threads, export="v@seat-%d")

    def serve_cold(self, url, *extra, directory=None):
        store = self.pull(url, directory)
        return store, self.server("cold-%d" % self.n, store, *extra)

    def drop(self, store):
        base.shutil.rmtree(store, ignore_errors=True)

    def replay(self, server, *options, trace=TRACE):
        return json.loads(base.run(self.replay_tool, *options, trace, server.uri))

    def absolute(self, what, value, target, unit):
        self.b.table.add(what, value, None, value, target, unit, "(absolute)")

    def rounds(self, most=3):
        return min(most, self.b.args.rounds)

    # --- pull -------------------------------------------------------------
    def pull_time(self):
        """A venue of 100 GiB, a tenth of it data here and there."""
        size = self.b.args.pull_gib * GiB
        directory = os.path.join(self.b.disk, "large-center")
        os.mkdir(directory)
        # On the disk: what is read of a hole in a tmpfs takes memory.
        store = self.new_store({"dir": directory}, self.b.disk)
        base.run(self.b.mktree, "sparse", store, "image", str(size), str(size // 10), "7")
        self.espalier(store, "venue", "add", "v", "--disk", "image")
        self.espalier(store, "push", "v", "dir")
        origin = Origin(self.b, "a", directory)
        times, attached = [], []
        for _ in range(self.rounds(5)):
            cold = self.new_store({"http": origin.url})
            t = time.perf_counter()
            self.espalier(cold, "pull", "http", "v")
            times.append(time.perf_counter() - t)
            server = self.server("pulled", cold, "delayload-background=off")
            base.run("nbdinfo", "--size", server.uri % 0)
            attached.append(time.perf_counter() - t)
            server.stop()
            self.drop(cold)
        origin.stop()
        what = "pull of %d GiB, %d GiB of it data" % (size // GiB, size // GiB // 10)
        self.absolute(what, statistics.median(times), base.at_most(1), "s")
        self.absolute(what + ", to a client's handshake", statistics.median(attached), None, "s")

    # --- sequential -------------------------------------------------------
    def curl_time(self, url):
        return float(base.run("curl", "-sSf", "-o", "/dev/null", "-w", "%{time_total}", url))

    def copy_cold(self, url, *extra):
        store, server = self.serve_cold(url, "delayload-background=off", *extra)
        seconds, _ = self.copy(server.uri % 0)
        server.stop()
        self.drop(store)
        return seconds

    def work_by_hand(self, url):
        """What a cold read does, by other tools one after another: get, keep, check, serve."""
        path = os.path.join(self.b.tmp, "by-hand")
        open(path, "w").close()
        server = self.b.nbdkit("by-hand", "file", path)
        t = time.perf_counter()
        base.run("curl", "-sSf", "-o", path, url)
        base.run("openssl", "dgst", "-sha256", path)
        self.copy(server.uri)
        seconds = time.perf_counter() - t
        server.stop()
        os.unlink(path)
        return seconds

    @staticmethod
    def copy(uri):
        t = time.perf_counter()
        base.run("nbdcopy", uri, "null:")
        return time.perf_counter() - t, None

    def peer_stack(self, name, url, *more):
        """What nbdkit has for the same: the plain image behind HTTP, kept."""
        return self.b.nbdkit(name, *more, "curl", "url=" + url, export="")

    def sequential(self):
        image = self.image(256 * MiB, range(256))
        directory, _ = self.center_with(image, "256K,none")
        os.link(image, os.path.join(directory, "plain.raw"))
        pack = self.pack(directory)
        for kind, target in (("a", 0.8), ("c", 0.9)):
            origin = Origin(self.b, kind, directory)
            self.b.pair("cold sequential read on (%s), 256 MiB: speed" % kind,
                        lambda: 256 / self.copy_cold(origin.url), lambda: 256 / self.curl_time(origin.url + pack),
                        base.at_least(target), "MiB/s", "curl, same pack", rounds=self.rounds(3 if kind == "a" else 1))
            if kind == "a":
                # curl throws away what it gets; the server checks, keeps and serves it.
                self.b.pair("cold sequential read on (a), 256 MiB: speed", lambda: 256 / self.copy_cold(origin.url),
                            lambda: 256 / self.work_by_hand(origin.url + pack), None, "MiB/s",
                            "curl to a file, openssl sha256, nbdkit file", rounds=self.rounds())
            origin.stop()
        origin = Origin(self.b, "b", directory)

        def peer():
            server = self.peer_stack("peer-seq", origin.url + "plain.raw", "--filter=readahead", "--filter=cache")
            seconds, _ = self.copy(server.uri)
            server.stop()
            return 256 / seconds
        self.b.pair("cold sequential read on (b), 256 MiB: speed", lambda: 256 / self.copy_cold(origin.url), peer,
                    base.at_least(3), "MiB/s", "nbdkit curl + cache + readahead", rounds=self.rounds(1))
        origin.stop()

    # --- boots ------------------------------------------------------------
    def boot_image(self):
        """A disk with data wherever the traces read, and as much beside it."""
        if "boot" not in self.images:
            touched = set()
            for trace in (TRACE, SMALL):
                with open(trace) as f:
                    requests = [map(int, line.split()) for line in f if line[0] != "#"]
                for _, _, offset, n in requests:
                    touched.update(range(offset // MiB, (offset + n + MiB - 1) // MiB))
            fill = sorted(touched | {m + 1 for m in touched if m < 1023})
            self.images["boot"] = self.image(GiB, fill)
        return self.images["boot"]

    def needed(self, directory):
        """Bytes of the pack that the boot cannot do without."""
        origin = Origin(self.b, "free", directory)
        store, server = self.serve_cold(origin.url, "delayload-background=off", "delayload-readahead=0",
                                        "delayload-profile=off")
        self.replay(server, "--no-pauses")
        server.stop()
        self.drop(store)
        origin.stop()
        return origin.sent()

    def boot_peer(self, kind, directory):
        """The plain image over HTTP through what nbdkit has for that."""
        origin = Origin(self.b, kind, directory)
        server = self.peer_stack("peer-boot", origin.url + "plain.raw", "--filter=cow", "--filter=readahead",
                                 "--filter=cache")
        result = self.replay(server, trace=SMALL)
        server.stop()
        origin.stop()
        return result

    def boot_cold(self, kind, directory, trace=TRACE):
        """A boot on a server that never saw the image, and its origin's bytes;
        what it learnt goes to the center."""
        origin = Origin(self.b, kind, directory)
        store, server = self.serve_cold(origin.url, "delayload-background=off", directory=directory)
        result = self.replay(server, trace=trace)
        server.stop()
        if trace == TRACE:
            self.espalier(store, "push", "v", "dir")
        self.drop(store)
        origin.stop()
        return result, origin.sent()

    def boot_warm(self, store):
        server = self.server("warm", store, "delayload-profile=off")
        result = self.replay(server)
        server.stop()
        return result

    def boot_b(self):
        self.boot("b")

    def boot_c(self):
        self.boot("c")

    def boot(self, kind):
        directory, maker = self.center_with(self.boot_image(), "256K")
        os.link(self.boot_image(), os.path.join(directory, "plain.raw"))
        peer = self.boot_peer(kind, directory)
        small, _ = self.boot_cold(kind, directory, SMALL)
        needed = self.needed(directory)
        first, _ = self.boot_cold(kind, directory)
        second, sent = self.boot_cold(kind, directory)
        warm = self.boot_warm(maker)
        add, name = self.b.table.add, "boot on (%s), " % kind
        add(name + "first cold server, small: time", small["seconds"], peer["seconds"],
            small["seconds"] / peer["seconds"], base.at_most(1), "s", "nbdkit curl + cache + readahead")
        add(name + "waits: second server against first", second["waited"], first["waited"],
            second["waited"] / first["waited"], base.at_most(1 / 3), "s", "first cold server")
        add(name + "second server: time", second["seconds"], warm["seconds"],
            second["seconds"] / warm["seconds"], base.at_most(1.2), "s", "all local")
        self.absolute(name + "second server: unused of what was sent", (sent - needed) / sent,
                      base.at_most(0.15), "")

    def storm(self):
        directory, _ = self.center_with(self.boot_image(), "256K")
        origin = Origin(self.b, "c", directory)
        store, server = self.serve_cold(origin.url, "delayload-background=off")
        result = self.replay(server, "--clients", "64", "--no-pauses")
        server.stop()
        self.drop(store)
        origin.stop()
        sent, unique = origin.sent(), origin.unique()
        self.b.table.add("64 cold clients on (c): bytes sent", sent / MiB, unique / MiB, sent / unique,
                         base.at_most(1.01), "MiB", "unique bytes")
        self.absolute("64 cold clients on (c): the slowest boot without pauses", result["seconds"], None, "s")

    # --- hydration --------------------------------------------------------
    def hydrate_rate(self, directory, size):
        origin = Origin(self.b, "c", directory)
        store = self.pull(origin.url)
        t = time.perf_counter()
        self.espalier(store, "hydrate", "v", "--now")
        seconds = time.perf_counter() - t
        self.drop(store)
        origin.stop()
        return size / seconds

    def clients_p99(self, directory, background):
        """p99 of a client that reads at random what is not there, 100 a second."""
        origin = Origin(self.b, "c", directory)
        store, server = self.serve_cold(origin.url, "delayload-profile=off", "delayload-readahead=0",
                                        "delayload-background=" + background)
        r, latencies = random.Random(3), []
        code = ("import nbd,sys,time,random\n"
                "h=nbd.NBD(); h.connect_uri(sys.argv[1]); r=random.Random(3); t=[]\n"
                "for i in range(300):\n"
                " o=r.randrange(h.get_size()//65536)*65536; b=time.perf_counter(); h.pread(65536,o)\n"
                " t.append(time.perf_counter()-b); time.sleep(0.02)\n"
                "t.sort(); print(t[int(len(t)*0.99)]*1000)\n")
        ms = float(base.run("/usr/bin/python3", "-c", code, server.uri % 0))
        server.stop()
        self.drop(store)
        origin.stop()
        return ms

    def hydration(self):
        image = self.image(512 * MiB, range(512))
        directory, _ = self.center_with(image, "256K")
        pack = os.path.join(directory, self.pack(directory))
        rate = self.hydrate_rate(directory, os.path.getsize(pack))
        self.b.table.add("hydration on (c): wire bytes a second", rate / 1e6, LINK / 1e6, rate / LINK,
                         base.at_least(0.9), "MB/s", "the line")
        self.b.pair("64 KiB cold reads on (c) while hydrating: p99", lambda: self.clients_p99(directory, "on"),
                    lambda: self.clients_p99(directory, "off"), base.at_most(1.5), "ms", "without hydration",
                    rounds=self.rounds(3))

    # --- what is local ----------------------------------------------------
    def local(self):
        image = self.image(self.b.args.size * MiB, range(self.b.args.size))
        directory, _ = self.center_with(image, "256K,none")
        origin = Origin(self.b, "a", directory)
        store = self.pull(origin.url)
        self.espalier(store, "hydrate", "v", "--now")
        origin.stop()
        self.b.size = self.b.args.size * MiB
        ours = self.server("local", store)
        peer = self.b.stack("local-without", store, "v@%d")
        same = self.b.stack("local-same", store, "v@%d")
        for i, s in enumerate((ours, peer, same)):
            s.uri = s.uri % i
        for bs, text in ((4096, "4 KiB"), (256 * KiB, "256 KiB")):
            self.b.pair("all is local, %s random: CPU" % text, self.b.cpu_us(ours, "randread", bs),
                        self.b.cpu_us(peer, "randread", bs), base.at_most(1.03), "us/op", "without delayload",
                        rounds=2 * self.b.args.rounds)
            self.b.pair("all is local, without delayload against itself, %s: CPU" % text,
                        self.b.cpu_us(same, "randread", bs), self.b.cpu_us(peer, "randread", bs), None, "us/op",
                        "without delayload", rounds=2 * self.b.args.rounds)
        for s in (ours, peer, same):
            s.stop()

    # --- the segment's size -----------------------------------------------
    def segments(self):
        print("%-8s %-8s %10s %10s %10s %10s %10s" % ("segment", "origin", "boot s", "second s", "waited s",
                                                      "sent MiB", "p99 ms"))
        for variant in ("64K", "128K", "256K", "512K", "1M"):
            for kind in "abc":
                directory, _ = self.center_with(self.boot_image(), variant)
                origin = Origin(self.b, kind, directory)
                store, server = self.serve_cold(origin.url, "delayload-background=off", directory=directory)
                first = self.replay(server, "--no-pauses")
                server.stop()
                self.espalier(store, "push", "v", "dir")
                self.drop(store)
                store, server = self.serve_cold(origin.url, "delayload-background=off")
                second = self.replay(server, "--no-pauses")
                server.stop()
                self.drop(store)
                origin.stop()
                sent = "-" if kind == "a" else "%.0f" % (origin.sent() / 2 / MiB)
                print("%-8s (%s)      %10.2f %10.2f %10.2f %10s %10.1f" % (variant, kind, first["seconds"],
                      second["seconds"], first["waited"], sent, first["p99_ms"]), flush=True)
                base.shutil.rmtree(directory)


PARTS = {"delayed-pull": "pull_time", "delayed-sequential": "sequential", "delayed-boot-b": "boot_b", "delayed-boot-c": "boot_c",
         "delayed-storm": "storm", "delayed-hydration": "hydration", "delayed-local": "local",
         "delayed-segments": "segments"}
