#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# A machine's word about its MAC address against what its packets have: two
# network namespaces, of which nothing is left when their processes end.
load ../lib/common
load ../lib/daemon

MAC=52:54:00:00:00:07

# networks: the server's is that of process $SERVER, the machine's that of $MACHINE
networks ()
{
    need ip nsenter unshare curl
    unshare -n true 2>/dev/null || skip "no network namespaces here"
    unshare -n sleep 600 3>&- & SERVER=$!
    unshare -n sleep 600 3>&- & MACHINE=$!
    PIDS+=("$SERVER" "$MACHINE")
    local here; here=$(readlink /proc/self/ns/net)
    wait_for "namespaces" eval '[ "$(readlink /proc/$SERVER/ns/net)" != "'"$here"'" ] && [ "$(readlink /proc/$MACHINE/ns/net)" != "'"$here"'" ]'
    at_server ip link set lo up
    at_server ip link add v0 type veth peer name v1 2>/dev/null || skip "no veth here"
    at_server ip link set v1 netns "$MACHINE"
    at_server ip addr add 10.7.0.1/24 dev v0
    at_server ip -6 addr add fd07::1/64 dev v0 nodad
    at_server ip link set v0 up
    at_machine ip link set v1 address "$MAC"
    at_machine ip addr add 10.7.0.2/24 dev v1
    at_machine ip -6 addr add fd07::2/64 dev v1 nodad
    at_machine ip link set v1 up
}

at_server () { nsenter -t "$SERVER" -n "$@"; }
at_machine () { nsenter -t "$MACHINE" -n "$@"; }
# For start_espalierd, which runs the first in the background.
espalierd () { exec nsenter -t "$SERVER" -n espalierd "$@"; }
curl () { at_server curl "$@"; }

# ask QUERY [HOST]: what the machine gets
ask () { at_machine curl -fsS --max-time 20 "http://${2-10.7.0.1}:${WEB##*:}/boot.ipxe?$1"; }

cafe ()
{
    espalier --quiet init
    truncate -s 1M image
    espalier --quiet root add base image
    espalier --quiet venue add cafe --disk base --boot http
    espalier --quiet client add "$MAC" --name seat-7 --venue cafe
    espalier --quiet client add 52:54:00:00:00:08 --name seat-8 --venue cafe
}

@test "a machine boots as itself, and not as another one" {
    networks; cafe
    start_espalierd --listen :0
    ask "mac=52-54-00-00-00-07" | grep -q '^echo as seat-7$'
    ask "mac=52-54-00-00-00-08" >script
    grep -q 'It says another MAC address than its packets have' script
    not grep -q seat-8 script
    not grep -q '^sanboot' script
    grep 'event=script' "$STORE/run/audit.log" | tail -n 1 | grep -q 'way=refused.*another MAC'
    # Without a word, or with nonsense.
    ask "ipxe=1" | grep -q '^echo as seat-7$'
    ask "mac=nonsense" | grep -q 'another MAC address'
    # Over IPv6, too.
    ask "mac=52-54-00-00-00-07" "[fd07::1]" | grep -q '^echo as seat-7$'
    ask "mac=52-54-00-00-00-08" "[fd07::1]" | grep -q 'another MAC address'
}

@test "check-mac = off: the machine is believed" {
    networks; cafe
    start_espalierd --listen :0 --check-mac off
    ask "mac=52-54-00-00-00-08" | grep -q '^echo as seat-8$'
}

@test "whoever is no neighbour is believed" {
    networks; cafe
    start_espalierd --listen :0
    curl -fsS "$WEB/boot.ipxe?mac=52-54-00-00-00-08" | grep -q '^echo as seat-8$'
}

@test "a kernel that tells nothing of neighbours is said at the start; the service may ask" {
    need cc curl
    ldd "$(type -P espalierd)" | grep -q 'lib[at]san' && skip "not with sanitizers"
    cat >deny.c <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket (int d, int t, int p)
{
  int (*real) (int, int, int) = (int (*) (int, int, int)) dlsym (RTLD_NEXT, "socket");
  return d == AF_NETLINK ? (errno = EAFNOSUPPORT, -1) : real (d, t, p);
}
C
    cc -shared -fPIC -o deny.so deny.c -ldl
    espalierd () { LD_PRELOAD=$D/deny.so exec "$(type -P espalierd)" "$@"; }
    curl () { command curl "$@"; }
    start_espalierd
    grep -q 'check-mac: .*every machine is believed' espalierd.log
    stop_espalierd
    : >espalierd.log
    start_espalierd --check-mac off
    not grep -q check-mac: espalierd.log
    grep -q '^RestrictAddressFamilies=.*AF_NETLINK' "$ESPALIER_SRCDIR/contrib/systemd/espalierd.service.in"
}
