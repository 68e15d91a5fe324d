# SPDX-License-Identifier: BSD-3-Clause
# Remotes against HTTP servers: one that breaks every rule (tests/origin),
# and nginx, with TLS and a client's certificate, and behind a proxy.
# (Directories: unit/test-remote.  S3: remote-s3.bats.)
bats_require_minimum_version 1.5.0
load ../lib/common

TOOL=$ESPALIER_BUILDDIR/tests/lib/remote-tool

# origin [OPTIONS]: the bad server on www/; its URL in $U
origin ()
{
    rm -f port
    "$ESPALIER_SRCDIR/tests/origin" --log log --faults faults "$@" www >port 2>origin.err 3>&- &
    PIDS+=($!)
    ORIGIN_PID=$!
    wait_for origin test -s port
    U=http://127.0.0.1:$(cat port)
}

# faults RULES: the rules from now on
faults () { echo "$1" >faults.new; mv faults.new faults; }

# object [BYTES]: www/x
object ()
{
    mkdir -p www
    random_file www/x "${1:-3000000}"
}

# tool ARGUMENTS...: remote-tool, standard error in err
tool () { timeout 240 "$TOOL" --timeout 30 "$@" 2>err; }

# fails ERRNO ARGUMENTS...: that it fails so
fails ()
{
    local want=$1; shift
    if tool "$@" >out; then echo "it did not fail: $*"; return 1; fi
    [ "$(tail -n 1 err)" = "$want" ] || { cat err; return 1; }
}

# whole [OPTIONS]: get all of x, and compare
whole ()
{
    tool "$@" "$U" get x 0 "$(stat -c %s www/x)" >got || { cat err; return 1; }
    cmp got www/x
}

# bytes_sent: by the origin, of x
bytes_sent () { awk '$3 == "/x" && $2 == "GET" { n += $6 } END { print n + 0 }' log; }

@test "the origin serves ranges, says so in its log, and refuses nonsense" {
    object; origin
    run -0 curl -s -r 100-199 "$U/x"
    curl -s -r 100-199 "$U/x" | cmp - <(tail -c +101 www/x | head -c 100)
    [ "$(curl -s -o /dev/null -w '%{http_code}' "$U/../../etc/passwd" --path-as-is)" = 404 ]
    [ "$(curl -s -o /dev/null -w '%{http_code}' -r 3000000- "$U/x")" = 416 ]
    grep -q ' GET /x 100-199 206 100 ' log
}

@test "the origin's rate is shared by all connections" {
    object 400000; origin --rate 1000000
    local t0=${EPOCHREALTIME/./}
    for i in 1 2 3; do curl -s -o /dev/null "$U/x" & done
    wait $(jobs -p | grep -v "^$ORIGIN_PID\$")
    local ms=$(((${EPOCHREALTIME/./} - t0) / 1000))
    [ "$ms" -ge 1150 ]
}

@test "ranges, heads and whole objects come as they are, over few connections" {
    object; origin
    tool --connections 4 --twin www/x "$U" head x -- storm x 65536 16 30 -- storm x 1 16 10 -- counters >out
    grep -q '^3000000 ' out
    grep -q 'requests=641 retries=0 errors=0' out
    [ "$(awk '{ print $7 }' log | sort -u | wc -l)" -le 4 ]
    tool "$U" all x 3000000 | cmp - www/x
    fails EFBIG "$U" all x 2999999
    fails ENOENT "$U" get nothing 0 1
    fails ENOENT "$U" head nothing
    [ ! -s out ]
    tool "$U/x" get "" 5 10 | cmp - <(tail -c +6 www/x | head -c 10)
}

@test "a range that the object does not have is an error that says its size" {
    object 1000; origin
    fails EPROTO "$U" get x 500 501
    grep -q 'only 1000 bytes' err
    fails EPROTO "$U" get x 2000 1
}

@test "a transfer that is cut goes on where it broke" {
    object; origin
    for action in cut reset; do
        faults '[{"action": "'$action'", "nth": [1, 2]}]'
        whole
        tool "$U" all x 3000000 | cmp - www/x
    done
    # What came is not asked for again: it was cut at a half, then at 3/4.
    faults '[{"action": "cut", "count": 2}]'; : >log
    whole
    [ "$(bytes_sent)" -eq 3000000 ]
}

@test "a server that closes, hangs, or says 500 or 503 is asked again" {
    object 100000; origin
    faults '[{"action": "close", "count": 1}, {"action": "hang", "count": 1}, {"action": 500, "count": 1}, {"action": 503, "count": 1}]'
    tool --timeout 5 "$U" get x 0 100000 -- counters >got
    cmp <(head -c 100000 got) www/x
    [ "$(tail -c +100001 got | grep -o 'requests.*errors=0')" = "requests=5 retries=4 errors=0" ]
}

