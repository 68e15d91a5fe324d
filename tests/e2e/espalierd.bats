# SPDX-License-Identifier: BSD-3-Clause
# espalierd: starts, serves a store over NBD by a stack of its own or with one
# that is there, reads its configuration again, and ends.
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/daemon

# cafe: a store with a venue of a random disk, disk.img
cafe ()
{
    random_file disk.img 1000000
    espalier --quiet init
    espalier --quiet root add base disk.img
    espalier --quiet venue add cafe --disk base
} >/dev/null

nbd () { printf 'nbd://127.0.0.1:%s/%s' "$NBD_PORT" "$1"; }
logged () { grep -q -- "$1" espalierd.log; }
gone () { ! kill -0 "$1" 2>/dev/null; }
# stack_pid: of the process that serves
stack_pid () { sed -n 's/.*the stack serves (process \([0-9]*\))/\1/p' espalierd.log | tail -n 1; }

@test "a store is served over HTTP and NBD; SIGTERM ends everything" {
    cafe
    start_espalierd
    curl -fsS "$WEB/healthz" | grep -qx ok
    nbdcopy "$(nbd cafe)" copy.img
    cmp disk.img copy.img
    # for ourselves, over a socket that only the owner may use
    [ "$(stat -c %a "$STORE/run/espalierd")" = 700 ]
    [ "$(stat -c %a "$STORE/run/espalierd/nbd.sock")" = 600 ]
    nbdinfo --size "nbd+unix:///cafe?socket=$STORE/run/espalierd/nbd.sock"
    stack=$(stack_pid)
    stop_espalierd
    gone "$stack"
    [ ! -e "$STORE/run/espalierd/nbd.sock" ]
    not curl -sS --max-time 5 "$WEB/healthz"
}

@test "a client that stays connected does not keep the daemon from ending" {
    need_nbdsh
    cafe
    start_espalierd
    nbdsh -c "h.connect_uri('$(nbd cafe@seat)')" -c 'h.pwrite(b"x"*4096, 0); h.flush()' \
        -c 'open("up", "w").close()' -c 'import time; time.sleep(300)' 3>&- &
    PIDS+=($!)
    wait_for "a client" test -e up
    stack=$(stack_pid)
    stop_espalierd
    gone "$stack"
    logged 'still has clients after 10 s: killed'
    # what it flushed is there
    espalier --quiet rp create kept --from-overlay cafe@seat
}

@test "a second SIGTERM ends the daemon at once, and the stack with it" {
    need_nbdsh
    cafe
    start_espalierd
    nbdsh -c "h.connect_uri('$(nbd cafe)')" -c 'open("up", "w").close()' -c 'import time; time.sleep(300)' 3>&- &
    PIDS+=($!)
    wait_for "a client" test -e up
    stack=$(stack_pid)
    kill "$ESPALIERD_PID"
    wait_for "the end to begin" logged 'ending: signal 15'
    kill -0 "$ESPALIERD_PID"
    begin=$SECONDS
    wait_for "the second one" eval 'kill "$ESPALIERD_PID" 2>/dev/null; gone "$ESPALIERD_PID"'
    [ $((SECONDS - begin)) -lt 8 ]
    wait_for "the end of the stack" gone "$stack"
}

@test "kill -9 of the daemon: the stack ends too, whoever is connected, and the next one starts" {
    need_nbdsh
    cafe
    start_espalierd
    nbdsh -c "h.connect_uri('$(nbd cafe)')" -c 'open("up", "w").close()' -c 'import time; time.sleep(300)' 3>&- &
    PIDS+=($!)
    wait_for "a client" test -e up
    stack=$(stack_pid)
    guards=$(pgrep -P "$ESPALIERD_PID")
    kill -0 "$stack"
    kill -9 "$ESPALIERD_PID"
    wait "$ESPALIERD_PID" || true
    for pid in "$stack" $guards; do wait_for "the end of process $pid" gone "$pid"; done
    start_espalierd
    nbdinfo --size "$(nbd cafe)"
    stop_espalierd
}

@test "a stack that is killed is started again behind the same sockets" {
    cafe
    start_espalierd
    first=$(stack_pid)
    kill -9 "$first"
    # who connects meanwhile waits
    nbdcopy "$(nbd cafe)" copy.img
    cmp disk.img copy.img
    wait_for "another" eval '[ "$(stack_pid)" != "$first" ]'
    logged 'the stack has ended: ended by signal 9'
    second=$(stack_pid)
    kill -9 "$second"
    wait_for "a third" eval '[ "$(stack_pid)" != "$second" ]'
    curl -fsS "$WEB/healthz?stack"
    stop_espalierd
}

