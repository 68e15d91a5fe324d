# SPDX-License-Identifier: BSD-3-Clause
# The plugin venue, end to end: what a client sees is compared with raw
# files that were made without us.
bats_require_minimum_version 1.5.0
load ../lib/common

MAKE_CHAIN=$ESPALIER_BUILDDIR/tests/lib/make-chain

# cafe: a store with base <- v1 <- v2 and base <- lab, each beside its raw
# file; venues cafe (v1) and lab (lab).  The disk ends 512 bytes behind a
# block, in the middle of a tile.
SIZE=$((3 * 1024 * 1024 + 5 * 4096 + 512))
cafe ()
{
    python3 - "$SIZE" <<'PY'
import random, sys
size = int(sys.argv[1]); r = random.Random(42); B = 4096
def save(name, disk):
    with open(name, "wb") as f: f.write(disk)
def put(disk, at, n): disk[at:at + n] = r.randbytes(n)
base = bytearray(size)
put(base, 0, 20 * B); put(base, (1 << 20) - 3 * B, 9 * B); put(base, size - 512, 512)
save("base.raw", base)
v1 = bytearray(base)
put(v1, 2 * B, B); put(v1, (2 << 20) - B, 2 * B); v1[5 * B:8 * B] = bytes(3 * B)
save("v1.raw", v1)
v2 = bytearray(v1)
put(v2, 2 * B, B); put(v2, size - 512 - B, B + 512); v2[10 * B:11 * B] = bytes(B)
save("v2.raw", v2)
lab = bytearray(base)
put(lab, 3 * B + 100, 1000); lab[0:B] = bytes(B)
save("lab.raw", lab)
PY
    espalier init
    espalier root add base base.raw
    espalier rp create v1 --parent base --from-image v1.raw
    espalier rp create v2 --parent v1 --from-image v2.raw
    espalier rp create lab --parent base --from-image lab.raw
    espalier venue add cafe --disk v1 --description 'The cafe'
    espalier venue add lab --disk lab --description 'The lab'
} >/dev/null

# serve ARGUMENTS...: nbdkit with the plugin on $STORE
serve ()
{
    start_nbdkit venue "$VENUE" "store=$STORE" "$@"
}

# serve1 ARGUMENTS...: the same with one thread for each connection.  For
# tests whose clients leave in the middle of requests: with more threads that
# can end nbdkit 1.32 itself, whatever plugin it runs.
serve1 ()
{
    start_nbdkit venue -t 1 "$VENUE" "store=$STORE" "$@"
}

# refused WORDS COMMAND...: the command fails and says WORDS
refused ()
{
    local words=$1; shift
    run "$@"
    [ "$status" -ne 0 ] || { echo "not refused: $*"; return 1; }
    [[ $output == *"$words"* ]] || { echo "does not say '$words': $output"; return 1; }
}

# same FILE EXPORT: the export's bytes are the file's, by two programs
same ()
{
    rm -f copy.raw
    nbdcopy "$(uri "$2")" copy.raw
    cmp "$1" copy.raw
}

alive () { kill -0 "$NBDKIT_PID"; }

restore_point_dir ()
{
    echo "$STORE/restore-points/$(espalier rp show "$1" --json | jq -r .uuid)"
}

# --- starting -----------------------------------------------------------

@test "venue: --help names every parameter, --dump-plugin the versions" {
    need nbdkit
    run nbdkit "$VENUE" --help
    [[ $output == *'[store=]<DIR>'* && $output == *'venue=<ID>'* && $output == *'start=<RP>'* ]]
    run nbdkit --dump-plugin "$VENUE"
    [[ $output == *'magic_config_key=store'* ]]
    [[ $output == *'thread_model=parallel'* ]]
    [[ $output == *'espalier_version='[0-9]* ]]
    [[ $output == *'espalier_store_version='[0-9]* ]]
    [[ $output == *'espalier_chain_version='[0-9]* ]]
    [[ $output == *"espalier_nbdkit_version=$(nbdkit --dump-config | sed -n 's/^version=//p')"* ]]
}

