# SPDX-License-Identifier: BSD-3-Clause
# kill -9 under load: what was flushed is found again, every time.
load ../lib/common

kills=${ESPALIER_CRASH_KILLS:-100}

@test "a server that is killed $kills times under load loses no flushed byte" {
    espalier init "$STORE"
    random_file base.raw 8388608
    espalier --quiet root add base base.raw
    espalier venue add cafe --disk base
    "$ESPALIER_SRCDIR/tests/e2e/crash.py" --kills "$kills" --base base.raw --dir "$D" -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" "$VENUE" store="$STORE"
    run espalier store check
    [ "$status" -eq 0 ]
}
