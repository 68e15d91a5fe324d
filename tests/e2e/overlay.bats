# SPDX-License-Identifier: BSD-3-Clause
# The overlay filter over nbdkit's own plugins: it is useful without a store.
load ../lib/common

# disk NAME [BYTES]: an image of random bytes
disk () { random_file "$1" "${2:-3145728}"; }

# serve NAME ARGUMENTS...: nbdkit with the filter; overlays in $D/ov
serve ()
{
    local name=$1; shift
    mkdir -p ov
    start_nbdkit "$name" --filter="$OVERLAY" "$@" overlay-dir=ov overlay-min-free=0
}

# sh_nbd EXPORT PYTHON: run PYTHON with h connected to EXPORT; prints
sh_nbd ()
{
    EXPORT=$1 SOCK=$SOCK nbdsh -c 'import os
def connect(e=os.environ["EXPORT"]):
    h = nbd.NBD(); h.add_meta_context("base:allocation"); h.set_export_name(e); h.connect_unix(os.environ["SOCK"]); return h
h = connect()' -c "$2"
}

@test "what a client writes stays its own, and the image unchanged" {
    need_nbdsh
    disk disk.img
    cp disk.img before.img
    serve a file disk.img
    sh_nbd x@seat-1 'h.pwrite(b"one", 100); h.flush()'
    run sh_nbd x@seat-2 'print(h.pread(3, 100) == open("disk.img", "rb").read()[100:103])'
    [ "$output" = True ]
    run sh_nbd x@seat-1 'print(h.pread(3, 100))'
    [ "$output" = "bytearray(b'one')" ]
    cmp disk.img before.img
}

@test "all connections of a client see one disk" {
    need_nbdsh
    disk disk.img
    serve a file disk.img
    run sh_nbd @seat-1 'g = connect(); g.pwrite(b"two", 5000); print(h.pread(3, 5000), h.can_multi_conn())'
    [ "$output" = "bytearray(b'two') True" ]
}

@test "a client without a name has a private overlay that ends with its connection" {
    need_nbdsh
    disk disk.img
    serve a file disk.img
    run sh_nbd "" 'g = connect(); g.pwrite(b"two", 0); g.flush(); print(h.pread(3, 0) == b"two", h.can_multi_conn())'
    [ "$output" = "False False" ]
    [ -z "$(ls ov)" ]
}

@test "without overlay-dir, private overlays work and names are refused with advice" {
    need_nbdsh
    disk disk.img
    start_nbdkit a --filter="$OVERLAY" file disk.img overlay-min-free=0
    sh_nbd "" 'h.pwrite(b"x" * 8192, 1); assert h.pread(8192, 1) == b"x" * 8192'
    run sh_nbd @seat-1 ''
    [ "$status" -ne 0 ]
    grep -q 'overlay-dir=DIR' a.log
}

@test "each export of file dir= has overlays of its own" {
    need_nbdsh
    mkdir images
    disk images/a.img 1048576
    disk images/b@home 2097152
    serve a file dir=images
    sh_nbd a.img@seat-1 'h.pwrite(b"AAAA", 0)'
    sh_nbd b@home@seat-1 'assert h.get_size() == 2097152; h.pwrite(b"BBBB", 0)'
    run sh_nbd a.img@seat-1 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'AAAA')" ]
    run sh_nbd b@home@seat-1 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'BBBB')" ]
    [ -d ov/a.img/0/seat-1 ]
    [ -d ov/b%40home/0/seat-1 ]
}

