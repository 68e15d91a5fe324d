#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Images come in and go out through the command line; work that is cut off
# leaves nothing that is seen.

load ../lib/common

make_image ()
{
    need qemu-img qemu-nbd
    random_file "$1" $((3 << 20)) 5
    truncate -s 20M "$1"
}

# slow_image FILE: a qcow2 that takes a minute to be read
slow_image ()
{
    need qemu-img qemu-nbd nbdkit
    start_nbdkit slow --filter=delay pattern size=600M rdelay=100ms
    qemu-img create -q -f qcow2 -b "nbd+unix:///?socket=$SOCK" -F raw "$1"
}

# begin_import: in the background, until blocks of it are in tmp/; $IMPORT
begin_import ()
{
    espalier init >/dev/null
    # The tests themselves may run under nohup.
    env --default-signal=HUP espalier -q root add slow slow.qcow2 >import.log 2>&1 3>&- &
    IMPORT=$!
    PIDS+=("$IMPORT")
    wait_for "the first blocks" has_blocks
}

has_blocks ()
{
    [ "$(du -sk "$STORE/tmp" | cut -f1)" -gt 500 ]
}

# failed PID: wait for it; it must not have succeeded
failed ()
{
    local status=0
    wait "$1" || status=$?
    [ "$status" -ne 0 ]
}

qemu_is_gone ()
{
    ! pgrep -f "qemu-nbd.*$D/slow.qcow2" >/dev/null
}

@test "a raw image comes out as it went in" {
    make_image a.raw
    espalier init
    espalier root add a a.raw
    espalier rp export a b.raw --format raw
    cmp a.raw b.raw
    [ "$(du -k b.raw | cut -f1)" -lt 4096 ]
}

@test "a chain of qcow2 images comes out as qemu reads it" {
    make_image a.raw
    need qemu-io
    qemu-img create -q -f qcow2 -b a.raw -F raw b.qcow2
    qemu-io -c 'write -P 3 1M 100k' b.qcow2
    qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 c.qcow2
    qemu-io -c 'write -P 4 5M 100k' c.qcow2
    espalier init
    espalier root add c c.qcow2
    espalier rp export c out.qcow2 --format qcow2
    qemu-img compare c.qcow2 out.qcow2
    qemu-img check out.qcow2
}

@test "an import from an image keeps what differs" {
    make_image a.raw
    need qemu-io
    cp a.raw b.raw
    qemu-io -f raw -c 'write -P 3 1M 64k' -c 'write -z 2M 64k' b.raw
    espalier init
    espalier root add a a.raw
    espalier rp create b --parent a --from-image b.raw
    espalier rp export b out.raw --format raw
    cmp b.raw out.raw
    espalier rp diff a b | grep '32 blocks'
}

@test "an import that is interrupted leaves nothing" {
    slow_image "$D/slow.qcow2"
    begin_import
    kill -INT "$IMPORT"
    failed "$IMPORT"
    grep -q interrupted import.log
    [ -z "$(ls "$STORE/tmp")" ]
    [ -z "$(ls "$STORE/restore-points")" ]
    [ -z "$(espalier rp list --json | grep slow)" ]
    wait_for "the end of qemu-nbd" qemu_is_gone
}

@test "an import whose terminal is closed leaves nothing" {
    slow_image "$D/slow.qcow2"
    begin_import
    kill -HUP "$IMPORT"
    failed "$IMPORT"
    grep -q interrupted import.log
    [ -z "$(ls "$STORE/tmp")" ]
}

@test "an import that is killed leaves what the next one does not mind" {
    slow_image "$D/slow.qcow2"
    make_image a.raw
    begin_import
    kill -9 "$IMPORT"
    failed "$IMPORT"
    [ -z "$(ls "$STORE/restore-points")" ]
    wait_for "the end of qemu-nbd" qemu_is_gone
    espalier root add slow a.raw
    espalier rp export slow b.raw --format raw
    cmp a.raw b.raw
}

@test "an export that is refused changes no file" {
    make_image a.raw
    espalier init
    espalier root add a a.raw
    mkdir out
    run espalier rp export a out/a.raw --format tar
    [ "$status" -ne 0 ]
    : >out/b.raw
    run espalier rp export a out/b.raw --format raw
    [ "$status" -ne 0 ]
    [[ "$output" == *exists* ]]
    [ "$(ls -A out)" = b.raw ]
    [ ! -s out/b.raw ]
}
