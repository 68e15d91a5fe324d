# SPDX-License-Identifier: BSD-3-Clause
# Live counters: what `espalier stats` shows is what clients did.
load ../lib/common
load ../lib/center
load ../lib/delayload
load ../lib/segcache

setup_store ()
{
    random_file one.raw 2101760 1
    random_file two.raw 2101760 2
    espalier -q init
    espalier -q root add one one.raw
    espalier -q root add two two.raw
    espalier -q venue add cafe --disk one --disk two
    espalier -q venue add lab --disk two
}

serve ()
{
    local name=$1; shift
    start_nbdkit "$name" --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-min-free=0 "$@"
}

# client NAME EXPORT PYTHON: connects as h, runs PYTHON, and stays until `leave NAME`
client ()
{
    mkfifo "$1.end"
    NAME=$1 EXPORT=$2 SOCK=$SOCK nbdsh -c 'import os
h.set_export_name(os.environ["EXPORT"]); h.connect_unix(os.environ["SOCK"])' -c "$3" \
        -c 'open(os.environ["NAME"] + ".ready", "w").close(); open(os.environ["NAME"] + ".end").read()' \
        >"$1.log" 2>&1 3>&- &
    PIDS+=("$!")
    eval "CLIENT_$1=$!"
    wait_for "client $1" test -e "$1.ready"
}

leave ()
{
    local pid=CLIENT_$1
    echo >"$1.end"
    wait "${!pid}"
}

# now FILTER: does jq's FILTER hold for what is counted now?
now () { espalier stats --json | jq -e "$1" >/dev/null; }

# counted FILTER: it holds soon (servers tell once a second)
counted ()
{
    wait_for "$1" now "$1" || { espalier stats --json >&2; return 1; }
}

@test "stats: a client's requests, each once, for it and for its venue" {
    need_nbdsh
    setup_store
    serve a
    # The write of 700 bytes reads what is below, which nobody asked for.
    client s cafe@s 'h.pread(4096, 0); h.pread(512, 8192); h.pread(512, 8192)
h.pwrite(b"x" * 700, 100); h.pwrite(b"y" * 4096, 4096); h.zero(65536, 1048576); h.trim(65536, 0)'
    counted '.clients | length == 1'
    counted '.clients[0] | [.name, .reads, .read_bytes, .writes, .write_bytes, .errors, .misses, .connections]
        == ["cafe/0@s", 3, 5120, 4, 4796, 0, 0, 1]'
    counted '.venues | length == 1'
    counted '.venues[0] | [.name, .reads, .read_bytes, .writes, .write_bytes, .connections]
        == ["cafe/0", 3, 5120, 4, 4796, 1]'
    now ".processes | length == 1 and (.[0] | .pid == $NBDKIT_PID and .program == \"nbdkit\" and .connections == 1)"
    now '(.clients[0].since - .time | fabs) < 60 and (.processes[0].since - .time | fabs) < 60'
    # What it did stays the venue's when it is gone.
    leave s
    counted '.clients == [] and .processes[0].connections == 0'
    counted '.venues[0] | [.reads, .writes, .connections] == [3, 4, 0]'
}

@test "stats: the clients of a venue's disk are added up, and of another they are not" {
    need_nbdsh
    setup_store
    serve a
    client a cafe@a 'h.pread(512, 0)'
    client b cafe@b 'h.pread(1024, 0); h.pwrite(b"x", 0)'
    client c cafe/1@c 'h.pread(4096, 0)'
    client d lab 'h.pread(2048, 0)'
    counted '[.clients[] | [.name, .read_bytes]] == [["cafe/0@a", 512], ["cafe/0@b", 1024], ["cafe/1@c", 4096], ["lab/0", 2048]]'
    counted '[.venues[] | [.name, .read_bytes, .writes, .connections]] == [["cafe/0", 1536, 1, 2], ["cafe/1", 4096, 0, 1], ["lab/0", 2048, 0, 1]]'
    run espalier stats
    [ "$status" -eq 0 ]
    [[ "$output" == *VENUE*CLIENT* ]]
    [[ "$output" == *cafe/0@b* ]]

    # Only what was asked for.
    espalier stats cafe --json | jq -e '[.clients[].name] == ["cafe/0@a", "cafe/0@b", "cafe/1@c"] and .processes == []'
    espalier stats cafe/1 lab --json | jq -e '[.venues[].name] == ["cafe/1", "lab/0"]'
    run espalier stats lab
    [[ "$output" == *lab/0* && "$output" != *cafe* ]]
}

