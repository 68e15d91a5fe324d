# SPDX-License-Identifier: BSD-3-Clause
# Machines without a disk boot Linux: kernel and initrd over HTTP, out of the
# disk image itself, and the root over NBD, to a userland that checks what it
# reads and writes (contrib/mkdisk).
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/daemon
load ../lib/ipxe

# cafe [OPTIONS...]: a venue of mkdisk's guest, espalierd
cafe ()
{
    need_ipxe
    need jq nbdfuse grub-fstest nbd-client
    [ -w /dev/fuse ] || skip "no FUSE here"
    "$ESPALIER_SRCDIR/contrib/mkdisk" disk.img
    espalier --quiet init
    espalier --quiet root add guest disk.img
    espalier --quiet venue add cafe --disk guest --boot nbdroot --kernel image:/boot/vmlinuz \
        --initrd image:/boot/initrd-nbd.img --cmdline 'console=ttyS0 quiet panic=-1 cryptomgr.notests'
    start_espalierd --address 10.0.2.2 "$@"
    OUT=http://10.0.2.2:${WEB##*:}
}

# machine N: the one with N at the end of its MAC address, to its good end
machine ()
{
    python3 "$ESPALIER_SRCDIR/tests/lib/ipxe.py" --log "$D/machine-$1.log" --mac "52:54:00:12:34:0$1" --timeout 200 \
        --chain "$OUT/boot.ipxe" "expect=guest: done" exit -- -smbios "type=1,serial=seat-$1" 3>&- ||
        { tail -c 3000 "$D/machine-$1.log"; return 1; }
}

# said N TEXT: machine N's console has it
said () { tr -d '\r' <"machine-$1.log" | grep -aq -- "$2" || { echo "seat-$1 did not say: $2"; return 1; }; }

client () { espalier --quiet client add "52:54:00:12:34:0$1" --name "seat-$1" --venue cafe; }

@test "kernel and initrd out of the image, its root over NBD; what it wrote is there at its next boot" {
    cafe --require-ticket on
    client 1
    machine 1
    said 1 'root /dev/nbd0p1'
    said 1 'guest: checksum ok'
    said 1 'guest: no notes'
    machine 1
    said 1 'notes found: .*seat-1'
    said 1 'data of earlier boots ok'
}

@test "two clients of one venue at once, each with its own writes" {
    cafe
    client 1
    client 2
    machine 1 & local first=$!
    PIDS+=("$first")
    machine 2
    wait "$first"
    said 1 'guest: no notes'
    said 2 'guest: no notes'
    machine 2
    said 2 'notes found: .*seat-2'
    not said 2 'notes found: .*seat-1' >/dev/null
}

@test "the kernel's command line: Debian's initramfs, dracut's" {
    need curl jq
    espalier --quiet init
    espalier --quiet root add base --blank 16M
    espalier --quiet venue add cafe --disk base --boot nbdroot
    start_espalierd --address 10.0.2.2
    client 1
    script () { curl -sS --max-time 60 "$WEB/boot.ipxe?mac=52-54-00-12-34-01"; }
    script | grep -F "ip=dhcp nbdroot=10.0.2.2:$NBD_PORT/cafe/0@seat-1 root=/dev/nbd0p1 rw"
    script | grep -F /venues/cafe/initrd
    espalier --quiet venue set cafe --cmdline 'rd.neednet=1 netroot=nbd quiet'
    script | grep -F "ip=dhcp root=/dev/nbd0p1 rw rd.neednet=1 netroot=nbd:10.0.2.2:$NBD_PORT:auto:rw:-N,cafe/0@seat-1 quiet"
    not grep -q nbdroot= <(script)
    # Somebody's own is his own.
    espalier --quiet venue set cafe --cmdline 'netroot=nbd:10.0.0.9:10809 ip=ibft root=/dev/nbd0'
    script | grep -F "nbdroot=10.0.2.2:$NBD_PORT/cafe/0@seat-1 netroot=nbd:10.0.0.9:10809 ip=ibft root=/dev/nbd0"
}
