# SPDX-License-Identifier: BSD-3-Clause
# Centers that fail in every way that we know, keys that are not there, a full
# disk: right bytes or a clear error in time, and never wrong ones.
load ../lib/common
load ../lib/center
load ../lib/delayload

# What one fault does to a pack's requests.
kinds='delay cut reset close hang silent trickle 200 416 500 503 404 redirect short-length long-length wrong-range flip
       etag-change wrong-object'

# fault KIND [FIELDS]: a rule for packs
fault ()
{
    local more= action=$1
    case $1 in
    silent) action=hang;;
    delay) more=', "ms": 300';;
    hang) more=', "after": 1000';;
    wrong-object) more=", \"object\": \"${V2_PACK#c/}\"";;
    esac
    printf '[{"path": "base-pack|%s", "action": "%s"%s%s}]' "${BASE_PACK#c/}" "$action" "$more" "${2:+, $2}"
}

# one_center: a and a cold b, which gives its center up after a second of silence
one_center ()
{
    pushed "${1:-24}"
    BASE_PACK=$(rp_dir base)/64K-zstd.pack
    V2_PACK=$(rp_dir v2)/64K-zstd.pack
    hold_port
    another_center web c --port "$PORT"
    TIMEOUT=${TIMEOUT:-1} RETRIES=${RETRIES:-1} pulled b web="$WEB"
}

# fired NAME KIND: the center did it
fired () { grep -q "\.pack .* ${2/silent/hang}\$" "$D/$1.log"; }

# fault_told KIND: what s.log says of it
fault_told ()
{
    local says
    case $1 in
    delay|redirect|etag-change) return 0;;
    cut) says="bytes remaining";;
    reset) says="reset by peer";;
    close) says="Empty reply";;
    hang|silent|trickle) says="too slow";;
    200) says="does not know Range";;
    404) says="no longer there";;
    416|500|503) says=$1;;
    short-length|long-length) says="sends [0-9]* bytes of [0-9]*";;
    wrong-range) says="another range";;
    flip|wrong-object) says="segment [0-9]* is damaged";;
    esac
    grep -q "error: web: .*64K-zstd.pack.*$says" s.log
}

@test "a fault that comes once is not seen by a client" {
    local kind at=0 step=$((1 << 20))
    need_cold
    one_center
    serve_delayed s b delayload-background=off delayload-readahead=0
    for kind in $kinds; do
        # those that break the rules are no accidents
        case $kind in delay|cut|reset|close|hang|200|500|503|redirect|flip) ;; *) continue;; esac
        faults web "$(fault "$kind" '"count": 1')"
        at=$((at + step))
        echo "$kind"
        cold read --begin "$at" --end $((at + step)) --most 65536 --limit 60 "$(uri cafe)"
        fired web "$kind"
    done
}

@test "a fault that stays: a clear error in time or right bytes, and all is well when it is over" {
    local kind at=$((2 << 20)) step=$((1 << 18))
    need_cold
    TIMEOUT=3 RETRIES=0 one_center
    serve_delayed s b delayload-background=off delayload-readahead=0
    cold read --begin $((20 << 20)) "$(uri cafe)"
    for kind in $kinds; do
        faults web "$(fault "$kind")"
        at=$((at + step))
        # what is local is served at once meanwhile
        cold read --begin $((20 << 20)) --end $((24 << 20)) --clients 2 --ops 200 --most 65536 "$(uri cafe)" >local &
        pid=$!
        cold read --errors --begin "$at" --end $((at + step)) --most 262144 --limit 60 "$(uri cafe)" >read
        wait "$pid"
        echo "$kind: $(tail -n 1 read); local $(tail -n 1 local)"
        wait_for "the center's fault" fired web "$kind"
        fault_told "$kind"
        case $kind in
        delay|redirect|etag-change) grep -q "errors 0 " read;;    # digests are what counts
        *) grep -q "EIO" read;;
        esac
        # none of them waited for the center: that gets three seconds
        awk '/^reads/ { exit !($6 < 2.7) }' local
        faults web '[]'
        wait_for "the center is believed again" eval 'cold read --begin "$at" --end $((at + step)) --limit 60 "$(uri cafe)"'
    done
}

@test "of two centers the one that fails is left out, and no client sees it" {
    local kind bad good
    need_cold
    one_center 8
    another_center good c; good=$WEB
    bad=http://127.0.0.1:$(cat web.port)
    rm -rf b; TIMEOUT=1 RETRIES=1 pulled b web="$bad" good="$good"
    mv b cold
    for kind in delay cut hang silent trickle 200 404 500 short-length wrong-range flip wrong-object; do
        rm -rf b; cp -a --sparse=always cold b
        : >web.log; faults web "$(fault "$kind")"
        serve_delayed s b delayload-background=off
        out=$(cold read --clients 4 --limit 30 "$(uri cafe)")
        echo "$kind: $(tail -n 1 <<<"$out")"
        awk '/^reads/ { exit !($6 < 10.0) }' <<<"$out"      # once, and not the time-out each of 32 times
        wait_for "the center's fault" fired web "$kind"     # it may notice late that it is left
        stop_nbdkit
    done
}

