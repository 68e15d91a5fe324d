# SPDX-License-Identifier: BSD-3-Clause
# espalier serve on all kinds of sockets, with TLS, started by systemd, with
# more of nbdkit's options.  (Its other options: cli.bats.  Installed: see
# check-installed.)
bats_require_minimum_version 1.5.0
load ../lib/common

# base (venue lab) <- tip (venue cafe)
two_venues ()
{
    random_file base.raw 2097152 1
    cp base.raw tip.raw
    random_file piece 10000 2
    dd if=piece of=tip.raw bs=1000 seek=1040 conv=notrunc status=none
    espalier init
    espalier root add base base.raw
    espalier rp create tip --parent base --from-image tip.raw
    espalier venue add cafe --disk tip
    espalier venue add lab --disk base
} >/dev/null

# start ARGUMENTS...: espalier serve; waits until it listens
start ()
{
    rm -f serve.pid
    espalier serve --pidfile "$D/serve.pid" "$@" >serve.log 2>&1 3>&- &
    PIDS+=($!)
    NBDKIT_PID=$!
    wait_for "espalier serve" test -s serve.pid || { cat serve.log; return 1; }
}

# start_tcp ARGUMENTS...: on a port of 127.0.0.1 that was free; $PORT
start_tcp ()
{
    local i
    for i in 1 2 3 4 5; do
        PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        rm -f serve.pid
        espalier serve --pidfile "$D/serve.pid" --address 127.0.0.1 --port "$PORT" "$@" >serve.log 2>&1 3>&- &
        NBDKIT_PID=$!
        PIDS+=("$NBDKIT_PID")
        wait_for "espalier serve" eval 'test -s serve.pid || ! kill -0 "$NBDKIT_PID" 2>/dev/null'
        [ ! -s serve.pid ] || return 0      # else somebody took the port
    done
    cat serve.log
    return 1
}

# certificates: an authority, a server's for localhost, a client's, and in
# other/ those of another authority
certificates ()
{
    local d who
    for d in pki other; do
        mkdir "$d"
        { certtool --generate-privkey --key-type ecdsa --outfile $d/ca-key.pem
          printf 'cn = Authority\nca\ncert_signing_key\n' >$d/ca.info
          certtool --generate-self-signed --load-privkey $d/ca-key.pem --template $d/ca.info --outfile $d/ca-cert.pem
          for who in server client; do
              printf 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_%s\nsigning_key\n' $who >$d/$who.info
              certtool --generate-privkey --key-type ecdsa --outfile $d/$who-key.pem
              certtool --generate-certificate --load-ca-certificate $d/ca-cert.pem --load-ca-privkey $d/ca-key.pem \
                  --load-privkey $d/$who-key.pem --template $d/$who.info --outfile $d/$who-cert.pem
          done; } 2>certtool.log || { cat certtool.log; return 1; }
    done
}

# tls_sh URI PYTHON: run PYTHON with h connected, by files of this machine
tls_sh ()
{
    nbdsh -c 'h.set_uri_allow_local_file(True)' -c "h.connect_uri('$1')" -c "$2"
}

need_tls ()
{
    nbdkit --dump-config | grep -q '^tls=yes' || skip "this nbdkit has no TLS"
}

@test "serve: TCP on one address, written to by two clients" {
    need_nbdsh
    two_venues
    start_tcp
    nbdsh -u "nbd://127.0.0.1:$PORT/cafe@one" -c 'h.pwrite(b"one", 4095); h.flush()'
    nbdsh -u "nbd://127.0.0.1:$PORT/cafe@two" -c 'assert h.pread(3, 4095) == open("tip.raw", "rb").read()[4095:4098]'
    nbdsh -u "nbd://127.0.0.1:$PORT/cafe@one" -c 'assert h.pread(3, 4095) == b"one"'
    nbdcopy "nbd://127.0.0.1:$PORT/lab" copy.raw
    cmp base.raw copy.raw
}

@test "serve: a TCP client without a name is known by its address" {
    need_nbdsh
    two_venues
    start_tcp --client peer
    nbdsh -u "nbd://127.0.0.1:$PORT/cafe" -c 'h.pwrite(b"mine", 0); h.flush()'
    run nbdsh -u "nbd://127.0.0.1:$PORT/cafe" -c 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'mine')" ]
    espalier overlay list --names | grep -qx 'cafe/0@127.0.0.1'
}

