# SPDX-License-Identifier: BSD-3-Clause
# Who may open what: tickets, networks, the audit log, with real clients over
# Unix sockets and over TCP from two addresses of this host.
load ../lib/common

setup_store ()
{
    need_nbdsh
    random_file one.raw 2101760 1
    random_file two.raw 2101760 2
    espalier init >/dev/null
    espalier root add one one.raw >/dev/null
    espalier root add two two.raw >/dev/null
    espalier venue add cafe --disk one --disk two >/dev/null
    espalier venue add bar --disk two >/dev/null
    espalier key create tickets >/dev/null
    KEY=$STORE/keys/tickets.key
}

# ticket EXPORT [OPTIONS]: an export name with a ticket
ticket ()
{
    "$ESPALIER_SRCDIR/tests/lib/ticket.py" "$KEY" "$@"
}

# serve NAME ARGUMENTS...: the overlay filter over venue on the socket $D/NAME.sock
serve ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-min-free=0 \
        audit="$D/audit" "$@"
}

# serve_tcp ARGUMENTS...: on $PORT of every address, without -v
serve_tcp ()
{
    [ -n "${PORT-}" ] || hold_port
    rm -f tcp.pid
    nbdkit -f -i 0.0.0.0 -p "$PORT" -P "$D/tcp.pid" --filter="$OVERLAY" "$VENUE" \
        store="$STORE" overlay-min-free=0 audit="$D/audit" "$@" >>"$D/tcp.log" 2>&1 3>&- &
    NBDKIT_PID=$!
    PIDS+=("$NBDKIT_PID")
    SOCK=
    wait_for "nbdkit" test -s tcp.pid
}

# client EXPORT [PYTHON]: connect ($FROM is the address to come from) and run PYTHON
# with h; fails where the server refuses
client ()
{
    EXPORT=$1 SOCK=$SOCK PORT=${PORT-} FROM=${FROM:-127.0.0.1} nbdsh -c 'import os, socket
def connect(e):
    h = nbd.NBD(); h.set_export_name(e)
    if os.environ["SOCK"]: h.connect_unix(os.environ["SOCK"])
    else:
        s = socket.socket(); s.bind((os.environ["FROM"], 0))
        s.connect(("127.0.0.1", int(os.environ["PORT"])))
        h.connect_socket(s.detach())
    return h
def raw(name, n, at):
    with open(name + ".raw", "rb") as f: f.seek(at); return f.read(n)
h = connect(os.environ["EXPORT"])' -c "${2:-pass}" 2>client.err
}

# refused EXPORT: nobody gets in, and hears nothing but that
refused ()
{
    not client "$1"
    grep -q 'server replied with error\|server has no export' client.err
    not grep -q 'ticket\|network\|address' client.err
}

# said LINE: the last line of the audit log is this one, behind its time
said ()
{
    local last
    last=$(tail -n 1 audit)
    [[ "$last" =~ ^time=20[0-9-]{8}T[0-9:]{8}Z\ event=open\  ]]
    [ "${last#* event=open }" = "$1" ] || { echo "said: $last" >&2; return 1; }
}

# tree: everything below the store's overlays, with all times but that of reading
tree ()
{
    (cd "$STORE" && find overlays -printf '%p %y %s %i %T@ %C@\n' | sort
     find overlays -type f -exec sha256sum {} + | sort)
}

# networks VENUE LIST: who may
networks ()
{
    espalier venue set "$1" --network "$2" >/dev/null
}

