#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Plain images behind HTTP and NBD as delayed root stores.
load ../lib/common
bats_require_minimum_version 1.5.0

DELAYLOAD="$ESPALIER_BUILDDIR/filters/delayload/.libs/nbdkit-delayload-filter.so"

setup_file () { command -v nbdkit >/dev/null || skip "nbdkit is not installed"; }

# origin [OPTIONS]: tests/origin on www/; its URL in $U, its log in log
origin ()
{
    [ -e faults ] || echo '[]' >faults
    : >port
    "$ESPALIER_SRCDIR/tests/origin" --log log --faults faults "$@" www >port 2>origin.err 3>&- &
    ORIGIN_PID=$!
    PIDS+=("$ORIGIN_PID")
    wait_for origin test -s port
    U=http://127.0.0.1:$(cat port)
}

faults () { echo "$1" >faults.new; mv faults.new faults; }

# image BYTES [SEED]: www/i.raw; a store
image ()
{
    mkdir www
    random_file www/i.raw "$1" "${2:-1}"
    espalier init -q
}

# add URL [OPTIONS]: as root store plain, of venue v
add ()
{
    espalier -q root add plain "$@" --delayed
    espalier -q venue add v --disk plain
}

# serve [PARAMETERS]: what nothing but reads fetch
serve ()
{
    start_nbdkit server --filter="$DELAYLOAD" "$VENUE" store="$STORE" delayload-background=off delayload-profile=off "$@"
}

# fetched: bytes that the origin sent of i.raw, beyond those of the look
fetched () { awk '$2 == "GET" && $3 == "/i.raw" { n += $6 } END { print n + 0 }' log; }

# copy: read the venue's disk into copy
copy () { nbdcopy "$(uri v)" copy; }

@test "an image behind HTTP is served at once, and fetched once" {
    need_nbdsh
    image 5000000; origin
    add "$U/i.raw" --segment 64K
    local look=$(fetched)
    espalier rp show plain | grep "^Fetched from: *$U/i.raw\$"
    espalier rp show plain --json | grep "\"url\": \"$U/i.raw\""
    [ "$look" -lt 10000 ]
    serve
    nbdsh -u "$(uri v)" -c "assert h.get_size() == 5000000; assert h.pread(4096, 1 << 20) == open('www/i.raw','rb').read()[1 << 20:(1 << 20) + 4096]"
    [ "$(fetched)" -lt 2500000 ]
    copy
    cmp copy www/i.raw
    [ "$(fetched)" = $((5000000 + look)) ]
    copy
    cmp copy www/i.raw
    [ "$(fetched)" = $((5000000 + look)) ]
    stop_nbdkit
    # All of it is here: the origin is not needed any more.
    kill "$ORIGIN_PID"; wait "$ORIGIN_PID" || true
    serve
    copy
    cmp copy www/i.raw
    espalier -q store check
}

@test "nginx as the origin" {
    need nginx
    image 3000000
    cat >nginx.conf <<END
daemon off; pid $D/nginx.pid; error_log $D/nginx.err; worker_processes 1;
events {}
http { access_log off; client_body_temp_path $D/b; proxy_temp_path $D/p; fastcgi_temp_path $D/f; uwsgi_temp_path $D/u; scgi_temp_path $D/s;
server { listen unix:$D/unused.sock; listen 127.0.0.1:PORT; root $D/www; } }
END
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    sed -i "s/PORT/$port/" nginx.conf
    chmod 755 "$D"
    nginx -e "$D/nginx.err" -c "$D/nginx.conf" 3>&- &
    PIDS+=($!)
    wait_for nginx curl -sf -o /dev/null "http://127.0.0.1:$port/i.raw" -r 0-0
    add "http://127.0.0.1:$port/i.raw"
    serve
    copy
    cmp copy www/i.raw
}

