# SPDX-License-Identifier: BSD-3-Clause
# Machines that boot over iSCSI: iPXE, espalierd's script, the bridge, an overlay.
load ../lib/common
load ../lib/daemon
load ../lib/ipxe
load ../lib/bridge

@test "a boot sector comes over iSCSI, writes, and its write is in the client's overlay" {
    need_ipxe
    need_bridge
    need cc ld jq
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    truncate -s 64M sector.img          # iPXE boots from no disk below a cylinder
    espalier --quiet init
    espalier --quiet root add sector sector.img
    espalier --quiet venue add cafe --disk sector
    espalier --quiet client add 52:54:00:12:34:56 --name seat-1 --venue cafe --boot iscsi
    start_espalierd --require-ticket on
    # It leaves QEMU with its status, 33 where all went well.
    run ipxe --mac 52:54:00:12:34:56 --chain "http://10.0.2.2:${WEB##*:}/boot.ipxe" exit \
        -- -device isa-debug-exit,iobase=0xf4,iosize=0x04
    [ "$status" -eq 33 ] || { echo "$output"; tail -n 20 ipxe.log; return 1; }
    grep -q 'Registered SAN device' ipxe.log
    nbdcopy "$(espalier venue show cafe --uri seat-1 --ticket | head -n 1 | sed "s,^nbd://[^/]*,nbd://127.0.0.1:$NBD_PORT,")" after.img
    [ "$(tail -c +$((4095 * 512 + 1)) after.img | head -c 20)" = 'written by the guest' ]
    cmp -n $((4095 * 512)) sector.img after.img
    stop_espalierd
    RUN=$STORE/run/espalierd/bridge
    [ -z "$(left)" ]
}

@test "Linux boots over iSCSI to its userland, nbdkit restarts meanwhile, and what it wrote is in the overlay" {
    need_ipxe
    need_bridge
    need iscsistart jq nbdcopy
    "$ESPALIER_SRCDIR/contrib/mkdisk" --iscsi disk.img
    espalier --quiet init
    espalier --quiet root add debian disk.img
    espalier --quiet venue add cafe --disk debian
    espalier --quiet client add 52:54:00:12:34:56 --name seat-1 --venue cafe --boot iscsi
    start_espalierd --address 10.0.2.2
    timeout 300 python3 "$ESPALIER_SRCDIR/tests/lib/ipxe.py" --log "$D/ipxe.log" --timeout 240 --memory 512 --mac 52:54:00:12:34:56 \
        --chain "http://10.0.2.2:${WEB##*:}/boot.ipxe" "expect=guest: root over iSCSI from 10.0.2.2" \
        "expect=guest: checksum ok" "expect=guest: read back ok" "expect=guest: done" >guest.log 2>&1 3>&- &
    guest=$!
    PIDS+=("$guest")
    wait_for "Linux" grep -q 'guest: root over iSCSI' ipxe.log
    kill -9 "$(pgrep -f -x "/usr/bin/nbdkit .* store=$STORE( .*)?")"
    wait "$guest" || { tail -n 40 ipxe.log; return 1; }
    grep -q 'guest: no notes' ipxe.log
    grep -q 'root /dev/sda1' ipxe.log
    # Another machine finds the note: the same disk over NBD.
    nbdcopy "nbd://127.0.0.1:$NBD_PORT/cafe@seat-1" after.img
    dd if=after.img of=part.img bs=1M skip=1 status=none
    PATH=$PATH:/sbin debugfs -R 'cat /var/notes' part.img 2>/dev/null >notes
    grep -q 'boot 1' notes
}
