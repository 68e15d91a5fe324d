# SPDX-License-Identifier: BSD-3-Clause
# Disks over HTTP: every byte is compared with the raw file that the disk was
# made of.
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/daemon

# Ends in the middle of a block, beyond a few chunks of 256 KiB.
SIZE=$((5 * 1024 * 1024 + 3 * 4096 + 512))

# cafe [OPTIONS...]: venue cafe with disks one and two, and espalierd
cafe ()
{
    random_file one.raw $SIZE 1
    random_file two.raw $((1024 * 1024)) 2
    random_file three.raw $SIZE 3
    espalier --quiet init
    espalier --quiet root add one one.raw
    espalier --quiet root add two two.raw
    espalier --quiet root add three three.raw
    espalier --quiet venue add cafe --disk one --disk two
    start_espalierd "$@"
    DISK=$WEB/venues/cafe/disk/0
} >/dev/null

uuid () { espalier rp show "$1" --json | jq -r .uuid; }

# get ARGUMENTS...: curl; the body in body, the headers in headers, $status
get ()
{
    rm -f body headers
    status=$(curl -sS --max-time 60 -o body -D headers -w '%{http_code}' "$@")
    touch body
}

# header NAME: its value in the reply that came last
header () { tr -d '\r' <headers | sed -n "s/^$1: //Ip" | tail -n 1; }

# is STATUS: what the last reply was
is () { [ "$status" = "$1" ] || { echo "status $status, not $1: $(head -c 300 body)"; return 1; }; }

# part FILE FROM LEN: those bytes
part () { tail -c +$(($2 + 1)) "$1" | head -c "$3"; }

@test "a whole disk, its length, its name" {
    need curl jq
    cafe
    get "$DISK"; is 200
    cmp body one.raw
    [ "$(header content-length)" = "$SIZE" ]
    [ "$(header etag)" = "\"$(uuid one)\"" ]
    [ "$(header accept-ranges)" = bytes ]
    get "$WEB/venues/cafe/disk/1"; is 200
    cmp body two.raw
    get -I "$DISK"; is 200
    [ "$(header content-length)" = "$SIZE" ]
}

@test "ranges: first and last bytes, across chunks, open ends, suffixes" {
    need curl jq
    cafe
    local from len
    while read -r from len; do
        get -r "$from-$((from + len - 1))" "$DISK"; is 206
        cmp body <(part one.raw "$from" "$len")
        [ "$(header content-range)" = "bytes $from-$((from + len - 1))/$SIZE" ]
        [ "$(header content-length)" = "$len" ]
    done <<LIST
0 1
0 512
511 3
262143 2
262144 65536
200000 1500000
$((SIZE - 1)) 1
$((SIZE - 512)) 512
0 $SIZE
LIST
    get -r "$((SIZE - 100))-" "$DISK"; is 206
    cmp body <(part one.raw $((SIZE - 100)) 100)
    get -r -700 "$DISK"; is 206
    cmp body <(tail -c 700 one.raw)
    get -r "$((SIZE - 10))-$((SIZE + 10))" "$DISK"; is 206
    cmp body <(tail -c 10 one.raw)
    get -r "$SIZE-" "$DISK"; is 416
    [ "$(header content-range)" = "bytes */$SIZE" ]
    get -H 'Range: bytes=a-b' "$DISK"; is 200
    cmp body one.raw
}

@test "conditions" {
    need curl jq
    cafe
    local tag="\"$(uuid one)\""
    get -H "If-None-Match: $tag" "$DISK"; is 304
    [ ! -s body ]
    get -H "If-Match: \"other\"" "$DISK"; is 412
    get -H "If-Match: $tag" -r 0-9 "$DISK"; is 206
    get -H "If-Range: $tag" -r 0-9 "$DISK"; is 206
    get -H 'If-Range: "other"' -r 0-9 "$DISK"; is 200
    cmp body one.raw
}

@test "what is not there, and what nobody may" {
    need curl jq
    cafe
    get "$WEB/venues/nowhere/disk/0"; is 404
    grep -q 'no venue "nowhere"' body
    get "$WEB/venues/cafe/disk/2"; is 404
    grep -q '2 disks' body
    get "$WEB/venues/cafe/disk/00"; is 404
    get "$WEB/venues/cafe/disk/-1"; is 404
    get "$WEB/venues/cafe/disk/256"; is 404
    get -X PUT -d x "$DISK"; is 405
    get -X DELETE "$DISK"; is 405
    get "$DISK"; is 200
    cmp body one.raw
}

@test "a reader stays on its tip; the next one gets what the venue is mapped to" {
    need curl jq
    cafe
    local one; one=$(uuid one)
    # It has begun, and its client waits.
    mkfifo pipe
    curl -sS --limit-rate 2M --max-time 60 -o slow "$DISK" 3>&- & local reader=$!
    wait_for "the first bytes" test -s slow
    espalier --quiet venue set cafe --disk three --disk two
    get "$DISK"; is 200
    cmp body three.raw
    wait "$reader"
    cmp slow one.raw
    # Whoever says so stays.
    get "$DISK?tip=$one"; is 200
    cmp body one.raw
    get "$DISK?tip=$(uuid three)" -r 0-99; is 206
    cmp body <(part three.raw 0 100)
    # The other disk's tip is not this one's, nor is anything else.
    get "$DISK?tip=$(uuid two)"; is 404
    get "$DISK?tip=one"; is 404
    get "$DISK?tip=00000000-0000-0000-0000-000000000000"; is 404
    get "$WEB/venues/cafe/disk/1?tip=$one"; is 404
    # A client that goes on is told that it is another disk.
    get -H "If-Range: \"$one\"" -r 100-199 "$DISK"; is 200
    cmp body three.raw
}