@test "tickets: with one a client writes, without one nothing is opened or made" {
    setup_store
    serve a require-ticket=on
    local t; t=$(ticket cafe/0@s)
    client "$t" 'h.pwrite(b"mine", 0); h.flush(); assert h.pread(4, 0) == b"mine"'
    said 'peer=local export=cafe/0@s ticket=ok result=ok tip=one'
    stop_nbdkit
    tree >before
    serve b require-ticket=on
    refused cafe@s
    said 'peer=local export=cafe/0@s ticket=none result=refused why=ticket'
    refused cafe/0@other
    refused cafe
    refused rp:one
    said 'peer=local export=rp:one ticket=none result=refused why=ticket'
    refused rp:one@x
    refused nowhere@x
    refused ''
    refused 'cafe/x@s+AAAA'
    said 'peer=local export=cafe/x@s ticket=none result=refused why=name'
    refused 'cafe@s+'
    tree >after
    diff before after
    client "$t" 'assert h.pread(4, 0) == b"mine"'
    # one line for each: two were let in, nine refused; '' names no export
    [ "$(grep -c 'result=ok' audit) $(grep -c 'result=refused' audit) $(wc -l <audit)" = "2 8 10" ]
}

@test "tickets: those of the command open what they say, and those of the document are good to it" {
    setup_store
    serve a require-ticket=on
    client "$(espalier ticket create cafe/1@s)" 'h.pwrite(b"x", 0)'
    client "$(espalier ticket create cafe --read-only)" 'assert h.is_read_only()'
    refused "$(espalier ticket create cafe@s --address 10.0.0.7)"
    espalier ticket show "$(ticket cafe/0@s --address 10.0.0.7)" --address 10.0.0.7 >shown
    not espalier ticket show "$(ticket cafe/0@s --address 10.0.0.7)" --address 10.0.0.8
    not grep -q '+AQ' shown
}