@test "a server that goes on failing ends in an error that says what it said" {
    object 1000; origin
    faults '[{"action": 503}]'
    fails EIO --retries 2 "$U" get x 0 1000
    grep -q "$U/x: the server says 503 .*tried again" err
    [ "$(wc -l <log)" -eq 3 ]
    : >log
    fails EIO --once "$U" get x 0 1000
    [ "$(wc -l <log)" -eq 1 ]
    faults '[{"action": "hang"}]'
    fails ETIMEDOUT --timeout 2 --retries 0 "$U" get x 0 1000
    faults '[{"action": "hang", "after": 500}]'
    fails ETIMEDOUT --timeout 2 --retries 0 "$U" get x 0 1000
    faults '[{"action": 403}]'; : >log
    fails EACCES "$U" get x 0 1000
    [ "$(wc -l <log)" -eq 1 ]
}

@test "Retry-After is waited for" {
    object 1000; origin
    faults '[{"action": 503, "retry-after": 1, "nth": 1}]'
    tool "$U" get x 0 1000 | cmp - www/x
    [ "$(awk 'NR == 1 { t = $1 } NR == 2 { print ($1 - t >= 1) }' log)" = 1 ]
}

@test "answers that break the rules are refused before a byte is used" {
    object 100000; random_file www/y 100000 7; origin
    for action in 200 wrong-range short-length long-length 416; do
        faults '[{"action": "'$action'"}]'
        fails EPROTO "$U" get x 1000 1000
        [ ! -s out ]
    done
    # The whole object as 200 is what was asked for.
    faults '[{"action": 200}]'
    tool "$U" get x 0 100000 | cmp - www/x
}

@test "flipped bits and another object's bytes come through: digests find them" {
    object 1000; random_file www/y 1000 7; origin
    faults '[{"action": "flip", "count": 1}, {"action": "wrong-object", "object": "y"}]'
    tool "$U" get x 0 1000 >got
    [ "$(cmp -l got www/x | wc -l)" -eq 1 ]
    tool "$U" get x 0 1000 | cmp - www/y
}

@test "an object that changes between two parts of a transfer is refused" {
    object 100000; origin
    faults '[{"action": "cut", "count": 1}, {"action": "etag-change"}]'
    fails EPROTO "$U" get x 0 100000
    grep -q 'the object changed' err
    cmp out <(head -c 50000 www/x)
}

@test "another version than the expected one is refused, also without ETag" {
    object 1000
    for option in "" --no-etag; do
        origin $option
        rm -f faults
        read -r size etag < <(tool "$U" head x)
        tool "$U" get-if x 0 1000 "$size" "$etag" | cmp - www/x
        fails EPROTO "$U" get-if x 0 1000 "$size" other
        fails EPROTO "$U" get-if x 0 1000 999 "$etag"
        faults '[{"action": "no-etag"}]'
        fails EPROTO "$U" get-if x 0 1000 "$size" "$etag"
        tool "$U" get-if x 0 1000 "$size" "" | cmp - www/x
    done
}

@test "redirects are followed, but not for ever, and to HTTP only" {
    object 1000; origin
    faults '[{"action": "redirect", "method": "*"}]'
    tool "$U" get x 100 50 | cmp - <(tail -c +101 www/x | head -c 50)
    tool "$U" head x | grep -q '^1000 '
    faults '[{"action": "redirect", "to": "/x"}]'
    fails EPROTO "$U" get x 100 50
    [ "$(grep -c ' GET /x 100-149 302 ' log)" -le 7 ]
    faults '[{"action": "redirect", "to": "file:///etc/passwd"}]'
    fails EPROTO "$U" get x 0 50
    [ ! -s out ]
}

@test "a cancelled get ends at once, also while the server is silent" {
    object; origin
    # at once: long before the time-out, or the next try
    faults '[{"action": "hang"}]'
    fails ECANCELED "$U" cancel x 300
    [ "$(cat out)" -lt 5000 ]
    faults '[{"action": "trickle"}]'
    fails ECANCELED "$U" cancel x 300
    [ "$(cat out)" -lt 5000 ]
    # While it waits to try again, too.
    faults '[{"action": 503, "retry-after": 30}]'
    fails ECANCELED "$U" cancel x 300
    [ "$(cat out)" -lt 5000 ]
}

@test "a gentle sink that waits stops the sender soon" {
    object 40000000; origin --rate 1G   # a line: the server's own buffer is small
    # waiting: what waits at either end of connections to the origin's port
    waiting () { awk -v port=":$(printf %04X "$(cat port)")\$" '$2 ~ port || $3 ~ port { print $5 }' /proc/net/tcp | sort; }
    sent ()
    {
        local pipe=$D/pipe.$1; shift
        mkfifo "$pipe"; : >log
        "$TOOL" "$@" "$U" stall x 20000000 <"$pipe" >stalled 2>err 3>&- &
        local pid=$!
        PIDS+=($pid)
        exec 8>"$pipe"
        wait_for stall grep -q stalled stalled
        # The client's and the server's buffers fill now, until nothing moves for
        # half a second.  The log has a line when the server has sent all or the
        # client left.
        local before= now=- same=0
        while [ "$same" -lt 10 ]; do
            before=$now now=$(waiting)
            [ "$now" = "$before" ] && same=$((same + 1)) || same=0
            read -rt 0.05 <> <(:) || true
        done
        kill -9 $pid
        exec 8>&-
        wait_for "the log" grep -q 'GET /x' log
        bytes_sent
    }
    hard=$(sent hard)
    gentle=$(sent gentle --gently)
    echo "# hard $hard, gentle $gentle"
    [ "$gentle" -ge 20000000 ]
    [ $(((gentle - 20000000) * 4)) -lt $((hard - 20000000)) ]
}

