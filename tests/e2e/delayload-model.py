#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""delayload-model.py: model.py's clients over a store that is never warm for long.

Some clients write into kept overlays, one only reads.  Below them lie delayed
restore points with two centers, of which one fails, lies and hangs up at random.
The server is restarted and killed with other parameters each time; in between its
store loses what was local, or the power; meanwhile others pull, hydrate, scrub and
push a new tip.  No client may see an error or a wrong byte.

    delayload-model.py --base FILE --export NAME --dir DIR --store NAME --cold NAME
                       --faults FILE [--seed N] [--ops N] [--clients N] -- SERVER ...

STORE is the server's, COLD a copy of it from before its first fetch; both lie in
DIR, as does the file FAULTS of the center that fails.
"""

import glob
import json
import os
import random
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import model                            # noqa: E402

KINDS = ("cut", "reset", "close", "500", "404", "flip", "short-length", "wrong-range", "200")
PARAMETERS = ((), ("delayload-background=off",), ("delayload-readahead=0", "delayload-background=off"),
              ("delayload-max=16M",), ("delayload-max=16M", "delayload-readahead=0"),
              ("delayload-rate=200K",), ("delayload-threads=2", "delayload-profile=off"))


class Reader(model.Client):
    """Writes nothing: what it reads comes from the restore points."""

    def operation(self):
        h = self.rng.choice(self.handles)
        offset, count = self.place()
        kind = self.rng.random()
        if kind < 0.7:
            self.expect(h.pread(count, offset), offset, "read")
        elif kind < 0.85:
            h.cache(count, offset)
        elif kind < 0.97:
            self.extents(h, offset, count)
        else:
            self.disconnect()
            self.connect()
        self.done += 1


class DelayedServer(model.Server):
    rng = None

    def start(self):
        plain = self.argv
        self.argv = plain + list(self.rng.choice(PARAMETERS))
        try:
            super().start()
        finally:
            self.argv = plain


class Model(model.Model):
    def __init__(self, args, base):
        super().__init__(args, base)
        first = self.clients[0]
        self.clients[0] = Reader("reader", args.export, self.server.sock, base, args.seed * 1000, first.ops)
        self.server = DelayedServer(args.server, self.server.sock)
        self.server.rng = self.rng
        self.store = os.path.join(args.dir, args.store)
        self.cold = os.path.join(args.dir, args.cold)
        self.events = {}

    # --- what happens to the store ---------------------------------------
    def espalier(self, *argv):
        env = dict(os.environ, ESPALIER_STORE=self.store)
        p = subprocess.run(("espalier",) + argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=200)
        if p.returncode:
            raise model.Failure("espalier %s: %s" % (" ".join(argv), p.stdout.decode()))

    def note(self, what):
        self.events[what] = self.events.get(what, 0) + 1

    def forget(self):
        """Nothing is local any more."""
        for cold in glob.glob(self.cold + "/restore-points/*"):
            to = self.store + "/restore-points/" + os.path.basename(cold)
            for name in ("data", "have"):
                shutil.copyfile(cold + "/" + name, to + "/new")
                os.truncate(to + "/new", os.stat(cold + "/" + name).st_size)
                os.rename(to + "/new", to + "/" + name)

    def power_loss(self):
        subprocess.run((sys.executable, os.path.join(os.environ["ESPALIER_SRCDIR"], "tests/lib/cold.py"), "power",
                        self.store, "--maybe", "--seed", str(self.rng.randrange(1 << 30))), check=True,
                       stdout=subprocess.DEVNULL)

    def new_faults(self):
        rules = [{"path": "pack$", "action": kind, "probability": self.rng.random() / 4}
                 for kind in self.rng.sample(KINDS, 3)]
        with open(self.args.faults + ".new", "w") as f:
            json.dump(rules, f)
        os.rename(self.args.faults + ".new", self.args.faults)

    def meanwhile(self):
        what = self.rng.choice((("-q", "pull", "good", "cafe"), ("-q", "hydrate", "cafe"),
                                ("-q", "hydrate", "cafe", "--off"), ("store", "scrub"), ("store", "stats"),
                                ("-q", "hydrate", "cafe", "--now"), ("rp", "list"), ("store", "gc")))
        self.note(" ".join(w for w in what if w != "-q"))
        error = []

        def run():
            try:
                self.espalier(*what)
            except Exception as e:      # told by who joins
                error.append(e)
        t = threading.Thread(target=run)
        t.start()
        return t, error

    # --- the course of it -------------------------------------------------
    def round(self, kill):
        self.new_faults()
        thread, error = self.meanwhile()
        super().round(kill)
        thread.join()
        if error:
            raise error[0]

    def restart(self, kill):
        if not kill:
            for c in self.clients:
                c.disconnect()
            self.server.stop(False)
        what = self.rng.choice(("forget", "forget", "power loss", "nothing"))
        self.note(what)
        if what == "forget":
            self.forget()
        elif what == "power loss":
            self.power_loss()
        self.server.start()
        for c in self.clients:
            c.connect()
            if kill:
                c.after_kill()
            else:
                c.expect(c.read_all(c.handles[1]), 0, "read after a restart")
            # warm from here: cold again for the next ones
        if self.rng.random() < 0.7:
            self.cool()

    def cool(self):
        """The same store, cold, under the same clients."""
        for c in self.clients:
            c.disconnect()
        self.server.stop(False)
        self.forget()
        self.note("forget")
        self.server.start()
        for c in self.clients:
            c.connect()


def main():
    p = model.parser(__doc__)
    p.add_argument("--store", required=True)
    p.add_argument("--cold", required=True)
    p.add_argument("--faults", required=True)
    args = model.parse(p)
    with open(args.base, "rb") as f:
        m = Model(args, f.read())
    code = model.run(m, args)
    print("# " + ", ".join("%s %d" % e for e in sorted(m.events.items())))
    return code


if __name__ == "__main__":
    sys.exit(main())