@test "tickets: of another client, disk, venue, key, and what somebody made up" {
    setup_store
    serve a require-ticket=on
    local t; t=$(ticket cafe/0@s); t=${t#*+}
    client "cafe/0@s+$t"
    for e in cafe/0@r cafe/1@s bar/0@s cafe/0 rp:one rp:one@s; do
        tree >before
        refused "$e+$t"
        said "peer=local export=$e ticket=forged result=refused why=ticket"
        tree >after; diff before after
    done
    refused "cafe@s+${t%?}"
    refused "cafe@s+${t}A"
    refused "cafe@s+AQ"
    cp "$KEY" old.key; espalier key delete tickets >/dev/null; espalier key create tickets >/dev/null
    refused "cafe@s+$t"
    said 'peer=local export=cafe/0@s ticket=forged result=refused why=ticket'
    # a new key counts at once
    client "$(ticket cafe/0@s)"
    espalier key delete tickets >/dev/null
    refused "cafe@s+$t"
    said 'peer=local export=cafe/0@s ticket=forged result=refused why=key'
    espalier key import tickets old.key >/dev/null
    [ "$(espalier key list --json | grep -c '"tickets"')" -ge 1 ]
}

@test "tickets: expired ones, and clocks that differ" {
    setup_store
    serve a require-ticket=on
    refused "$(ticket cafe/0@s --issued=-100 --opens=-50 --valid=-1)"
    said 'peer=local export=cafe/0@s ticket=expired result=refused why=ticket'
    refused "$(ticket cafe/0@s --issued=-100 --opens=-50)"
    said 'peer=local export=cafe/0@s ticket=expired result=refused why=ticket'
    refused "$(ticket cafe/0@s --issued=90)"
    said 'peer=local export=cafe/0@s ticket=clock result=refused why=ticket'
    grep -q 'issued in the future: the clock' a.log
    client "$(ticket cafe/0@s --issued=30)"
}

@test "tickets: a newer boot ends the older one's, reconnecting and kill -9 do not" {
    setup_store
    serve a require-ticket=on
    local old new
    old=$(ticket cafe/0@s); new=$(ticket cafe/0@s)
    client "$old" 'h.pwrite(b"old", 0); h.flush()'
    client "$old"
    client "$new" 'assert h.pread(3, 0) == b"old"'
    tree >before
    refused "$old"
    said 'peer=local export=cafe/0@s ticket=replayed result=refused why=ticket'
    kill -9 "$NBDKIT_PID"; wait "$NBDKIT_PID" || true
    serve b require-ticket=on
    refused "$old"
    said 'peer=local export=cafe/0@s ticket=replayed result=refused why=ticket'
    client "$new" 'assert h.pread(3, 0) == b"old"'
    # a reconnect after the time for first uses
    cp "$STORE/run/tickets/cafe%2F0%40s" state
    client "$(ticket cafe/1@s)"
    # what is worth nothing by then changes nothing
    refused "$old"
    cmp state "$STORE/run/tickets/cafe%2F0%40s"
    # nobody knows which was the newest: nobody gets in
    echo damaged >"$STORE/run/tickets/cafe%2F0%40s"
    refused "$new"
    said 'peer=local export=cafe/0@s ticket=ok result=refused why=state'
    grep -q 'cafe%2F0%40s.*remove this file' b.log
    espalier store gc >/dev/null
    refused "$new"
    rm "$STORE/run/tickets/cafe%2F0%40s"
    client "$new"
}

@test "tickets: a read-only one opens the venue's disk for several and makes no overlay" {
    setup_store
    serve a require-ticket=on overlay-client=export
    local t; t=$(ticket cafe/0 --readonly)
    client "$t" 'assert h.is_read_only() and h.pread(512, 0) == raw("one", 512, 0)
g = connect(os.environ["EXPORT"]); assert g.pread(512, 4096) == raw("one", 512, 4096)
try: h.set_strict_mode(0); h.pwrite(b"x", 0)
except nbd.Error as e: assert e.errno in ("EPERM", "EROFS"), e.errno
else: raise AssertionError("written")'
    said 'peer=local export=cafe/0 ticket=ok readonly=yes result=ok tip=one'
    [ -z "$(find "$STORE/overlays" -mindepth 1)" ]
    [ ! -e "$STORE/run/tickets" ]
    client "$(ticket rp:two --readonly)" 'assert h.is_read_only() and h.pread(512, 0) == raw("two", 512, 0)'
    # one without a client that wants to write is nobody's
    refused "$(ticket cafe/0)"
    # a client's: what it wrote, read-only
    client "$(ticket cafe/0@s)" 'h.pwrite(b"mine", 0); h.flush()'
    stop_nbdkit
    serve b require-ticket=on
    client "$(ticket cafe/0@s --readonly)" 'assert h.is_read_only() and h.pread(4, 0) == b"mine"'
    client "$(ticket cafe/0@r --readonly)" 'assert h.is_read_only() and h.pread(512, 0) == raw("one", 512, 0)'
    [ ! -e "$STORE/overlays/cafe/0/r" ]
}

@test "tickets: without the overlay filter, and with it outside of others" {
    setup_store
    start_nbdkit a "$VENUE" store="$STORE" audit="$D/audit" require-ticket=on
    refused cafe
    said 'peer=local export=cafe/0 ticket=none result=refused why=ticket'
    client "$(ticket cafe/0 --readonly)" 'assert h.pread(512, 0) == raw("one", 512, 0)'
    client "$(ticket cafe/0@s)" 'assert h.is_read_only()'
    said 'peer=local export=cafe/0@s ticket=ok result=ok tip=one'
    stop_nbdkit
    local delayload="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"
    start_nbdkit b --filter="$delayload" --filter="$OVERLAY" "$VENUE" store="$STORE" \
        overlay-min-free=0 audit="$D/audit" require-ticket=on
    refused cafe@s
    client "$(ticket cafe/0@s)" 'h.pwrite(b"x", 0)'
    stop_nbdkit
    # another name below than the one that was let in is another question
    start_nbdkit c --filter="$OVERLAY" --filter=exportname "$VENUE" store="$STORE" \
        overlay-min-free=0 audit="$D/audit" require-ticket=on \
        exportname-list=explicit exportname=cafe/0 default-export=bar
    client "$(ticket cafe/0@s)"
}

@test "tickets: what is given is checked also where none is required" {
    setup_store
    serve a
    client cafe@s
    said 'peer=local export=cafe/0@s ticket=none result=ok tip=one'
    refused "$(ticket cafe/0@s --issued=-100 --opens=-50 --valid=-1)"
    client "$(ticket cafe/0 --readonly)" 'assert h.is_read_only()'
    client cafe@s
}

@test "tickets: lists and the default export" {
    setup_store
    serve a require-ticket=on venue=cafe
    nbdsh -c 'import os
h = nbd.NBD(); h.set_opt_mode(True); h.connect_unix("'"$SOCK"'")
names = []
h.opt_list(lambda name, description: names.append(name) and 0 or 0)
assert sorted(names) == ["bar", "cafe", "cafe/1"], names
h.opt_abort()'
    refused ''
    said 'peer=local export=cafe/0 ticket=none result=refused why=ticket'
    stop_nbdkit
    serve b venue=cafe
    client '' 'assert h.pread(512, 0) == raw("one", 512, 0)'
}

@test "tickets: nobody reads one in a log, a counter, a list or a file" {
    setup_store
    serve_tcp require-ticket=on
    local t; t=$(ticket cafe/0@s --address 127.0.0.1)
    client "$t" 'import subprocess
h.pwrite(b"x", 0); h.flush()
stats = b""
while b"cafe/0@s" not in stats:
    stats = subprocess.run(["espalier", "stats", "--json"], capture_output=True, check=True).stdout
open("stats", "wb").write(stats)
open("list", "wb").write(subprocess.run(["espalier", "overlay", "list", "--json"], capture_output=True, check=True).stdout)
h2 = nbd.NBD(); h2.set_full_info(True); h2.set_export_name(os.environ["EXPORT"])
s = socket.socket(); s.connect(("127.0.0.1", int(os.environ["PORT"]))); h2.connect_socket(s.detach())
open("description", "w").write(h2.get_export_description())'
    grep -q 'cafe/0@s' stats
    grep -q '"s"' list
    FROM=127.0.0.2 refused "$t"
    refused "cafe/x@s+${t#*+}"
    refused "rp:one@s+${t#*+}"
    not grep -rqaF "${t#*+}" "$STORE" audit stats list tcp.log
    grep -q "tip one" description; not grep -qF "${t#*+}" description
}

@test "tickets: one that is bound to an address is worth nothing at another" {
    setup_store
    serve_tcp require-ticket=on
    local t; t=$(ticket cafe/0@s --address 127.0.0.2)
    refused "$t"
    said 'peer=127.0.0.1 export=cafe/0@s ticket=forged result=refused why=ticket'
    [ -z "$(find "$STORE/overlays" -mindepth 1)" ]
    FROM=127.0.0.2 client "$t" 'h.pwrite(b"x", 0)'
    said 'peer=127.0.0.2 export=cafe/0@s ticket=ok result=ok tip=one'
    FROM=127.0.0.3 refused "$t"
    FROM=127.0.0.2 client "$t" 'assert h.pread(1, 0) == b"x"'
    # who says at another address that he is this machine is seen, and ends its ticket
    client "$(ticket cafe/0@s --address 127.0.0.1)"
    said 'peer=127.0.0.1 export=cafe/0@s ticket=ok before=127.0.0.2 result=ok tip=one'
    FROM=127.0.0.2 refused "$t"
    said 'peer=127.0.0.2 export=cafe/0@s ticket=replayed before=127.0.0.1 result=refused why=ticket'
    # the bridge's are not bound
    client "$(ticket cafe/1@s)"
    # nor is a local peer the one of an address
    stop_nbdkit
    serve a require-ticket=on
    refused "$t"
}

@test "networks: who is outside of a venue's gets nothing of it, with a ticket or without" {
    setup_store
    networks cafe 127.0.0.2/31
    serve_tcp
    refused cafe@s
    said 'peer=127.0.0.1 export=cafe/0@s ticket=none result=refused why=network'
    refused "$(ticket cafe/0@s)"
    said 'peer=127.0.0.1 export=cafe/0@s ticket=ok result=refused why=network'
    [ -z "$(find "$STORE/overlays" "$STORE/run/tickets" -mindepth 1 2>/dev/null)" ]
    FROM=127.0.0.2 client cafe@s
    FROM=127.0.0.3 client cafe/1@s
    FROM=127.0.0.4 refused cafe/1@s
    client bar@s
    # its disks are not to be had by another name
    refused rp:one
    said 'peer=127.0.0.1 export=rp:one ticket=none result=refused why=network'
    client "$(ticket rp:one --readonly)"
    stop_nbdkit
    serve a
    client cafe@s
    client rp:one
}

@test "tickets: many connections at once with the same new one, and an older between them" {
    setup_store
    serve a require-ticket=on
    local old new
    old=$(ticket cafe/1@s); new=$(ticket cafe/1@s)
    client "$old"
    client "$new" 'import threading
res = []
gate = threading.Barrier(24)
def one(name, must):
    gate.wait()
    try: connect(name).pread(512, 0); ok = True
    except nbd.Error: ok = False
    res.append((must, ok))
e = os.environ["EXPORT"]
ts = [threading.Thread(target=one, args=(e if i % 2 else "'"$old"'", i % 2)) for i in range(24)]
[t.start() for t in ts]; [t.join() for t in ts]
assert len(res) == 24 and all(ok == bool(must) for must, ok in res), res'
    # a new one, which nobody has used, by two servers at once
    new=$(ticket bar/0 --readonly)
    serve b require-ticket=on
    client "$new"
    [ "$(grep -c 'ticket=replayed' audit)" = 12 ]
}

@test "tickets: two servers of one store race with new ones, and agree on the newest" {
    setup_store
    start_nbdkit a "$VENUE" store="$STORE" require-ticket=on
    local first=$SOCK
    start_nbdkit b "$VENUE" store="$STORE" require-ticket=on
    local i names=()
    for i in 1 2 3 4 5 6 7 8; do names+=("$(ticket cafe/0@s)"); done
    NAMES="${names[*]}" FIRST=$first SECOND=$SOCK nbdsh -c 'import os, threading
import base64
# In the order of their times, also where the clock was set back between two.
def issued(name):
    b = base64.urlsafe_b64decode(name.split("+")[1] + "==="); return b[2:6] + b[14:22]
names = sorted(os.environ["NAMES"].split(), key=issued); socks = [os.environ["FIRST"], os.environ["SECOND"]]
def can(name, sock):
    h = nbd.NBD(); h.set_export_name(name)
    try: h.connect_unix(sock)
    except nbd.Error: return False
    return True
got = {}
gate = threading.Barrier(16)
def one(i, s):
    gate.wait(); got[i, s] = can(names[i], socks[s])
ts = [threading.Thread(target=one, args=(i, s)) for i in range(8) for s in range(2)]
[t.start() for t in ts]; [t.join() for t in ts]
assert got[7, 0] and got[7, 1], got
for i in range(8):
    for s in range(2): assert can(names[i], socks[s]) == (i == 7)'
}

@test "audit: what is let in and then fails is said too" {
    setup_store
    serve a
    not client nowhere@s
    said 'peer=local export=nowhere/0@s ticket=none result=failed why=disk'
    not client cafe/7@s
    said 'peer=local export=cafe/7@s ticket=none result=failed why=disk'
    not client rp:nothing
    said 'peer=local export=rp:nothing ticket=none result=failed why=disk'
    client cafe@s 'h.pwrite(b"x", 0); h.flush(); import subprocess, sys
open("held", "w").write("x")'
    # an overlay that another server holds
    local first=$SOCK
    serve b
    SOCK=$first client cafe@t 'import subprocess
h.pwrite(b"x", 0)
h2 = nbd.NBD(); h2.set_export_name("cafe@t")
try: h2.connect_unix("'"$SOCK"'")
except nbd.Error: pass
else: raise AssertionError("two servers have one overlay")'
    said 'peer=local export=cafe/0@t ticket=none result=failed why=overlay'
    # a rotated log goes on in a new file
    mv audit audit.1
    client cafe@u
    [ "$(wc -l <audit)" = 1 ]
}

@test "tickets: parameters that cannot work are refused before nbdkit forks" {
    setup_store
    run nbdkit -f -U - "$VENUE" store="$STORE" require-ticket=maybe
    [ "$status" -ne 0 ]; [[ "$output" == *"require-ticket=maybe: give on or off"* ]]
    run nbdkit -f -U - "$VENUE" store="$STORE" audit="$D/no/where"
    [ "$status" -ne 0 ]; [[ "$output" == *"audit log: $D/no/where: No such file"* ]]
    chmod 644 "$KEY"
    run nbdkit -f -U - "$VENUE" store="$STORE" require-ticket=on
    [ "$status" -ne 0 ]; [[ "$output" == *"chmod 600"* ]]
    rm "$KEY"
    run nbdkit -U - "$VENUE" store="$STORE" require-ticket=on --run true
    [ "$status" = 0 ]; [[ "$output" == *"no ticket key yet"* ]]
}

@test "tickets: espalier serve passes on what is required and where it is written" {
    setup_store
    run espalier serve --require-ticket --audit /var/log/audit --print
    [ "$status" = 0 ]
    [[ "$output" == *" require-ticket=on audit=/var/log/audit"* ]]
    run espalier serve --print
    [[ "$output" != *require-ticket* && "$output" != *audit=* ]]
}

@test "tickets: gc removes the state of tickets that nobody can use any more" {
    setup_store
    serve a require-ticket=on
    # 32 days old, still valid for some seconds
    client "$(ticket cafe/0@s --issued=-2764800 --opens=60 --valid=8)"
    client "$(ticket cafe/1@s)"
    stop_nbdkit
    touch "$STORE/run/tickets/.0123456789abcdef.new"
    touch -d '2 hours ago' "$STORE/run/tickets/.fedcba9876543210.new"
    gone ()
    {
        espalier store gc >gc.out; not test -e "$STORE/run/tickets/cafe%2F0%40s"
    }
    wait_for "the end of the ticket" gone
    grep -q 'run/tickets/cafe%2F0%40s' gc.out
    espalier store check >/dev/null
    [ "$(ls -A "$STORE/run/tickets" | tr '\n' ' ')" = ".0123456789abcdef.new cafe%2F1%40s " ]
}

@test "tickets: in a read-only store only read-only ones open something, and it says so at once" {
    [ "$(id -u)" -eq 0 ] || skip "needs root, for a read-only mount"
    unshare -m true 2>/dev/null || skip "mount namespaces are not allowed here"
    setup_store
    ticket cafe/0@s >writing
    ticket cafe/0 --readonly >reading
    cat >inside.sh <<'END'
mount --bind "$ESPALIER_STORE" "$ESPALIER_STORE" && mount -o remount,ro,bind "$ESPALIER_STORE" || exit 77
python3 -c 'import nbd' 2>/dev/null || PATH=/usr/bin:$PATH
nbdkit -U - "$VENUE" store="$ESPALIER_STORE" require-ticket=on audit="$PWD/audit" --run 'SOCK=$unixsocket python3 ro.py' 2>ro.err
END
    cat >ro.py <<'END'
import nbd, os
def connect(name):
    h = nbd.NBD(); h.set_export_name(open(name).read().strip()); h.connect_unix(os.environ["SOCK"]); return h
assert connect("reading").pread(512, 0) == open("one.raw", "rb").read(512)
try: connect("writing")
except nbd.Error: pass
else: raise SystemExit("nobody can know that this is the newest")
END
    run unshare -m bash inside.sh
    [ "$status" -ne 77 ] || skip "no right to mount"
    [ "$status" = 0 ] || { echo "$output"; cat ro.err; false; }
    said 'peer=local export=cafe/0@s ticket=ok result=refused why=state'
    grep -q 'warning: require-ticket: .*is read-only' ro.err
}