@test "a stack that hangs counts as down, and as up when it goes on" {
    cafe
    start_espalierd
    stack=$(stack_pid)
    kill -STOP "$stack"
    wait_for "that to be noticed" eval '[ "$(curl -sS -o /dev/null -w "%{http_code}" "$WEB/healthz?stack")" = 503 ]'
    logged 'the stack does not answer'
    kill -CONT "$stack"
    wait_for "its return" curl -fsS -o /dev/null "$WEB/healthz?stack"
    [ "$(stack_pid)" = "$stack" ]
    stop_espalierd
}

@test "all addresses are IPv4 and IPv6" {
    [ -e /proc/net/if_inet6 ] && grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 || skip "no IPv6"
    cafe
    start_espalierd --listen :0 --nbd-listen :0
    for host in 127.0.0.1 '[::1]'; do
        curl -fsS "http://$host:${WEB##*:}/healthz"
        nbdinfo --size "nbd://$host:$NBD_PORT/cafe"
    done
    logged 'debug: 127.0.0.1 GET'       # not ::ffff:127.0.0.1
    logged 'debug: ::1 GET'
    stop_espalierd
}

@test "a stack that cannot start: the daemon says why, answers, tries again" {
    cafe
    printf '#!/bin/sh\necho run >>"%s/runs"\necho "out of cheese" >&2; exit 3\n' "$D" >bad
    chmod +x bad
    ESPALIER=$D/bad start_daemon
    wait_for "the third try" eval '[ "$(wc -l <runs)" -ge 3 ]'
    logged 'the stack has ended: ended with status 3: out of cheese'
    curl -fsS "$WEB/healthz"
    curl -sS -o answer -w '%{http_code}' "$WEB/healthz?stack" | grep -qx 503
    not grep cheese answer
    [ "$(wc -l <runs)" -le 5 ]          # not in a loop
    stop_espalierd
    ESPALIER=/nonexistent/espalier start_daemon
    wait_for "the reason" logged 'the program espalier was not found'
    stop_espalierd
}

# start_daemon: like start_espalierd, but the stack need not serve
start_daemon ()
{
    rm -f "$STORE/run/espalierd/ports"
    espalierd --store "$STORE" --config "$(: >>c; echo c)" --listen 127.0.0.1:0 --nbd-listen 127.0.0.1:0 "$@" \
        >>espalierd.log 2>&1 </dev/null 3>&- &
    ESPALIERD_PID=$!
    PIDS+=("$ESPALIERD_PID")
    wait_for espalierd eval '[ -s "$STORE/run/espalierd/ports" ] || gone "$ESPALIERD_PID"'
    WEB=http://127.0.0.1:$(sed -n 's/^http=//p' "$STORE/run/espalierd/ports")
}

@test "SIGHUP: a good file counts, a broken one changes nothing, sockets need a restart" {
    cafe
    echo 'title = One' >espalierd.conf
    start_espalierd
    echo 'title = Two' >espalierd.conf
    kill -HUP "$ESPALIERD_PID"
    wait_for "the first" logged 'the configuration was read again'
    echo 'titel = Three' >espalierd.conf
    kill -HUP "$ESPALIERD_PID"
    wait_for "the second" logged 'the configuration stays as it was'
    logged "espalierd.conf:1: 'titel' is unknown: is 'title' meant?"
    curl -fsS "$WEB/healthz"
    printf 'audit = /x\nrequire-ticket = on\n' >espalierd.conf
    kill -HUP "$ESPALIERD_PID"
    wait_for "the third" logged 'audit has changed: it counts when espalierd is restarted'
    logged 'require-ticket has changed'
    rm espalierd.conf
    kill -HUP "$ESPALIERD_PID"
    wait_for "the fourth" logged 'espalierd.conf: No such file'
    curl -fsS "$WEB/healthz?stack"
    stop_espalierd
}