@test "an image that changed is refused, and says what to do; what is here goes on" {
    need_nbdsh
    image 2000000; origin
    add "$U/i.raw" --segment 64K
    serve delayload-readahead=0
    nbdsh -u "$(uri v)" -c "h.pread(65536, 0)"
    random_file www/i.raw 2000000 2
    run -1 nbdsh -u "$(uri v)" -c "h.pread(4096, 1 << 20)"
    grep "i.raw is not what it was: it has 2000000 bytes and version .*: put the old one back, or add the new one" server.log
    nbdsh -u "$(uri v)" -c "h.pread(65536, 0)"
}

@test "an image that changed behind the same ETag is noticed where it was read before" {
    image 1000000; origin
    add "$U/i.raw" --segment 64K
    serve
    copy
    stop_nbdkit
    # What is local is damaged: it is fetched again, and is not the same.
    touch -r www/i.raw time
    printf 'changed' | dd of=www/i.raw bs=1 seek=300000 conv=notrunc status=none
    touch -r time www/i.raw
    uuid=$(espalier rp show plain --json | sed -n 's/.*"uuid": "\(.*\)".*/\1/p' | head -n 1)
    rm "$STORE/restore-points/$uuid/have"
    printf 'damaged' | dd of="$STORE/restore-points/$uuid/data" bs=1 seek=300100 conv=notrunc status=none
    serve
    run -1 nbdcopy "$(uri v)" copy
    grep "i.raw is not what it was: segment 4 has SHA-256" server.log
}

@test "an image that vanishes and comes back" {
    need_nbdsh
    image 2000000; origin
    add "$U/i.raw" --segment 64K
    serve
    mv www/i.raw www/gone
    run -1 nbdsh -u "$(uri v)" -c "h.pread(4096, 0)"
    mv www/gone www/i.raw
    wait_for "the source's next trial" nbdsh -u "$(uri v)" -c "h.pread(4096, 0)"
    copy
    cmp copy www/i.raw
}

@test "an origin that cuts off and makes errors now and then costs only time" {
    image 4000000; origin
    add "$U/i.raw" --segment 64K
    faults '[{"probability": 0.2, "action": "cut"}, {"probability": 0.1, "action": "503"}]'
    serve
    copy
    cmp copy www/i.raw
}

@test "a server that knows no Range is refused" {
    image 1000000; origin
    faults '[{"action": "200"}]'
    run -1 espalier root add plain "$U/i.raw" --delayed
    [[ $output == *"Range"* ]]
    [ -z "$(espalier rp list --names)" ]
}

@test "images that are not raw, or not there, or lie behind a query, are refused" {
    need qemu-img
    image 100000; origin
    qemu-img create -q -f qcow2 www/q.qcow2 1M
    run -1 espalier root add plain "$U/q.qcow2" --delayed
    [[ $output == *"is qcow2: only raw images can be read where they lie"* ]]
    gzip -k www/i.raw
    run -1 espalier root add plain "$U/i.raw.gz" --delayed
    [[ $output == *"is compressed (gzip)"* ]]
    run -1 espalier root add plain "$U/none.raw" --delayed
    [[ $output == *"no such image"* ]]
    run -1 espalier root add plain "$U/i.raw?token=secret" --delayed
    [[ $output == *"a URL with ? or # cannot be kept"* ]]
    run -1 espalier root add plain "http://me:secret@127.0.0.1:1/i.raw" --delayed
    [[ $output == *"no password in a URL"* ]]
    run -2 espalier root add plain "$U/i.raw" --delayed --segment 100K
    run -2 espalier root add plain "$U/i.raw" --delayed --in-place
    run -2 espalier root add plain "$U/i.raw" --segment 64K
    run -2 espalier root add plain --delayed
    [ -z "$(espalier rp list --names)" ]
    [ -z "$(find "$STORE/tmp" "$STORE/restore-points" -mindepth 1)" ]
}

# nbd_origin PLUGIN...: an NBD server on origin.sock; its pid in $NBD_PID
nbd_origin ()
{
    rm -f origin.sock origin.pid
    nbdkit -f -U "$D/origin.sock" -P "$D/origin.pid" "$@" >origin.log 2>&1 3>&- &
    NBD_PID=$!
    PIDS+=("$NBD_PID")
    wait_for "nbd origin" test -s origin.pid
    N="nbd+unix:///?socket=$D/origin.sock"
}

