# SPDX-License-Identifier: BSD-3-Clause
# The overlay filter over the venue plugin where it is hard: a slow store
# below, a full or a read-only file system, large disks, many clients at
# once, hostile bytes in names.
bats_require_minimum_version 1.5.0
load ../lib/common

# one <- two; venue cafe has two, of a size that is no multiple of anything
SIZE=$(((3 << 20) + 4096 * 3 + 1537))
tree ()
{
    random_file one.raw "${1:-$SIZE}" 1
    cp one.raw two.raw
    random_file piece 700001 2
    dd if=piece of=two.raw bs=1 seek=1048000 conv=notrunc status=none
    dd if=/dev/zero of=two.raw bs=4096 seek=40 count=30 conv=notrunc status=none
    espalier init
    espalier root add one one.raw
    espalier rp create two --parent one --from-image two.raw
    espalier venue add cafe --disk two
} >/dev/null

serve ()
{
    start_nbdkit stack --filter="$OVERLAY" "$VENUE" store="$STORE" "$@"
}

@test "stack: every verb at every edge of an odd-sized disk, from two connections" {
    need_nbdsh
    tree
    serve overlay-min-free=0
    nbdsh -c "base, uri = 'two.raw', '$(uri cafe@s)'" -c - <<'PY'
def connect():
    h = nbd.NBD(); h.add_meta_context("base:allocation"); h.set_strict_mode(0); h.connect_uri(uri); return h
a, b = connect(), connect()
twin = bytearray(open(base, "rb").read()); size = len(twin); B = 4096; T = 1 << 20
edges = [0, B, 40 * B, 70 * B, T, 2 * T, 3 * T, size // B * B, size]
lengths = [1, 511, B - 1, B, B + 1, 3 * B + 17, T]
def extents(h, n, at):
    got = []; h.block_status(n, at, lambda c, o, e, err: got.extend(e) or 0)
    for length, flags in zip(got[::2], got[1::2]):
        if flags & 2: assert not any(twin[at:min(at + length, size)]), (at, length, flags)
        at += length
k = 0
for e in edges:
    for d in (-B - 1, -1, 0, 1, 511):
        for n in lengths:
            at = e + d; n = min(n, size - at)
            if at < 0 or n <= 0: continue
            h, g = (a, b) if k % 2 else (b, a)
            verb = k % 6; k += 1
            if verb < 2:
                buf = bytes([1 + k % 255]) * n
                h.pwrite(buf, at, nbd.CMD_FLAG_FUA if verb else 0); twin[at:at + n] = buf
            elif verb == 2:
                h.zero(n, at); twin[at:at + n] = bytes(n)
            elif verb == 3:
                h.zero(n, at, nbd.CMD_FLAG_NO_HOLE); twin[at:at + n] = bytes(n)
            elif verb == 4:
                # trim: whatever it says it did, it did; only whole blocks need be zero
                h.trim(n, at)
                got = h.pread(n, at)
                assert all(x == y or x == 0 for x, y in zip(got, twin[at:at + n]))
                twin[at:at + n] = got
            else:
                h.cache(n, at); h.flush()
            lo, hi = max(0, at - 2 * B), min(size, at + n + 2 * B)
            assert g.pread(hi - lo, lo) == twin[lo:hi], (verb, at, n)
            extents(g, hi - lo, lo)
# behind the end, and of nothing
for h in a, b:
    for verb in (lambda: h.pwrite(b"xx", size - 1), lambda: h.zero(2, size - 1), lambda: h.trim(2, size - 1),
                 lambda: h.pread(2, size - 1), lambda: h.pwrite(b"x", size), lambda: h.pread(1, 1 << 62),
                 lambda: h.zero(1, (1 << 63) + 1), lambda: h.pwrite(b"x" * 512, (1 << 64) - 512)):
        try: verb(); raise SystemExit("a request behind the end was taken")
        except (nbd.Error, OverflowError) as e: assert getattr(e, "errno", "EINVAL") in ("EINVAL", "ENOSPC", "EIO"), e
a.flush()
assert b.pread(size, 0) == twin
open("twin.raw", "wb").write(twin)
PY
    stop_nbdkit
    serve overlay-min-free=0
    nbdcopy "$(uri cafe@s)" copy.raw
    cmp twin.raw copy.raw
    rm copy.raw
    nbdcopy "$(uri cafe)" copy.raw
    cmp two.raw copy.raw
}

@test "stack: a fill that reads slowly below never overwrites a write that came meanwhile" {
    need_nbdsh
    tree
    # reads below take 300 ms; a write of a part of a block needs one
    start_nbdkit stack -t 8 --filter="$OVERLAY" --filter=delay "$VENUE" store="$STORE" overlay-min-free=0 rdelay=300ms
    nbdsh -c "uri = '$(uri cafe@s)'" -c - <<'PY'
conns = []
for i in range(2):
    h = nbd.NBD(); h.connect_uri(uri); conns.append(h)
a, b = conns
raw = open("two.raw", "rb").read(); B = 4096
twin = {}
# Each block: a small write whose fill waits for the slow read, and, while it
# does, a whole write, a zero or a trim of the same block from the other
# connection, answered and flushed before the fill is done.
cookies = []
small = nbd.Buffer.from_bytearray(bytearray(b"small"))
whole = nbd.Buffer.from_bytearray(bytearray(b"W" * B))
reads = []
for k in range(24):
    cookies.append((a, a.aio_pwrite(small, k * B + 1000)))
for k in range(24, 48):
    buf = nbd.Buffer(B); reads.append((k, buf)); cookies.append((a, a.aio_pread(buf, k * B)))
for k in range(48):
    if k % 3 == 0: c = b.aio_pwrite(whole, k * B)
    elif k % 3 == 1: c = b.aio_zero(B, k * B)
    else: c = b.aio_trim(B, k * B)
    cookies.append((b, c))
def wait(h, c):
    while not h.aio_command_completed(c): h.poll(-1)
for h, c in cookies: wait(h, c)
b.flush()
for k in range(48):
    got = bytes(a.pread(B, k * B))
    plain = b"W" * B if k % 3 == 0 else bytes(B)
    late = plain[:1000] + b"small" + plain[1005:]    # the small write came second
    assert got in ((plain, late) if k < 24 else (plain,)), (k, got[:16], got[998:1008])
for k, buf in reads:
    got = bytes(buf.to_bytearray())
    assert got in (raw[k * B:k * B + B], b"W" * B if k % 3 == 0 else bytes(B)), k
# and over a reconnect
before = bytes(b.pread(48 * B, 0))
a.shutdown(); b.shutdown()
h = nbd.NBD(); h.connect_uri(uri)
assert bytes(h.pread(48 * B, 0)) == before
PY
}

@test "stack: a small file system is full: ENOSPC, nothing lost; the floor keeps it from being full" {
    [ "$(id -u)" -eq 0 ] || skip "needs root, for a file system of its own"
    unshare -m true 2>/dev/null || skip "mount namespaces are not allowed here"
    need_nbdsh
    tree 20971520
    mkdir small
    cat >inside.sh <<'END'
mount -t tmpfs -o size=32m none small || exit 77
cp -a --sparse=always "$ESPALIER_STORE" small/store || exit 1
export ESPALIER_STORE=$PWD/small/store
free () { df --output=avail -B1 small | tail -n 1; }
# the floor: no overlay takes the last 4 MiB
nbdkit -U - --filter="$OVERLAY" "$VENUE" store="$ESPALIER_STORE" overlay-min-free=4M --run 'SOCK=$unixsocket python3 fill.py floor' || exit 2
[ "$(free)" -ge 4000000 ] || exit 3
espalier overlay delete cafe@floor || exit 4
# without it the file system fills up, and says so to the client
nbdkit -U - --filter="$OVERLAY" "$VENUE" store="$ESPALIER_STORE" overlay-min-free=0 --run 'SOCK=$unixsocket python3 fill.py full' || exit 5
[ "$(free)" -lt 1000000 ] || exit 6
# what was flushed is there, and the store is sound and can be used again
nbdkit -U - --filter="$OVERLAY" "$VENUE" store="$ESPALIER_STORE" overlay-min-free=0 --run 'SOCK=$unixsocket python3 fill.py again' || exit 7
espalier store check || exit 8
dd if=/dev/zero of=small/rest bs=4k 2>/dev/null
espalier rp create late --parent two --size 40M --quiet 2>err && exit 9
grep -q 'No space' err || { cat err; exit 9; }
[ -z "$(ls -A "$ESPALIER_STORE/tmp")" ] || exit 13
rm small/rest
espalier overlay delete cafe@full || exit 10
espalier rp create late --parent two --size 40M --quiet || exit 11
espalier store check || exit 12
END
    cat >fill.py <<'END'
import errno, nbd, os, sys
mode = sys.argv[1]; raw = open("two.raw", "rb").read()
def connect(name):
    h = nbd.NBD(); h.set_export_name(name); h.connect_unix(os.environ["SOCK"]); return h
if mode == "again":
    h = connect("cafe@full"); done = int(open("done").read())
    assert h.pread(done, 0) == b"f" * done and h.pread(65536, len(raw) - 65536) == raw[-65536:]
    sys.exit()
h = connect("cafe@" + mode); at = flushed = 0
try:
    while True:
        h.pwrite(b"f" * 65536, at); at += 65536
        if at % (1 << 20) == 0: h.flush(); flushed = at
except nbd.Error as e:
    assert e.errnum == errno.ENOSPC, e
assert flushed >= 2 << 20 and at < len(raw), (flushed, at)
assert h.pread(at, 0) == b"f" * at                       # what was taken is there
assert h.pread(65536, len(raw) - 65536) == raw[-65536:]  # the rest can be read
h.pwrite(b"f" * 65536, 0)                                # what is there can be written again
if mode == "floor":
    g = connect("cafe@other")                            # nobody else grows either
    assert g.pread(4096, 0) == raw[:4096]
    try: g.pwrite(b"x" * 65536, 0); sys.exit("below the floor")
    except nbd.Error as e: assert e.errnum == errno.ENOSPC, e
h.trim(1 << 20, at - (1 << 20))                          # what is given back
h.pwrite(b"f" * (1 << 19), at - (1 << 20))               # can be taken again (some went to the other's files)
h.flush()
open("done", "w").write(str(min(flushed, at - (1 << 20))))
END
    python3 -c 'import nbd' 2>/dev/null || PATH=/usr/bin:$PATH
    run unshare -m bash inside.sh
    [ "$status" -ne 77 ] || skip "no right to mount"
    echo "$output"
    echo "status $status"
    [ "$status" -eq 0 ]
}

@test "stack: over a read-only store overlays are in memory, or refused saying so" {
    [ "$(id -u)" -eq 0 ] || skip "needs root, for a read-only mount"
    unshare -m true 2>/dev/null || skip "mount namespaces are not allowed here"
    need_nbdsh
    tree
    cat >inside.sh <<'END'
mount --bind "$ESPALIER_STORE" "$ESPALIER_STORE" && mount -o remount,ro,bind "$ESPALIER_STORE" || exit 77
python3 -c 'import nbd' 2>/dev/null || PATH=/usr/bin:$PATH
nbdkit -U - --filter="$OVERLAY" "$VENUE" store="$ESPALIER_STORE" overlay-mode=memory --run 'SOCK=$unixsocket python3 ro.py memory' || exit 2
nbdkit -U - --filter="$OVERLAY" "$VENUE" store="$ESPALIER_STORE" --run 'SOCK=$unixsocket python3 ro.py keep' 2>keep.err || exit 3
grep -q 'error: .*[Rr]ead-only' keep.err || { cat keep.err; exit 4; }
END
    cat >ro.py <<'END'
import nbd, os, sys
raw = open("two.raw", "rb").read()
def connect(name):
    h = nbd.NBD(); h.set_export_name(name); h.connect_unix(os.environ["SOCK"]); return h
if sys.argv[1] == "memory":
    h = connect("cafe@s"); h.pwrite(b"mine", 100); h.flush()
    assert h.pread(len(raw), 0) == raw[:100] + b"mine" + raw[104:]
    assert connect("cafe").pread(4, 100) == raw[100:104]
else:
    try:
        h = connect("cafe@s"); h.pwrite(b"mine", 100); sys.exit("a write was taken")
    except nbd.Error: pass
    h = connect("rp:two")
    assert h.pread(4, 100) == raw[100:104]
END
    run unshare -m bash inside.sh
    [ "$status" -ne 77 ] || skip "no right to mount"
    echo "$output"
    echo "status $status"
    [ "$status" -eq 0 ]
}

@test "stack: block status over more than 4 GiB of a 1 TiB disk that was written to" {
    need_nbdsh
    espalier --quiet init
    random_file head.raw 1048576
    truncate -s 1T head.raw
    espalier --quiet root add huge head.raw
    espalier --quiet venue add cafe --disk huge
    serve overlay-min-free=0
    nbdsh -c "uri = '$(uri cafe@s)'" -c - <<'PY'
h = nbd.NBD(); h.add_meta_context("base:allocation"); h.connect_uri(uri)
G = 1 << 30; size = 1 << 40
assert h.get_size() == size
h.pwrite(b"x" * 8192, 5 * G); h.zero(4 * G - 4096, 20 * G); h.trim(4 * G - 4096, 100 * G); h.pwrite(b"end", size - 3)
M = (1 << 32) - 1
for at in (0, 1, 5 * G - 1, 5 * G + 8191, 20 * G - 5, 24 * G - 4097, 100 * G, size - M, size - 4096, 1 << 39):
    for n in (M, M - 4095, 1 << 31, 4096):
        n = min(n, size - at); got = []
        h.block_status(n, at, lambda c, o, e, err: got.extend(e) or 0)
        ext = list(zip(got[::2], got[1::2]))
        assert sum(l for l, f in ext) == n, (at, n, ext)
        pos = at
        for l, f in ext:
            for start, end in ((0, 1 << 20), (5 * G, 5 * G + 8192), (size - 3, size)):
                assert not (f & 2) or end <= pos or pos + l <= start, (at, pos, l, f)
            pos += l
assert h.pread(8192, 5 * G) == b"x" * 8192 and h.pread(4, size - 4) == b"\0end"
PY
    kill -0 "$NBDKIT_PID"
    # nbdinfo and qemu-img walk the whole disk
    [ "$(nbdinfo --map --json "$(uri cafe@s)" | jq 'map(.length)|add')" -eq $((1 << 40)) ]
    need qemu-img
    [ "$(qemu-img map --output=json -f raw "$(uri cafe@s)" | jq '[.[]|select(.data)|.length]|add')" -lt 4000000 ]
    kill -0 "$NBDKIT_PID"
}

@test "stack: names of any bytes reach nothing and break nothing" {
    tree
    serve overlay-min-free=0
    python3 - "$SOCK" <<'PY'
import os, socket, struct, sys
def go(name):
    """Connect by NBD_OPT_GO; write where it is taken; what became of it."""
    s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
    f = s.makefile("rwb")
    assert f.read(8) == b"NBDMAGIC"; f.read(10)
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    f.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(data)) + data); f.flush()
    while True:
        head = f.read(20)
        if len(head) < 20: return "closed"
        kind, n = struct.unpack(">II", head[12:]); f.read(n)
        if kind != 3: break
    if kind == 1:
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 4) + b"evil"); f.flush(); f.read(16)
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 2, 2, 0, 0)); f.flush()
    f.close(); s.close()
    return kind
