#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Delayed load with a real nbdkit and a real HTTP origin.
load ../lib/common

DELAYLOAD="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"

# make_center BYTES: a center $D/center with the venue cafe of $D/image (its
# first BYTES are data, as many zeroes follow); pushed from a store of its own
make_center ()
{
    random_file "$D/image" "$1"
    truncate -s "$((2 * $1))" "$D/image"
    mkdir "$D/center"
    ESPALIER_STORE=$D/origin-store
    espalier --quiet init
    espalier --quiet root add base "$D/image"
    espalier --quiet venue add cafe --disk base
    espalier --quiet center add hq "file://$D/center" --unsigned
    espalier --quiet push cafe hq --no-sign --variant "${2:-64K,zstd}"
    ESPALIER_STORE=$STORE
}

# start_origin OPTIONS...: serve it over HTTP at $ORIGIN, with $D/origin.log
start_origin ()
{
    rm -f "$D/port"
    "$ESPALIER_SRCDIR/tests/origin" --log "$D/origin.log" "$@" "$D/center" >"$D/port" 2>"$D/origin.err" 3>&- &
    ORIGIN_PID=$!
    PIDS+=("$ORIGIN_PID")
    wait_for "the origin" test -s "$D/port"
    ORIGIN=http://127.0.0.1:$(cat "$D/port")/
}

# pull: into the fresh store $STORE; the log begins behind it
pull ()
{
    espalier --quiet init
    espalier --quiet center add hq "$ORIGIN" --unsigned --retries "${RETRIES:-1}" --timeout 30
    espalier --quiet pull hq cafe
    cat </dev/null >"$D/origin.log"
}

# start_server NAME PARAMETERS...
start_server ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$DELAYLOAD" "$VENUE" store="$STORE" "$@"
}

# packs: how many requests for data the log has
packs () { grep -c '\.pack ' "$D/origin.log" || true; }

# same URI: the disk reads as the image
same () { nbdcopy "$1" "$D/copy" && cmp "$D/copy" "$D/image"; }

local_percent () { espalier rp show base | sed -n 's/^Of it local:.* \([0-9]*\)%$/\1/p'; }

@test "a cold disk reads as the original, and each byte was sent once" {
    need nbdcopy
    make_center 20000000; start_origin; pull
    start_server one delayload-background=off
    same "$(uri cafe)"
    run "$ESPALIER_SRCDIR/tests/lib/once" "$D/origin.log"
    echo "$output"; [ "$status" = 0 ]
    before=$(packs)
    same "$(uri cafe)"
    [ "$(packs)" = "$before" ]
    [ "$(local_percent)" = 100 ]
}

@test "64 connections at once: each byte is sent once" {
    need_nbdsh
    make_center 8000000; start_origin --delay 5; pull
    start_server one delayload-background=off
    cat >"$D/storm.py" <<'PY'
import nbd, random, sys, threading
uri, image = sys.argv[1], open(sys.argv[2], "rb").read()
bad = []
def client(i):
    h = nbd.NBD(); h.connect_uri(uri); r = random.Random(i)
    for k in range(40):
        n = r.randrange(1, 150000); at = r.randrange(0, 8000000 - n)
        if h.pread(n, at) != image[at:at + n]: bad.append((i, at, n))
    h.shutdown()
threads = [threading.Thread(target=client, args=(i,)) for i in range(64)]
[t.start() for t in threads]; [t.join() for t in threads]
sys.exit(bool(bad))
PY
    PATH="/usr/bin:$PATH" python3 "$D/storm.py" "$(uri cafe)" "$D/image"
    run "$ESPALIER_SRCDIR/tests/lib/once" "$D/origin.log"
    echo "$output"; [ "$status" = 0 ]
}