@test "venue: a store that is not there is refused before the fork" {
    refused "$D/nowhere" nbdkit -U - "$VENUE" store=nowhere --run true
    mkdir empty
    refused "make one with 'espalier" nbdkit -U - "$VENUE" store=empty --run true
}

@test "venue: an unknown venue, start or parameter is refused before the fork" {
    cafe
    refused 'pub' nbdkit -U - "$VENUE" "$STORE" venue=pub --run true
    refused 'v9' nbdkit -U - "$VENUE" "$STORE" start=v9 --run true
    refused '../x' nbdkit -U - "$VENUE" "$STORE" venue=../x --run true
    refused 'depth' nbdkit -U - "$VENUE" "$STORE" depth=9 --run true
    refused 'lab' nbdkit -U - "$VENUE" "$STORE" venue=lab start=v1 --run true
}

@test "venue: a second, different store is refused" {
    cafe
    refused 'store' nbdkit -U - "$VENUE" "store=$STORE" store=/somewhere/else --run true
}

@test "venue: without store= the environment names the store" {
    cafe
    ESPALIER_STORE=$STORE run nbdkit -U - "$VENUE" venue=cafe --run 'nbdinfo --size "$uri"'
    [ "${lines[-1]}" = "$SIZE" ]
}

@test "venue: serving read-only names the overlay filter, once" {
    cafe
    serve
    nbdinfo "$(uri cafe)" >/dev/null
    nbdinfo "$(uri lab)" >/dev/null
    [ "$(grep -c 'add --filter=overlay' venue.log)" -eq 1 ]
}

# --- names --------------------------------------------------------------

@test "venue: nbdinfo tells size, flags and block sizes" {
    cafe; serve
    nbdinfo --json "$(uri cafe)" >info.json
    [ "$(jq -r '.exports[0]."export-size"' info.json)" = "$SIZE" ]
    [ "$(jq -r '.exports[0]|[."is_read_only", ."can_multi_conn", ."can_cache", ."can_trim", ."can_zero"]|join(" ")' info.json)" \
        = "true true true false false" ]
    [ "$(jq -r '.exports[0]|[."block_size_minimum", ."block_size_preferred"]|join(" ")' info.json)" = "1 4096" ]
    [ "$(jq -r '.exports[0].contexts[0]' info.json)" = "base:allocation" ]
}

@test "venue: an export's description ends with its tip" {
    cafe; serve
    run nbdinfo --json "$(uri cafe)"
    [[ $(jq -r '.exports[0].description' <<<"$output") == "The cafe — tip v1, $(date +%Y)-"* ]]
    run nbdinfo --json "$(uri rp:base)"
    [[ $(jq -r '.exports[0].description' <<<"$output") == "tip base, $(date +%Y)-"* ]]
}

@test "venue: listing shows venues with descriptions, and further disks" {
    cafe
    espalier venue add duo --disk v1 --disk v2 --disk lab --description 'Three disks'
    serve
    nbdinfo --list --json "nbd+unix:///?socket=$SOCK" >list.json
    [ "$(jq -r '[.exports[]."export-name"]|join(" ")' list.json)" = "cafe duo duo/1 duo/2 lab" ]
    [[ $(jq -r '.exports[1].description' list.json) == 'Three disks'* ]]
}

@test "venue: every disk of a venue is its own" {
    cafe
    espalier venue add duo --disk v1 --disk v2 --disk lab
    serve
    same v1.raw duo
    same v1.raw duo/0
    same v2.raw duo/1
    same lab.raw duo/2
    refused '' nbdinfo "$(uri duo/3)"
}

@test "venue: the empty name is the only venue, or venue=, or refused with a list" {
    cafe
    serve
    refused '' nbdinfo "$(uri '')"
    grep -q 'cafe, lab; name one' venue.log
    stop_nbdkit
    serve venue=lab
    same lab.raw ''
    stop_nbdkit
    espalier venue delete lab
    serve
    same v1.raw ''
}

@test "venue: the message about the empty name lists ten venues at most" {
    cafe
    for i in 1 2 3 4 5 6 7 8 9; do espalier venue add "n$i" --disk v1; done
    serve
    refused '' nbdinfo "$(uri '')"
    grep -q 'there are 11: cafe, lab, n1, n2, n3, n4, n5, n6, n7, n8, ...; name one' venue.log
}