@test "serve: with certificates, for clients that know the authority and have one" {
    need certtool
    need_nbdsh
    need_tls
    two_venues
    certificates
    start_tcp --tls-certificates "$D/pki"
    head -n 1 serve.log | grep -q -- '--tls=require --tls-certificates='
    tls_sh "nbds://localhost:$PORT/cafe@one?tls-certificates=$D/pki" 'assert h.get_tls_negotiated()
h.pwrite(b"secret", 100); h.flush(); assert h.pread(h.get_size(), 0)[106:] == open("tip.raw", "rb").read()[106:]'
    # in the clear, with the wrong authority
    not nbdinfo --size "nbd://localhost:$PORT/cafe"
    not nbdinfo --size "nbds://localhost:$PORT/cafe?tls-certificates=$D/other"
    kill -0 "$NBDKIT_PID"
    nbdinfo --size "nbds://localhost:$PORT/cafe?tls-certificates=$D/pki"
}

@test "serve: --tls on takes clients with TLS and without" {
    need certtool
    need_tls
    two_venues
    certificates
    start --socket "$D/s" --tls on --tls-certificates "$D/pki"
    [ "$(nbdinfo --size "nbd+unix:///cafe?socket=$D/s")" -eq 2097152 ]
    # TLS on a Unix socket has no host name to compare: libnbd then does not
    [ "$(nbdinfo --size "nbds+unix:///cafe?socket=$D/s&tls-certificates=$D/pki&tls-verify-peer=false" 2>/dev/null ||
         nbdinfo --size "nbds+unix:///cafe?socket=$D/s&tls-certificates=$D/pki")" -eq 2097152 ]
}

@test "serve: pre-shared keys name who may connect, over TCP" {
    need psktool
    need_nbdsh
    need_tls
    two_venues
    { psktool -u seat -p keys.psk; psktool -u stranger -p strange.psk; } >/dev/null 2>&1
    start_tcp --tls-psk "$D/keys.psk"
    tls_sh "nbds://seat@127.0.0.1:$PORT/cafe@one?tls-psk-file=$D/keys.psk" 'assert h.get_tls_negotiated()
h.pwrite(b"secret", 100); h.flush()'
    not nbdinfo --size "nbds://stranger@127.0.0.1:$PORT/cafe?tls-psk-file=$D/strange.psk"
    not nbdinfo --size "nbd://127.0.0.1:$PORT/cafe"
    kill -0 "$NBDKIT_PID"
    run tls_sh "nbds://seat@127.0.0.1:$PORT/cafe@one?tls-psk-file=$D/keys.psk" 'print(h.pread(6, 100))'
    [ "$output" = "bytearray(b'secret')" ]
}

@test "serve: keys or certificates that are not there are an error at once" {
    need_tls
    two_venues
    run timeout 90 espalier serve --socket "$D/s" --tls-psk "$D/none.psk"
    [ "$status" -ne 0 ]
    [ "$status" -ne 124 ]
    [[ $output == *none.psk* ]]
    run timeout 90 espalier serve --socket "$D/s" --tls-certificates "$D/none"
    [ "$status" -ne 0 ]
    [ "$status" -ne 124 ]
    [[ $output == *"$D/none"* ]] || { echo "$output"; false; }
}

@test "serve: systemd's activation starts it for the first client" {
    need systemd-socket-activate
    need_nbdsh
    two_venues
    systemd-socket-activate -l "$D/act.sock" -E ESPALIER_STORE="$STORE" -E PATH="$PATH" -E LD_LIBRARY_PATH="$LD_LIBRARY_PATH" -E HOME="$D" \
        "$(command -v espalier)" serve >serve.log 2>&1 3>&- &
    PIDS+=($!)
    NBDKIT_PID=$!
    SOCK=$D/act.sock
    wait_for "the socket" test -S "$SOCK"
    not grep -q nbdkit serve.log              # nobody came yet
    nbdsh -u "$(uri cafe@one)" -c 'h.pwrite(b"kept", 0); h.flush()'
    grep -q 'nbdkit -f' serve.log
    # the same process, the same socket: another client
    kill -0 "$NBDKIT_PID"
    run nbdsh -u "$(uri cafe@one)" -c 'print(h.pread(4, 0))'
    [ "$output" = "bytearray(b'kept')" ]
    run espalier serve --socket "$SOCK"
    [ "$status" -ne 0 ]
    LISTEN_PID=$$ LISTEN_FDS=1 run bash -c 'LISTEN_PID=$$ exec espalier serve --socket "$D/other"'
    [ "$status" -eq 2 ]
    [[ $output == *systemd* ]]
}

@test "serve: what stands behind -- reaches nbdkit, filters between overlay and venue" {
    need_nbdsh
    two_venues
    start --socket "$D/s" --mode memory -- --filter=log logfile="$D/below.log" --filter=stats statsfile="$D/stats.log"
    SOCK=$D/s
    nbdsh -u "$(uri cafe@one)" -c 'h.pwrite(b"x" * 4096, 8192); h.pread(4096, 8192); h.pread(4096, 16384)'
    # below the overlay there are reads, of what the client did not write
    grep -q 'Read.*offset=0x4000' below.log
    not grep -q 'Read.*offset=0x2000' below.log
    not grep -q 'Write' below.log
    stop_nbdkit
    grep -q read stats.log
    run timeout 90 espalier serve --socket "$D/s" -- --no-such-option
    [ "$status" -ne 0 ]
    [ "$status" -ne 124 ]
}

@test "serve: --daemon returns when it listens, and leaves its pid" {
    need nbdinfo
    two_venues
    espalier serve --daemon --socket "$D/d.sock" --pidfile "$D/d.pid" >serve.log 2>&1 3>&- </dev/null
    # nbdkit listens before it goes into the background, and writes that there.
    wait_for "its pid" test -s d.pid
    PIDS+=("$(cat d.pid)")
    SOCK=$D/d.sock
    [ "$(nbdinfo --size "$(uri cafe)")" -eq 2097152 ]
    kill "$(cat d.pid)"
    wait_for "its end" eval '! kill -0 "$(cat d.pid)" 2>/dev/null'
}

@test "serve: --print gives the line that it would run, and that line runs" {
    need nbdinfo
    two_venues
    local line
    line=$(espalier serve --socket "$D/p.sock" --pidfile "$D/p.pid" --start tip --quota 64M --print)
    bash -c "exec $line" >serve.log 2>&1 3>&- &
    PIDS+=($!)
    wait_for "nbdkit" test -s p.pid
    SOCK=$D/p.sock
    nbdinfo --list --json "$(uri '')" | jq -e '[.exports[]."export-name"] == ["cafe"]'
}

@test "serve: what is shared puts segcache between overlay and delayload, where something may be fetched" {
    two_venues
    run -0 espalier serve --cache-nodes 127.0.0.1:1 --print
    [[ $output != *segcache* ]]
    espalier -q center add c "file://$D" --unsigned
    run -0 espalier serve --print
    [[ $output == *overlay-filter.so*delayload-filter.so* && $output != *segcache* ]]
    run -0 espalier serve --cache-nodes 127.0.0.1:1 --cache-dir "$D/x" --cache-max 1G --print
    [[ $output == *overlay-filter.so*segcache*delayload-filter.so*venue-plugin.so*segcache-nodes=127.0.0.1:1*segcache-dir="$D/x"*segcache-max=1G* ]]
    run -0 espalier serve --cache-nodes n:1 --cache-tls-ca ca.pem --cache-tls-certificate me.pem --cache-tls-key me.key --print
    [[ $output == *segcache-tls-ca=ca.pem*segcache-tls-certificate=me.pem*segcache-tls-key=me.key* ]]
    run -2 espalier serve --cache-max much
}

@test "serve: --start serves a subtree with overlays, its relatives not" {
    need_nbdsh
    two_venues
    start --socket "$D/s" --start tip
    SOCK=$D/s
    nbdsh -u "$(uri cafe@one)" -c 'h.pwrite(b"mine", 0); h.flush()'
    nbdsh -u "$(uri rp:tip@op)" -c 'h.pwrite(b"mine", 0); h.flush()'
    not nbdinfo --size "$(uri lab@one)"
    not nbdinfo --size "$(uri rp:base)"
    not nbdinfo --size "$(uri rp:base@op)"
    [ "$(espalier rp show tip --json | jq -c '.starts.venues')" = '["cafe"]' ]
    # a venue that is mapped into the subtree, and one that leaves it
    espalier --quiet venue set lab --disk tip
    nbdinfo --size "$(uri lab@one)"
    espalier --quiet venue set lab --disk base
    not nbdinfo --size "$(uri lab@two)"
}

@test "serve: a kept overlay goes on over its old tip after a remapping and a rollback" {
    need_nbdsh
    two_venues
    start --socket "$D/s"
    SOCK=$D/s
    nbdsh -u "$(uri cafe@one)" -c 'h.pwrite(b"mine", 0); h.flush()'
    espalier --quiet venue set cafe --disk base
    nbdcopy "$(uri cafe@new)" copy.raw
    cmp base.raw copy.raw
    nbdsh -u "$(uri cafe@one)" -c 'assert h.pread(h.get_size() - 4, 4) == open("tip.raw", "rb").read()[4:]; assert h.pread(4, 0) == b"mine"'
    espalier overlay list | grep 'cafe/0@one' | grep -q 'old: the venue has base now'
    espalier --quiet venue rollback cafe
    espalier overlay list >list
    not grep -q 'old:' list
    rm copy.raw
    nbdcopy "$(uri cafe@newer)" copy.raw
    cmp tip.raw copy.raw
    espalier --quiet venue set cafe --disk base
    wait_for "the reset" espalier --quiet overlay reset cafe@one
    rm copy.raw
    nbdcopy "$(uri cafe@one)" copy.raw
    cmp base.raw copy.raw
}