@test "random requests of three clients agree with their twins, kept, with restarts" {
    need_nbdsh
    disk disk.img 3147000
    serve a file disk.img
    cat >restart.sh <<END
kill -9 \$(cat a.pid); rm -f a.pid $SOCK
nbdkit -U $SOCK -P $D/a.pid --filter=$OVERLAY file disk.img overlay-dir=ov overlay-min-free=0 2>>a.log
END
    run env EXPORTS="@a @b @c:1" IMAGE=disk.img STEPS=700 RESTART="sh restart.sh" SOCK="$SOCK" \
        PATH="/usr/bin:$PATH" nbdsh -c "exec(open('$ESPALIER_SRCDIR/tests/lib/overlay-model.py').read())"
    kill -9 "$(cat a.pid)"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "random requests agree with their twins, discard and memory" {
    need_nbdsh
    disk disk.img 2200000
    mkfifo stay                 # nothing ever comes out of it
    for mode in discard memory; do
        serve $mode file disk.img overlay-mode=$mode
        # a connection that stays: memory ends with the last one
        for e in d e; do sh_nbd @$e "import sys; open('ready-$mode-$e', 'w'); sys.stdin.read()" <>stay 3>&- & PIDS+=($!); done
        for e in d e; do wait_for "connection" test -e ready-$mode-$e; done
        run env EXPORTS="@d @e" IMAGE=disk.img STEPS=500 SOCK="$SOCK" \
            PATH="/usr/bin:$PATH" nbdsh -c "exec(open('$ESPALIER_SRCDIR/tests/lib/overlay-model.py').read())"
        echo "$output"
        [ "$status" -eq 0 ]
    done
}

@test "what was flushed survives kill -9 under load, again and again" {
    need_nbdsh
    truncate -s 1M disk.img
    mkdir ov
    run env SERVER="nbdkit --filter=$OVERLAY file disk.img overlay-dir=ov overlay-min-free=0" SOCK="$D/k.sock" EXPORT=@k \
        ROUNDS="${ESPALIER_KILLS:-25}" PATH="/usr/bin:$PATH" nbdsh -c "exec(open('$ESPALIER_SRCDIR/tests/lib/overlay-kill.py').read())"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "SIGTERM with a connected client loses nothing, flushed or not" {
    need_nbdsh
    disk disk.img
    serve a file disk.img
    sh_nbd @a 'h.pwrite(b"late", 0); os.kill(int(open("a.pid").read()), 15)
import time
try:
    while True: h.pread(1, 0); time.sleep(0.01)
except nbd.Error: pass'
    wait "$NBDKIT_PID" || true
    serve b file disk.img
    run sh_nbd @a 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'late')" ]
}

@test "discard: the same disk within the grace, a fresh one after it" {
    need_nbdsh
    disk disk.img
    serve a file disk.img overlay-mode=discard overlay-grace=5
    sh_nbd @a 'h.pwrite(b"gone", 0)'
    run sh_nbd @a 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'gone')" ]
    wait_for "removal" test ! -e ov/%
    run sh_nbd @a 'print(h.pread(4, 0) == b"gone")'
    [ "$output" = False ]
}

@test "discard: a client that comes back after a crash of the server goes on" {
    need_nbdsh
    disk disk.img
    serve a file disk.img overlay-mode=discard
    sh_nbd @a 'h.pwrite(b"here", 0); h.flush(); os.kill(int(open("a.pid").read()), 9)'
    serve b file disk.img overlay-mode=discard
    run sh_nbd @a 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'here')" ]
}

@test "memory leaves nothing on disk" {
    need_nbdsh
    disk disk.img
    start_nbdkit a --filter="$OVERLAY" file disk.img overlay-mode=memory
    sh_nbd @a 'g = connect(); g.pwrite(b"mem", 0); g.flush(); assert h.pread(3, 0) == b"mem"'
    run sh_nbd @a 'print(h.pread(3, 0) == b"mem")'
    [ "$output" = False ]
    [ -z "$(find . -name data)" ]
}

@test "overlay-quota: ENOSPC for that client alone, one message" {
    need_nbdsh
    disk disk.img
    serve a file disk.img overlay-quota=64K
    sh_nbd @full 'import errno
h.pwrite(bytes(65536), 0)
for i in range(5):
    try: h.pwrite(b"x", 1000000); assert False
    except nbd.Error as e: assert e.errnum == errno.ENOSPC
h.pwrite(b"y" * 65536, 0); h.zero(4096, 0); h.pwrite(b"x", 1000000)
g = connect("@other"); g.pwrite(bytes(65536), 0)'
    [ "$(grep -c 'overlay-quota is reached' a.log)" -eq 1 ]
}

