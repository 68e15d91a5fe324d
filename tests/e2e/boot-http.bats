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

# rescue: mkdisk's disk with another initrd, whose system needs no disk: what a
# rescue or installer disk is.  It says the sum of a file that came with it.
rescue ()
{
    need debugfs busybox cpio
    "$ESPALIER_SRCDIR/contrib/mkdisk" rescue.img
    mkdir -p root/bin root/dev root/proc
    cp "$(command -v busybox)" root/bin/busybox
    head -c 3000000 /dev/urandom >root/payload
    cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "rescue: userland is up, $(/bin/busybox sha256sum </payload | /bin/busybox cut -c -64)"
/bin/busybox poweroff -f
INIT
    chmod +x root/init
    (cd root && find . | cpio --quiet -o -H newc -R 0:0 >../initrd.rescue)
    # The partition begins at 1 MiB.
    printf 'rm /boot/initrd.img\nwrite initrd.rescue /boot/initrd.img\n' >commands
    debugfs -w -f commands "rescue.img?offset=1048576" >debugfs.log 2>&1
    not grep -qi 'not found\|error' debugfs.log
}

@test "a rescue system from a disk over HTTP, to its userland" {
    need_ipxe
    rescue
    espalier --quiet init
    espalier --quiet root add rescue rescue.img
    espalier --quiet venue add rescue --disk rescue --boot http
    start_espalierd --address 10.0.2.2
    espalier --quiet client add $MAC --venue rescue
    ipxe --timeout 150 --memory 512 --chain "http://10.0.2.2:${WEB##*:}/boot.ipxe" \
        "expect=rescue: userland is up, $(sha256sum <root/payload | cut -c -64)" exit
}