@test "stats: without the overlay filter, and restore points by name" {
    need_nbdsh
    setup_store
    start_nbdkit a "$VENUE" store="$STORE"
    client v cafe@someone 'h.pread(512, 0)'
    client n rp:two 'h.pread(1024, 0)'
    client u "rp:$(espalier rp show two --json | jq -r .uuid)" 'h.pread(1024, 0)'
    counted '[.venues[] | [.name, .reads, .read_bytes, .connections]] == [["cafe/0", 1, 512, 1], ["rp:two", 2, 2048, 2]]'
    counted '.clients | length == 3'
    espalier stats two --json | jq -e '[.venues[].name] == ["rp:two"]'
}

@test "stats: reads that fail are errors, and no reads" {
    need_nbdsh
    setup_store
    serve a
    chmod u+w "$STORE"/restore-points/*/data
    truncate -s 4096 "$STORE"/restore-points/*/data
    client s cafe@s 'import contextlib
with contextlib.suppress(nbd.Error): h.pread(4096, 1048576)
h.pread(512, 0)'
    counted '.clients[0] | [.reads, .read_bytes, .errors] == [1, 512, 1]'
    counted '.venues[0] | [.reads, .read_bytes, .errors] == [1, 512, 1]'
}

@test "stats: what is fetched from a center, and who waited for it" {
    need_nbdsh
    need_cold
    pushed 4
    another_center web c
    pulled b web="$WEB"
    export ESPALIER_STORE=$D/b
    serve_delayed a b delayload-background=off delayload-readahead=0 delayload-profile=off
    client s cafe@s 'h.pread(4096, 0); h.pread(4096, 0); h.pread(4096, 1 << 20)'
    counted '.clients[0] | [.reads, .misses] == [3, 2] and .waited_us > 0'
    counted '.venues[0] | [.reads, .misses] == [3, 2] and .waited_us > 0'
    counted '[.restore_points[].name] == ["base"]'
    counted '.restore_points[0] | [.center_segments, .center_bytes, .cluster_segments, .failed] == [2, 131072, 0, 0]'
    now ".restore_points[0].uuid == $(espalier rp show base --json | jq .uuid)"
    now ".centers | length == 1 and (.[0] | .name == \"web\" and .out == false and .errors == 0)"
    now '.centers[0] | .requests == 2 and .bytes > 0 and .first_byte_us > 0'
    # the bytes are those that the center sent
    now ".centers[0].bytes == $(awk '$3 ~ /pack$/ { n += $6 } END { print n }' web.log)"
    # a venue's restore points are those that it is made of
    espalier stats cafe --json | jq -e '[.restore_points[].name] == ["base"]'
    espalier stats v2 --json | jq -e '.restore_points == []'
    espalier stats base --json | jq -e '.restore_points | length == 1'

    # It gives wrong bytes: no center's error, but a lie, and a read that fails.
    echo '[{"path": "pack$", "action": "flip"}]' >web.faults.new
    mv web.faults.new web.faults
    client l cafe@l 'import contextlib
with contextlib.suppress(nbd.Error): h.pread(4096, 3 << 18)'
    counted '.restore_points[0] | .lies >= 1 and .failed == 1 and .center_segments == 2'
    now '.centers[0] | .errors == 0 and .out == false'
    leave l

    # The center dies: it is left out, and the client's read fails.
    kill "$ORIGIN_PID"
    client t cafe@t 'import contextlib
with contextlib.suppress(nbd.Error): h.pread(4096, 2 << 20)'
    counted '.centers[0] | .out and .errors >= 1'
    counted '[.clients[] | select(.name == "cafe/0@t") | [.reads, .errors, .misses]] == [[0, 1, 1]]'
    run espalier stats
    [[ "$output" == *"left out"* ]]
}

@test "stats: two servers at once, of which one is killed" {
    need_nbdsh
    setup_store
    serve a
    local a=$NBDKIT_PID
    client a cafe@a 'h.pread(512, 0)'
    serve b
    client b cafe@b 'h.pread(1024, 0)'
    counted '.processes | length == 2'
    counted '[.venues[].read_bytes] | sort == [512, 1024]'
    # for people it is one venue
    run espalier stats
    [ "$(grep -c '^cafe/0 ' <<<"$output")" -eq 1 ]
    [ "$(awk '$1 == "cafe/0" { print $2, $3, $4 }' <<<"$output")" = "2 2 1.5K" ]
    [ "$(ls "$STORE/run/stats" | wc -l)" -eq 2 ]

    kill -9 "$a"
    wait "$a" || true
    counted ".processes | map(.pid) == [$NBDKIT_PID]"
    now '[.venues[].read_bytes] == [1024] and [.clients[].name] == ["cafe/0@b"]'
    [ "$(ls "$STORE/run/stats")" = "$NBDKIT_PID" ]
    leave b
    stop_nbdkit
    now '.processes == [] and .venues == []'
    [ -z "$(ls "$STORE/run/stats")" ]
    run espalier stats
    [ "$status" -eq 0 ]
    [ "$output" = "no server runs" ]
}

