#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# venue clone: durable disks for many clients at once.
load ../lib/common
bats_require_minimum_version 1.5.0

setup_file () { command -v nbdkit >/dev/null || skip "nbdkit is not installed"; }

make_cafe ()
{
    espalier init -q
    random_file base.raw 4194304 1
    random_file next.raw 4194304 2
    espalier -q root add base base.raw
    espalier -q root add next next.raw
    espalier -q venue add cafe --disk base
}

keep_server ()
{
    start_nbdkit keep --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-mode=keep
}

@test "500 clones take less than a second of the processor" {
    make_cafe
    # Of the processor, and the best of three: this machine has other work, too.
    # (That it does not wait for the disk 500 times is the next test's.)
    python3 - <<'PY'
import json, resource, subprocess, sys
def cpu():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime
def clone():
    begin = cpu()
    out = subprocess.run(["espalier", "venue", "clone", "cafe", "--count", "500", "--name", "seat-%03d", "--json"],
                         check=True, stdout=subprocess.PIPE).stdout
    return cpu() - begin, json.loads(out)
took = []
for i in range(3):
    if i: subprocess.run(["espalier", "-q", "overlay", "delete", "--venue", "cafe"], check=True)
    t, r = clone()
    took.append(t)
    assert r["venue"] == "cafe" and len(r["overlays"]) == 500, r
    assert r["overlays"][0] == "cafe/0@seat-001" and r["overlays"][-1] == "cafe/0@seat-500", r
    assert 0 < r["seconds"] < 600, r["seconds"]
print("# 500 clones in %.3f s of the processor, %.3f s" % (min(took), r["seconds"]), file=sys.stderr)
assert min(took) < 1, took
PY
    [ "$(espalier overlay list cafe --names | wc -l)" = 500 ]
    [ "$(espalier overlay list --json | grep -c '"mode": "keep"')" = 500 ]
    espalier -q store check
    [ -z "$(ls "$STORE/tmp")" ]
}

@test "the number of syncs does not grow with the number of clones" {
    need strace
    make_cafe
    strace -f -c -e trace=fsync,fdatasync,syncfs -o few espalier -q venue clone cafe --count 2 --name 'a%d' || skip "strace does not work here"
    strace -f -c -e trace=fsync,fdatasync,syncfs -o many espalier -q venue clone cafe --count 300 --name 'b%d'
    local a b
    # "100.00  0.000123  12  8  total"
    a=$(awk '$NF == "total" { print $4 }' few)
    b=$(awk '$NF == "total" { print $4 }' many)
    [ -n "$a" ] && [ "$a" = "$b" ]
}

@test "a clone is served, keeps what it gets, and stays over its restore point" {
    need_nbdsh
    make_cafe
    espalier -q venue clone cafe --count 20 --name 'seat-%02d'
    keep_server
    nbdsh -u "$(uri cafe@seat-07)" -c "assert h.pread(4096, 65536) == open('base.raw','rb').read()[65536:69632]; h.pwrite(b'w'*4096, 0); h.flush()"
    espalier -q venue set cafe --disk next
    nbdsh -u "$(uri cafe@seat-07)" -c "assert h.pread(4096, 0) == b'w'*4096; assert h.pread(4096, 65536) == open('base.raw','rb').read()[65536:69632]"
    # One that nobody has used yet, too; a client without a clone has the new one.
    nbdsh -u "$(uri cafe@seat-08)" -c "assert h.pread(4096, 65536) == open('base.raw','rb').read()[65536:69632]"
    nbdsh -u "$(uri cafe@other)" -c "assert h.pread(4096, 65536) == open('next.raw','rb').read()[65536:69632]"
    # the other's goes with it, as nothing was written
    clones_are_left () { [ "$(espalier overlay list cafe --names | wc -l)" = 20 ]; }
    wait_for "the end of the connection" clones_are_left
    stop_nbdkit
    clones_are_left
    # The restore point cannot go while they are there.
    run -1 espalier rp delete base
    [[ $output == *cafe/0@seat-01* ]]
    espalier -q overlay reset cafe@seat-08
    keep_server
    nbdsh -u "$(uri cafe@seat-08)" -c "assert h.pread(4096, 65536) == open('next.raw','rb').read()[65536:69632]"
}

@test "a running server lets clients into new clones" {
    need_nbdsh
    make_cafe
    keep_server
    nbdsh -u "$(uri cafe@early)" -c "h.pwrite(b'e'*4096, 0); h.flush()"
    espalier -q venue clone cafe --count 50 --name 'seat-%d'
    nbdsh -u "$(uri cafe@seat-50)" -c "assert h.pread(4096, 0) == open('base.raw','rb').read()[:4096]; h.pwrite(b's'*4096, 0); h.flush()"
    nbdsh -u "$(uri cafe@early)" -c "assert h.pread(4096, 0) == b'e'*4096"
    stop_nbdkit
    [ "$(espalier overlay list --names | wc -l)" = 51 ]
}

@test "what exists, or is connected, is refused with a list and nothing is made" {
    need_nbdsh
    make_cafe
    espalier -q venue clone cafe --count 3 --name 'seat-%d' --start 4
    keep_server
    nbdsh -u "$(uri cafe@seat-9)" -c "h.pread(512, 0); import subprocess; r = subprocess.run(['espalier', 'venue', 'clone', 'cafe', '--count', '10', '--name', 'seat-%d'], stderr=subprocess.PIPE, text=True); print(r.stderr); assert r.returncode == 1" >refused
    grep "4 of the overlays exist: cafe/0@seat-4, cafe/0@seat-5, cafe/0@seat-6, cafe/0@seat-9: nothing was made" refused
    # the client's own goes with it, as nothing was written
    three_are_left () { [ "$(espalier overlay list --names | wc -l)" = 3 ]; }
    wait_for "the end of the connection" three_are_left
    stop_nbdkit
    three_are_left
}

@test "patterns and numbers that make no names are usage errors" {
    make_cafe
    local p
    for p in seat 'seat-%s' 'seat-%d-%d' '%%d' 'seat-%' 'seat-%0d%' '%*d' '%10d'; do
        run -2 espalier venue clone cafe --count 3 --name "$p"
    done
    run -2 espalier venue clone cafe --count 0 --name 's%d'
    run -2 espalier venue clone cafe --count -1 --name 's%d'
    run -2 espalier venue clone cafe --count 10001 --name 's%d'
    run -2 espalier venue clone cafe --name 's%d'
    run -2 espalier venue clone cafe --count 2
    run -2 espalier venue clone rp:base --count 2 --name 's%d'
    run -1 espalier venue clone cafe --count 2 --name '/%d'
    run -1 espalier venue clone cafe --count 2 --name 's%3d'
    run -1 espalier venue clone bar --count 2 --name 's%d'
    run -1 espalier venue clone cafe/3 --count 2 --name 's%d'
    [ -z "$(espalier overlay list --names)" ]
    [ -z "$(find "$STORE/tmp" "$STORE/overlays" -mindepth 1)" ]
}

@test "more clones than files may be open are refused before any is made" {
    make_cafe
    run -1 bash -c "ulimit -n 100; espalier venue clone cafe --count 500 --name 's%d'"
    [[ $output == *"500 overlays at once need as many open files, and the limit is 100"* ]]
    [ -z "$(find "$STORE/tmp" "$STORE/overlays" -mindepth 1)" ]
}