@test "venue: a restore point is opened by name, UUID and prefix" {
    cafe; serve
    same base.raw rp:base
    same v2.raw rp:v2
    uuid=$(espalier rp show v2 --json | jq -r .uuid)
    same v2.raw "rp:$uuid"
    same v2.raw "rp:${uuid:0:8}"
    refused '' nbdinfo "$(uri rp:nope)"
    grep -q 'nope' venue.log
}

@test "venue: without the filter a client's name is checked and changes nothing" {
    cafe; serve
    same v1.raw cafe@seat-7
    same v1.raw cafe/0@52:54:00:12:34:56
    refused '' nbdinfo "$(uri 'cafe@')"
    refused '' nbdinfo "$(uri 'cafe@..%2Fx')"
}

@test "venue: start= lists and serves its subtree only" {
    cafe
    espalier venue add new --disk v2
    serve start=v1
    nbdinfo --list --json "nbd+unix:///?socket=$SOCK" >list.json
    [ "$(jq -r '[.exports[]."export-name"]|join(" ")' list.json)" = "cafe new" ]
    same v1.raw cafe
    same v2.raw rp:v2
    refused '' nbdinfo "$(uri lab)"
    refused '' nbdinfo "$(uri rp:base)"
    refused '' nbdinfo "$(uri rp:lab)"
    stop_nbdkit
    serve start=v2
    same v2.raw ''
}

@test "venue: hostile export names are refused, and the server lives" {
    cafe; serve
    python3 - "$SOCK" <<'PY'
import socket, struct, sys
def go(name):
    """What NBD_OPT_GO says to a name of any bytes: the last reply's type."""
    s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
    f = s.makefile("rwb")
    assert f.read(8) == b"NBDMAGIC"; f.read(10)
    f.write(struct.pack(">I", 3))
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    f.write(b"IHAVEOPT" + struct.pack(">II", 7, len(data)) + data); f.flush()
    while True:
        head = f.read(20)
        if len(head) < 20: return "closed"
        kind, n = struct.unpack(">II", head[12:]); f.read(n)
        if kind != 3: return kind
ACK = 1
assert go(b"cafe") == ACK
for name in [b"../cafe", b"/etc/passwd", b"..", b".", b"cafe/../lab", b"cafe/..",
             b"cafe/256", b"cafe/-1", b"cafe/1", b"cafe/0x0", b"cafe/00000000000000000000",
             b"cafe/99999999999999999999", b"cafe/", b"/", b"@", b"@x", b"cafe@../../x",
             b"rp:", b"rp:..", b"rp:../restore-points", b"rp:rp:base", b"-cafe", b"--help",
             b"cafe'; DROP TABLE venues; --", b"' OR '1'='1", b"%", b"%s%n%d", b"caf_",
             b"\xff\xfe\xfd", b"caf\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"cafe\n", b"cafe ",
             b"\x1b[31mcafe", b"a" * 129, b"a" * 4096, b"a" * 4097, b"cafe@" + b"a" * 4000,
             b"cafe/0@" + b"\xf0\x9f\x98\x80" * 100, b"*"]:
    r = go(name)
    assert r != ACK, (name, r)
for name in [b"cafe\0", b"cafe\0/../..", b"\0", b"\0" * 4096, b"cafe@\0"]:
    go(name)          # nbdkit itself ends a name at its NUL: only live on
assert go(b"cafe") == ACK
PY
    alive
    same v1.raw cafe
    # Our messages show odd bytes escaped (nbdkit's debug messages do not).
    grep 'error: .*venue' venue.log >errors
    not grep -q $'\x1b' errors
}

