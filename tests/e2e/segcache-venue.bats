# SPDX-License-Identifier: BSD-3-Clause
# The segment cache over venue: servers with a store each that begin cold, one image
# center, and memcached nodes between them.
load ../lib/common
load ../lib/center
load ../lib/delayload
load ../lib/segcache

# cold_servers N PARAMETERS...: the stores b1 … bN, pulled, and a server over each;
# their URIs in $URIS; the log of the center begins here
cold_servers ()
{
    local n=$1 i; shift
    for ((i = 1; i <= n; i++)); do pulled b$i web="$WEB"; done
    cat </dev/null >web.log
    URIS=()
    for ((i = 1; i <= n; i++)); do
        start_nbdkit s$i -t 4 --filter="$OVERLAY" --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b$i" \
            overlay-min-free=0 "$@"
        URIS+=("$(uri cafe)")
    done
}

# all_read: all servers at once, each compared
all_read ()
{
    local i pids=()
    for i in "${!URIS[@]}"; do nbdcopy "${URIS[i]}" "copy$i" 3>&- & pids+=($!); done
    for i in "${!URIS[@]}"; do wait "${pids[i]}"; cmp "copy$i" v2.img; done
}

two_nodes ()
{
    start_node n1; N1=$NODE_PID
    start_node n2; N2=$NODE_PID
    NODES=unix:$D/n1,unix:$D/n2
}

packs () { grep -c '\.pack ' web.log || true; }
# sent: bytes of packs.  (How many requests they come in is a matter of time.)
sent () { awk '$3 ~ /\.pack$/ { n += $6 } END { print n + 0 }' web.log; }

@test "three cold servers at once: the center sends each segment once" {
    pushed 24
    serve_center --rate 30000000
    two_nodes
    cold_servers 3 segcache-nodes="$NODES" delayload-background=off
    all_read
    run "$ONCE" web.log $((24 * 1048576 / 50))
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "a server that begins later asks the nodes, not the center" {
    pushed 16
    serve_center
    two_nodes
    cold_servers 1 segcache-nodes="$NODES" delayload-background=off
    all_read
    pulled late web="$WEB"
    cat </dev/null >web.log
    start_nbdkit late --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/late" segcache-nodes="$NODES"
    same cafe v2.img
    [ "$(packs)" -eq 0 ]
    at late store check
    at late store scrub
    # and keeps it: without nodes, without a center
    stop_nbdkit
    kill -9 "$N1" "$N2" "$ORIGIN_PID"
    start_nbdkit late2 --filter="$DELAYLOAD" "$VENUE" store="$D/late"
    same cafe v2.img
}

@test "two stores of one host share a directory" {
    pushed 16
    serve_center
    cold_servers 1 segcache-dir="$D/cache" segcache-max=64M delayload-background=off
    all_read
    pulled b2 web="$WEB"
    cat </dev/null >web.log
    start_nbdkit second --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b2" segcache-dir="$D/cache" segcache-max=64M
    same cafe v2.img
    [ "$(packs)" -eq 0 ]
}

@test "a server that is killed while it fetches: the others take over" {
    pushed 16
    serve_center --rate 4000000
    two_nodes
    cold_servers 2 segcache-nodes="$NODES" segcache-lease=500 delayload-background=off
    local victim; victim=$(cat s1.pid)
    nbdcopy "${URIS[0]}" first 3>&- & local first=$!
    nbdcopy "${URIS[1]}" second 3>&- & local second=$!
    wait_for "the first data" grep -q '\.pack ' web.log
    kill -9 "$victim"
    wait "$first" || true
    wait "$second"
    cmp second v2.img
}

@test "nodes that hang, die, come back empty, under load: every byte is right" {
    need_cold
    pushed 16
    serve_center
    two_nodes
    cold_servers 2 segcache-nodes="$NODES" segcache-timeout=100 delayload-background=off delayload-readahead=0
    cold read --image v2.img --clients 4 --ops 150 --seed 3 "${URIS[@]}" & local reader=$!
    read -rt 0.3 <> <(:) || true
    kill -STOP "$N1"
    read -rt 0.3 <> <(:) || true
    kill -9 "$N2"
    start_node n2
    kill -CONT "$N1"
    wait "$reader"
    all_read
    at b1 store check
}

@test "a node that lies is found out by the center's digests" {
    pushed 16
    serve_center
    two_nodes
    cold_servers 1 segcache-nodes="$NODES" delayload-background=off
    all_read
    /usr/bin/python3 - n1 n2 <<'PY'
import re, socket, sys
turned = 0
for node in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX); s.connect(node); f = s.makefile("rwb")
    def ask(line, end=b"END"):
        f.write(line + b"\r\n"); f.flush(); got = []
        while True:
            l = f.readline().rstrip(b"\r\n"); got.append(l)
            if l == end or not l: return got
    keys = [l.split()[0][4:].decode() for l in ask(b"lru_crawler metadump all") if l.startswith(b"key=")]
    for k in keys:
        f.write(b"get %s\r\n" % k.encode()); f.flush()
        head = f.readline().split()
        if head[0] != b"VALUE": continue
        n = int(head[3]); v = bytearray(f.read(n)); f.readline(); f.readline()
        v[n // 2] ^= 1; turned += 1
        f.write(b"set %s %s 0 %d\r\n" % (k.encode(), head[2], n) + v + b"\r\n"); f.flush(); assert f.readline() == b"STORED\r\n"
assert turned > 10, turned
PY
    pulled b2 web="$WEB"
    start_nbdkit second --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b2" segcache-nodes="$NODES"
    same cafe v2.img
    wait_for "lies in the counters" eval '[ "$(at b2 stats --json | jq "[.tiers[], .nodes[] | .lies] | add")" -gt 0 ]'
    at b2 store scrub
}

@test "encrypted variants are not put onto nodes in the clear; with a key file they are shared" {
    mkdir c
    local s
    for s in a b1 b2 b3; do at $s -q init; done
    at a -q center add c ./c
    image v2.img 8 1
    at a -q root add base v2.img
    at a -q venue add cafe --disk base
    at a -q key create secret
    at a -q key export secret secret.key
    at a -q push cafe c --variant 64K,zstd,key=secret
    serve_center
    for s in b1 b2 b3; do
        at $s -q key import secret secret.key
        at $s -q center add web "$WEB" --unsigned
        at $s -q pull web cafe
    done
    start_node n1; NODES=unix:$D/n1
    cat </dev/null >web.log
    start_nbdkit s1 --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b1" segcache-nodes="$NODES"
    same cafe v2.img
    local n; n=$(sent)
    stop_nbdkit
    start_nbdkit s2 --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b2" segcache-nodes="$NODES" segcache-key-file=secret.key
    same cafe v2.img
    [ "$(sent)" -eq $((2 * n)) ]                # there was nothing on the node
    start_nbdkit s3 --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b3" segcache-nodes="$NODES" segcache-key-file=secret.key
    same cafe v2.img
    [ "$(sent)" -eq $((2 * n)) ]
}
