# SPDX-License-Identifier: BSD-3-Clause
# What the end-to-end tests share.  Load it first:  load ../lib/common
#
# Each test has a private directory, $D, a store at $STORE when it asks for
# one, and ends every process that it started by its pid.  Programs come
# from the build tree: $ESPALIER_BUILDDIR, $ESPALIER_SRCDIR (set by make
# check; guessed when bats is run by hand from a build in the source tree).

: "${ESPALIER_SRCDIR:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
: "${ESPALIER_BUILDDIR:=$ESPALIER_SRCDIR}"
export ESPALIER_SRCDIR ESPALIER_BUILDDIR
VENUE="$ESPALIER_BUILDDIR/plugins/venue/.libs/nbdkit-venue-plugin.so"
OVERLAY="$ESPALIER_BUILDDIR/filters/overlay/.libs/nbdkit-overlay-filter.so"
# The program itself: libtool's wrapper is a script that takes longer than most
# commands.
PATH="$ESPALIER_BUILDDIR/tools/espalier/.libs:$PATH"
LD_LIBRARY_PATH="$ESPALIER_BUILDDIR/common/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export VENUE OVERLAY PATH LD_LIBRARY_PATH

setup ()
{
    D=$(mktemp -d "${TMPDIR:-/tmp}/espalier-test-XXXXXX")
    STORE=$D/store
    export ESPALIER_STORE=$STORE
    PIDS=()
    cd "$D"
}

# show_logs: the ends of what the programs of a test said
show_logs ()
{
    local f
    for f in "$D"/*.log "$D"/*.err "$D"/err; do
        [ -s "$f" ] || continue
        echo "--- ${f##*/}"
        grep -av 'debug: \(starting\|exiting\) worker thread' "$f" | tail -n 12 | cut -c 1-240
    done
    return 0
}

teardown ()
{
    local pid
    [ -n "${BATS_TEST_COMPLETED-}" ] || [ -z "$D" ] || show_logs
    for pid in "${PIDS[@]}"; do kill -9 "$pid" 2>/dev/null; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null; done
    cd /
    [ -n "$D" ] && rm -rf -- "$D"
    return 0
}

# need PROGRAM...: skip the test, saying why, where one is missing
need ()
{
    local p
    for p in "$@"; do command -v "$p" >/dev/null || skip "$p is not installed"; done
}

# not COMMAND...: that it fails.  ("! COMMAND" alone never fails a test.)
not ()
{
    ! "$@"
}

# start_nbdkit SOCKET-NAME ARGUMENTS...: nbdkit on the socket $D/NAME; its
# pid in $NBDKIT_PID, its URI prefix in $URI (append the export's name).
# Waits until it listens.
start_nbdkit ()
{
    local name=$1; shift
    SOCK=$D/$name.sock
    rm -f "$SOCK" "$D/$name.pid"
    nbdkit -f -v -U "$SOCK" -P "$D/$name.pid" "$@" >"$D/$name.log" 2>&1 3>&- &
    NBDKIT_PID=$!
    PIDS+=("$NBDKIT_PID")
    wait_for "nbdkit $name" test -s "$D/$name.pid" || { tail -n 20 "$D/$name.log" >&2; return 1; }
}

# uri EXPORT: the NBD URI of an export at the nbdkit that was started last
uri ()
{
    printf 'nbd+unix:///%s?socket=%s' "$1" "$SOCK"
}

# stop_nbdkit [PID]: end it with SIGTERM and wait
stop_nbdkit ()
{
    local pid=${1:-$NBDKIT_PID}
    kill "$pid" && wait "$pid" || true
}

# wait_for WHAT COMMAND...: until COMMAND succeeds, at most 90 s: only a test that
# fails anyway, or a machine that has much else to do, takes so long
wait_for ()
{
    local what=$1 end=$((SECONDS + 90)); shift
    while [ "$SECONDS" -lt "$end" ]; do
        "$@" && return 0
        read -rt 0.05 <> <(:) || true
    done
    echo "timed out: $what" >&2
    return 1
}

# hold_port: a port of 127.0.0.1 for a server that goes and comes back, in $PORT.
# Held until the test ends by a socket that does not listen, so that nobody else
# gets it meanwhile; a server that sets SO_REUSEADDR (all do) may listen there.
hold_port ()
{
    python3 - >"$D/held.port" 3>&- <<'PY' &
import signal, socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
signal.pause()
PY
    PIDS+=("$!")
    wait_for "a port" test -s "$D/held.port"
    PORT=$(cat "$D/held.port")
}

# random_file FILE BYTES [SEED]: the same bytes for the same seed
random_file ()
{
    python3 - "$1" "$2" "${3:-1}" <<'PY'
import random, sys
r = random.Random(int(sys.argv[3])); n = int(sys.argv[2])
with open(sys.argv[1], "wb") as f:
    while n > 0:
        k = min(n, 1 << 20); f.write(r.randbytes(k)); n -= k
PY
}

# nbdsh ARGUMENTS...: libnbd's shell, with a Python that has libnbd's module
# (the first one in PATH may be somebody's own and have none)
nbdsh ()
{
    if ! python3 -c 'import nbd' 2>/dev/null; then
        [ -x /usr/bin/python3 ] && local -x PATH="/usr/bin:$PATH"
    fi
    command nbdsh "$@"
}

# need_nbdsh: skip the test where nbdsh does not work
need_nbdsh ()
{
    nbdsh -c 'pass' 2>/dev/null || skip "nbdsh (libnbd-bin and python3-libnbd) does not work"
}