@test "venue: ten thousand venues are listed" {
    need sqlite3
    cafe
    # Rows like cafe's: the catalog is what a listing reads.
    sqlite3 "$STORE/catalog.db" .schema >/dev/null
    python3 - "$STORE/catalog.db" <<'PY' || skip "the catalog has another shape than this test knows"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
cols = lambda t: [c[1] for c in db.execute(f"PRAGMA table_info({t})")]
tables = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
key = {t: ("id" if t == "venue" else "venue") for t in tables if t.startswith("venue")}
with db:
    for t, k in sorted(key.items(), key=lambda i: i[0] != "venue"):
        c = cols(t)
        for row in db.execute(f"SELECT * FROM {t} WHERE {k} = 'cafe'").fetchall():
            for i in range(9998):
                new = [f"v{i:05}" if n == k else x for n, x in zip(c, row)]
                db.execute(f"INSERT INTO {t} VALUES ({','.join('?' * len(c))})", new)
PY
    serve
    need_nbdsh
    nbdsh -c - <<PY
import time
h.set_opt_mode(True); h.connect_unix("$SOCK")
names = []
t = time.monotonic()
n = h.opt_list(lambda name, description: names.append(name) and 0)
print("# listing took %.1f ms" % ((time.monotonic() - t) * 1000))
assert n == 10000 and names[0] == "cafe" and names[-1] == "v09997", (n, names[:2], names[-2:])
PY
}

# --- data ---------------------------------------------------------------

@test "venue: nbdcopy and qemu-img find each tip equal to its raw file" {
    need qemu-img
    cafe; serve
    for tip in base v1 v2 lab; do
        same $tip.raw rp:$tip
        # qemu reads disks of whole sectors: 512 bytes
        qemu-img compare -f raw -F raw "$(uri rp:$tip)" $tip.raw
    done
}

@test "venue: reads of any size at any place equal the raw file" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri cafe)" -c - <<'PY'
import os, random
seed = int(os.environ.get("ESPALIER_TEST_SEED", random.randrange(1 << 32)))
print(f"# seed {seed} (ESPALIER_TEST_SEED={seed})")
r = random.Random(seed); raw = open("v1.raw", "rb").read(); size = len(raw)
edges = [0, 4096, 1 << 20, 2 << 20, 3 << 20, size - 512, size - 4096, size]
def check(at, n):
    assert h.pread(n, at) == raw[at:at + n], (at, n)
for e in edges:
    for d in (-4097, -4096, -1, 0, 1, 511):
        for n in (1, 2, 511, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1):
            at = e + d
            if 0 <= at < size: check(at, min(n, size - at))
for i in range(1500):
    at = r.randrange(size); check(at, r.randint(1, min(size - at, 1 << r.randrange(22))))
check(0, size)
PY
}

@test "venue: a read behind the end is refused, and the next one answered" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri cafe)" -c - <<'PY'
h.set_strict_mode(0)
size = h.get_size()
for at, n in (size, 1), (size - 1, 2), (1 << 62, 512), (size, 0), (0, 0):
    try: h.pread(n, at); raise SystemExit(f"{at} {n} was answered")
    except nbd.Error as e: assert e.errno in ("EINVAL", "ENOSPC", "EIO"), e
assert h.pread(1, size - 1) == open("v1.raw", "rb").read()[-1:]
PY
    alive
}

@test "venue: qemu-io reads what the raw file has" {
    need qemu-io
    espalier init
    truncate -s 2M a.raw
    qemu-io -f raw -c 'write -P 0x11 0 64k' -c 'write -P 0x22 1020k 8k' a.raw >/dev/null
    espalier root add a a.raw
    espalier venue add v --disk a
    serve
    run qemu-io -r -f raw "$(uri v)" -c 'read -P 0x11 0 64k' -c 'read -P 0 64k 956k' \
        -c 'read -P 0x22 1020k 8k' -c 'read -P 0x22 1023k 2k' -c 'read -P 0 1028k 1020k' -c 'map'
    [ "$status" -eq 0 ]
    [[ $output != *'verification failed'* ]]
}

@test "venue: disks of odd sizes are served to their last byte" {
    espalier init
    for size in 512 1000 4095 4096 4097 1048575 1048577 3149313; do
        random_file r$size.raw $size $size
        espalier root add r$size r$size.raw
    done
    serve
    for size in 512 1000 4095 4096 4097 1048575 1048577 3149313; do
        [ "$(nbdinfo --size "$(uri rp:r$size)")" -eq $size ]
        same r$size.raw rp:r$size
    done
}

