# SPDX-License-Identifier: BSD-3-Clause
# Run inside nbdsh: kill a server under load, again and again; what was
# flushed must be there.
#
#   SERVER   the command line of nbdkit, without socket and pid file
#   SOCK     its Unix socket
#   EXPORT   the export
#   ROUNDS   how often it is killed
#
# A thread writes blocks with rising numbers, and flushes; it notes what was
# written and what of it a flush acknowledged.  The main thread kills.
import os, random, shlex, signal, struct, subprocess, sys, threading, time
import nbd

sock, export = os.environ["SOCK"], os.environ["EXPORT"]
server = shlex.split(os.environ["SERVER"])
rounds = int(os.environ["ROUNDS"])
seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
print("# seed %d" % seed, flush=True)
rnd = random.Random(seed)
BLOCKS, BLOCK = 64, 1536        # most of them share a block of 4 KiB
flushed = [0] * BLOCKS          # the number that the last flush covers
newest = [0] * BLOCKS           # the highest number that was ever sent


def connect():
    h = nbd.NBD()
    h.set_export_name(export)
    h.connect_unix(sock)
    return h


def start():
    if os.path.exists(sock):
        os.unlink(sock)
    p = subprocess.Popen(server + ["-f", "-U", sock])
    for _ in range(10000):
        if os.path.exists(sock):
            try:
                return p, connect()
            except nbd.Error:
                pass
        time.sleep(0.005)
    sys.exit("the server does not start")


def load(h, number, begun):
    written = list(flushed)
    try:
        while True:
            for _ in range(rnd.randint(1, 10)):
                b, number = rnd.randrange(BLOCKS), number + 1
                newest[b] = number
                h.pwrite(struct.pack("<Q", number) * (BLOCK // 8), b * BLOCK)
                written[b] = number
            h.flush()
            flushed[:] = written
            begun.set()
    except nbd.Error:
        begun.set()             # the server is gone


def check(h, i):
    for b in range(BLOCKS):
        data = h.pread(BLOCK, b * BLOCK)
        for at in range(0, BLOCK, 512):
            values = struct.unpack("<64Q", data[at:at + 512])
            if len(set(values)) != 1 or not flushed[b] <= values[0] <= newest[b]:
                sys.exit("round %d: block %d has %s, flushed was %d, newest %d (seed %d)"
                         % (i, b, set(values), flushed[b], newest[b], seed))


p, h = start()
for b in range(BLOCKS):
    h.pwrite(bytes(BLOCK), b * BLOCK)
h.flush()
for i in range(rounds):
    begun = threading.Event()
    t = threading.Thread(target=load, args=(h, max(newest), begun))
    t.start()
    begun.wait(90)
    time.sleep(rnd.random() * 0.03)
    p.send_signal(signal.SIGKILL)
    p.wait()
    t.join()
    p, h = start()
    check(h, i)
h.shutdown()
p.kill()
p.wait()
