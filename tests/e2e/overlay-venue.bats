# SPDX-License-Identifier: BSD-3-Clause
# The overlay filter over the venue plugin: tips, remapping, rp: exports, and
# what an operator sees and does meanwhile.
load ../lib/common

setup_store ()
{
    random_file one.raw 2101760 1
    random_file two.raw 2101760 2
    espalier init >/dev/null
    espalier root add one one.raw >/dev/null
    espalier root add two two.raw >/dev/null
    espalier venue add cafe --disk one --disk two >/dev/null
}

serve ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-min-free=0 "$@"
}

# sh_nbd EXPORT PYTHON: run PYTHON with h connected to EXPORT; prints
sh_nbd ()
{
    EXPORT=$1 SOCK=$SOCK nbdsh -c 'import os
def connect(e=os.environ["EXPORT"]):
    h = nbd.NBD(); h.set_export_name(e); h.connect_unix(os.environ["SOCK"]); return h
def raw(name, n, at):
    with open(name + ".raw", "rb") as f: f.seek(at); return f.read(n)
h = connect()' -c "$2"
}

@test "venue: a client reads its tip and keeps what it writes, on each disk" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@s 'assert h.pread(512, 0) == raw("one", 512, 0); h.pwrite(b"first", 700)'
    sh_nbd cafe/1@s 'assert h.pread(512, 0) == raw("two", 512, 0); h.pwrite(b"second", 700)'
    stop_nbdkit
    serve b
    sh_nbd cafe/0@s 'assert h.pread(5, 700) == b"first"; assert h.pread(700, 0) == raw("one", 700, 0)
assert h.get_size() == 2101760 and h.can_multi_conn()'
    sh_nbd cafe/1@s 'assert h.pread(6, 700) == b"second"'
    sh_nbd cafe 'assert h.pread(5, 700) == raw("one", 5, 700)'
}

@test "venue: after a remapping a kept overlay goes on over its old tip until it is reset" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@old 'h.pwrite(b"mine", 0)'
    sh_nbd cafe@idle 'assert h.pread(4, 4096) == raw("one", 4, 4096)'
    espalier venue set cafe --disk two
    sh_nbd cafe@old 'assert h.pread(4, 0) == b"mine"; assert h.pread(4096, 4096) == raw("one", 4096, 4096)'
    sh_nbd cafe@new 'assert h.pread(4096, 4096) == raw("two", 4096, 4096)'
    # one that only read has nothing to keep
    sh_nbd cafe@idle 'assert h.pread(4096, 4096) == raw("two", 4096, 4096)'
    run espalier overlay list
    [[ "$output" == *cafe/0@old* ]]
    [[ "$output" == *"old: the venue has two now"* ]]
    wait_for "the end of the connection" espalier overlay reset cafe/0@old
    sh_nbd cafe@old 'assert h.pread(4096, 0) == raw("two", 4096, 0)'
}

@test "venue: a connection that is open keeps its tip, and so do those that join it" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@s 'import subprocess
subprocess.run(["espalier", "venue", "set", "cafe", "--disk", "two"], check=True)
g = connect(); assert g.pread(512, 0) == raw("one", 512, 0)
h.pwrite(b"z", 0); assert g.pread(1, 0) == b"z"'
}

@test "venue: rp: exports have overlays by UUID, which a rename does not touch" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd rp:one 'h.pwrite(b"tmp", 0); g = connect(); assert g.pread(3, 0) == raw("one", 3, 0)'
    sh_nbd rp:one@op 'h.pwrite(b"kept", 0)'
    espalier rp rename one uno
    sh_nbd rp:uno@op 'assert h.pread(4, 0) == b"kept"'
    run espalier overlay list
    [[ "$output" == *rp:*@op* ]]
}