@test "venue: a child that is larger than its parent ends with zeroes" {
    cafe
    cp v1.raw big.raw; truncate -s 5M big.raw
    espalier rp create big --parent v1 --from-image big.raw --size 5M
    serve
    same big.raw rp:big
    same v1.raw rp:v1
}

@test "venue: map tells holes, zeroes and data apart" {
    espalier init
    truncate -s 1M a.raw
    dd if=/dev/urandom of=a.raw bs=4k count=4 conv=notrunc status=none
    cp a.raw b.raw
    dd if=/dev/zero of=b.raw bs=4k seek=1 count=1 conv=notrunc status=none
    espalier root add a a.raw
    espalier rp create b --parent a --from-image b.raw
    serve
    nbdinfo --map --json "$(uri rp:a)" >a.json
    nbdinfo --map --json "$(uri rp:b)" >b.json
    [ "$(jq -c '[.[]|[.offset,.length,.type]]' a.json)" = '[[0,16384,0],[16384,1032192,3]]' ]
    [ "$(jq -c '[.[]|[.offset,.length,.type]]' b.json)" = '[[0,4096,0],[4096,4096,2],[8192,8192,0],[16384,1032192,3]]' ]
}

@test "venue: block status never says zero where there is data, at any place" {
    need_nbdsh
    cafe; serve
    nbdsh -c 'h.add_meta_context("base:allocation")' -c 'h.connect_uri("'"$(uri cafe)"'")' -c - <<'PY'
import random
raw = open("v1.raw", "rb").read(); size = len(raw); r = random.Random(7)
for i in range(400):
    at = r.randrange(size); n = r.randint(1, size - at); got = []
    one = r.random() < 0.3
    h.block_status(n, at, lambda ctx, off, ext, err: got.extend(ext) and 0,
                   nbd.CMD_FLAG_REQ_ONE if one else 0)
    ext = list(zip(got[::2], got[1::2]))
    assert ext and (not one or len(ext) == 1)
    assert sum(e[0] for e in ext) <= n if one else sum(e[0] for e in ext) == n, (at, n, ext)
    for length, flags in ext:
        assert length > 0
        if flags & 2: assert not any(raw[at:at + length]), (at, length, flags)
        at += length
PY
}

@test "venue: block status over more than 4 GiB of a 1 TiB disk, server lives" {
    need_nbdsh
    espalier init
    espalier root add huge --blank 1T
    espalier venue add v --disk huge
    serve
    nbdsh -c 'h.add_meta_context("base:allocation")' -c 'h.connect_uri("'"$(uri v)"'")' -c - <<'PY'
assert h.get_size() == 1 << 40
for at in 0, 1, 4096, (1 << 32) - 1, (1 << 39) + 5, (1 << 40) - 4096:
    for n in (1 << 32) - 1, (1 << 32) - 4096, 1 << 31, 4096:
        n = min(n, (1 << 40) - at); got = []
        h.block_status(n, at, lambda ctx, off, ext, err: got.extend(ext) and 0)
        assert got == [n, 3], (at, n, got)
assert h.pread(8192, (1 << 40) - 8192) == bytes(8192)
PY
    alive
    [ "$(nbdinfo --map --json "$(uri v)" | jq 'map(.length)|add')" -eq $((1 << 40)) ]
}

@test "venue: cache is answered" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri cafe)" -c - <<'PY'
assert h.can_cache()
h.cache(h.get_size(), 0); h.cache(1, 5); h.cache(4097, (1 << 20) - 1)
assert h.pread(4096, 4096) == open("v1.raw", "rb").read()[4096:8192]
PY
}

@test "venue: a write is refused with EPERM and changes nothing" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri cafe)" -c - <<'PY'
assert h.is_read_only()
h.set_strict_mode(0)
for verb in (lambda: h.pwrite(b"x" * 4096, 0), lambda: h.zero(4096, 0), lambda: h.trim(4096, 0)):
    try: verb(); raise SystemExit("a write was taken")
    except nbd.Error as e: assert e.errno in ("EPERM", "EROFS", "EINVAL"), e
try: h.pwrite(b"x", 0)
except nbd.Error as e: assert e.errno in ("EPERM", "EROFS"), e
PY
    same v1.raw cafe
}

