# SPDX-License-Identifier: BSD-3-Clause
# Boot profiles: what one server learns makes the next cold one faster.
load ../lib/common

DELAYLOAD="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"
REPLAY="$ESPALIER_BUILDDIR/bench/replay"

# The reads of a boot of a disk of 64 MiB: 24 files of 8 reads of 16 KiB, here
# and there, with 2 ms between them.
make_trace ()
{
    python3 - > "$D/trace" <<'PY'
at = 0
def read(offset, n):
    global at
    print(at, 100, offset, n)
    at += 2100
read(0, 512)
for file in range(24):
    base = (file * 7 % 24) * (2 << 20) + (1 << 20)
    for i in range(8):
        read(base + i * 16384 * 5, 16384)
PY
}

# A center in $D/center with the venue "v", shown 20 ms late at $ORIGIN.
make_center ()
{
    mkdir "$D/center"
    random_file "$D/image" $((64 << 20))
    espalier --store "$D/maker" init "$D/maker"
    espalier --store "$D/maker" center add dir "$D/center" --unsigned
    espalier --store "$D/maker" --quiet root add image "$D/image"
    espalier --store "$D/maker" venue add v --disk image
    espalier --store "$D/maker" --quiet push v dir
    "$ESPALIER_SRCDIR/tests/origin" --delay 20 --log "$D/origin.log" "$D/center" > "$D/port" 3>&- &
    PIDS+=($!)
    wait_for "the origin" test -s "$D/port"
    ORIGIN=http://127.0.0.1:$(cat "$D/port")/
}

# cold STORE: a new store that has pulled v
cold ()
{
    espalier init "$D/$1"
    espalier --store "$D/$1" center add http "$ORIGIN" --unsigned
    espalier --store "$D/$1" center add dir "$D/center" --unsigned
    espalier --store "$D/$1" --quiet pull http v
}

# boot STORE: replay the trace over STORE; WAITED gets milliseconds
boot ()
{
    start_nbdkit "$1" --filter="$DELAYLOAD" "$VENUE" store="$D/$1" delayload-background=off
    WAITED=$("$REPLAY" "$D/trace" "$(uri v)" | jq '.waited * 1000 | floor')
    stop_nbdkit
}

profiles () { find "$1" -name boot-profile | wc -l; }

@test "what a boot read on one server is fetched ahead of the next boot on a cold one" {
    need jq
    local first second
    make_trace
    make_center
    cold one
    [ "$(profiles one)" -eq 0 ]
    boot one
    first=$WAITED
    [ "$(profiles one)" -eq 1 ]
    # 24 * 8 reads of 16 KiB, 80 KiB apart, and the first sector.
    [ "$(espalier --store one --json rp show image | jq -c .boot_profile)" = \
        '{"boots":1,"bytes":12648448}' ]
    espalier --store one --quiet push v dir
    [ "$(profiles center)" -eq 1 ]

    cold two
    [ "$(profiles two)" -eq 1 ]
    boot two
    second=$WAITED
    echo "waited $first ms, then $second ms"
    [ $((second * 3)) -lt "$first" ]
    [ "$first" -gt 500 ]
}

@test "a copy of the whole disk teaches nothing" {
    need nbdcopy
    make_center
    cold one
    start_nbdkit one --filter="$DELAYLOAD" "$VENUE" store="$D/one" delayload-background=off
    nbdcopy "$(uri v)" "$D/copy"
    cmp "$D/copy" "$D/image"
    stop_nbdkit
    [ "$(profiles one)" -eq 0 ]
}

@test "a damaged profile costs a warning, not a boot" {
    need jq
    make_trace
    make_center
    cold one
    boot one
    espalier --store one --quiet push v dir
    cold two
    printf 'nonsense' > "$(find two -name boot-profile)"
    boot two
    grep -q 'a boot profile is not used' two.log
    # The next one was learnt in its place.
    [ "$(stat -c %s "$(find two -name boot-profile)")" -gt 100 ]
}