clients = [b"../../etc", b"..", b".", b"/", b"/etc/passwd", b"a/b", b"-rf", b"--help", b"a;rm -rf .", b"$(touch x)", b"`id`",
    b"'; DROP TABLE rp; --", b"' OR '1'='1", b"%s%n%x", b"%2e%2e", b"%00", b"x" * 128, b"x" * 129, b"x" * 255, b"x" * 4000,
    b"\xff\xfe", b"\xc0\xae\xc0\xae/", b"\xed\xa0\x80", b"caf\xc3", b"\xc3\xa9t\xc3\xa9", b"a\nb", b"a\rb", b"a\tb", b"\x1b[2J", b"\x7f",
    b" ", b"a b", b"@", b"a@b", b"lock", b"map", b"overlay", b"data", b"CON", b"~", b"*", b"\\..\\..", b"52:54:00:12:34:56", b"::1", b""]
taken = 0
for c in clients:
    for e in (b"cafe@", b"cafe/0@", b"rp:two@", b"nobody@", b"../cafe@", b"cafe/../../tmp@", b"cafe/1@", b"\xff@", b"'@", b"@"):
        r = go(e + c)
        if e.startswith(b"cafe@") and c in (b"lock", b"map", b"52:54:00:12:34:56", b"::1", b"x" * 128): assert r == 1, (e, c, r)
        if b".." in e or e in (b"nobody@", b"cafe/1@", b"\xff@", b"'@") or c in (b"..", b".", b"", b"x" * 129, b"x" * 4000, b"/", b"a/b", b"\xff\xfe",
            b"../../etc", b"a\nb", b"\x1b[2J"): assert r != 1, (e, c, r)
        taken += r == 1
    for nul in (b"cafe@a\0b", b"cafe\0@" + c, b"\0" * 4096): go(nul)