@test "overlay-min-free: no overlay grows below it" {
    need_nbdsh
    disk disk.img
    mkdir ov
    start_nbdkit a --filter="$OVERLAY" file disk.img overlay-dir=ov overlay-min-free=1000T
    sh_nbd @a 'import errno
try: h.pwrite(b"x", 0); assert False
except nbd.Error as e: assert e.errnum == errno.ENOSPC
h.zero(8192, 0); assert h.pread(8192, 0) == bytes(8192)'
    grep -q 'overlay-min-free' a.log
}

@test "a second process is refused and told who has the overlay" {
    need_nbdsh
    disk disk.img
    serve a file disk.img
    mkfifo stay
    sh_nbd @a 'import sys; h.pwrite(b"1", 0); open("ready", "w"); sys.stdin.read()' <>stay 3>&- &
    PIDS+=($!)
    wait_for "first client" test -e ready
    local first=$NBDKIT_PID
    serve b file disk.img
    run sh_nbd @a ''
    [ "$status" -ne 0 ]
    grep -q "in use by nbdkit (process $first" b.log
    sh_nbd @b 'h.pwrite(b"1", 0)'
}

@test "a full file system: ENOSPC to the client, nothing broken" {
    need_nbdsh
    need unshare
    disk disk.img 33554432
    mkdir small
    truncate -s 16M small.img
    mkfs.ext4 -q small.img 2>/dev/null || skip "mkfs.ext4 does not work"
    cat >serve.sh <<END
mount -o loop small.img small || mount -t tmpfs -o size=16m none small || { echo skip >small.state; exit 1; }
exec nbdkit -f -U $D/s.sock -P $D/s.pid --filter=$OVERLAY file disk.img overlay-dir=small overlay-min-free=0
END
    unshare -m sh serve.sh >s.log 2>&1 3>&- &
    PIDS+=($!)
    wait_for "nbdkit" sh -c 'test -s s.pid || test -s small.state || grep -q "Operation not permitted" s.log'
    [ -s s.pid ] || skip "no private mounts here: $(tail -n 1 s.log)"
    SOCK=$D/s.sock
    sh_nbd @a 'import errno
old = open("disk.img", "rb").read()
ok = 0
try:
    while True:
        h.pwrite(b"n" * 65536, ok); ok += 65536
        if ok % (1 << 20) == 0: h.flush()
except nbd.Error as e: assert e.errnum == errno.ENOSPC, e
assert ok >= 8 << 20, ok
assert h.pread(ok, 0) == b"n" * ok
tail = h.pread(4096, ok + (1 << 20)); assert tail == old[ok + (1 << 20):][:4096]
h.zero(4 << 20, 0); h.pwrite(b"m" * (1 << 20), 0)
try: h.flush()
except nbd.Error: pass
assert h.pread(1 << 20, 0) == b"m" * (1 << 20)'
}

@test "hostile names reach nothing outside and break nothing" {
    need_nbdsh
    disk disk.img 65536
    serve a file disk.img
    sh_nbd "" 'names = ["../../etc@a", "x@../../../tmp/y", "x@..", "x@.", "x@-rf", "a/b/c@seat", "x@" + "n" * 129,
  "v" * 3900 + "@seat", "x@a;rm -rf /", "@\u00e9t\u00e9", "%2e%2e@a", ".@a", "..@a", "x@a\nb", "'"'"' OR 1=1 --@q"]
for n in names:
    try: g = connect(n)
    except nbd.Error: continue
    g.pwrite(b"evil", 0); g.flush(); g.shutdown()'
    [ ! -e "$D/../y" ]
    [ ! -e /tmp/y ]
    # everything is three levels below ov/, and nothing else was made
    [ -z "$(find ov -mindepth 1 -maxdepth 3 ! -type d)" ]
    [ "$(find . -name data | grep -cv '^./ov/[^/]*/0/[^/]*/data$')" -eq 0 ]
    [ "$(find . -name data | wc -l)" -ge 5 ]
    sh_nbd @fine 'h.pwrite(b"x", 0)'
}