@test "gentle and other requests share the pool" {
    object; origin
    tool --gently --connections 3 --twin www/x "$U" storm x 30000 12 20 -- counters | grep -q 'requests=240 retries=0'
    [ "$(awk '{ print $7 }' log | sort -u | wc -l)" -le 40 ]
    tool --gently --connections 1 --twin www/x "$U" storm x 30000 4 5
}

@test "a server that vanishes and comes back is found again" {
    object 1000; hold_port; origin --port "$PORT"
    kill -9 "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    fails EIO --retries 0 "$U" get x 0 1000
    grep -q "$U/x: .*onnect" err
    tool --retries 30 "$U" get x 0 1000 >got &
    local pid=$!
    origin --port "$PORT"
    wait $pid
    cmp got www/x
}

@test "HTTP cannot be written or listed" {
    object 1000; origin
    fails EROFS "$U" put y www/x
    fails EROFS "$U" delete x
    fails ENOTSUP "$U" list ""
    [ ! -s out ]
    [ ! -s log ]
}

# --- nginx ----------------------------------------------------------------

# nginx SERVER-LINES...: on a free port, $PORT, as anybody may
nginx_up ()
{
    need nginx
    local i
    for i in 1 2 3 4 5; do
        PORT=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        cat >nginx.conf <<CONF
daemon off;
worker_processes 1;
pid $D/nginx.pid;
error_log $D/nginx.err;
events { }
http {
    access_log $D/nginx.log;
    client_body_temp_path $D/n1; proxy_temp_path $D/n2; fastcgi_temp_path $D/n3;
    uwsgi_temp_path $D/n4; scgi_temp_path $D/n5;
    server { root $D/www; $(printf "$1" "$PORT") }
}
CONF
        rm -f nginx.pid
        nginx -c "$D/nginx.conf" -p "$D" -e "$D/nginx.err" 3>&- &
        NGINX_PID=$!
        PIDS+=("$NGINX_PID")
        wait_for nginx eval 'curl -sk -o /dev/null --max-time 5 http://127.0.0.1:$PORT/ || ! kill -0 "$NGINX_PID" 2>/dev/null'
        kill -0 "$NGINX_PID" 2>/dev/null && return 0    # else somebody took the port
    done
    cat nginx.err
    return 1
}

# end_nginx: its workers, too
end_nginx () { kill -TERM "$NGINX_PID" && wait "$NGINX_PID" || true; }

@test "nginx: ranges, heads, whole objects, many at once; no range, no object" {
    object
    printf x >'www/a%41'
    : >www/empty
    chmod -R a+rX "$D"
    nginx_up 'listen 127.0.0.1:%d;'
    U=http://127.0.0.1:$PORT
    tool --twin www/x "$U" head x -- storm x 100000 8 20 -- counters >out
    grep -q '^3000000 ' out
    grep -q 'requests=161 retries=0' out
    [ "$(tool "$U" all a%41 10)" = x ]
    tool "$U" all empty 10 | cmp - /dev/null
    tool "$U" get empty 0 0
    fails EPROTO "$U" get empty 0 1
    fails ENOENT "$U" get nothing 0 1
    end_nginx
}

# An authority, a server for 127.0.0.1, a client
pki ()
{
    need openssl
    local who
    { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
      for who in server client; do
          openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" -keyout $who.key -out $who.csr
          openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out $who.pem \
              -extfile <(echo subjectAltName=IP:127.0.0.1)
      done; } >pki.log 2>&1 || { cat pki.log; return 1; }
}

@test "TLS: the authority must be trusted, and the client known" {
    object; pki
    chmod -R a+rX "$D"
    nginx_up "listen 127.0.0.1:%d ssl; ssl_certificate $D/server.pem; ssl_certificate_key $D/server.key; ssl_client_certificate $D/ca.pem; ssl_verify_client on;"
    U=https://127.0.0.1:$PORT
    whole --ca ca.pem --cert client.pem --key client.key
    tool --ca ca.pem --cert client.pem --key client.key --twin www/x "$U" storm x 100000 8 20
    fails EACCES "$U" get x 0 1
    grep -q 'certificate' err
    ! tool --ca ca.pem "$U" get x 0 1 >out || return 1
    [ ! -s out ]
    fails EINVAL --ca nonexistent.pem "$U" get x 0 1
    fails EINVAL --key client.key "$U" get x 0 1
    end_nginx
}

@test "a proxy is used when it is named, and from the environment" {
    object 1000; origin
    # The origin takes what a proxy is asked: this host does not exist.
    tool --proxy "$U" http://center.invalid get x 0 1000 | cmp - www/x
    http_proxy=$U tool http://center.invalid get x 0 1000 | cmp - www/x
    fails EIO --retries 0 http://center.invalid get x 0 1000
}