@test "venue: depth 1,000 reads like its raw file" {
    [ -x "$MAKE_CHAIN" ] || skip "tests/lib/make-chain is built by make check"
    # In memory where that is possible: a thousand syncs take long elsewhere.
    fast=$(mktemp -d -p /dev/shm espalier-test-XXXXXX 2>/dev/null || mktemp -d -p "$D")
    STORE=$fast/store; export ESPALIER_STORE=$STORE
    status=0
    { espalier init
      "$MAKE_CHAIN" "$STORE" 1000 $((9 * 1024 * 1024 + 4096 * 3 + 77)) 11 raw 1 2 10 500 999 1000
      espalier venue add deep --disk d1000
      serve
      for n in 1 2 10 500 999 1000; do same raw.$n rp:d$n; done
      same raw.1000 deep
      grep -q 'depth 1000' venue.log; } || status=$?
    rm -rf -- "$fast"
    [ "$status" -eq 0 ]
}

# --- connections --------------------------------------------------------

@test "venue: a remapping reaches new connections only" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri cafe)" -c - <<PY
import subprocess
raw = {n: open(n + ".raw", "rb").read() for n in ("v1", "v2")}
assert raw["v1"] != raw["v2"]
assert h.pread(h.get_size(), 0) == raw["v1"]
subprocess.run(["espalier", "venue", "set", "cafe", "--disk", "v2"], check=True)
assert h.pread(h.get_size(), 0) == raw["v1"]
h2 = nbd.NBD(); h2.connect_uri("$(uri cafe)")
assert h2.pread(h2.get_size(), 0) == raw["v2"]
assert h.pread(h.get_size(), 0) == raw["v1"]
PY
}

@test "venue: a restore point under a reader is not deleted, afterwards it is" {
    need_nbdsh
    cafe; serve
    nbdsh -u "$(uri rp:v2)" -c - <<'PY'
import subprocess
p = subprocess.run(["espalier", "rp", "delete", "v2"], capture_output=True, text=True)
assert p.returncode != 0 and "open" in p.stderr, p
assert h.pread(h.get_size(), 0) == open("v2.raw", "rb").read()
PY
    wait_for 'rp delete v2' espalier rp delete v2
    refused '' nbdinfo "$(uri rp:v2)"
    same v1.raw cafe
}

@test "venue: a data file cut short is EIO to the requests that need it" {
    need_nbdsh
    cafe; serve
    dir=$(restore_point_dir v1)
    nbdsh -u "$(uri cafe)" -c - <<PY
import os
raw = open("v1.raw", "rb").read(); B = 4096
at = (2 << 20) - B
assert h.pread(2 * B, at) == raw[at:at + 2 * B]
os.truncate("$dir/data", B * 3)
for i in range(20):
    try: h.pread(2 * B, at); raise SystemExit("lost bytes were answered")
    except nbd.Error as e: assert e.errno == "EIO", e
    assert h.pread(B, 2 * B) == raw[2 * B:3 * B]       # what is left of v1
    assert h.pread(2 * B, 0) == raw[:2 * B]            # base's
h2 = nbd.NBD(); h2.connect_uri("$(uri lab)")
assert h2.pread(h2.get_size(), 0) == open("lab.raw", "rb").read()
PY
    alive
    same lab.raw lab
}

@test "venue: a layer that is gone or damaged spoils only what needs it" {
    cafe
    dir=$(restore_point_dir v1)
    mv "$dir/data" "$dir/data.away"
    serve1
    refused '' nbdcopy "$(uri cafe)" copy.raw
    same lab.raw lab
    same base.raw rp:base
    alive
    dir=$(restore_point_dir lab)
    printf 'garbage' | dd of="$dir/chain" bs=1 seek=20 conv=notrunc status=none
    refused '' nbdinfo "$(uri lab)"
    same base.raw rp:base
    alive
}

