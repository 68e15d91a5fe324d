# SPDX-License-Identifier: BSD-3-Clause
# A directory that processes share, under the segcache filter.
load ../lib/common
load ../lib/center
load ../lib/segcache

@test "four servers on one directory, killed at random: no read is wrong or old" {
    need_nbdsh
    random_file disk 20000001 1
    cp disk twin
    env D="$D" PATH="/usr/bin:$PATH" timeout -k 5 120 nbdsh -c - <<'PY'
import os, random, signal, subprocess, time
seed = int(os.environ.get("ESPALIER_TEST_SEED") or random.randrange(1 << 30))
print("seed", seed, flush=True)
r = random.Random(seed)
twin = bytearray(open("twin", "rb").read()); size = len(twin)

class Server:
    def __init__(self, i):
        self.sock = os.path.join(os.environ["D"], "s%d" % i)
        self.start()
    def start(self):
        if os.path.exists(self.sock): os.unlink(self.sock)
        self.p = subprocess.Popen(["nbdkit", "-f", "-U", self.sock, "--filter=" + os.environ["SEGCACHE"],
            "file", "disk", "segcache-memory=0", "segcache-dir=cache", "segcache-max=16M",
            "segcache-segment=128K"], stderr=open("servers.log", "a"))
        while True:
            self.h = nbd.NBD()
            try: return self.h.connect_unix(self.sock)
            except nbd.Error: assert self.p.poll() is None
            time.sleep(0.01)
    # in the middle of reads, and of a write that nobody hears of
    def kill(self):
        n = 400000; at = r.randrange(size - n)
        reads = [nbd.Buffer(n) for _ in range(4)]
        for b in reads: self.h.aio_pread(b, r.randrange(size - n))
        lost = r.randbytes(70000)
        self.h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(lost)), at)
        for _ in range(r.randrange(4)): self.h.poll(r.randrange(3))
        self.end()
        self.start()
        return at, 70000
    def end(self):
        self.p.kill(); self.p.wait()

servers = [Server(i) for i in range(4)]
until = time.monotonic() + 8; reads = writes = kills = 0
try:
    while time.monotonic() < until or kills < 12:
        s = r.choice(servers); x = r.random()
        if x < .03:
            at, n = s.kill(); kills += 1
            # what of it came, others see, too; from now on it is this
            buf = r.randbytes(n); r.choice(servers).h.pwrite(buf, at)
            twin[at:at + n] = buf
        elif x < .3:
            n = r.choice((512, 4096, 50000, 300000)); at = r.randrange(size - n)
            buf = r.randbytes(n); s.h.pwrite(buf, at); twin[at:at + n] = buf; writes += 1
        else:
            n = r.choice((512, 4096, 50000, 300000, 1000000)); at = r.randrange(size - n)
            assert s.h.pread(n, at) == twin[at:at + n], (at, n)
            reads += 1
    for s in servers: assert s.h.pread(size, 0) == twin
    print(reads, "reads", writes, "writes", kills, "kills", flush=True)
finally:
    for s in servers: s.end()
PY
    [ ! -s servers.log ]
}

@test "a directory that cannot be used is a warning, and reads go on" {
    random_file disk 3000001 1
    mkdir cache
    echo mine >cache/segcache
    cached s file disk segcache-dir=cache segcache-max=16M
    same "" disk
    [ "$(cat cache/segcache)" = mine ]
    grep -q "is not a segment cache's: give another directory" s.log
}

@test "a directory's file that is cut while servers use it: reads go on" {
    random_file disk 6000001 1
    cached a file disk segcache-memory=0 segcache-dir=cache segcache-max=16M
    same "" disk
    same "" disk
    truncate -s 0 cache/segcache
    same "" disk
    kill -0 "$NBDKIT_PID"
    # Who begins then cannot make it anew beside the other one; when that has
    # gone, it can.
    local first=$NBDKIT_PID
    cached b file disk segcache-memory=0 segcache-dir=cache segcache-max=16M
    wait_for "its message" grep -q "others use it: restart them" b.log
    same "" disk
    stop_nbdkit; stop_nbdkit "$first"
    cached c file disk segcache-memory=0 segcache-dir=cache segcache-max=16M
    run grep warning c.log
    [ "$status" -eq 1 ]
    same "" disk
    stop_nbdkit
    [ "$(stat -c %s cache/segcache)" -gt 12000000 ]
}