@test "a center that is gone and returns: local data is served meanwhile, misses fail, then all is there" {
    need_cold
    one_center
    serve_delayed s b delayload-readahead=0 delayload-background=off
    cold read --begin $((16 << 20)) "$(uri cafe)"
    kill -9 "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    cold read --begin $((16 << 20)) --clients 4 --ops 100 --end $((24 << 20)) "$(uri cafe)"
    cold read --errors --end $((2 << 20)) --limit 60 "$(uri cafe)" | tee read
    grep -q "'EIO': 8" read
    grep -q "web: .*[Cc]onnect" s.log
    another_center web c --port "$PORT"
    cold read --clients 2 "$(uri cafe)"
}

@test "a second server without a center serves what is local; a client asks in vain" {
    need_cold
    one_center 8
    serve_delayed s b
    at b -q hydrate base --now
    stop_nbdkit
    kill -9 "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    at b -q center remove web --force
    serve_delayed t b
    nbdsh -u "$(uri cafe)" -c '
d = open("v2.img", "rb").read()
assert h.pread(65536, 0) == d[:65536]
try:
    h.pread(65536, 1234567)
    raise SystemExit("v2 is not here, and was read")
except nbd.Error as e:
    assert e.errno == "EIO", e.errno
'
    grep -q "error: .*no center web.*espalier center add web" t.log
}

# told_wrong: reads fail, and what is said is that the key is a wrong one.  (Keys are
# looked at again every two seconds.)
told_wrong ()
{
    cold read --errors --end $((1 << 20)) "$(uri cafe)" >read
    grep -q "reads 0 errors [1-9].*EIO" read || exit 1
    grep -q "error: .*key school of this store is not the one" s.log
}

@test "an encrypted packing without its key, and with a wrong one: an error that names it" {
    need_cold
    pushed 8
    at a -q key create school
    rm -rf c; mkdir c
    at a -q push cafe c --variant 256K,zstd,key=school
    at a -q key export school school.key
    another_center web c
    at b -q init; at b -q key import school school.key
    at b -q center add web "$WEB" --unsigned
    at b -q pull web cafe
    not at b -q key delete school 2>err
    grep -q "school is needed for what is not here yet of .*base.*: 'espalier hydrate" err
    at b -q key delete school --force
    serve_delayed s b
    cold read --errors --end $((4 << 20)) "$(uri cafe)" | tee read
    grep -q "errors [1-9].*EIO" read
    not grep -q "reads [1-9]" read
    grep -q "error: .*no key school.*espalier key import school" s.log
    at b -q key create school
    wait_for "the wrong key is told" told_wrong
    at b -q key delete school --force; at b -q key import school school.key
    wait_for "the key" cold read "$(uri cafe)"
}

@test "a disk that is full: local data goes on, misses say so, and come when there is space" {
    need_cold
    [ "$(id -u)" -eq 0 ] || skip "needs root, for a file system of its own"
    unshare -m true 2>/dev/null || skip "mount namespaces are not allowed here"
    one_center 24
    mkdir small
    cat >inside.sh <<'END'
D=$PWD
. "$ESPALIER_SRCDIR/tests/lib/common.bash"; . "$ESPALIER_SRCDIR/tests/lib/center.bash"
. "$ESPALIER_SRCDIR/tests/lib/delayload.bash"
set -e
mount -t tmpfs -o size=12m none small || exit 77
cp -a --sparse=always b small/b
PIDS=()
trap 'kill -9 "${PIDS[@]}" 2>/dev/null || true' EXIT
serve_delayed s small/b
cold read --end $((1 << 20)) "$(uri cafe)"                  # before it is full
cold read --errors --clients 4 --limit 60 "$(uri cafe)" | tee read
grep -q "ENOSPC" read || exit 3
not grep -q "EIO" read || exit 4
grep -q "error: .*[Nn]o space" s.log || exit 5
cold read --clients 4 --ops 100 --end $((1 << 20)) "$(uri cafe)" || exit 6
mount -o remount,size=64m small
cold read --clients 2 "$(uri cafe)" || exit 7
kill "$NBDKIT_PID"; wait "$NBDKIT_PID" || true
at small/b store check || exit 8
at small/b store scrub || exit 9
END
    run timeout 240 unshare -m bash inside.sh
    [ "$status" -ne 77 ] || skip "no right to mount"
    echo "$output"
    echo "status $status"
    [ "$status" -eq 0 ]
}

@test "a server that waits for a center that hangs ends at SIGTERM, and when its client is gone" {
    need_cold
    pushed 4
    another_center web c
    TIMEOUT=100 pulled b web="$WEB"
    faults web '[{"path": "pack$", "action": "hang"}]'
    serve_delayed s b
    cold read --leave --errors --limit 90 "$(uri cafe)" &
    client=$!
    wait_for "a read" grep -q "delayload: pread" s.log
    SECONDS=0
    stop_nbdkit
    echo "ended after $SECONDS s"
    [ "$SECONDS" -lt 30 ]
    wait "$client" || true
    serve_delayed t b
    not cold read --leave --errors --limit 1 "$(uri cafe)"
    SECONDS=0
    stop_nbdkit
    [ "$SECONDS" -lt 30 ]
}
