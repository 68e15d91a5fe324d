# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# The iSCSI bridge by itself (lib/bridge-tool).  Load lib/common, lib/daemon, then this.

export ESPALIER="$ESPALIER_BUILDDIR/tools/espalier/.libs/espalier"
export ESPALIERD_DISKS="$ESPALIER_BUILDDIR/daemon/espalierd-disks"

need_bridge ()
{
    need qemu-io iscsi-inq
    command -v tgtd >/dev/null || [ -x /usr/sbin/tgtd ] || skip "tgt is not installed"
    [ -w /dev/fuse ] || skip "there is no FUSE for us here"
    qemu-io --help >/dev/null
    find /usr/lib -name 'block-iscsi.so' 2>/dev/null | grep -q . || skip "qemu-block-extra is not installed"
}

# make_venues: a disk of 8 MiB, venue cafe of one, venue duo of two of them
make_venues ()
{
    truncate -s 8M base.img
    espalier --quiet init
    espalier --quiet root add base base.img
    espalier --quiet venue add cafe --disk base
    espalier --quiet venue add duo --disk base --disk base
}

# start_bridge [OPTIONS]: the store's stack and bridge; $BRIDGE_PID
start_bridge ()
{
    : "${ISCSI_PORT:=$(free_port)}"
    coproc BRIDGE { exec "$ESPALIER_BUILDDIR/tests/lib/.libs/bridge-tool" --verbose --store "$STORE" \
        --nbd-listen 127.0.0.1:0 --iscsi-listen "127.0.0.1:$ISCSI_PORT" "$@" 2>>"$D/bridge.log" 3>&-; }
    PIDS+=("$BRIDGE_PID")
    hear
    [ "$line" = ready ]
    RUN=$STORE/run/espalierd/bridge
}

hear () { read -rt 60 -u "${BRIDGE[0]}" line; }
# ask WORDS...: the first line of the answer in $line
ask () { echo "$*" >&"${BRIDGE[1]}"; hear; }

# target NAME VENUE CLIENT DISKS ADDRESS [USER SECRET]: its IQN in the variable NAME
target ()
{
    local name=$1; shift
    ask target "$@"
    [ "${line%% *}" = "$ISCSI_PORT" ] || { echo "$line" >&2; return 1; }
    printf -v "$name" %s "${line#* }"
}

# iscsi IQN [LUN]: its URL
iscsi () { printf 'iscsi://%s127.0.0.1:%s/%s/%s' "${CHAP:+$CHAP@}" "$ISCSI_PORT" "$1" "${2-1}"; }

login () { timeout 20 iscsi-inq "$(iscsi "$1" "${2-1}")" >"$D/inq.log" 2>&1; }

# state CLIENT: what the bridge says of it, "" where there is none
state ()
{
    local found=
    ask each
    while [ "$line" != end ]; do
        case $line in "$1 "*) found=${line#* }; found=${found%% *};; esac
        hear
    done
    echo "$found"
}
is_state () { [ "$(state "$1")" = "$2" ]; }

# io IQN COMMAND...: qemu-io's commands, one after another
io ()
{
    local url args=() c
    url=$(iscsi "$1"); shift
    for c in "$@"; do args+=(-c "$c"); done
    timeout 120 stdbuf -oL qemu-io -t none -f raw "${args[@]}" "$url" >"$D/io.log" 2>&1 3>&-
    ! grep -qi 'fail\|error\|verification' "$D/io.log"
}

# overlay_has CLIENT POSITION BYTE: what a client of NBD reads at a venue's overlay
overlay_byte ()
{
    nbdsh -u "nbd+unix:///$1?socket=$STORE/run/espalierd/nbd.sock" -c "print(h.pread(1, $2)[0])"
}

# runs PID: a process that is no zombie
runs () { readlink "/proc/$1/cwd" >/dev/null; }

# left: what is still there of a bridge: processes, mounts, its directory
left ()
{
    find /proc -maxdepth 2 -name cwd -lname "$RUN" 2>/dev/null || true
    grep -F "$STORE" /proc/self/mounts || true
    [ ! -e "$RUN" ] || echo "$RUN"
}

# What a test that failed left, too.
eval "common_$(declare -f teardown)"
teardown ()
{
    local pid
    for pid in $(find /proc -maxdepth 2 -name cwd -lname "$D/*/bridge" 2>/dev/null); do
        pid=${pid#/proc/}
        PIDS+=("${pid%/cwd}")
    done
    umount -l "$STORE/run/espalierd/bridge/disks" 2>/dev/null || true
    common_teardown
}
