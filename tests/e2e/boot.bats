# SPDX-License-Identifier: BSD-3-Clause
# Real machines: QEMU guests boot over NBD from a tree of restore points, with
# writes of their own.  The same story as ./quickstart, asserted step by step.
load ../lib/common

# boot VENUE CLIENT: boot it, keep its console in CLIENT.log
boot ()
{
    "$ESPALIER_SRCDIR/contrib/boot-guest" --client "$2" --timeout 240 --log "$D/$2.log" "$(uri "$1@$2")" \
        || { tail -n 40 "$D/$2.log" >&2; return 1; }
}

# The server lets go of an overlay a moment after its client has gone.
let_go () { espalier overlay show "$1" --json | jq -e '.holder == null' >/dev/null; }

@test "a guest's writes become a restore point that a second client boots from" {
    need qemu-system-x86_64 jq
    "$ESPALIER_SRCDIR/contrib/mkdisk" disk.img
    espalier init "$STORE"
    espalier --quiet root add debian disk.img
    espalier venue add cafe --disk debian
    espalier venue add office --disk debian
    start_nbdkit stack -t 4 --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-mode=keep

    boot cafe seat-1
    grep -q 'guest: checksum ok' seat-1.log
    grep -q 'guest: no notes' seat-1.log

    wait_for "the overlay of seat-1" let_go cafe@seat-1
    espalier rp create noted --from-overlay cafe@seat-1
    espalier venue set cafe --disk noted

    boot cafe seat-2
    grep -q 'guest: checksum ok' seat-2.log
    grep -q 'notes found: .*seat-1' seat-2.log

    boot office desk-1
    grep -q 'guest: no notes' desk-1.log

    # seat-2 again: it finds the note that it wrote itself.
    boot cafe seat-2
    grep -q 'notes found: .*seat-2' seat-2.log

    run espalier store check
    [ "$status" -eq 0 ]
}