for e in (b"cafe@" + b"x" * 4091, b"x" * 4096, b"x" * 4097, b"cafe@s" + b"/" * 3000): assert go(e) != 1
assert go(b"cafe@fine") == 1 and taken > 10
PY
    kill -0 "$NBDKIT_PID"
    # only where overlays belong was anything made, with names that are safe
    (cd "$STORE/overlays" && ls) >dirs
    not grep -v -e "^cafe$" -e "^rp%3A[0-9a-f-]*$" dirs
    [ "$(cd "$STORE/overlays" && find . -name data -type f | grep -cvE '^\./(cafe|rp%3A[0-9a-f-]*)/0/[A-Za-z0-9%._:+~-]*/data$')" -eq 0 ] ||
        { find "$STORE/overlays" -name data -type f; false; }
    [ ! -e x ]
    [ "$(ls "$D" | grep -cvE '^(one.raw|two.raw|piece|store|dirs|stack\..*)$')" -eq 0 ]
    grep 'error: ' stack.log | grep -v debug >errors || true
    not grep -q $'\x1b' errors
    stop_nbdkit
    espalier overlay list >list
    not grep -q $'\x1b' list
    espalier store check
}

@test "stack: 200 clients at once write, flush and read what is theirs" {
    need_nbdsh
    tree
    serve overlay-min-free=0
    nbdsh -c "uri = '$(uri cafe)'" -c - <<'PY'
import random, threading
raw = open("two.raw", "rb").read(); size = len(raw)
bad, ready = [], threading.Barrier(40)
def work(first):
    try:
        mine = []
        for i in range(first, first + 5):
            h = nbd.NBD(); h.connect_uri(uri.replace("cafe", "cafe@c%d" % i)); mine.append((i, h, bytearray(raw), random.Random(i)))
        ready.wait(120)
        for step in range(8):
            for i, h, twin, r in mine:
                n = r.randint(1, 20000); at = r.randrange(size - n); b = r.randbytes(n)
                h.pwrite(b, at); twin[at:at + n] = b
                if step % 4 == 3: h.flush()
                lo = max(0, at - 5000); hi = min(size, at + n + 5000)
                if h.pread(hi - lo, lo) != twin[lo:hi]: bad.append((i, at, n))
        for i, h, twin, r in mine:
            h.flush()
            for at in range(0, size, 1 << 20):
                if h.pread(min(1 << 20, size - at), at) != twin[at:at + (1 << 20)]: bad.append((i, "end", at))
            h.shutdown()
    except Exception as e: bad.append(e); ready.abort()
threads = [threading.Thread(target=work, args=(k * 5,)) for k in range(40)]
for t in threads: t.start()
for t in threads: t.join()
assert not bad, bad[:5]
PY
    kill -0 "$NBDKIT_PID"
    stop_nbdkit
    [ "$(espalier overlay list --names | wc -l)" -eq 200 ]
    serve overlay-min-free=0
    nbdcopy "$(uri cafe)" copy.raw
    cmp two.raw copy.raw
}