@test "venue: what a client wrote becomes a restore point, and the client begins anew" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@s 'h.pwrite(b"new software", 12345); h.flush()
import subprocess
r = subprocess.run(["espalier", "rp", "create", "soft", "--from-overlay", "cafe@s"], capture_output=True, text=True)
assert r.returncode != 0 and "use" in r.stderr, r.stderr'
    wait_for "the end of the connection" espalier rp create soft --from-overlay cafe@s
    sh_nbd cafe@s 'assert h.pread(12, 12345) == raw("one", 12, 12345)'
    sh_nbd rp:soft 'assert h.pread(12, 12345) == b"new software"; assert h.pread(12345, 0) == raw("one", 12345, 0)'
}

@test "venue: overlay list shows live usage, quota and holder" {
    need_nbdsh
    setup_store
    serve a overlay-quota=1M
    sh_nbd cafe@s 'h.pwrite(bytes(262144), 0); h.flush()
import subprocess
out = subprocess.run(["espalier", "overlay", "list"], capture_output=True, text=True, check=True).stdout
line = next(l for l in out.splitlines() if "cafe/0@s" in l)
assert "1M" in line and "256K" in line, line
out = subprocess.run(["espalier", "overlay", "show", "cafe@s"], capture_output=True, text=True, check=True).stdout
assert open("a.pid").read().strip() in out, out'
}

@test "venue: a second server on the same store is told who has the overlay" {
    need_nbdsh
    setup_store
    serve a
    local first=$SOCK first_pid=$NBDKIT_PID
    serve b
    FIRST=$first sh_nbd cafe@other 'g = nbd.NBD(); g.set_export_name("cafe@s"); g.connect_unix(os.environ["FIRST"])
try: connect("cafe@s"); assert False
except nbd.Error: pass'
    grep -q "in use by nbdkit (process $first_pid" b.log
}

@test "venue: wrong names of exports and clients are refused" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@ok 'for n in ["cafe@", "cafe@../x", "cafe/9", "none@s", "cafe@a@b", "../cafe@s", "rp:nothing@s", "cafe@" + "n" * 129, "@s"]:
    try: connect(n); assert False, n
    except nbd.Error: pass'
    # cafe goes a moment after its client did, without a write.
    left=$(ls "$STORE/overlays")
    [ -z "$left" ] || [ "$left" = cafe ]
}

@test "venue: discard gives a fresh disk of the present tip" {
    need_nbdsh
    setup_store
    serve a overlay-mode=discard overlay-grace=0
    sh_nbd cafe@s 'h.pwrite(b"gone", 0)'
    espalier venue set cafe --disk two
    wait_for "removal" test ! -e "$STORE/overlays/cafe"
    sh_nbd cafe@s 'assert h.pread(512, 0) == raw("two", 512, 0)'
}

@test "venue: gc removes a discarded overlay when the grace of its own server is over" {
    need_nbdsh
    setup_store
    serve a overlay-mode=discard overlay-grace=600
    PID=$NBDKIT_PID sh_nbd cafe@s 'h.pwrite(b"first", 700); h.flush(); os.kill(int(os.environ["PID"]), 9)'
    wait "$NBDKIT_PID" || true
    lock=$STORE/overlays/cafe/0/s/lock
    touch -d '11 minutes ago' "$lock"
    espalier store gc           # nobody said good-bye: the grace begins now
    [ -e "$lock" ]
    touch -d '9 minutes ago' "$lock"
    espalier store gc
    [ -e "$lock" ]
    touch -d '11 minutes ago' "$lock"
    espalier store gc
    [ ! -e "$lock" ]
}

@test "venue: 200 clients at once, each with its own bytes" {
    need_nbdsh
    setup_store
    serve a
    sh_nbd cafe@first 'hs = []
for i in range(200):
    g = connect("cafe@c%d" % i); g.pwrite(b"%03d" % i, i * 4096 + 1); hs.append(g)
for i, g in enumerate(hs):
    assert g.pread(3, i * 4096 + 1) == b"%03d" % i
    assert g.pread(4096, (i + 1) * 4096 % 819200) == raw("one", 4096, (i + 1) * 4096 % 819200)'
}
