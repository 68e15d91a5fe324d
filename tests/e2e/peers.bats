#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Several servers of one site: who is named in a script, and a machine that one
# of them cannot boot.
load ../lib/common
load ../lib/daemon
load ../lib/ipxe

# second OPTIONS...: a second server with the same image and venue, at $OTHER
second ()
{
    local first=$STORE
    STORE=$D/second ESPALIER_STORE=$D/second
    cp -r "$first" "$STORE"
    rm -rf "$STORE/run"
    start_espalierd "$@"
    OTHER=$WEB
    STORE=$first ESPALIER_STORE=$first
}

# cafe IMAGE: venue cafe of it
cafe ()
{
    espalier --quiet init
    espalier --quiet root add base "$1"
    espalier --quiet venue add cafe --disk base "${@:2}"
}

script () { curl -fsS --max-time 20 "$WEB/boot.ipxe?mac=52:54:00:00:00:07&$1"; }

# names URL / names_not URL: the script of cafe asks that server, too
names () { script venue=cafe | grep -q "^chain --autofree $1/boot.ipxe?.*&venue=cafe&hop=1 ||\$"; }
names_not () { script venue=cafe >script; grep -q '^sanboot' script; not grep -q '^chain --autofree' script; }

@test "a script names the others that have the venue at the same tip" {
    need curl
    truncate -s 1M image; cafe image --boot http
    second
    start_espalierd --server "$OTHER" --server http://127.0.0.1:1
    wait_for "the other server" names "$OTHER"
    grep -q 'another server is silent: http://127.0.0.1:1' espalierd.log
    # Here first, the dead one never.
    script venue=cafe >script
    [ "$(grep -c '^sanboot\|^chain --autofree' script)" = 2 ]
    grep '^sanboot\|^chain --autofree' script | head -n 1 | grep -q "^sanboot $WEB/venues/cafe/disk/0"
    # Asked by the other's script: nobody else, and back to it at the end.
    script 'venue=cafe&hop=1' >script
    not grep -q '^chain' script
    [ "$(tail -n 1 script)" = "exit 1" ]
    script 'venue=nowhere&hop=1' | tail -n 1 | grep -qx 'exit 1'
    # Another tip: not the same disk.
    truncate -s 2M image2; espalier --quiet root add next image2
    espalier --quiet venue set cafe --disk next
    names_not
    espalier --quiet venue set cafe --disk base
    names "$OTHER"
}

@test "a server does not name itself, nor one that died" {
    need curl
    truncate -s 1M image; cafe image --boot http
    second
    hold_port
    start_espalierd --listen "127.0.0.1:$PORT" --server "$OTHER" --server "http://127.0.0.1:$PORT/"
    wait_for "the other server" names "$OTHER"
    [ "$(script venue=cafe | grep -c '^chain --autofree')" = 1 ]
    kill "${PIDS[0]}"; wait "${PIDS[0]}" || true
    wait_for "the other server's silence" names_not
}

@test "iPXE: what this server cannot boot, another one does" {
    need_ipxe
    need cc ld
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    cafe sector.img --boot http
    second
    # Here the disk can no longer be read.
    start_espalierd --server "$OTHER"
    wait_for "the other server" names "$OTHER"
    truncate -s 4096 "$STORE"/restore-points/*/data
    # The guest reaches this host's loopback by its own address, too.
    run ipxe --chain "$WEB/boot.ipxe?mac=52:54:00:00:00:07&venue=cafe" \
        "expect=could not boot this machine" exit -- -device isa-debug-exit,iobase=0xf4,iosize=4
    # 7: all was read and right; it cannot write over HTTP.
    [ "$status" = 7 ]
    [ "$(cat espalierd.log | grep -c 'GET /venues/cafe/disk/0: 206')" -gt 10 ]
}

@test "iPXE: no bridge here, one there" {
    need_ipxe
    need cc ld tgtd
    [ -e /dev/fuse ] || skip "no /dev/fuse here"
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    cafe sector.img --boot iscsi
    second
    start_espalierd --server "$OTHER" --iscsi-listen ""
    wait_for "the other server" names "$OTHER"
    run ipxe --chain "$WEB/boot.ipxe?mac=52:54:00:00:00:07&venue=cafe" \
        exit -- -device isa-debug-exit,iobase=0xf4,iosize=4
    [ "$status" = 33 ]
}