@test "--check-config, --print-config, --help, --version" {
    echo 'title = "A # café" # yes' >good
    run -0 espalierd --store "$STORE" --config good --check-config
    [ -z "$output" ]
    run -0 --separate-stderr espalierd --store "$STORE" --config good --print-config --shell on
    [[ $output == *'title = "A # café"'* ]]
    [[ $output == *'shell = on'* ]]
    espalierd --store "$STORE" --config good --print-config >again
    espalierd --config again --print-config | cmp - again
    printf '\n\nmenu-timeout = soon\n' >bad
    run -1 espalierd --config bad --check-config
    [[ $output == *"bad:3: menu-timeout 'soon': "* ]]
    run -1 espalierd --config /nonexistent --check-config
    [[ $output == *'/nonexistent: No such file or directory'* ]]
    run -1 espalierd --config good --listen nowhere --check-config
    [[ $output == *"--listen: listen 'nowhere': not ADDRESS:PORT"* ]]
    run -2 espalierd --bananas
    run -2 espalierd extra
    run -0 espalierd --version
    [ "$output" = "$(espalier --version | sed s/espalier/espalierd/)" ]
    run -0 espalierd --help
    [[ $output == *'--require-ticket on|off'* ]]
}

@test "what cannot be is said: a port in use, no store, two daemons, a bad address" {
    run -1 espalierd --store "$D/none" --config "$(: >c; echo c)" --listen 127.0.0.1:0
    [[ $output == *"make one with 'espalier --store $D/none init'"* ]]
    cafe
    start_espalierd
    run -1 espalierd --store "$STORE" --config c --listen 127.0.0.1:0
    [[ $output == *"espalierd (process $ESPALIERD_PID, since "*'has this store already'* ]]
    espalier --quiet init other
    run -1 espalierd --store "$D/other" --config c --listen "127.0.0.1:${WEB##*:}" --nbd-listen 127.0.0.1:0
    [[ $output == *"listen: HTTP, 127.0.0.1:${WEB##*:}: Address already in use: another server listens there: end it, or choose another port with listen"* ]]
    run -1 espalierd --store "$D/other" --config c --listen 127.0.0.1:0 --nbd-listen "127.0.0.1:$NBD_PORT"
    [[ $output == *"listen: NBD, 127.0.0.1:$NBD_PORT: Address already in use"* ]]
    run -1 espalierd --store "$D/other" --config c --listen 192.0.2.1:0 --nbd-listen 127.0.0.1:0
    [[ $output == *'this machine does not have that address'* ]]
    # and nothing of these was left
    stop_espalierd
    STORE=$D/other start_espalierd
    stop_espalierd
}

@test "a path that is too long for a socket is refused with a reason" {
    long=$D/$(printf 'x%.0s' {1..90})
    espalier --quiet init "$long"
    run -1 espalierd --store "$long" --config "$(: >c; echo c)" --listen 127.0.0.1:0 --nbd-listen 127.0.0.1:0
    [[ $output == *'put the store at a shorter path'* ]]
}

@test "--nbd: a server that is there is used, and its end noticed" {
    cafe
    start_nbdkit other --filter="$OVERLAY" "$VENUE" store="$STORE"
    start_espalierd --nbd "nbd+unix:///?socket=$SOCK"
    [ "$NBD_PORT" = 0 ]
    logged 'other.sock answers'
    kill -9 "$NBDKIT_PID"
    wait_for "its end" eval '[ "$(curl -sS -o /dev/null -w "%{http_code}" "$WEB/healthz?stack")" = 503 ]'
    logged 'does not answer'
    start_nbdkit other --filter="$OVERLAY" "$VENUE" store="$STORE"
    wait_for "its return" curl -fsS -o /dev/null "$WEB/healthz?stack"
    stop_espalierd
    kill -0 "$NBDKIT_PID"
}

@test "--nbd: a server that says nothing does not hold the daemon" {
    cafe
    python3 - >port 3>&- <<'PY' &
import signal, socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(5)
print(s.getsockname()[1], flush=True)
signal.pause()
PY
    PIDS+=($!)
    wait_for "a port" test -s port
    start_daemon --nbd "nbd://127.0.0.1:$(cat port)"
    curl -fsS "$WEB/healthz"
    wait_for "the reason" logged 'no answer within 5 s'
    stop_espalierd
}

@test "nbd-options reach the stack; an empty nbd-listen is for nobody" {
    need_nbdsh
    cafe
    echo 'nbd-options = --mode discard --quota 1M' >espalierd.conf
    start_espalierd --nbd-listen ''
    [ "$NBD_PORT" = 0 ]
    logged 'overlay-mode=discard'
    run ! nbdsh -c "h.connect_uri('nbd+unix:///cafe?socket=$STORE/run/espalierd/nbd.sock')" \
        -c 'h.pwrite(b"x" * 2000000, 0)'
    stop_espalierd
}