@test "stats: no server ever ran" {
    espalier -q init
    run espalier stats
    [ "$status" -eq 0 ]
    [ "$output" = "no server runs" ]
    espalier stats --json | jq -e '.processes == [] and .tiers == [] and .clients == []'
}

@test "stats --watch: blocks in a pipe, and lines of JSON" {
    need_nbdsh
    setup_store
    serve a
    client s cafe@s 'import threading, time
def go():
    while True: h.pread(4096, 0); time.sleep(0.01)
threading.Thread(target=go, daemon=True).start()'
    counted '.clients[0].reads > 0'
    (espalier stats --watch 3>&- & echo $! >pid; wait $!; echo $? >status) >blocks 3>&- &
    PIDS+=("$!")
    wait_for "three blocks" eval '[ "$(grep -c "^CLIENT " blocks)" -ge 3 ]'
    kill -INT "$(cat pid)"
    wait_for "its end" test -s status
    [ "$(cat status)" -eq 0 ]
    grep -q 'READS/S' blocks
    grep -qE '^20[0-9-]+ [0-9:]+$' blocks
    not grep -q $'\033' blocks

    # `head` ends it
    timeout 20 espalier stats --watch --json lab cafe | head -n 2 >lines || true
    [ "$(wc -l <lines)" -eq 2 ]
    jq -e -s 'length == 2 and all(.seconds > 0.9 and .seconds < 9)' lines
    jq -e -s 'all(.clients[0].per_second | .reads > 1 and .reads < 110 and .writes == 0
        and (.read_bytes / .reads / 4096 - 1 | fabs) < 0.05)' lines
    jq -e -s '.[1].venues[0].reads > .[0].venues[0].reads' lines
}

@test "stats --watch: a terminal is drawn anew, and keeps to its size" {
    need_nbdsh
    setup_store
    serve a
    for c in a b c d e f g h; do client $c lab@$c 'h.pread(512, 0)'; done
    counted '.clients | length == 8'
    timeout -k 1 50 python3 - >screen <<'PY'
import fcntl, os, pty, signal, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.environ["LC_ALL"] = "C.UTF-8"
    os.execvp("espalier", ["espalier", "stats", "--watch"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 100, 0, 0))
out = b""
while out.count(b"\033[H") < 3:
    out += os.read(fd, 4096)
os.write(fd, b"\003")
try:
    while True:
        more = os.read(fd, 4096)
        if not more: break
        out += more
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
frames = out.split(b"\033[H")[1:]
print("frames", len(frames), "lines", max(f.count(b"\n") for f in frames), "status", status)
print(frames[1].decode())
PY
    head -n 1 screen
    [[ "$(head -n 1 screen)" =~ ^frames\ [3-9]\ lines\ 9\ status\ 0$ ]]
    grep -q 'lab/0' screen
    not grep -q 'lab/0@h' screen
}

@test "stats: wrong arguments" {
    setup_store
    fails 2 'is for --watch' espalier stats --interval 2
    for i in 0 0.5 -1 x 2s 86401 nan inf ''; do
        fails 2 'give seconds, 1 to 86400' espalier stats --watch --interval "$i"
    done
    fails 2 'unknown or ambiguous option' espalier stats --names
    fails 1 'nowhere' espalier stats nowhere
    fails 1 'has no disk 2' espalier stats cafe/2
    fails 1 'nowhere' espalier stats nowhere/1
    fails 1 'nowhere' espalier stats rp:nowhere
    fails 2 'give a venue' espalier stats cafe@client
    fails 2 'give a venue' espalier stats 'a b'
    fails 1 "$D/gone: No such file" espalier stats --dir "$D/gone"
    fails 1 'one.raw: Not a directory' espalier stats --dir "$D/one.raw"
    fails 1 'there is no store' espalier --store "$D/gone" stats
}