@test "32 readers at once, of two disks" {
    need curl jq
    cafe
    local i pids=()
    for i in $(seq 32); do
        if [ $((i % 4)) = 0 ]; then
            curl -sS --max-time 100 -o "got$i" "$WEB/venues/cafe/disk/1" 3>&- &
        else
            curl -sS --max-time 100 -r $((i * 1000))- -o "got$i" "$DISK" 3>&- &
        fi
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    for i in $(seq 32); do
        if [ $((i % 4)) = 0 ]; then cmp "got$i" two.raw; else cmp "got$i" <(tail -c +$((i * 1000 + 1)) one.raw); fi
    done
}

# The pid of the stack's nbdkit.
stack_pid () { pgrep -P "$ESPALIERD_PID" nbdkit; }

@test "the stack is killed while disks are read: readers go on" {
    need curl jq pgrep
    cafe
    get -r 0-99 "$DISK"; is 206
    curl -sS --limit-rate 3M --max-time 60 -o slow "$DISK" 3>&- & local reader=$!
    wait_for "the first bytes" test -s slow
    kill -9 "$(stack_pid)"
    get -r 300000-400000 "$DISK"; is 206
    cmp body <(part one.raw 300000 100001)
    wait "$reader"
    cmp slow one.raw
}

# damage RP: the rest of its data is not there any more
damage ()
{
    local f=$STORE/restore-points/$(uuid "$1")/data
    truncate -s 2M "$f"
}

@test "bytes that cannot be read cut the connection" {
    need curl jq
    cafe
    get -r 0-99 "$DISK"; is 206
    kill -9 "$(pgrep -P "$ESPALIERD_PID" nbdkit)"
    damage one
    run curl -sS --max-time 60 -o body "$DISK"
    [ "$status" -eq 18 ] || { echo "curl: $status $output"; return 1; }
    [ "$(stat -c %s body)" -lt "$SIZE" ]
    cmp -n "$(stat -c %s body)" body one.raw
    # Of a few sectors it is known before anything is sent.
    get -r $((3 << 20))-$(((3 << 20) + 511)) "$DISK"; is 503
    not cmp -s body <(part one.raw $((3 << 20)) 512)
    get -r 512-1023 "$DISK"; is 206
    cmp body <(part one.raw 512 512)
    # Others are served.
    get "$WEB/venues/cafe/disk/1"; is 200
    cmp body two.raw
}

@test "wget goes on where it was cut off" {
    need curl jq wget
    cafe
    part one.raw 0 1234567 >got
    wget -q -c -O got "$DISK"
    cmp got one.raw
}

@test "tickets: none without, another's, too old, and the right one" {
    need curl jq
    cafe --require-ticket on
    ticket () { local name; name=$(espalier ticket create "$@"); echo "${name##*+}"; }
    get "$DISK"; is 403
    grep -q 'ticket: none' body
    get "$DISK?t="; is 403
    get "$DISK?t=AAAA"; is 403
    get "$DISK?t=$(printf '%0500d' 1)"; is 403
    # Of the other disk, of a client, of another address.
    get "$DISK?t=$(ticket cafe/1 --read-only)"; is 403
    get "$DISK?t=$(ticket cafe@seat-1)"; is 403
    get "$DISK?t=$(ticket cafe --read-only --address 10.0.0.7)"; is 403
    local good; good=$(ticket cafe --read-only)
    get "$DISK?t=$good"; is 200
    cmp body one.raw
    get -r 5000-5999 "$DISK?t=$good&tip=$(uuid one)"; is 206
    cmp body <(part one.raw 5000 1000)
    get "$DISK?t=$(ticket cafe --read-only --address 127.0.0.1)" -I; is 200
    get "$WEB/venues/cafe/kernel"; is 403
    get "$WEB/venues/cafe/initrd?t=$(ticket cafe@seat-1)"; is 403
    local old; old=$(ticket cafe --read-only --opens 1s --valid 1s)
    expired () { get "$DISK?t=$old" && is 403 2>/dev/null >&2 && grep -q expired body; }
    wait_for "the ticket's end" expired
}

@test "a ticket that is not needed is looked at all the same" {
    need curl jq
    cafe
    get "$DISK?t=AAAA"; is 403
    get "$DISK"; is 200
}

@test "networks of the venue" {
    need curl jq
    cafe
    espalier --quiet venue set cafe --network 10.0.0.0/24
    get "$DISK"; is 403
    grep -q '127.0.0.1' body
    get -I "$DISK"; is 403
    get "$WEB/venues/cafe/kernel"; is 403
    espalier --quiet venue set cafe --network 127.0.0.0/8
    get "$DISK"; is 200
    cmp body one.raw
}

@test "more disks than there are connections, again and again" {
    need curl jq
    espalier --quiet init
    local i n
    for i in $(seq 15); do
        random_file "d$i.raw" 300000 "$i"
        espalier --quiet root add "d$i" "d$i.raw"
        espalier --quiet venue add "v$i" --disk "d$i"
    done
    start_espalierd
    for n in 1 2; do
        for i in $(seq 15); do
            get "$WEB/venues/v$i/disk/0"; is 200
            cmp body "d$i.raw"
        done
    done
    # No more than a dozen, and the stack's own.
    [ "$(ls -l "/proc/$ESPALIERD_PID/fd" | grep -c socket)" -lt 40 ]
}