@test "venue: 200 clients at once" {
    need_nbdsh
    cafe; serve
    nbdsh -c - <<PY
import threading
raw = {n: open(n + ".raw", "rb").read() for n in ("v1", "lab")}
uri = {"v1": "$(uri cafe)", "lab": "$(uri lab)"}
clients = []
for i in range(200):
    c = nbd.NBD(); n = "v1" if i % 2 else "lab"
    c.connect_uri(uri[n]); clients.append((c, n))
def work(part):
    for i, (c, n) in enumerate(part):
        for k in range(5):
            at = (i * 7919 + k * 104729) % (len(raw[n]) - 9000)
            if c.pread(9000, at) != raw[n][at:at + 9000]: bad.append((n, at))
bad = []
threads = [threading.Thread(target=work, args=(clients[i::20],)) for i in range(20)]
for t in threads: t.start()
for t in threads: t.join()
assert not bad, bad
for c, n in clients: c.shutdown()
PY
    alive
    same v1.raw cafe
}

@test "venue: clients that are cut off with requests in flight leave the server alive" {
    cafe; serve1
    python3 - "$SOCK" <<'PY'
import socket, struct, sys
for i in range(50):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    f = s.makefile("rb"); f.read(18)
    go = struct.pack(">I", 4) + b"cafe" + struct.pack(">H", 0)
    s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(go)) + go)
    while True:
        kind, n = struct.unpack(">II", f.read(20)[12:]); f.read(n)
        if kind == 1: break
    s.sendall(b"".join(struct.pack(">IHHQQI", 0x25609513, 0, 0, k, k << 16, 1 << 20) for k in range(16)))
    f.read(1 + i); f.close(); s.close()
PY
    alive
    same v1.raw cafe
}

@test "venue: clients that come and go during changes never see a mixture" {
    need_nbdsh
    cafe; serve
    nbdsh -c - <<PY
import subprocess, threading
raw = {n: open(n + ".raw", "rb").read() for n in ("v1", "v2")}
stop = threading.Event(); bad = []; seen = set()
def reader():
    while not stop.is_set():
        c = nbd.NBD(); c.connect_uri("$(uri cafe)")
        got = b"".join(c.pread(min(1 << 20, c.get_size() - at), at) for at in range(0, c.get_size(), 1 << 20))
        which = [n for n in raw if raw[n] == got]
        if not which: bad.append(len(got))
        seen.update(which); c.shutdown()
threads = [threading.Thread(target=reader) for i in range(4)]
for t in threads: t.start()
for i in range(15):
    subprocess.run(["espalier", "venue", "set", "cafe", "--disk", "v2" if i % 2 == 0 else "v1"], check=True)
stop.set()
for t in threads: t.join()
assert not bad and seen, (bad, seen)
PY
    alive
}

@test "venue: two servers on one store serve the same" {
    cafe
    start_nbdkit one "$VENUE" "$STORE"; one=$SOCK
    start_nbdkit two "$VENUE" "$STORE"
    same v1.raw cafe
    SOCK=$one
    same v1.raw cafe
    espalier venue set cafe --disk v2
    same v2.raw cafe
    SOCK=$D/two.sock
    same v2.raw cafe
}

@test "venue: a read-only store is served" {
    [ "$(id -u)" -eq 0 ] || skip "needs root, for a read-only mount"
    unshare -m true 2>/dev/null || skip "mount namespaces are not allowed here"
    cafe
    run unshare -m sh -c 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" &&
        ! touch "$1/x" 2>/dev/null && exec nbdkit -U - "$2" "$1" venue=cafe --run "nbdcopy \"\$uri\" copy.raw"' \
        sh "$STORE" "$VENUE"
    [ "$status" -eq 0 ] || { echo "$output"; false; }
    cmp v1.raw copy.raw
}

@test "venue: a user who may only read the store can serve it" {
    [ "$(id -u)" -eq 0 ] || skip "needs root, to become another user"
    cafe
    chmod 777 "$D"
    chmod -R u=rwX,go=rX "$STORE"
    start_nbdkit venue -u nobody "$VENUE" "store=$STORE"
    chmod 777 "$SOCK"
    same v1.raw cafe
    same v2.raw rp:v2
}

@test "venue: the server ends with SIGTERM, and leaves nothing locked" {
    cafe; serve
    same v2.raw rp:v2
    stop_nbdkit
    not alive 2>/dev/null
    espalier rp delete v2
}
