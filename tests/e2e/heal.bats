#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Bytes that went bad on the server's disk: found by reads and by scrub, and
# had back from an image center.
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/center

DELAYLOAD="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"

# data STORE NAME: the data of a restore point
data () { echo "$D/$1/restore-points/$(at "$1" rp show "$2" --json | jq -r .uuid)/data"; }

# wrong STORE NAME OFFSET...: turn a bit over at each
wrong ()
{
    local file at; file=$(data "$1" "$2"); shift 2
    for at in "$@"; do flip "$file" "$at"; done
}

packs () { grep -c '\.pack ' "$D/web.log" || true; }

# pulled: store b has all of cafe (v2 over base) from $WEB, in segments of
# 64 KiB; the log begins behind that
pulled ()
{
    two_stores 8
    at a -q push cafe c --variant 64K,zstd
    hold_port
    serve_center --port "$PORT"
    at b -q center remove c
    at b -q center add web "$WEB" --timeout 20
    at b -q pull web cafe
    at b -q hydrate cafe --now
    cat </dev/null >web.log
}

# rebooted STORE NAME: as after a loss of power: another boot's, not clean
rebooted ()
{
    python3 - "$(dirname "$(data "$1" "$2")")/have" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(12); f.write(bytes(4)); f.seek(32); f.write(bytes(range(16)))
PY
}

# reads IMAGE OFFSET...: at each, 4 KiB are the image's
reads ()
{
    nbdsh -u "$(uri cafe)" -c "import sys; d = open('$1', 'rb').read()" \
          -c "for at in [$(IFS=,; echo "${*:2}")]: assert h.pread(4096, at) == d[at:at + 4096], at"
}

center_is_gone () { kill "$ORIGIN_PID"; wait "$ORIGIN_PID" || true; }
center_is_back () { serve_center --port "$PORT"; }

start_seat ()
{
    start_nbdkit seat --filter="$DELAYLOAD" "$VENUE" store="$D/b" delayload-background=off "$@"
}

@test "a read that meets wrong bytes after a loss of power heals them, unnoticed, once" {
    need_nbdsh
    pulled
    rebooted b base; rebooted b v2
    wrong b base 100000; wrong b v2 1300000
    start_seat delayload-readahead=0
    reads v2.img 98304
    [ "$(packs)" = 1 ]
    reads v2.img 98304 98304 1048576 2000000
    [ "$(packs)" = 1 ]
    reads v2.img 1297408
    [ "$(packs)" = 2 ]
    stop_nbdkit
    grep -q ' 2 healed' seat.log
    # It is right on the disk, too.
    ESPALIER_STORE=$D/b espalier store scrub --no-fetch --json >out
    jq -e '.mended == 0 and .dropped == 0' out
}

@test "wrong bytes while the center is away: that read fails, others are served; it heals later" {
    need_nbdsh
    pulled
    rebooted b base
    wrong b base 100000
    center_is_gone
    start_seat delayload-readahead=0
    reads v2.img 1048576
    nbdsh -u "$(uri cafe)" -c '
for at in (98304, 65536):
    try:
        h.pread(4096, at)
        raise SystemExit("no error at %d" % at)
    except nbd.Error as e:
        assert e.errno == "EIO", e.errno
'
    reads v2.img 0 131072 1300000 5000000
    grep -q 'base.*center web\|center web.*base\|web:' seat.log
    center_is_back
    reads v2.img 98304 65536 || { cat web.err web.log; tail -n 30 seat.log; return 1; }
    stop_nbdkit
    grep -q ' 1 healed' seat.log
}

@test "scrub fetches what is wrong of a delayed restore point again" {
    pulled
    wrong b base 100000 3000000 3100000; wrong b v2 1300000
    at b store scrub --json >out
    jq -e '.mended == 4 and .dropped == 0 and .lost == 0 and ([.findings[].what] | unique == ["mended"])' out
    [ "$(packs)" = 4 ]
    at b store scrub | grep -q 'mended 0,'
    [ "$(packs)" = 4 ]
    ESPALIER_STORE=$D/b espalier -q rp export v2 copy.img --format raw
    cmp copy.img v2.img
}

