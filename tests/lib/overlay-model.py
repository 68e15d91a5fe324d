# SPDX-License-Identifier: BSD-3-Clause
# Run inside nbdsh: several clients against a server, and a naive twin.
#
#   SOCK      Unix socket of the server
#   IMAGE     what is below
#   EXPORTS   export names, one client each, separated by blanks
#   STEPS     requests for each client
#   SEED      of the random numbers (printed)
#   RESTART   a shell command that restarts the server; "" for none
#
# Each client has a twin in memory and two connections; requests have any
# alignment, and end at the end of the disk now and then.
import os, random, subprocess, sys
import nbd

sock, exports = os.environ["SOCK"], os.environ["EXPORTS"].split()
seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
steps, restart = int(os.environ["STEPS"]), os.environ.get("RESTART", "")
print("# seed %d" % seed, flush=True)
rnd = random.Random(seed)
with open(os.environ["IMAGE"], "rb") as f:
    image = f.read()


class Client:
    def __init__(self, export):
        self.export, self.twin, self.conns = export, bytearray(image), []
        self.connect()

    def connect(self):
        for _ in range(2):
            h = nbd.NBD()
            h.add_meta_context("base:allocation")
            h.set_export_name(self.export)
            h.connect_unix(sock)
            self.conns.append(h)

    def disconnect(self):
        for h in self.conns:
            h.shutdown()
        self.conns = []

    def check(self, what, at, got):
        want = self.twin[at:at + len(got)]
        if got != want:
            bad = next(i for i in range(len(got)) if got[i] != want[i])
            sys.exit("%s: %s at %d: byte %d is wrong (seed %d)"
                     % (self.export, what, at, at + bad, seed))

    def extents(self, h, at, n):
        seen = []
        h.block_status(n, at, lambda c, o, e, err: seen.extend(e) or 0)
        pos = at
        for length, flags in zip(seen[::2], seen[1::2]):
            if flags & 2:
                end = min(pos + length, at + n)
                if any(self.twin[pos:end]):
                    sys.exit("%s: extent at %d is not zero (seed %d)"
                             % (self.export, pos, seed))
            pos += length

    def step(self):
        h, size = rnd.choice(self.conns), len(self.twin)
        n = min(size, rnd.randint(1, rnd.choice([16, 512, 8192, 300000, 1 << 21])))
        if rnd.random() < 0.4:
            n = min(size, (n + 4095) // 4096 * 4096)
        at = rnd.randint(0, size - n)
        if rnd.random() < 0.4:
            at = at // 4096 * 4096
        if rnd.random() < 0.1:
            at = size - n
        op = rnd.randrange(10)
        if op < 4:
            buf = rnd.randbytes(n)
            h.pwrite(buf, at, nbd.CMD_FLAG_FUA if op == 0 else 0)
            self.twin[at:at + n] = buf
        elif op == 4:
            fast = [nbd.CMD_FLAG_FAST_ZERO] if h.can_fast_zero() else []
            h.zero(n, at, rnd.choice([0, nbd.CMD_FLAG_NO_HOLE] + fast))
            self.twin[at:at + n] = bytes(n)
        elif op == 5:
            h.trim(n, at)
            self.twin[at:at + n] = bytes(n)
        elif op == 6:
            h.flush()
        elif op == 7:
            self.extents(h, at, n)
        elif op == 8:
            h.cache(n, at)
        else:
            self.check("read", at, h.pread(n, at))

    def check_all(self):
        for at in range(0, len(self.twin), 1 << 20):
            n = min(1 << 20, len(self.twin) - at)
            self.check("in the end", at, rnd.choice(self.conns).pread(n, at))


clients = [Client(e) for e in exports]
for i in range(steps * len(clients)):
    c = rnd.choice(clients)
    c.step()
    if rnd.random() < 0.005:
        c.disconnect()
        c.connect()
    if restart and rnd.random() < 0.002:
        for c in clients:
            c.conns[0].flush()
            c.disconnect()
        subprocess.run(restart, shell=True, check=True)
        for c in clients:
            c.connect()
for c in clients:
    c.check_all()
    c.disconnect()
