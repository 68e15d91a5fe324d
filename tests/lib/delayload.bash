# SPDX-License-Identifier: BSD-3-Clause
# What the tests of delayed load share.  Load it behind ../lib/center.
#
# Store a pushes the venue cafe (v2 over base; its bytes are in v2.img) to the
# center c; store b pulls it over HTTP, and begins cold.

DELAYLOAD="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"
COLD="$ESPALIER_SRCDIR/tests/lib/cold.py"
export DELAYLOAD

# cold MODE ARGUMENTS...: the readers, judges of logs and damagers of cold.py,
# with the Python that has libnbd's module.  No client waits longer than this.
cold ()
{
    timeout -k 5 240 /usr/bin/python3 "$COLD" "$@" 3>&-
}

need_cold ()
{
    /usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"
}

# pushed MIB [VARIANT...]: store a and the center c
pushed ()
{
    local mib=$1 v; shift
    mkdir c
    at a -q init
    at a -q center add c ./c
    image base.img "$mib" 1
    cp base.img v2.img
    random_file patch 700001 2
    dd if=patch of=v2.img bs=1 seek=1234567 conv=notrunc status=none
    dd if=/dev/zero of=v2.img bs=4096 seek=900 count=50 conv=notrunc status=none
    at a -q root add base base.img
    at a -q rp create v2 --parent base --from-image v2.img
    at a -q venue add cafe --disk v2
    for v in "${@:-64K,zstd}"; do at a -q push cafe c --variant "$v"; done
}

# pulled STORE CENTER...: a cold store with cafe from the centers CENTER, which
# are NAME=URL
pulled ()
{
    local store=$1 c; shift
    at "$store" -q init
    for c in "$@"; do
        at "$store" -q center add "${c%%=*}" "${c#*=}" --unsigned --timeout "${TIMEOUT:-30}" --retries "${RETRIES:-2}"
        at "$store" -q pull "${c%%=*}" cafe
    done
}

# serve_delayed NAME STORE PARAMETERS...: the stack.  (One thread a connection, as
# `serve` has it: with more, nbdkit before 1.34 may end with a client that is gone.)
serve_delayed ()
{
    local name=$1 store=$2; shift 2
    start_nbdkit "$name" -t 1 --filter="$OVERLAY" --filter="$DELAYLOAD" "$VENUE" store="$D/$store" \
        overlay-min-free=0 "$@"
}

# all_local STORE
all_local ()
{
    at "$1" rp list --json | jq -e 'all(.kind != "delayed" or .local_percent == 100)' >/dev/null
}