@test "stack: fio verifies what four jobs write at once, and again after a restart" {
    need fio
    fio --enghelp 2>/dev/null | grep -qw nbd || skip "fio has no nbd engine"
    tree 33554432
    serve overlay-min-free=0
    fio_run ()
    {
        fio --ioengine=nbd --uri="$(uri cafe@f)" --rw=randwrite --bsrange=512-64k --blockalign=512 --size=8M --offset_increment=8M \
            --numjobs=4 --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --serialize_overlap=1 --randseed=7 \
            --fsync=64 --name=v --group_reporting "$@" >fio.log 2>&1 || { cat fio.log; return 1; }
        not grep -q '^verify:' fio.log
    }
    fio_run --do_verify=1
    kill -9 "$NBDKIT_PID"
    wait "$NBDKIT_PID" || true
    serve overlay-min-free=0
    nbdcopy "$(uri cafe)" copy.raw
    cmp two.raw copy.raw
}

@test "stack: qemu-img compare, qemu-io and nbdinfo agree on what a client wrote" {
    need qemu-img qemu-io nbdinfo
    tree $((3 << 20))
    serve overlay-min-free=0
    cp two.raw want.raw
    local c=(-c 'write -P 7 1000 5000' -c 'write -z 1048000 9000' -c 'write -P 9 3145216 512' -c 'discard 2M 64k' -c flush)
    qemu-io -f raw "${c[@]}" want.raw
    qemu-io -f raw "${c[@]}" "$(uri cafe@q)"
    qemu-img compare -f raw -F raw want.raw "$(uri cafe@q)"
    qemu-img compare -f raw -F raw two.raw "$(uri cafe)"
    run qemu-img compare -f raw -F raw two.raw "$(uri cafe@q)"
    [ "$status" -eq 1 ]
    [ "$(nbdinfo --json "$(uri cafe@q)" | jq -c '.exports[0]|[."is_read_only",."can_multi_conn",."can_fua",."can_flush",."can_trim",."can_zero",."can_cache"]')" \
        = '[false,true,true,true,true,true,true]' ]
    qemu-img convert -f raw -O qcow2 "$(uri cafe@q)" out.qcow2
    qemu-img compare -f raw -F qcow2 want.raw out.qcow2
}
