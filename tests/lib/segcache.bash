# SPDX-License-Identifier: BSD-3-Clause
# What the tests of the segcache filter share.  Load it behind ../lib/center.

SEGCACHE="$ESPALIER_BUILDDIR/filters/segcache/.libs/nbdkit-segcache-filter.so"
ONCE="$ESPALIER_SRCDIR/tests/lib/once"
export SEGCACHE

# start_node NAME [OPTIONS...]: memcached at $D/NAME, which is its address unix:$D/NAME,
# too; its pid in $NODE_PID
start_node ()
{
    local name=$1; shift
    need memcached
    rm -f "$D/$name"
    memcached -s "$D/$name" -a 0600 -u "$(id -un)" -m 128 -I 2m -U 0 "$@" >"$D/$name.log" 2>&1 3>&- &
    NODE_PID=$!
    PIDS+=("$NODE_PID")
    wait_for "memcached $name" test -S "$D/$name"
}

# origin_disk MIB: the image disk.pack behind HTTP at $WEB/disk.pack, with
# web.log.  (The name is what tests/lib/once looks for.)
origin_disk ()
{
    local mib=$1; shift
    mkdir -p c
    image c/disk.pack "$mib" "${SEED:-7}"
    another_center web c "$@"
}

# cached NAME ARGUMENTS...: nbdkit with the filter
cached ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$SEGCACHE" "$@"
}

# same EXPORT FILE: the export of the server that was started last reads as FILE
same ()
{
    rm -f "$D/copy"
    nbdcopy "$(uri "$1")" "$D/copy" && cmp "$D/copy" "$2"
}

# requests: how many GETs the origin has answered
requests () { grep -c ' GET ' "$D/web.log" || true; }

# model EXPORT IMAGE STEPS [RESTART]: overlay-model.py against the server that
# was started last
model ()
{
    need_nbdsh
    env EXPORTS="$1" IMAGE="$2" STEPS="$3" RESTART="${4-}" SOCK="$SOCK" SEED="${ESPALIER_TEST_SEED-}" PATH="/usr/bin:$PATH" \
        timeout -k 5 300 nbdsh -c "exec(open('$ESPALIER_SRCDIR/tests/lib/overlay-model.py').read())"
}