@test "overlay-client=peer and =export name clients that do not" {
    need_nbdsh
    disk disk.img
    serve a file disk.img overlay-client=peer
    sh_nbd "" 'h.pwrite(b"me", 0)'
    [ -d "ov/%/0/uid-$(id -u)" ]
    run sh_nbd "" 'print(h.pread(2, 0))'
    [ "$output" = "bytearray(b'me')" ]
    serve b file disk.img overlay-client=export
    sh_nbd "" 'h.pwrite(b"ex", 0)'
    [ -d ov/%/0/export ]
}

@test "nbdkit -r shows a client its overlay and makes none" {
    need_nbdsh
    disk disk.img
    serve a file disk.img
    sh_nbd @a 'h.pwrite(b"mine", 0)'
    stop_nbdkit
    serve b -r file disk.img
    run sh_nbd @a 'print(h.pread(4, 0), h.is_read_only())'
    [ "$output" = "bytearray(b'mine') True" ]
    run sh_nbd @b 'print(h.pread(4, 0) == open("disk.img", "rb").read(4))'
    [ "$output" = True ]
    [ ! -e ov/%/0/b ]
}

@test "block status of more than 4 GiB on a 1 TiB disk is clipped to the request" {
    need_nbdsh
    serve a null size=1T
    run sh_nbd @a 'seen = []
def f(c, o, e, err): seen.extend(e); return 0
h.block_status(4294967295, 0, f); h.block_status(4294963200, 1 << 33, f)
h.zero(4294963200, 1 << 34); h.block_status(4294967295, 1 << 34, f)
h.pwrite(b"x", (1 << 40) - 1); assert h.pread(2, (1 << 40) - 2) == b"\0x"
print(len(seen) > 0)'
    [ "$output" = True ]
}

@test "nbdcopy into an overlay and back, qemu-io patterns" {
    need nbdcopy qemu-io
    disk disk.img
    disk other.img 3145728 2
    truncate -s 3145728 other.img
    serve a file disk.img
    nbdcopy other.img "$(uri @a)"
    nbdcopy "$(uri @a)" back.img
    cmp other.img back.img
    qemu-io -f raw -c 'write -P 7 1000 5000' -c 'write -z 4000 100' -c 'discard 8192 8192' -c flush "$(uri @q)"
    qemu-io -f raw -c 'read -P 7 1000 3000' -c 'read -P 0 4000 100' -c 'read -P 7 4100 1900' -c 'read -P 0 8192 8192' "$(uri @q)" >out
    not grep -q 'verification failed' out
}

@test "fio verifies what it wrote" {
    need fio
    fio --enghelp 2>/dev/null | grep -qw nbd || skip "fio has no nbd engine"
    disk disk.img 33554432
    serve a file disk.img
    fio --name=v --ioengine=nbd --uri="$(uri @a)" --rw=randrw --bsrange=512-64k --blockalign=512 --size=32M \
        --iodepth=16 --verify=crc32c --verify_fatal=1 --fsync=64 --io_size=24M >fio.log || { cat fio.log; false; }
    not grep -q 'verify:' fio.log
}

@test "wrong parameters are refused with what to type" {
    mkdir ov
    truncate -s 1M disk.img
    for p in overlay-mode=kept overlay-client=me overlay-quota=1 overlay-quota=x overlay-min-free=-1 \
             overlay-grace=soon overlay-client=peer; do
        run nbdkit -U - --filter="$OVERLAY" file disk.img "$p" --run true
        [ "$status" -ne 0 ]
        [[ "$output" == *overlay-* ]]
    done
    run nbdkit -U - --filter="$OVERLAY" file disk.img overlay-dir=missing --run true
    [ "$status" -ne 0 ]
    [[ "$output" == *missing* ]]
}

@test "the manual page and --help name the same parameters" {
    nbdkit --filter="$OVERLAY" null --help | grep -o '^overlay-[a-z-]*' | sort -u >help
    grep -o '^=item B<overlay-[a-z-]*' "$ESPALIER_SRCDIR/filters/overlay/nbdkit-overlay-filter.pod" | sed 's/.*<//' | sort -u >page
    [ -s help ]
    diff help page
}