@test "require-ticket and audit reach the stack" {
    need jq
    cafe
    start_espalierd --require-ticket on
    run ! nbdinfo --size "$(nbd cafe@seat)"
    logged 'stack: .*cafe/0@seat: refused: it has no ticket'
    ticket=$(espalier ticket create cafe@seat)
    nbdinfo --size "$(nbd "$ticket")"
    grep -q 'event=open.*export=cafe/0@seat' "$STORE/run/audit.log"
    # what the log says of tickets is not enough to use one
    not grep -F "${ticket#*+}" espalierd.log
    # tickets of scripts are of the key that the site has now
    espalier venue set cafe --boot http >/dev/null
    http_ticket () { curl -fsS "$WEB/boot.ipxe?mac=52-54-00-12-34-56&venue=cafe" | grep -om1 't=A[A-Za-z0-9_-]*' | cut -c 3-; }
    opens () { nbdinfo --size "$(nbd "cafe+$(http_ticket)")"; }
    opens
    espalier --quiet key delete tickets
    espalier --quiet key create tickets
    opens
    run ! nbdinfo --size "$(nbd "$ticket")"
    stop_espalierd
    start_espalierd --audit "$D/elsewhere.log"
    nbdinfo --size "$(nbd cafe@other)"
    grep -q 'export=cafe/0@other' elsewhere.log
    not grep -q other "$STORE/run/audit.log"
    stop_espalierd
}

@test "without root: as nobody, on a store of nobody's" {
    [ "$(id -u)" = 0 ] || skip "only root can become nobody"
    need setpriv
    cafe
    chown -R nobody "$D"
    chmod 711 "$D"
    as_nobody=(setpriv --reuid nobody --clear-groups env HOME="$D")
    "${as_nobody[@]}" test -x "$ESPALIER_BUILDDIR/tools/espalier/espalier" || skip "nobody cannot read the build tree"
    "${as_nobody[@]}" espalierd --verbose --store "$STORE" --config "$(: >c; echo c)" --listen 127.0.0.1:0 \
        --nbd-listen 127.0.0.1:0 >espalierd.log 2>&1 </dev/null 3>&- &
    ESPALIERD_PID=$!
    PIDS+=("$ESPALIERD_PID")
    wait_for "the stack" logged 'the stack serves'
    WEB=http://127.0.0.1:$(sed -n 's/^http=//p' "$STORE/run/espalierd/ports")
    NBD_PORT=$(sed -n 's/^nbd=//p' "$STORE/run/espalierd/ports")
    curl -fsS "$WEB/healthz?stack"
    nbdcopy "$(nbd cafe)" copy.img
    cmp disk.img copy.img
    [ "$(ps -o user= -p "$(stack_pid)")" = nobody ]
    stop_espalierd
}

@test "systemd is told: READY, RELOADING, STOPPING" {
    cafe
    python3 - "$D/notify" >told 3>&- <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode().replace("\n", " "), flush=True)
PY
    PIDS+=($!)
    wait_for "a socket" test -S notify
    NOTIFY_SOCKET=$D/notify start_espalierd
    wait_for "the first" grep -qx 'READY=1' told
    kill -HUP "$ESPALIERD_PID"
    wait_for "the second" eval '[ "$(grep -cx READY=1 told)" = 2 ]'
    grep -q '^RELOADING=1 MONOTONIC_USEC=[0-9]' told
    stop_espalierd
    wait_for "the last" grep -qx 'STOPPING=1' told
    # the stack does not speak for us
    [ "$(wc -l <told)" = 4 ]
}

@test "under systemd, lines have their level and no name" {
    cafe
    JOURNAL_STREAM=$(stat -L -c %d:%i "$(: >espalierd.log; echo espalierd.log)") start_espalierd
    logged '^<6>the stack serves'
    not grep '^espalierd:' espalierd.log
    stop_espalierd
}

@test "queries and tickets do not stand in the log" {
    start_espalierd
    curl -sS -o /dev/null "$WEB/healthz?t=SECRET-OF-SOMEBODY" "$WEB/nothing?t=SECRET-OF-SOMEBODY"
    logged 'GET /healthz: 200'
    not grep SECRET espalierd.log
    stop_espalierd
}