@test "four servers on one store fetch each byte once" {
    need nbdcopy
    make_center 20000000; start_origin --delay 2; pull
    uris=() jobs=()
    for i in 1 2 3 4; do start_server "s$i"; uris+=("$(uri cafe)"); done
    for i in 0 1 2 3; do nbdcopy "${uris[i]}" "$D/copy$i" 3>&- & jobs+=($!); done
    for i in 0 1 2 3; do wait "${jobs[i]}"; cmp "$D/copy$i" "$D/image"; done
    run "$ESPALIER_SRCDIR/tests/lib/once" "$D/origin.log"
    echo "$output"; [ "$status" = 0 ]
}

@test "a server that is killed in the middle goes on where it was" {
    need nbdcopy
    make_center 30000000; start_origin --rate 10000000; pull
    start_server one
    nbdcopy "$(uri cafe)" "$D/copy" 3>&- & copy=$!
    some () { [ "$(packs)" -gt 20 ]; }
    wait_for "some requests" some
    kill -9 "$NBDKIT_PID"
    wait "$copy" || true
    start_server two
    same "$(uri cafe)"
    # What was in flight: 18 requests of at most 4 MiB, of which a part came.
    run "$ESPALIER_SRCDIR/tests/lib/once" "$D/origin.log" 12000000
    echo "$output"; [ "$status" = 0 ]
}

@test "a center that is gone: what is local is served, the rest when it is back" {
    need_nbdsh
    make_center 4000000; hold_port; start_origin --port "$PORT"; pull
    start_server one delayload-background=off delayload-readahead=0
    nbdsh -u "$(uri cafe)" -c 'h.pread(65536, 0)'
    kill "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    nbdsh -u "$(uri cafe)" -c 'h.pread(65536, 0)'
    run nbdsh -u "$(uri cafe)" -c 'h.pread(65536, 1000000)'
    [ "$status" != 0 ]
    [[ $output = *"Input/output error"* ]]
    grep -q 'center hq\|hq:' "$D/one.log"
    start_origin --port "$PORT"
    same "$(uri cafe)"
}

@test "wrong bytes from the center are asked for again" {
    need nbdcopy
    make_center 4000000
    echo '[{"path": "pack$", "count": 3, "action": "flip"}]' >"$D/faults"
    start_origin --faults "$D/faults"; pull
    start_server one delayload-background=off
    same "$(uri cafe)"
    grep -q 'hq gave wrong bytes' "$D/one.log"
}

@test "answers that are cut off, late, refused or of the wrong length are asked for again" {
    need nbdcopy
    make_center 6000000
    cat >"$D/faults" <<'EOT'
[{"path": "pack$", "nth": [1, 9], "action": "cut"}, {"path": "pack$", "nth": 2, "action": "reset"},
 {"path": "pack$", "nth": 3, "action": "500"}, {"path": "pack$", "nth": 4, "action": "short-length"},
 {"path": "pack$", "nth": 5, "action": "close"}, {"path": "pack$", "nth": 6, "action": "delay"}]
EOT
    # the faults are for whoever asks next: one request may meet six of them
    start_origin --faults "$D/faults"; RETRIES=10 pull
    start_server one delayload-background=off
    same "$(uri cafe)"
}

@test "two centers: the one that dies is left out" {
    need nbdcopy
    make_center 8000000; start_origin; pull
    cp -r "$D/center" "$D/center-2"
    espalier --quiet center add near "file://$D/center-2" --unsigned
    espalier --quiet pull near cafe
    kill "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    start_server one delayload-background=off
    same "$(uri cafe)"
}

@test "extents tell the truth and fetch nothing; writes and -r work over it" {
    need nbdinfo
    need_nbdsh
    make_center 4000000; start_origin; pull
    start_nbdkit one --filter="$OVERLAY" --filter="$DELAYLOAD" "$VENUE" store="$STORE" delayload-background=off
    nbdinfo --map --totals "$(uri cafe)" >"$D/map"
    grep -q '^ *4001792 .*data' "$D/map"
    [ "$(packs)" = 0 ]
    nbdsh -u "$(uri cafe@me)" -c 'h.pwrite(b"x" * 4096, 8192); h.flush()' \
          -c 'assert h.pread(4096, 8192) == b"x" * 4096'
    [ "$(packs)" = 0 ]
    nbdsh -u "$(uri cafe@me)" -c 'h.pread(512, 100)'
    [ "$(packs)" -gt 0 ]
}

