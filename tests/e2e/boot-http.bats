# SPDX-License-Identifier: BSD-3-Clause
# A machine without a disk boots from one over HTTP: Debian's iPXE in QEMU, and a
# boot sector that reads all of its disk, checks the sum, and tries to write
# (lib/sector.S: status 7, all was read and right, and the write failed, as it
# must).
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/daemon
load ../lib/ipxe

MAC=52:54:00:12:34:56
ALL_READ=7

# cafe [OPTIONS...]: the disk, a venue, espalierd; $OUT is $WEB as the machine sees it
cafe ()
{
    need_ipxe
    need cc ld
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    # To iPXE a disk below 8 MiB has no cylinder at all.
    truncate -s 16M sector.img
    espalier --quiet init
    espalier --quiet root add sector sector.img
    espalier --quiet venue add cafe --disk sector
    start_espalierd --address 10.0.2.2 "$@"
    OUT=http://10.0.2.2:${WEB##*:}
}

# machine ARGUMENTS...: one that tells its status; it must have read all
machine ()
{
    local status=0
    ipxe --timeout 100 "$@" exit -- -device isa-debug-exit,iobase=0xf4,iosize=4 || status=$?
    [ "$status" -eq $ALL_READ ] || { echo "the machine ended with $status"; tail -c 1500 ipxe.log; return 1; }
}

@test "sanboot: the disk's every byte, and no write" {
    cafe
    printf '#!ipxe\nsanboot %s/venues/cafe/disk/0\n' "$OUT" >x.ipxe
    machine --script x.ipxe
    curl -sS --max-time 60 "$WEB/venues/cafe/disk/0" | cmp - sector.img
}

@test "a client that is assigned a venue, over HTTP, with tickets" {
    cafe --require-ticket on
    espalier --quiet client add $MAC --venue cafe --boot http
    machine --chain "$OUT/boot.ipxe"
    # Nobody gets it without.
    [ "$(curl -sS --max-time 60 -o /dev/null -w '%{http_code}' "$WEB/venues/cafe/disk/0")" = 403 ]
}

@test "the venue is mapped to another disk before the first byte: it stays on its own" {
    cafe
    espalier --quiet client add $MAC --venue cafe --boot http
    espalier --quiet root add blank --blank 16M
    curl -sS --max-time 60 "$WEB/boot.ipxe?mac=${MAC//:/-}" >x.ipxe
    espalier --quiet venue set cafe --disk blank
    machine --script x.ipxe
}
