# SPDX-License-Identifier: BSD-3-Clause
# What the tests of the segcache filter share.  Load it behind ../lib/center.

SEGCACHE="$ESPALIER_BUILDDIR/filters/segcache/.libs/nbdkit-segcache-filter.so"
ONCE="$ESPALIER_SRCDIR/tests/lib/once"
export SEGCACHE

# start_node NAME [OPTIONS...]: memcached at $D/NAME, which is its address unix:$D/NAME,
# too; its pid in $NODE_PID
start_node ()
{
    local name=$1; shift
    need memcached
    rm -f "$D/$name"
    memcached -s "$D/$name" -a 0600 -u "$(id -un)" -m 128 -I 2m -U 0 "$@" >"$D/$name.log" 2>&1 3>&- &
    NODE_PID=$!
    PIDS+=("$NODE_PID")
    wait_for "memcached $name" test -S "$D/$name"
}

# authority NAME: NAME.pem, and what it signs certificates with
authority ()
{
    need openssl
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem" 2>"$1.err"
}

# certificate NAME AUTHORITY: NAME.pem, for 127.0.0.1, and NAME.key
certificate ()
{
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>"$1.err" &&
        openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days 2 -out "$1.pem" \
            -extfile <(echo subjectAltName=IP:127.0.0.1) 2>>"$1.err"
}

# start_tls_node NAME AUTHORITY: memcached at $NODE with a certificate of the
# AUTHORITY, which wants one of it, too
start_tls_node ()
{
    need memcached
    memcached -h | grep -q -e --enable-ssl || skip "memcached has no TLS"
    certificate "$1" "$2"
    MEMCACHED_PORT_FILENAME=$D/$1.port memcached -l 127.0.0.1 -p -1 -U 0 -u "$(id -un)" -m 128 -I 2m \
        -Z -o "ssl_chain_cert=$1.pem,ssl_key=$1.key,ssl_ca_cert=$2.pem,ssl_verify_mode=2" >"$D/$1.log" 2>&1 3>&- &
    PIDS+=($!)
    wait_for "memcached $1" test -s "$D/$1.port"
    NODE=127.0.0.1:$(sed -n 's/^TCP INET: //p' "$D/$1.port")
}

# origin_disk MIB: the image disk.pack behind HTTP at $WEB/disk.pack, with
# web.log.  (The name is what tests/lib/once looks for.)
origin_disk ()
{
    local mib=$1; shift
    mkdir -p c
    image c/disk.pack "$mib" "${SEED:-7}"
    another_center web c "$@"
}

# cached NAME ARGUMENTS...: nbdkit with the filter
cached ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$SEGCACHE" "$@"
}

# same EXPORT FILE: the export of the server that was started last reads as FILE
same ()
{
    rm -f "$D/copy"
    nbdcopy "$(uri "$1")" "$D/copy" && cmp "$D/copy" "$2"
}

# requests: how many GETs the origin has answered
requests () { grep -c ' GET ' "$D/web.log" || true; }

# model EXPORT IMAGE STEPS [RESTART]: overlay-model.py against the server that
# was started last
model ()
{
    need_nbdsh
    env EXPORTS="$1" IMAGE="$2" STEPS="$3" RESTART="${4-}" SOCK="$SOCK" SEED="${ESPALIER_TEST_SEED-}" PATH="/usr/bin:$PATH" \
        timeout -k 5 300 nbdsh -c "exec(open('$ESPALIER_SRCDIR/tests/lib/overlay-model.py').read())"
}