@test "scrub --no-fetch says what is wrong, and asks nobody" {
    pulled
    wrong b base 100000 3000000
    run -3 at b store scrub --no-fetch
    [[ $output == *"base: 65536 bytes at 65536 are wrong: they are fetched again when they are read"* ]]
    [[ $output == *"restore points that show them: base v2"* ]]
    [[ $output == *"venues: cafe/0"* ]]
    [[ $output == *"to be fetched again 2"* ]]
    [ ! -s web.log ]
    # Nothing is left to be found, but it is not taken for local any more.
    at b store scrub --no-fetch
    [ "$(at b rp show base --json | jq '.local_percent')" -lt 100 ]
}

@test "scrub without the center: what could not be fetched is told, with the cause, and not for hours" {
    pulled
    wrong b base $(seq 100000 65536 1700000)
    center_is_gone
    run -3 --separate-stderr timeout 240 env ESPALIER_STORE="$D/b" espalier store scrub --json
    jq -e '.dropped == 25 and .mended == 0' <<<"$output"
    jq -e '.findings[0].why | test("web")' <<<"$output"
    jq -e '.findings[24].why | test("not tried")' <<<"$output"
    # What v2 wrote over is nobody's but base's.
    jq -e '[.findings[] | select(.offset == 1310720)][0] | .restore_points == ["base"] and .venues == []' <<<"$output"
    jq -e '.findings[0] | .restore_points == ["base", "v2"] and .venues == ["cafe/0"]' <<<"$output"
    center_is_back
    at b -q hydrate cafe --now
    at b store scrub --json | jq -e '.dropped == 0 and .mended == 0'
}

@test "scrub mends a restore point that was made here from where it was pushed to, under a running server" {
    need_nbdsh
    two_stores 8
    at a -q push cafe c --variant 64K,zstd
    wrong a base 100000 3000000; wrong a v2 1300000
    start_nbdkit seat "$VENUE" store="$D/a"
    nbdsh -u "$(uri cafe)" -c 'd = open("v2.img", "rb").read(); assert h.pread(4096, 98304) != d[98304:98304 + 4096]'
    at a store scrub --json >out
    jq -e '.mended == 3 and .lost == 0 and ([.findings[] | .from] | unique == ["c"])' out
    reads v2.img 98304 3000000 1297408
    [ "$(stat -c %a "$(data a base)")" = 444 ]
    at a store scrub --json | jq -e '.mended == 0 and .lost == 0'
    at a store check
}

@test "scrub takes an encrypted copy, and the second center where the first has none" {
    two_stores 8
    at a -q key create secret
    mkdir empty
    at a -q center add aa ./empty
    at a -q push base c --variant 64K,zstd,key=secret
    wrong a base 100000
    run -0 at a store scrub
    [[ $output == *"base: 65536 bytes at 65536 were wrong: fetched again from c"* ]]
    # Without the key it is lost, and that is the cause that is told.
    wrong a base 100000
    at a -q key delete secret --force || rm a/keys/*secret*
    run -3 at a store scrub
    [[ $output == *"center aa: it does not have it"*"center c: "*secret* ]]
}

@test "what nobody has stays as it is, and is told with who shows it" {
    two_stores 8
    at a -q push cafe c --variant 64K,zstd
    wrong a base 100000
    for pack in c/restore-points/*/*.pack; do
        python3 - "$pack" <<'PY'
import sys
d = bytearray(open(sys.argv[1], "rb").read())
for at in range(500, len(d), 4096): d[at] ^= 1
open(sys.argv[1], "wb").write(d)
PY
    done
    sum=$(sha256sum <"$(data a base)")
    run -3 at a store scrub
    [[ $output == *"base: 65536 bytes at 65536 are wrong, and stay so: center c: "* ]]
    [[ $output == *"restore points that show them: base v2"*"venues: cafe/0"* ]]
    [ "$(sha256sum <"$(data a base)")" = "$sum" ]
    rm -r c/restore-points
    run -3 --separate-stderr at a store scrub base --json
    jq -e '.lost == 1 and (.findings[0].why | test("does not have it"))' <<<"$output"
    at a -q center remove c
    run -3 at a store scrub base
    [[ $output == *"knows no center"* ]]
}

@test "a copy in other segments is told to be of no use" {
    two_stores 8
    at a -q store scrub base
    at a -q push base c --variant 64K,zstd
    at a store scrub base --json | jq -e '.first == 0'
    wrong a base 100000
    run -3 at a store scrub base
    [[ $output == *"center c: it has no variant with segments of 256 KiB"* ]]
}