@test "stats: files that others damage harm neither servers nor readers" {
    need_nbdsh
    setup_store
    serve a
    client s cafe@s 'h.pread(512, 0)'
    counted '.venues[0].reads == 1'
    local file=$STORE/run/stats/$NBDKIT_PID

    # Others' files, and what is no file of counters.
    mkdir "$STORE/run/stats/17"
    ln -s /dev/zero "$STORE/run/stats/18"
    head -c 100 /dev/urandom >"$STORE/run/stats/19"
    flock "$STORE/run/stats/19" sleep 100 3>&- &
    PIDS+=("$!")
    wait_for lock not flock -n "$STORE/run/stats/19" true
    espalier stats --json 2>err | jq -e '.venues[0].reads == 1'
    grep -q '/19 is passed over: it is damaged' err
    [ -e "$STORE/run/stats/19" ]

    # The server's own: it makes it anew.
    truncate -s 5000 "$file"
    client t cafe@t 'h.pread(512, 0)'
    counted '.venues[0].reads == 2'
    rm "$file"
    client u cafe@u 'h.pread(512, 0)'
    counted '.venues[0].reads == 3'
    dd if=/dev/urandom of="$file" bs=4096 count=1 conv=notrunc status=none
    client v cafe@v 'h.pread(512, 0)'
    counted '.venues[0].reads == 4'
}

@test "stats: a store with a damaged catalog still shows what is counted" {
    need_nbdsh
    setup_store
    serve a
    client s cafe@s 'h.pread(512, 0)'
    counted '.venues[0].reads == 1'
    cp "$STORE/catalog.db" good
    head -c 8192 /dev/urandom >bad
    cat bad >"$STORE/catalog.db"
    rm -f "$STORE"/catalog.db-*
    espalier stats --json 2>err | jq -e '.venues[0].reads == 1'
    grep -q 'names are not known' err
    espalier stats cafe --json 2>err | jq -e '.venues[0].reads == 1'
    # --dir needs no store
    ESPALIER_STORE=$D/gone espalier stats --dir "$STORE/run/stats" cafe --json | jq -e '.venues[0].reads == 1'
}

@test "stats: who may only read sees the same, and removes nothing" {
    need_nbdsh
    need setpriv
    [ "$(id -u)" -eq 0 ] || skip "only root can become somebody else"
    setup_store
    chmod 755 "$D"
    serve a
    client s cafe@s 'h.pread(512, 0)'
    counted '.venues[0].reads == 1'
    : >"$STORE/run/stats/1"
    # The build tree may lie where nobody else can look.
    mkdir bin; cp "$(command -v espalier)" "$ESPALIER_BUILDDIR"/common/.libs/libespalier.so* bin/
    LD_LIBRARY_PATH=$D/bin setpriv --reuid 65534 --clear-groups bin/espalier stats --dir "$STORE/run/stats" --json 2>err |
        jq -e '.venues[0].reads == 1' || { cat err >&2; false; }
    [ -e "$STORE/run/stats/1" ]
    [ ! -s err ]
}

@test "stats: a server that cannot write its counters serves all the same" {
    need_nbdsh
    setup_store
    : >"$STORE/run/stats"
    serve a
    client s cafe@s 'assert h.pread(512, 0) == open("one.raw", "rb").read(512)'
    leave s
    fails 1 'Not a directory' espalier stats
}

# in_st FILTER: as `now`, of what is counted in st, and of ${names[@]} there
in_st () { espalier stats --dir st --json "${names[@]}" | jq -e "$1" >/dev/null; }
counted_in () { wait_for "$1" in_st "$1" || { espalier stats --dir st --json >&2; return 1; }; }

@test "stats: the tiers of the segment cache, over another plugin" {
    need_nbdsh
    random_file disk 2097152 1
    mkdir st cache
    start_nbdkit a --filter="$OVERLAY" --filter="$SEGCACHE" file dir="$D" segcache-memory=64M \
        segcache-dir="$D/cache" segcache-max=64M segcache-stats="$D/st" overlay-min-free=0
    local names=()
    # 100 bytes of a write read what is below: nobody asked for that.
    client s 'disk' 'h.pread(65536, 0); h.pread(65536, 0); h.pread(65536, 0); h.pwrite(b"x" * 100, 1048576)'
    counted_in '[.exports[] | [.name, .reads, .read_bytes, .writes, .write_bytes, .connections]] == [["disk", 3, 196608, 1, 100, 1]]'
    counted_in '[.clients[] | [.name, .reads]] == [["disk", 3]]'
    counted_in '[.tiers[] | [.name, .hits, .misses > 0, .read_bytes, .max]] == [["dir", 0, true, 0, 67108864], ["memory", 2, true, 131072, 67108864]]'
    run espalier stats --dir st
    [ "$status" -eq 0 ]
    grep -qE '^memory +[0-9.]+% ' <<<"$output"
    names=(disk)
    counted_in '.exports | length == 1'
    names=(dis)
    counted_in '.exports == [] and .clients == []'
}