@test "the background makes it whole; then nobody needs the center" {
    need nbdcopy
    make_center 10000000; start_origin; pull
    start_server one
    espalier hydrate cafe | grep -q 'the server fetches the rest'
    whole () { [ "$(local_percent)" = 100 ]; }
    wait_for "hydration" whole
    kill "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    same "$(uri cafe)"
    run "$ESPALIER_SRCDIR/tests/lib/once" "$D/origin.log"
    echo "$output"; [ "$status" = 0 ]
}

@test "hydrate --now, and commands that read what is not local" {
    need nbdcopy
    make_center 6000000; start_origin; pull
    espalier hydrate base | grep -q 'a server will fetch the rest'
    espalier hydrate base --off | grep -q 'not asked for any more'
    espalier --quiet rp export base "$D/copy" --format raw
    cmp "$D/copy" "$D/image"
    rm -rf "$STORE"; pull
    espalier hydrate cafe --now | grep -q 'all .* are local'
    [ "$(local_percent)" = 100 ]
    run espalier hydrate cafe --now --off
    [ "$status" = 2 ]
    run espalier hydrate nothing
    [ "$status" = 1 ]
}

@test "a bounded store stays within its bound, and reads right" {
    need nbdcopy
    make_center 40000000; start_origin; pull
    start_server one delayload-max=16M
    same "$(uri cafe)"
    small () { [ "$(du -sk "$STORE/restore-points" | cut -f1)" -lt 21000 ]; }
    wait_for "eviction" small
    same "$(uri cafe)"
}

@test "a full disk: an error for who needs more, and no harm" {
    need nbdcopy
    need_nbdsh
    [ "$(id -u)" = 0 ] || skip "needs to mount a tmpfs"
    make_center 12000000
    start_origin
    mkdir "$D/small"
    mount -t tmpfs -o size=9M none "$D/small" || skip "cannot mount a tmpfs"
    STORE=$D/small/store ESPALIER_STORE=$D/small/store
    pull
    # -t 1: nbdcopy leaves in mid-answer, at which nbdkit before 1.34 may abort
    start_nbdkit one -t 1 --filter="$DELAYLOAD" "$VENUE" store="$STORE"
    status=0
    nbdcopy "$(uri cafe)" "$D/copy" 2>"$D/said" || status=$?
    grep -q 'No space left' "$D/one.log" || status=0
    mount -o remount,size=40M "$D/small"
    again=0
    same "$(uri cafe)" || again=$?
    stop_nbdkit
    umount "$D/small"
    [ "$status" != 0 ]
    [ "$again" = 0 ]
}

@test "parameters out of range are refused, and over another plugin all is passed on" {
    need_nbdsh
    espalier --quiet init
    for p in delayload-rate=1 delayload-max=1M delayload-threads=0 delayload-threads=1000 \
             delayload-readahead=1 delayload-background=perhaps; do
        run nbdkit -f -U "$D/x.sock" --filter="$DELAYLOAD" "$VENUE" store="$STORE" "$p"
        [ "$status" != 0 ]
        [[ $output = *"${p%%=*}"* ]]
    done
    start_nbdkit mem --filter="$DELAYLOAD" memory 1M
    nbdsh -u "$(uri '')" -c 'h.pwrite(b"abc", 5); assert h.pread(3, 5) == b"abc"'
    grep -q 'delayload: the plugin is not venue' "$D/mem.log"
}

@test "serve puts delayload into its stack where there is something to fetch" {
    espalier --quiet init
    run espalier serve --print --rate 1M
    [[ $output != *delayload* ]]
    espalier --quiet center add hq file:///nowhere --unsigned
    run espalier serve --print --rate 1M
    [[ $output = *overlay*delayload*venue*delayload-rate=1M* ]]
}
