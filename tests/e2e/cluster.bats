# SPDX-License-Identifier: BSD-3-Clause
# The segment cache before delayed load, when much goes wrong or is slow at once:
# right bytes, no hit behind a miss, and nothing in the clear that came encrypted.
# (segcache-venue.bats has the good days.)
load ../lib/common
load ../lib/center
load ../lib/delayload
load ../lib/segcache

# server NAME STORE PARAMETERS...: the stack, with a cache
server ()
{
    local name=$1 store=$2; shift 2
    start_nbdkit "$name" -t 4 --filter="$OVERLAY" --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/$store" \
        overlay-min-free=0 delayload-background=off delayload-profile=off "$@"
}

# counted WORD: what delayload's last line in the log of the server NAME says stands before WORD
counted ()
{
    sed -n "s/.*delayload: .* \([0-9]*\) $2.*/\1/p" "$D/$1.log" | tail -n 1
}

# stored NODE FILE: all values of a node, one behind another
stored ()
{
    /usr/bin/python3 - "$1" >"$2" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile("rwb")
f.write(b"lru_crawler metadump all\r\n"); f.flush()
keys = []
while (line := f.readline()) not in (b"END\r\n", b""):
    keys.append(line.split()[0][4:])
for k in keys:
    f.write(b"get " + k + b"\r\n"); f.flush()
    head = f.readline().split()
    if head[0] == b"VALUE":
        sys.stdout.buffer.write(f.read(int(head[3]) + 2)); f.readline()
PY
}

# blocks_in FILE IMAGE: how many of the image's blocks stand in FILE
blocks_in ()
{
    /usr/bin/python3 - "$1" "$2" <<'PY'
import sys
have, image = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
print(sum(image[at + 100:at + 164] in have for at in range(0, len(image), 65536)))
PY
}

@test "what is local, and what a node has, is read at once while sixteen misses hang" {
    need_nbdsh
    need_cold
    pushed 40
    serve_center
    start_node n1
    pulled b1 web="$WEB"
    pulled b2 web="$WEB"
    server s1 b1 segcache-nodes=unix:"$D/n1" delayload-readahead=0
    cold read --end $((8 << 20)) "$(uri cafe)"          # the node has the first 8 MiB
    server s2 b2 segcache-nodes=unix:"$D/n1" delayload-readahead=0
    cold read --end $((4 << 20)) "$(uri cafe)"          # and this server four of them
    web_faults '[{"path": "pack", "action": "delay", "ms": 3000}]'
    nbdsh -c "uri = '$(uri cafe)'" -c - <<'PY'
import threading, time
want = open("v2.img", "rb").read()
def connect():
    h = nbd.NBD(); h.connect_uri(uri); return h
slow, began = [], threading.Semaphore(0)
def miss(i):
    h = connect(); at = (10 << 20) + i * (512 << 10)
    began.release()
    t = time.monotonic()
    assert h.pread(4096, at) == want[at:at + 4096]
    slow.append(time.monotonic() - t)
threads = [threading.Thread(target=miss, args=(i,)) for i in range(16)]
for t in threads: t.start()
for t in threads: began.acquire()
time.sleep(0.3)
h = connect()
def slowest(begin, end):
    worst = 0
    for at in range(begin, end, 64 << 10):
        t = time.monotonic()
        assert h.pread(4096, at) == want[at:at + 4096]
        worst = max(worst, time.monotonic() - t)
    return worst
# half of the time that they still hang is plenty, even on a machine that is busy
local = slowest(0, 4 << 20)
cached = slowest(4 << 20, 5 << 20)
print("local %.3f s, on a node %.3f s" % (local, cached))
assert not slow, "the misses did not hang so long"
assert local < 0.5 and cached < 1, (local, cached)
for t in threads: t.join()
assert len(slow) == 16 and min(slow) > 2
PY
}

@test "a bounded store, and nodes that are full, hang, die, lie and come back: every byte is right" {
    need_cold
    pushed 48
    serve_center
    local full garbage i
    start_node n1; local n1=$NODE_PID
    start_node n2; local n2=$NODE_PID
    start_node full -m 2 -M -I 512k
    "$ESPALIER_SRCDIR/tests/lib/garbage" "$D/garbage" 3>&- & PIDS+=($!)
    wait_for "the garbage" test -S garbage
    pulled b1 web="$WEB"
    pulled b2 web="$WEB"
    local nodes=unix:$D/n1,unix:$D/n2,unix:$D/full,unix:$D/garbage
    server s1 b1 segcache-nodes="$nodes" segcache-timeout=100 delayload-max=16M; local one; one=$(uri cafe); local pid1=$NBDKIT_PID
    server s2 b2 segcache-nodes="$nodes" segcache-timeout=100 delayload-max=16M segcache-dir="$D/dir" segcache-max=32M
    local two; two=$(uri cafe)
    cold read --clients 6 --ops 400 --seed 5 "$one" "$two" & local reader=$!
    for ((i = 0; i < 3; i++)); do
        read -rt 0.3 <> <(:) || true
        kill -STOP "$n2"
        read -rt 0.3 <> <(:) || true
        kill -9 "$n1"; wait "$n1" || true
        start_node n1; n1=$NODE_PID
        kill -CONT "$n2"
    done
    wait "$reader"
    cold read --seed 6 "$one" "$two"
    stop_nbdkit "$pid1"
    stop_nbdkit
    [ "$(counted s1 'from a cluster')" -gt 0 ]
    [ "$(counted s2 'from a directory')" -gt 0 ]
    [ "$(counted s1 'given back')" -gt 0 ]
    at b1 store check
    at b2 store check
}

@test "a bounded store asks its own memory for what it gave back, not the center" {
    need_cold
    pushed 40
    serve_center
    pulled b1 web="$WEB"
    server s1 b1 segcache-memory=256M delayload-max=16M
    cold read "$(uri cafe)"
    cat </dev/null >web.log
    cold read "$(uri cafe)"
    stop_nbdkit
    [ "$(counted s1 'from memory')" -gt 100 ]
    not grep -q '\.pack ' web.log
}

@test "what came encrypted lies on nodes encrypted, or not at all" {
    mkdir c
    at a -q init
    at a -q center add c ./c
    image v2.img 8 1
    at a -q root add base v2.img
    at a -q venue add cafe --disk base
    at a -q key create secret
    at a -q key export secret secret.key
    at a -q push cafe c --variant 64K,zstd,key=secret
    serve_center
    local s
    for s in b1 b2; do
        at $s -q init
        at $s -q key import secret secret.key
        at $s -q center add web "$WEB" --unsigned
        at $s -q pull web cafe
    done
    start_node n1
    server s1 b1 segcache-nodes=unix:"$D/n1"
    same cafe v2.img
    stop_nbdkit                                         # nobody waits for the last put
    stored n1 clear
    [ ! -s clear ]
    server s2 b2 segcache-nodes=unix:"$D/n1" segcache-key-file=secret.key
    same cafe v2.img
    stop_nbdkit
    stored n1 sealed
    [ "$(stat -c %s sealed)" -gt 5000000 ]
    [ "$(blocks_in sealed v2.img)" -eq 0 ]
    # the same search finds what is not encrypted
    [ "$(blocks_in v2.img v2.img)" -eq 128 ]
}
