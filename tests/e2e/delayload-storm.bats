# SPDX-License-Identifier: BSD-3-Clause
# Many at once on a cold store: clients, servers, servers that are killed; and
# the center's own log of what that cost it.
load ../lib/common
load ../lib/center
load ../lib/delayload

@test "64 cold clients at once: each segment that they need is sent once" {
    need_cold
    pushed 24
    serve_center --delay 5
    pulled b web="$WEB"
    serve_delayed s b delayload-background=off delayload-readahead=0
    cold read --clients 64 --ops 25 --image v2.img --touched touched "$(uri cafe)"
    cold once web.log c --image v2.img --base base.img --touched touched
}

# nginx_center: the center c behind nginx, at $WEB; it logs as tests/origin does
nginx_center ()
{
    local i port
    need nginx curl
    for i in 1 2 3 4 5; do
        port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        cat >nginx.conf <<CONF
daemon off; master_process off; pid $D/nginx.pid; error_log $D/nginx.err;
events { }
http {
    log_format origin '\$msec \$request_method \$uri \$http_range \$status \$body_bytes_sent \$connection -';
    access_log $D/web.log origin; keepalive_requests 100000;
    client_body_temp_path $D/n1; proxy_temp_path $D/n2; fastcgi_temp_path $D/n3;
    uwsgi_temp_path $D/n4; scgi_temp_path $D/n5;
    server { listen 127.0.0.1:$port; root $D/c; }
}
CONF
        nginx -c "$D/nginx.conf" -p "$D" -e "$D/nginx.err" 3>&- &
        NGINX_PID=$!
        PIDS+=("$NGINX_PID")
        WEB=http://127.0.0.1:$port
        wait_for nginx eval 'curl -s -o /dev/null --max-time 5 "$WEB/" || ! kill -0 "$NGINX_PID" 2>/dev/null'
        kill -0 "$NGINX_PID" 2>/dev/null && return 0    # else somebody took the port
    done
    cat nginx.err
    return 1
}

@test "64 cold clients at once, with nginx: each segment that they need is sent once" {
    need_cold
    pushed 16 256K,zstd
    nginx_center
    pulled b web="$WEB"
    serve_delayed s b delayload-background=off delayload-readahead=0
    cold read --clients 64 --ops 15 --touched touched "$(uri cafe)"
    stop_nbdkit
    cold once web.log c --touched touched
}

@test "64 cold clients that read on: read-ahead, hydration and they get each byte once" {
    need_cold
    pushed 24
    serve_center
    pulled b web="$WEB"
    at b -q hydrate cafe
    serve_delayed s b
    cold read --clients 60 --ops 20 --most 131072 "$(uri cafe)" &
    random=$!
    cold read --clients 4 "$(uri cafe)"
    wait "$random"
    wait_for "all of it is local" all_local b
    cold once web.log c
}

@test "four servers on one cold store: each segment once" {
    local i uris=()
    need_cold
    pushed 24
    serve_center --delay 5
    pulled b web="$WEB"
    for i in 1 2 3 4; do
        serve_delayed "s$i" b delayload-background=off delayload-readahead=0
        uris+=("$(uri cafe)")
    done
    cold read --clients 16 --ops 60 --touched touched "${uris[@]}"
    cold once web.log c --touched touched
}

@test "four servers that hydrate one cold store: each segment once" {
    local i uris=()
    need_cold
    pushed 24
    serve_center --rate 20M
    pulled b web="$WEB"
    at b -q hydrate cafe
    for i in 1 2 3 4; do
        serve_delayed "s$i" b
        uris+=("$(uri cafe)")
    done
    cold read --clients 8 --ops 30 "${uris[@]}"
    wait_for "all of it is local" all_local b
    cold once web.log c
}

# asked N: the center was asked so often for packs
asked () { [ "$(grep -c '\.pack ' "$D/web.log")" -ge "$1" ]; }

@test "one of four servers is killed: the others go on, twice only what was in flight" {
    local i uris=() victim
    need_cold
    pushed 24
    serve_center --delay 10
    pulled b web="$WEB"
    for i in 1 2 3 4; do
        serve_delayed "s$i" b delayload-background=off delayload-readahead=0
        uris+=("$(uri cafe)")
        [ "$i" -ne 2 ] || victim=$NBDKIT_PID
    done
    cold read --clients 4 --ops 200 --most 131072 --leave "${uris[1]}" &
    leavers=$!
    cold read --clients 12 --ops 60 --most 131072 "${uris[0]}" "${uris[2]}" "${uris[3]}" &
    others=$!
    wait_for "requests" asked 60
    kill -9 "$victim"
    wait "$victim" || true
    wait "$leavers"
    wait "$others"
    # each of its four clients waited for at most three segments of 64K
    cold once web.log c --again $((4 * 3 * 65537))
}

