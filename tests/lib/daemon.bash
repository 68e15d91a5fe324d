# SPDX-License-Identifier: BSD-3-Clause
# espalierd in end-to-end tests.  Load lib/common first, then this.

# The program itself, not libtool's script: its pid is the daemon's.
PATH="$ESPALIER_BUILDDIR/daemon/.libs:$PATH"

# free_port: one of 127.0.0.1 that nobody has just now
free_port ()
{
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_espalierd [OPTIONS...]: the daemon of the store $STORE (made if it is
# not there), on ports of 127.0.0.1 that the kernel chooses: $WEB
# (http://127.0.0.1:PORT), $NBD_PORT (0 with --nbd), $ISCSI_PORT (free, nobody
# listens yet), its pid in $ESPALIERD_PID; what it says goes to $D/espalierd.log.
# Options that are given count more than these; $D/espalierd.conf, made empty if it is
# not there, is read.  Waits until it listens and the
# stack serves; ended in teardown, and what it started ends with it.
start_espalierd ()
{
    [ -e "$STORE/espalier" ] || espalier --quiet init
    ISCSI_PORT=$(free_port)
    [ -e "$D/espalierd.conf" ] || : >"$D/espalierd.conf"
    rm -f "$STORE/run/espalierd/ports"
    espalierd --verbose --store "$STORE" --config "$D/espalierd.conf" --listen 127.0.0.1:0 --nbd-listen 127.0.0.1:0 \
        --iscsi-listen "127.0.0.1:$ISCSI_PORT" "$@" >>"$D/espalierd.log" 2>&1 </dev/null 3>&- &
    ESPALIERD_PID=$!
    PIDS+=("$ESPALIERD_PID")
    wait_for espalierd eval '[ -s "$STORE/run/espalierd/ports" ] || ! kill -0 "$ESPALIERD_PID" 2>/dev/null'
    [ -s "$STORE/run/espalierd/ports" ] || { tail -n 20 "$D/espalierd.log" >&2; return 1; }
    WEB=http://127.0.0.1:$(sed -n 's/^http=//p' "$STORE/run/espalierd/ports")
    NBD_PORT=$(sed -n 's/^nbd=//p' "$STORE/run/espalierd/ports")
    wait_for "the stack" curl -fsS --max-time 5 -o /dev/null "$WEB/healthz?stack"
}

# stop_espalierd: end it with SIGTERM; its status
stop_espalierd ()
{
    kill "$ESPALIERD_PID"
    wait "$ESPALIERD_PID"
}