@test "an image behind NBD: holes are not fetched, the rest once" {
    need_nbdsh
    image 1000000
    truncate -s 64M www/i.raw
    printf 'end of the disk' | dd of=www/i.raw bs=1 seek=50000000 conv=notrunc status=none
    nbd_origin --filter=log file www/i.raw logfile="$D/nbd.log"
    add "$N" --segment 64K
    serve
    nbdsh -u "$(uri v)" -c "assert h.pread(15, 50000000) == b'end of the disk'; assert h.pread(4096, 30000000) == bytes(4096)"
    copy
    cmp copy www/i.raw
    # 16 segments at the beginning, one at the end.
    [ "$(espalier rp show plain --json | sed -n 's/.*"data_bytes": \([0-9]*\).*/\1/p')" = $((17 * 65536)) ]
    python3 - <<'PY'
import re
n = sum(int(m[1], 16) for m in re.findall(r"(Read) id=\d+ offset=\w+ count=(0x[0-9a-f]+)", open("nbd.log").read()))
# The look: 4 KiB and 512 bytes.
assert n == 17 * 65536 + 4096 + 512, n
PY
}

@test "an NBD server that goes away and comes back, and one of another size" {
    need_nbdsh
    image 3000000
    nbd_origin file www/i.raw
    add "$N" --segment 64K
    serve
    nbdsh -u "$(uri v)" -c "h.pread(4096, 0)"
    kill -9 "$NBD_PID"; wait "$NBD_PID" || true
    run -1 nbdsh -u "$(uri v)" -c "h.pread(4096, 2 << 20)"
    nbd_origin file www/i.raw
    wait_for "the source's next trial" nbdsh -u "$(uri v)" -c "h.pread(4096, 2 << 20)"
    kill -9 "$NBD_PID"; wait "$NBD_PID" || true
    truncate -s 2999000 www/i.raw
    nbd_origin file www/i.raw
    told ()
    {
        not nbdsh -u "$(uri v)" -c "h.pread(4096, 1500000)" || exit 1
        grep -q "is not what it was: it has 2999000 bytes now, and had 3000000" server.log
    }
    wait_for "the source's next trial" told
}

@test "a whole chain over a plain image: a child, its overlay, and reads of both" {
    need_nbdsh
    image 2000000; origin
    add "$U/i.raw" --segment 64K
    start_nbdkit server --filter="$OVERLAY" --filter="$DELAYLOAD" "$VENUE" store="$STORE" overlay-mode=keep delayload-background=off
    nbdsh -u "$(uri v@a)" -c "h.pwrite(b'a' * 100, 1000000); h.flush()"
    stop_nbdkit
    espalier -q rp create child --from-overlay v@a
    espalier -q venue set v --disk child
    cp www/i.raw want
    python3 -c "f = open('want', 'r+b'); f.seek(1000000); f.write(b'a' * 100)"
    serve
    copy
    cmp copy want
}

@test "clones over a delayed image: servers fetch the rest in the background" {
    need_nbdsh
    image 2000000; origin
    add "$U/i.raw" --segment 64K
    run -0 espalier venue clone v --count 20 --name 'c%d'
    [[ $output == *"what is not here yet is fetched in the background"* ]]
    start_nbdkit server --filter="$OVERLAY" --filter="$DELAYLOAD" "$VENUE" store="$STORE" overlay-mode=keep
    nbdsh -u "$(uri v@c20)" -c "assert h.pread(4096, 1500000) == open('www/i.raw','rb').read()[1500000:1504096]; h.pwrite(b'x', 0); h.flush()"
    is_local () { espalier rp show plain --json | grep -q '"local_percent": 100'; }
    wait_for "all of it" is_local
    run -0 espalier venue clone v --count 20 --name 'd%d' --json
    [[ $output == *'"hydrating": []'* ]]
}
