# SPDX-License-Identifier: BSD-3-Clause
# A store with delayed restore points, of which only a part is local, as the
# operator and clients see it where nothing fetches: what is here is served,
# what is missing is an error and never zeroes; damage is found and mended.
bats_require_minimum_version 1.5.0
load ../lib/common

MAKE=$ESPALIER_BUILDDIR/tests/lib/make-delayed

# base.raw: 2 MiB and a bit, all data.  delayed_store PERCENT
delayed_store ()
{
    python3 -c 'import random; open("base.raw", "wb").write(random.Random(5).randbytes((2 << 20) + 512))'
    espalier init >/dev/null
    "$MAKE" "$STORE" base base.raw - "$1"
    espalier venue add cafe --disk base >/dev/null
}

serve () { start_nbdkit venue "$VENUE" "store=$STORE"; }

rp_file () { echo "$STORE/restore-points/$(espalier rp show "$1" --json | jq -r .uuid)/$2"; }

local_percent () { espalier rp show base --json | jq -r .local_percent; }

same ()
{
    rm -f copy.raw
    nbdcopy "$(uri cafe)" copy.raw && cmp base.raw copy.raw
}

# The first half can be read and is right; the second is an error.
half_is_served ()
{
    nbdsh -u "$(uri cafe)" -c '
d = open("base.raw", "rb").read()
assert h.pread(1 << 20, 0) == d[:1 << 20]
for at in (len(d) - 512, (1 << 20) + (1 << 19)):
    try:
        h.pread(512, at)
        raise SystemExit("no error at %d" % at)
    except nbd.Error as e:
        assert e.errno == "EIO", e.errno
'
}

@test "what is local is served, what is missing is an error that says what to do" {
    need nbdsh nbdcopy
    delayed_store 50
    serve
    half_is_served
    grep -q "base.*not local yet.*delayload.*espalier hydrate base --now" "$D/venue.log"
}

@test "extents tell of data that are not local" {
    need nbdinfo
    delayed_store 0
    serve
    run -0 nbdinfo --map --json "$(uri cafe)"
    [ "$(jq '[.[] | select(.type == 0) | .length] | add' <<<"$output")" -ge $((2 << 20)) ]
    [ "$(local_percent)" = 0 ]
}

@test "how much is local is shown" {
    delayed_store 50
    [ "$(local_percent)" = 49 ]       # 16 of 33 segments, the last one small
    espalier rp show base | grep -q "Of it local:.*1M, 4[89]%"
    espalier rp list | grep -q "base.*4[89]% of"
    espalier store stats | grep -q "Delayed: *1, local 1M of"
    [ "$(espalier store stats --json | jq .delayed_local)" = $((1 << 20)) ]
    [ "$(espalier rp list --json | jq -r '.[0].kind')" = delayed ]
}

@test "all of it local: served without a center" {
    need nbdcopy
    delayed_store 100
    serve
    same
    [ "$(local_percent)" = 100 ]
}

@test "a damaged have is found and mended; what is local stays so" {
    need nbdsh
    delayed_store 50
    run -0 espalier store check
    printf garbage >"$(rp_file base have)"
    run -3 espalier store check
    [[ $output == *"have"* ]]
    run -0 espalier store check --repair
    run -0 espalier store check
    serve
    half_is_served
}

@test "lost segments are made again from the index, or the restore point is set aside" {
    need nbdsh
    delayed_store 50
    rm "$(rp_file base segments)"
    run -3 espalier store check
    run -0 espalier store check --repair
    serve
    half_is_served
    stop_nbdkit
    espalier venue delete cafe
    rm "$(rp_file base segments)" "$(rp_file base index-hq)"
    run -0 espalier store check --repair
    run -0 espalier store check
    [ -z "$(espalier rp list --names)" ]
    ls "$STORE"/damaged/restore-point-*/have
}

@test "data that were cut short: nothing wrong is read, repair makes them missing" {
    need nbdsh
    delayed_store 100
    truncate -s 1M "$(rp_file base data)"
    run -3 espalier store check
    run -0 espalier store check --repair
    serve
    half_is_served
}

@test "a rebuilt catalog knows that it is delayed" {
    delayed_store 50
    rm "$STORE"/catalog.db*
    espalier store rebuild
    [ "$(espalier rp list --json | jq -r '.[0].kind')" = delayed ]
    [ "$(local_percent)" = 49 ]
    run -0 espalier store check
}

@test "scrub finds what went wrong, and it is not served" {
    need nbdsh nbdcopy
    delayed_store 100
    run -0 espalier store scrub
    python3 - "$(rp_file base data)" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    for at in range(1 << 20, (2 << 20) + 512, 1 << 16):
        f.seek(at); f.write(bytes(16))
PY
    run -3 --separate-stderr espalier store scrub base --json
    [ "$(jq .dropped <<<"$output")" = 17 ]
    [ "$(jq .segments <<<"$output")" = 33 ]
    serve
    half_is_served
}

@test "after a loss of power what was not closed cleanly is looked at again" {
    need nbdsh
    delayed_store 100
    # Another boot's file, not closed cleanly; the second half is torn.
    python3 - "$(rp_file base have)" "$(rp_file base data)" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(12); f.write(bytes(4)); f.seek(32); f.write(bytes(range(16)))
with open(sys.argv[2], "r+b") as f:
    for at in range(1 << 20, (2 << 20) + 512, 1 << 16):
        f.seek(at + 100); f.write(b"torn")
PY
    serve
    half_is_served
    stop_nbdkit
    [ "$(local_percent)" -lt 100 ]
}

@test "a server that is killed loses nothing; gc takes nothing" {
    need nbdcopy
    delayed_store 100
    serve
    same
    kill -9 "$NBDKIT_PID"
    wait "$NBDKIT_PID" || true
    run -0 espalier store gc
    run -0 espalier store check
    serve
    same
}

@test "what a client wrote over it can be kept; merging waits for the rest" {
    need nbdsh
    delayed_store 50
    start_nbdkit stack --filter="$OVERLAY" "$VENUE" "store=$STORE" overlay-min-free=0
    nbdsh -u "$(uri cafe@s)" -c 'h.pwrite(b"written", 4096); h.flush()'
    stop_nbdkit
    run -0 espalier rp create kept --from-overlay cafe@s
    run -0 espalier store check
    espalier venue set cafe --disk kept
    run -1 espalier rp merge base
    [[ $output == *"espalier hydrate base --now"* ]]
    espalier rp rename base root
    [ "$(espalier rp show root --json | jq -r .kind)" = delayed ]
    serve
    nbdsh -u "$(uri cafe)" -c 'assert h.pread(7, 4096) == b"written"'
}
