# SPDX-License-Identifier: BSD-3-Clause
# The segcache filter over other plugins than venue, and as a part of the stack.
load ../lib/common
load ../lib/center
load ../lib/delayload
load ../lib/segcache

# --- memory ---------------------------------------------------------------------

@test "curl: each byte is fetched once, whoever reads it" {
    origin_disk 24
    cached s curl "$WEB/disk.pack"
    same "" c/disk.pack
    local n; n=$(requests)
    same "" c/disk.pack
    same "" c/disk.pack
    [ "$(requests)" -eq "$n" ]
    run "$ONCE" web.log "$(requests)"    # nbdkit's curl plugin asks for a byte too many
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "curl: many clients that read the same at once fetch it once" {
    need_nbdsh
    origin_disk 16 --delay 20
    cached s curl "$WEB/disk.pack"
    nbdsh -c "uri = '$(uri "")'" -c - <<'PY'
import random, threading
want = open("c/disk.pack", "rb").read()
bad = []
def run(seed):
    r = random.Random(1)            # the same places in the same order
    h = nbd.NBD(); h.connect_uri(uri)
    for _ in range(60):
        n = r.choice((512, 4096, 70000, 600000)); at = r.randrange(len(want) - n)
        if h.pread(n, at) != want[at:at + n]: bad.append(at)
threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert not bad, bad[:5]
PY
    # a large read takes small pieces that are here already along
    run "$ONCE" web.log 900000
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "small reads of many places fetch little more than they need" {
    need_nbdsh
    origin_disk 64
    cached s curl "$WEB/disk.pack"
    nbdsh -c "uri = '$(uri "")'" -c - <<'PY'
h = nbd.NBD(); h.connect_uri(uri)
for at in range(0, 64 << 20, 256 << 10): h.pread(4096, at + 8192)
PY
    [ "$(awk '$2 == "GET" { n += $6 } END { print n }' web.log)" -le $((256 * 4096 * 11 / 10)) ]
}

@test "a large cold read is a large request" {
    need_nbdsh
    origin_disk 40
    cached s curl "$WEB/disk.pack"
    nbdsh -c "uri = '$(uri "")'" -c 'h.connect_uri(uri); assert h.pread(32 << 20, 4 << 20) == open("c/disk.pack", "rb").read()[4 << 20:36 << 20]'
    [ "$(requests)" -le 3 ]
}

@test "file dir=: exports never mix, whether their sizes are the same or not" {
    mkdir d
    random_file d/a 5000001 1
    random_file d/b 5000001 2
    random_file d/c 4096 3
    random_file d/e 5000002 4
    mkdir cache
    local round x
    for round in 1 2; do        # the second time with a directory that has them all
        cached s file dir=d segcache-dir=cache segcache-max=64M
        for x in a b c e a b c e; do same $x d/$x; done
        [ "$(nbdinfo --list --json "$(uri "")" | jq -c '[.exports[]."export-name"] | sort')" = '["a","b","c","e"]' ]
        stop_nbdkit
    done
}

@test "the same name and size, and another segcache-id: another disk" {
    random_file one 3000000 1
    random_file two 3000000 2
    cached s file one segcache-dir=cache segcache-max=64M segcache-id=one
    same "" one
    stop_nbdkit
    cached s file two segcache-dir=cache segcache-max=64M segcache-id=two
    same "" two
}

@test "a hit never waits for a miss: 16 connections hang in misses" {
    need_nbdsh
    origin_disk 32
    cached s curl "$WEB/disk.pack"
    nbdsh -c "uri = '$(uri "")'" -c 'h.connect_uri(uri); h.pread(8 << 20, 0)'
    web_faults '[{"from": 16777216, "action": "delay", "ms": 3000}]'
    nbdsh -c "uri = '$(uri "")'" -c - <<'PY'
import random, time
def connect():
    c = nbd.NBD(); c.connect_uri(uri); return c
h = connect()
missers = [connect() for _ in range(16)]
def hits(n):
    took = []
    for _ in range(n):
        at = random.randrange(2048) * 4096
        t = time.monotonic(); h.pread(4096, at); took.append(time.monotonic() - t)
    took.sort()
    return took[len(took) * 99 // 100], took[-1]
hits(500)
idle, _ = hits(2000)
begin = time.monotonic()
bufs = [nbd.Buffer(4096) for _ in missers]
cookies = [c.aio_pread(b, (16 << 20) + i * 700000) for i, (c, b) in enumerate(zip(missers, bufs))]
time.sleep(0.2)                     # they are on their way to the origin
busy, worst = hits(2000)
spent = time.monotonic() - begin
print("# p99 of hits: idle %.0f us, while 16 misses hang %.0f us, at most %.0f us, in %.1f s" % (idle * 1e6, busy * 1e6, worst * 1e6, spent))
assert spent < 2.9, "the misses did not hang that long"
assert worst < 1.0, worst
assert busy < 10 * idle + 0.005, (idle, busy)
for c, k in zip(missers, cookies):
    while not c.aio_command_completed(k): c.poll(-1)
assert time.monotonic() - begin > 2.9
PY
}

@test "what cannot be read fails who reads it, and nobody else" {
    need_nbdsh
    random_file disk 8388608 1
    cached s eval get_size='echo 8388608' thread_model='echo parallel' can_cache='echo none' \
        pread="if [ -e bad ] && [ \$((\$4 + \$3)) -gt 6300000 ] && [ \$4 -lt 6310000 ]; then echo ENOSPC bad >&2; exit 1; fi
               tail -c +\$((\$4 + 1)) '$D/disk' | head -c \$3"
    touch bad
    nbdsh -c "uri = '$(uri "")'" -c - <<'PY'
import errno
h = nbd.NBD(); h.connect_uri(uri)
want = open("disk", "rb").read()
def fails(n, at):
    try: h.pread(n, at)
    except nbd.Error as e: return e.errnum == errno.ENOSPC
    return False
for _ in range(4):
    assert fails(4096, 6300000 // 4096 * 4096) and fails(3 << 20, 5 << 20) and fails(1, 6309999)
    for n, at in ((5 << 20, 0), (300000, 6000000), (4096, 6299648 - 4096), (70000, 6310000), (1 << 20, 7 << 20)):
        assert h.pread(n, at) == want[at:at + n], at
    h.cache(8 << 20, 0)
PY
    rm bad
    same "" disk
}

# --- writes -----------------------------------------------------------------------

@test "nbd: what one connection wrote, the other reads, and the disk has it" {
    need_nbdsh
    random_file disk 9000001 1
    start_nbdkit below file disk
    cached s nbd socket="$SOCK"
    nbdsh -c "uri = '$(uri "")'" -c - <<'PY'
a, b = nbd.NBD(), nbd.NBD()
for h in a, b: h.connect_uri(uri)
twin = bytearray(open("disk", "rb").read()); size = len(twin)
assert a.pread(size, 0) == twin
k = 0
for at in (0, 4095, 262143, 262144, 524287, 4 << 20, size - 5000):
    for n in (1, 512, 4096, 4097, 262144, 300001):
        n = min(n, size - at); k += 1
        h, g = (a, b) if k % 2 else (b, a)
        if k % 5 == 3: h.zero(n, at); twin[at:at + n] = bytes(n)
        elif k % 5 == 4: h.trim(n, at); twin[at:at + n] = h.pread(n, at)
        else:
            buf = bytes([k]) * n
            h.pwrite(buf, at, nbd.CMD_FLAG_FUA if k % 5 == 2 else 0); twin[at:at + n] = buf
        lo, hi = max(0, at - 5000), min(size, at + n + 5000)
        assert g.pread(hi - lo, lo) == twin[lo:hi], (at, n)
a.flush()
assert b.pread(size, 0) == twin
open("twin", "wb").write(twin)
PY
    cmp twin disk
    [ "$(nbdinfo --json "$(uri "")" | jq '.exports[0].is_read_only')" = false ]
    [ "$(nbdinfo --json "$(uri "")" | jq '.exports[0].can_multi_conn')" = "$(nbdinfo --json "nbd+unix:///?socket=$D/below.sock" | jq '.exports[0].can_multi_conn')" ]
    cached ro -r nbd socket="$D/below.sock"
    [ "$(nbdinfo --json "$(uri "")" | jq '.exports[0].is_read_only')" = true ]
    same "" twin
}

@test "random reads and writes agree with a naive twin, over a file, with restarts" {
    random_file disk 6300001 1
    cp disk before
    cached s file disk segcache-memory=2M segcache-dir=cache segcache-max=16M segcache-segment=64K
    cat >restart.sh <<END
kill \$(cat s.pid); while kill -0 \$(cat s.pid) 2>/dev/null; do sleep 0.02; done; rm -f s.pid $SOCK
nbdkit -U $SOCK -P $D/s.pid --filter=$SEGCACHE file disk segcache-memory=1M segcache-dir=cache segcache-max=16M segcache-segment=64K 2>>s.log
END
    run model x before 1500 "sh restart.sh"
    echo "$output"
    [ "$status" -eq 0 ]
    PIDS+=("$(cat s.pid)")
}

@test "writes of one server are read by another one on the same nodes" {
    need_nbdsh
    random_file disk 4000000 1
    start_node n1; start_node n2
    local nodes=unix:$D/n1,unix:$D/n2
    cached a file disk segcache-memory=0 segcache-nodes="$nodes"
    local a; a=$(uri "")
    cached b file disk segcache-memory=0 segcache-nodes="$nodes"
    nbdsh -c "ua, ub = '$a', '$(uri "")'" -c - <<'PY'
import random
a, b = nbd.NBD(), nbd.NBD()
a.connect_uri(ua); b.connect_uri(ub)
twin = bytearray(open("disk", "rb").read()); size = len(twin); r = random.Random(5)
for k in range(400):
    h, g = (a, b) if r.random() < .5 else (b, a)
    n = r.choice((512, 4096, 50000, 300000)); at = r.randrange(size - n)
    buf = r.randbytes(n); h.pwrite(buf, at); twin[at:at + n] = buf
    lo, hi = max(0, at - 5000), min(size, at + n + 5000)
    assert g.pread(hi - lo, lo) == twin[lo:hi], k
    assert h.pread(hi - lo, lo) == twin[lo:hi], k
assert a.pread(size, 0) == twin and b.pread(size, 0) == twin
PY
}

# --- the shared tiers -----------------------------------------------------------------

@test "two servers with different bounds of one directory: the second one is told" {
    random_file disk 1000000 1
    cached a file disk segcache-dir=cache segcache-max=32M
    cached b file disk segcache-dir=cache segcache-max=64M
    same "" disk
    [ "$(grep -c "warning: $D/cache/segcache: others use it with segcache-max=33554432" b.log)" -eq 1 ]
    not grep -q warning a.log
}

@test "a restart with a directory fetches nothing again, and memory goes on" {
    origin_disk 24
    cached s curl "$WEB/disk.pack" segcache-dir=cache segcache-max=128M
    same "" c/disk.pack
    stop_nbdkit
    cat </dev/null >web.log
    cached s curl "$WEB/disk.pack" segcache-dir=cache segcache-max=128M
    same "" c/disk.pack
    stop_nbdkit
    [ "$(requests)" -eq 0 ]
    # killed, too
    cached s curl "$WEB/disk.pack" segcache-dir=cache segcache-max=128M
    kill -9 "$NBDKIT_PID"
    cached s curl "$WEB/disk.pack" segcache-dir=cache segcache-max=128M
    same "" c/disk.pack
    [ "$(requests)" -eq 0 ]
}

@test "two servers on the same nodes: what one has read the other one does not fetch" {
    origin_disk 24
    start_node n1; start_node n2; start_node n3
    local nodes=unix:$D/n1,unix:$D/n2,unix:$D/n3
    cached a curl "$WEB/disk.pack" segcache-nodes="$nodes"
    same "" c/disk.pack
    local n; n=$(requests)
    cached b curl "$WEB/disk.pack" segcache-nodes="unix:$D/n3,unix:$D/n1,unix:$D/n2"
    same "" c/disk.pack
    [ "$(requests)" -eq "$n" ]
}

@test "three servers that begin at once: the origin sends each byte once" {
    origin_disk 24 --rate 20000000
    start_node n1; start_node n2
    local i uris=() pids=()
    for i in 1 2 3; do
        cached s$i curl "$WEB/disk.pack" segcache-nodes="unix:$D/n1,unix:$D/n2"
        uris+=("$(uri "")")
    done
    for i in 0 1 2; do nbdcopy "${uris[i]}" "copy$i" 3>&- & pids+=($!); done
    for i in 0 1 2; do wait "${pids[i]}"; cmp "copy$i" c/disk.pack; done
    run "$ONCE" web.log $((24 * 1048576 / 50))
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "a node that hangs or dies: reads go on" {
    origin_disk 16
    start_node n1; local n1=$NODE_PID
    start_node n2; local n2=$NODE_PID
    cached s curl "$WEB/disk.pack" segcache-memory=1M segcache-nodes="unix:$D/n1,unix:$D/n2"
    same "" c/disk.pack
    kill -STOP "$n1"
    same "" c/disk.pack
    kill -CONT "$n1"
    kill -9 "$n2"
    same "" c/disk.pack
}

# tls NAME PARAMETERS...: a server on the node $NODE that trusts ca.pem
tls ()
{
    local name=$1; shift
    cached "$name" curl "$WEB/disk.pack" segcache-nodes="$NODE" segcache-timeout=5000 segcache-tls-ca=ca.pem "$@"
    same "" c/disk.pack
}

@test "nodes with TLS: servers with certificates share; a node that is not trusted, or does not trust, is left out" {
    origin_disk 16
    authority ca; authority other
    certificate client ca
    start_tls_node n1 ca
    tls a segcache-tls-certificate=client.pem segcache-tls-key=client.key
    local n; n=$(requests)
    tls b segcache-tls-certificate=client.pem segcache-tls-key=client.key
    [ "$(requests)" -eq "$n" ]
    tls c
    grep -q "cache node $NODE: it ended TLS before it answered" c.log
    start_tls_node n2 other
    tls d
    grep -q "cache node $NODE: its certificate is not from an authority of segcache-tls-ca" d.log
    [ "$(requests)" -gt "$n" ]
}

@test "with a key file nothing of the disk lies in the directory or on a node" {
    mkdir c
    yes "plain text of a disk" | head -c 8388608 >c/disk.pack
    another_center web c
    espalier -q init
    espalier -q key create k
    espalier key export k k.key
    start_node n1
    cached a curl "$WEB/disk.pack" segcache-dir=cache segcache-max=64M segcache-nodes="unix:$D/n1" segcache-key-file=k.key
    same "" c/disk.pack
    local n; n=$(requests)
    not grep -q "plain text" cache/segcache
    cached b curl "$WEB/disk.pack" segcache-nodes="unix:$D/n1" segcache-key-file=k.key
    same "" c/disk.pack
    [ "$(requests)" -eq "$n" ]
    # without the key it is of no use, and no harm
    cached x curl "$WEB/disk.pack" segcache-nodes="unix:$D/n1"
    same "" c/disk.pack
    [ "$(requests)" -gt "$n" ]
}

# --- the stack ------------------------------------------------------------------------

@test "overlay over segcache over curl: random clients agree with their twins" {
    origin_disk 6
    mkdir ov
    start_nbdkit s --filter="$OVERLAY" --filter="$SEGCACHE" curl "$WEB/disk.pack" overlay-dir=ov overlay-min-free=0 segcache-memory=2M
    run model "@a @b" c/disk.pack 400
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "the overlay's model over segcache over a file, restarted and killed" {
    random_file base.raw 6300001 1
    mkdir ov
    timeout -k 5 400 /usr/bin/python3 "$ESPALIER_SRCDIR/tests/e2e/model.py" ${ESPALIER_TEST_SEED:+--seed "$ESPALIER_TEST_SEED"} \
        --ops "${ESPALIER_MODEL_OPS:-2000}" --clients 2 --dir "$D" --base base.raw --export x -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" --filter="$SEGCACHE" file base.raw overlay-dir="$D/ov" overlay-min-free=0 \
        segcache-memory=1M segcache-dir="$D/cache" segcache-max=16M 3>&-
}

@test "the overlay's model over the whole stack, from a cold store" {
    need_cold
    pushed 8
    serve_center
    pulled b web="$WEB"
    start_node n1
    timeout -k 5 400 /usr/bin/python3 "$ESPALIER_SRCDIR/tests/e2e/model.py" ${ESPALIER_TEST_SEED:+--seed "$ESPALIER_TEST_SEED"} \
        --ops "${ESPALIER_MODEL_OPS:-2000}" --clients 2 --dir "$D" --base v2.img --export cafe -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b" \
        overlay-min-free=0 segcache-dir="$D/cache" segcache-max=64M segcache-nodes="unix:$D/n1" delayload-background=off 3>&-
    at b store check
}

@test "over venue: passed on; the wrong order does no harm; without delayload it says so" {
    need_cold
    pushed 4
    serve_center
    pulled b web="$WEB"
    start_nbdkit right --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$D/b" segcache-dir="$D/cache" segcache-max=64M
    same cafe v2.img
    stop_nbdkit
    not grep -q 'below delayload' right.log
    pulled b2 web="$WEB"
    cat </dev/null >web.log
    start_nbdkit wrong --filter="$DELAYLOAD" --filter="$SEGCACHE" "$VENUE" store="$D/b2" segcache-dir="$D/cache" segcache-max=64M
    same cafe v2.img
    stop_nbdkit
    grep -q 'segcache: is below delayload' wrong.log
    [ "$(grep -c '\.pack ' web.log)" -eq 0 ]    # the directory had it all
    start_nbdkit alone --filter="$SEGCACHE" "$VENUE" store="$D/a" segcache-dir="$D/cache" segcache-max=64M
    same cafe v2.img
    grep -q 'without --filter=delayload' alone.log
    stop_nbdkit
    start_nbdkit nothing --filter="$SEGCACHE" "$VENUE" store="$D/a"
    same cafe v2.img
    grep -q 'all is passed on' nothing.log
}

# --- parameters -----------------------------------------------------------------------

# refused PATTERN PARAMETER...: nbdkit does not start, and says why
refused ()
{
    local pattern=$1; shift
    fails 1 "$pattern" nbdkit -U - --filter="$SEGCACHE" "$@" --run true
}

@test "bad parameters: a clear error, and nothing starts" {
    local m=(memory 1M)
    refused 'segcache-memory=12: give a size from 1M' "${m[@]}" segcache-memory=12
    refused 'segcache-memory: .* is no size' "${m[@]}" segcache-memory=much
    refused 'segcache-max=0: give a size from 16M to 64T' "${m[@]}" segcache-max=0
    refused 'segcache-max=1M: give a size from 16M' "${m[@]}" segcache-max=1M
    refused 'segcache-max=65T: give a size from 16M' "${m[@]}" segcache-max=65T
    refused 'segcache-max: is for a directory' "${m[@]}" segcache-max=1G
    refused 'segcache-segment=100K: give 64K, 128K' "${m[@]}" segcache-segment=100K
    refused 'segcache-segment=8M: give 64K, 128K' "${m[@]}" segcache-segment=8M
    refused 'segcache-timeout=0: give a number from 1 to' "${m[@]}" segcache-timeout=0
    refused 'segcache-lease=5: give a number from 100' "${m[@]}" segcache-lease=5
    refused 'segcache-wait' "${m[@]}" segcache-wait=-1
    refused "segcache-names=all: give each" "${m[@]}" segcache-names=all
    refused 'segcache-dir=: give a path' "${m[@]}" segcache-dir=
    refused 'node' "${m[@]}" segcache-nodes=host:port
    refused 'nodes-file' "${m[@]}" segcache-nodes=./nodes-file
    touch file
    refused 'there is a file of that name: write ./file' "${m[@]}" segcache-nodes=file
    refused 'is not a directory' "${m[@]}" segcache-dir=file
    refused 'nothing' "${m[@]}" segcache-key-file=nothing
    echo short >bad.key
    refused 'bad.key' "${m[@]}" segcache-key-file=bad.key
    refused 'nothing.sasl' "${m[@]}" segcache-nodes=h:1 segcache-sasl-file=nothing.sasl
    refused 'nothing.pem' "${m[@]}" segcache-nodes=h:1 segcache-tls-ca=nothing.pem
    refused 'give segcache-nodes' "${m[@]}" segcache-tls-ca=nothing.pem
    refused 'give segcache-tls-ca' "${m[@]}" segcache-nodes=h:1 segcache-tls-certificate=x segcache-tls-key=y
    refused 'segcache-tls-key: give' "${m[@]}" segcache-nodes=h:1 segcache-tls-ca=x segcache-tls-key=y
    echo user:password >file.sasl
    refused 'segcache-sasl-file: is for nodes' "${m[@]}" segcache-sasl-file=file.sasl
    espalier -q init
    espalier -q key create k
    espalier -q key export k k.key
    refused 'segcache-key-file: is for a directory or nodes' "${m[@]}" segcache-key-file=k.key
    refused 'unknown parameter' "${m[@]}" segcache-speed=1
    refused 'segcache-stats: over the venue plugin' "$VENUE" store="$STORE" segcache-stats=st
    [ ! -e st ]
    [ ! -e cache ]
}

@test "above the overlay filter it would mix clients: refused" {
    random_file disk 100000 1
    mkdir ov
    refused 'give --filter=overlay before --filter=segcache' --filter="$OVERLAY" file disk overlay-dir=ov
}

@test "paths are of the directory that nbdkit was started in" {
    random_file disk 1000000 1
    nbdkit -U "$D/s" -P "$D/s.pid" --filter="$SEGCACHE" file disk segcache-dir=cache segcache-max=16M segcache-stats=st
    wait_for nbdkit test -s s.pid
    PIDS+=("$(cat s.pid)")
    nbdcopy "nbd+unix:///?socket=$D/s" copy
    cmp disk copy
    [ -s cache/segcache ]
    [ -n "$(ls st)" ]
}

@test "live counters that cannot be kept: it says so, and serves" {
    random_file disk 100000 1
    touch file
    cached s file disk segcache-stats=file
    same "" disk
    [ "$(grep -c 'warning: live counters: .*file: Not a directory' s.log)" -eq 1 ]
}

@test "live counters: of an export, of the tiers, while it runs" {
    need_nbdsh
    random_file disk 4000000 1
    cached s file disk segcache-dir=cache segcache-max=16M segcache-stats=st segcache-names=one
    nbdsh -c "uri = '$(uri some)'" -c - <<'PY'
import json, subprocess, time
h = nbd.NBD(); h.connect_uri(uri)
for _ in range(3): h.pread(1000000, 0)
h.pwrite(b"x" * 5000, 0)
def row(kind, name):
    out = subprocess.run(["espalier", "stats", "--dir", "st", "--json"], stdout=subprocess.PIPE, check=True).stdout
    return [r for r in json.loads(out)[kind] if r["name"] == name]
for _ in range(200):
    e, m, d = row("exports", "some"), row("tiers", "memory"), row("tiers", "dir")
    if e and e[0]["reads"] == 3 and m and m[0]["hits"]: break
    time.sleep(.05)
e, m, d = e[0], m[0], d[0]
assert (e["reads"], e["read_bytes"], e["writes"], e["write_bytes"], e["connections"]) == (3, 3000000, 1, 5000, 1), e
assert e["misses"] == 1 and e["waited_us"] > 0 and m["hits"] >= 2 and m["bytes"] >= 900000 and d["write_bytes"] >= 786432, (e, m, d)
PY
}

@test "one disk under several export names: what is written under one is seen under all" {
    need_nbdsh
    random_file disk 8000000 1
    local names
    for names in "" segcache-names=one; do
        cached s file disk segcache-dir=cache$names segcache-max=64M $names
        nbdsh -c "uris = '$(uri "")', '$(uri one)', '$(uri two)'" -c - <<'PY'
hs = []
for u in uris:
    h = nbd.NBD(); h.connect_uri(u); hs.append(h)
k = 0
for turn in range(4):
    for w in hs:
        for h in hs: h.pread(300000, 70000)
        k += 1
        w.pwrite(bytes([k]) * 5000, 100000)
        for h in hs: assert h.pread(300000, 70000)[30000:35000] == bytes([k]) * 5000, (turn, k)
PY
        stop_nbdkit
    done
    grep -q 'segcache-names=each' s.log || [ -n "$names" ]
}

@test "what other names than the empty one read is cached where it is known what they are" {
    need_nbdsh
    origin_disk 8
    cached s curl "$WEB/disk.pack"
    same some c/disk.pack
    local n; n=$(requests)
    same some c/disk.pack
    [ "$(requests)" -gt "$n" ]
    grep -q 'what clients call "some" is not cached: give segcache-names' s.log
    stop_nbdkit
    cached s curl "$WEB/disk.pack" segcache-names=one
    same some c/disk.pack
    n=$(requests)
    same "" c/disk.pack
    same other c/disk.pack
    [ "$(requests)" -eq "$n" ]
}

@test "disks of one size behind different parameters never mix, without segcache-id" {
    random_file one 3000000 1
    random_file two 3000000 2
    mkdir sub; random_file sub/one 3000000 3
    cached s file one segcache-dir=cache segcache-max=64M
    same "" one
    stop_nbdkit
    cached s file two segcache-dir=cache segcache-max=64M
    same "" two
    stop_nbdkit
    cd sub
    cached s file one segcache-dir=../cache segcache-max=64M
    cd ..
    same "" sub/one
}

@test "a directory that cannot be opened: a warning, and clients can only read" {
    need nbdinfo
    mkdir ro; touch ro/file
    cached s memory 1M segcache-dir=ro/file/x
    grep -q 'goes on without its directory' s.log
    nbdinfo --json "$(uri "")" | jq -e '.exports[0].is_read_only'
    stop_nbdkit
    cached s memory 1M segcache-dir=ro/x segcache-max=16M
    nbdinfo --json "$(uri "")" | jq -e '.exports[0].is_read_only | not'
    espalier -q init
    start_nbdkit v --filter="$SEGCACHE" --filter="$DELAYLOAD" "$VENUE" store="$STORE" segcache-dir=ro/file/x
    grep -q 'goes on without its directory' v.log
}