# haves STORE DIRECTORY: copies of its `have`s
haves ()
{
    local f
    mkdir -p "$2"
    for f in "$D/$1"/restore-points/*/have; do cp "$f" "$2/$(basename "$(dirname "$f")").have"; done
}

# percent STORE N: more than N percent of base is local
percent () { [ "$(at "$1" rp show base --json | jq .local_percent)" -gt "$2" ]; }

@test "hydration goes on where a killed server was" {
    need_cold
    pushed 24
    serve_center
    pulled b web="$WEB"
    web_faults '[{"path": "pack$", "from": 9000000, "action": "hang"}]'     # the end never comes
    at b -q hydrate cafe
    serve_delayed s b
    wait_for "half of it" percent b 30
    kill -9 "$NBDKIT_PID"; wait "$NBDKIT_PID" || true
    haves b before
    not all_local b
    web_faults '[]'
    lines=$(wc -l <web.log)
    serve_delayed t b
    wait_for "all of it is local" all_local b
    tail -n +"$((lines + 1))" web.log >second.log
    cold whole second.log c before/*.have
    cold read "$(uri cafe)"
}

@test "a killed server's store after a loss of power: no wrong byte is served, only what was torn comes again" {
    need_cold
    pushed 16
    serve_center
    pulled b web="$WEB"
    serve_delayed s b
    cold read --clients 4 "$(uri cafe)"
    kill -9 "$NBDKIT_PID"; wait "$NBDKIT_PID" || true
    cold power b
    lines=$(wc -l <web.log)
    serve_delayed t b delayload-background=off delayload-readahead=0
    cold read --clients 8 --ops 40 "$(uri cafe)"
    cold read "$(uri cafe)"
    tail -n +"$((lines + 1))" web.log >second.log
    cold once second.log c
    stop_nbdkit
    at b store check
    at b store scrub
}

@test "a bounded store: bytes are right while segments are given back, and it stays small" {
    local worst=0 now readers
    need_cold
    pushed 40 64K,none
    serve_center
    pulled b web="$WEB"
    serve_delayed s b delayload-max=16M
    cold read --clients 6 --ops 500 "$(uri cafe)" &
    readers=$!
    while kill -0 "$readers" 2>/dev/null; do
        now=$(du -s --block-size=1 b/restore-points | cut -f1)
        [ "$now" -le "$worst" ] || worst=$now
        read -rt 0.1 <> <(:) || true
    done
    wait "$readers"
    echo "at most $worst bytes"
    [ "$worst" -gt $((12 << 20)) ]
    # a tick of what was just read may stay: an eighth; and what comes meanwhile
    [ "$worst" -le $((22 << 20)) ]
    stop_nbdkit
    grep -E "[1-9][0-9]* given back" s.log
    at b store check
    at b store scrub
}

@test "four servers of one bounded store: bytes are right, and it stays small" {
    local i uris=() worst=0 now readers
    need_cold
    pushed 40 64K,none
    serve_center
    pulled b web="$WEB"
    for i in 1 2 3 4; do
        serve_delayed "s$i" b delayload-max=16M
        uris+=("$(uri cafe)")
    done
    cold read --clients 8 --ops 300 "${uris[@]}" &
    readers=$!
    while kill -0 "$readers" 2>/dev/null; do
        now=$(du -s --block-size=1 b/restore-points | cut -f1)
        [ "$now" -le "$worst" ] || worst=$now
        read -rt 0.1 <> <(:) || true
    done
    wait "$readers"
    echo "at most $worst bytes"
    [ "$worst" -gt $((12 << 20)) ]
    [ "$worst" -le $((24 << 20)) ]
    at b store check
    at b store scrub
}

@test "two packings of one restore point have the same bytes" {
    need_cold
    pushed 16 64K,none
    at a -q key create school
    at a -q push cafe c --variant 1M,zstd,key=school
    at a -q key export school school.key
    serve_center
    pulled b web="$WEB"
    mkdir -p d; at d -q init
    at d -q key import school school.key
    at d -q center add web "$WEB" --unsigned
    at d -q pull web cafe --variant 1M-zstd-school
    serve_delayed s b
    one=$(uri cafe)
    serve_delayed t d
    cold read --clients 4 "$one" "$(uri cafe)"
    cold read --clients 8 --ops 30 "$one" "$(uri cafe)"
    grep -q "64K-none.pack" web.log
    grep -q "1M-zstd-school.pack" web.log
    nbdcopy "$one" one.raw
    nbdcopy "$(uri cafe)" two.raw
    cmp one.raw two.raw
    cmp -n "$(stat -c %s v2.img)" one.raw v2.img
}

@test "clients at random over a store that never stays warm, against a naive twin" {
    local bad good
    need_cold
    pushed 24
    another_center web c; bad=$WEB
    another_center good c; good=$WEB
    TIMEOUT=2 RETRIES=1 pulled b web="$bad" good="$good"
    cp -a --sparse=always b cold
    timeout -k 5 400 /usr/bin/python3 "$ESPALIER_SRCDIR/tests/e2e/delayload-model.py" \
        ${ESPALIER_TEST_SEED:+--seed "$ESPALIER_TEST_SEED"} --ops "${ESPALIER_MODEL_OPS:-1600}" --clients 3 --dir "$D" \
        --base v2.img --export cafe --store b --cold cold --faults "$D/web.faults" -- \
        nbdkit -f -t 2 -U @SOCK@ --filter="$OVERLAY" --filter="$DELAYLOAD" "$VENUE" store="$D/b" \
            overlay-mode=keep overlay-min-free=0 3>&-
    at b store check
}
