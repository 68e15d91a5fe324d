# SPDX-License-Identifier: BSD-3-Clause
# The iSCSI bridge: targets come and go, and outlive what may die under them.
# Initiators are libiscsi's and QEMU's.
load ../lib/common
load ../lib/daemon
load ../lib/bridge

@test "a target: names, sizes, all disks of the venue" {
    need_bridge
    make_venues
    start_bridge
    target iqn duo Seat_1 2 127.0.0.1
    [[ $iqn =~ ^iqn\.2026-11\.org\.espalier:duo:seat-1:[0-9a-f]{16}$ ]]
    login "$iqn" 1
    grep -q 'Vendor:ESPALIER' inq.log
    login "$iqn" 2
    not login "$iqn" 3
    iscsi-readcapacity16 "$(iscsi "$iqn" 2)" >cap.log
    grep -q 'Total size:8388608' cap.log
    grep -q 'LENGTH IN BYTES:512' cap.log
    grep -q 'EXPONENT:3' cap.log
    # The next boot's disk is the same one for its system.
    iscsi-inq -e 1 -c 128 "$(iscsi "$iqn" 1)" >serial.1
    iscsi-inq -e 1 -c 131 "$(iscsi "$iqn" 1)" >id.1
    iscsi-inq -e 1 -c 128 "$(iscsi "$iqn" 2)" >serial.2
    not cmp -s serial.1 serial.2
    sleep 1
    target again duo Seat_1 2 127.0.0.1
    iscsi-inq -e 1 -c 128 "$(iscsi "$again" 1)" >serial.again
    iscsi-inq -e 1 -c 131 "$(iscsi "$again" 1)" >id.again
    cmp serial.1 serial.again
    cmp id.1 id.again
}

@test "only the address that a target was made for may log in" {
    need_bridge
    make_venues
    start_bridge
    target mine cafe seat-1 1 127.0.0.1
    target other cafe seat-2 1 127.0.0.2
    login "$mine"
    not login "$other"
    iscsi-ls "iscsi://127.0.0.1:$ISCSI_PORT/" >ls.log
    grep -qF "$mine" ls.log
    not grep -qF "$other" ls.log
}

@test "CHAP: the right secret, a wrong one, none; no process shows secrets or tickets" {
    need_bridge
    make_venues
    start_bridge --require-ticket on
    target iqn cafe seat-1 1 127.0.0.1 joe correct-horse-1
    not login "$iqn"
    CHAP=joe%wrong-horse-99 not login "$iqn"
    CHAP=joe%correct-horse-1 login "$iqn"
    not grep -aqsE 'correct-horse|@seat-1\+' /proc/[0-9]*/cmdline
    # tgtd's accounts are the same for all its targets.
    ask target cafe seat-2 1 127.0.0.1 joe another-horse-2
    [[ $line == *'another client'*'another secret'* ]]
    target other cafe seat-2 1 127.0.0.1 ann another-horse-2
    CHAP=ann%another-horse-2 login "$other"
    CHAP=joe%correct-horse-1 not login "$other"
    # A secret that was changed counts for the next boot.
    target iqn cafe seat-1 1 127.0.0.1 joe changed-horse-3
    CHAP=joe%changed-horse-3 login "$iqn"
}

@test "what two clients write is in their overlays, and not in each other's" {
    need_bridge
    make_venues
    start_bridge
    target one cafe seat-1 1 127.0.0.1
    target two cafe seat-2 1 127.0.0.1
    io "$one" 'write -P 1 1M 1M' flush &
    io_pid=$!
    D=$D/two; mkdir "$D"
    io "$two" 'write -P 2 1M 1M' 'discard 1536k 64k' flush
    D=${D%/two}
    wait "$io_pid"
    [ "$(overlay_byte cafe@seat-1 1048576)" = 1 ]
    [ "$(overlay_byte cafe@seat-2 1048576)" = 2 ]
    [ "$(overlay_byte cafe@seat-2 1572864)" = 0 ]
    # What somebody else wrote to the overlay meanwhile is seen at once.
    nbdsh -u "nbd+unix:///cafe@seat-1?socket=$STORE/run/espalierd/nbd.sock" -c 'h.pwrite(bytearray([7]) * 4096, 1048576); h.flush()'
    io "$one" 'read -P 7 1M 4k' 'read -P 1 1028k 4k'
}

@test "two scripts at once get one target; a later boot takes the old one down, also a hung one" {
    need_bridge
    make_venues
    start_bridge
    ask twice cafe seat-1 1 127.0.0.1
    first=$line; hear
    [ "$line" = "$first" ]
    target iqn cafe seat-1 1 127.0.0.1
    [ "$ISCSI_PORT $iqn" = "$first" ]

    # Its initiator is logged in, and then stands still as if it was switched off.
    stdbuf -oL qemu-io -t none -f raw -c 'write -P 3 0 64k' -c flush -c 'sleep 60000' "$(iscsi "$iqn")" >io.log 2>&1 3>&- &
    io_pid=$!
    PIDS+=("$io_pid")
    wait_for "the login" is_state seat-1 used
    wait_for "the write" grep -q wrote io.log
    kill -STOP "$io_pid"
    begin=$SECONDS
    target new cafe seat-1 1 127.0.0.1
    [ $((SECONDS - begin)) -lt 10 ]
    [ "$new" != "$iqn" ]
    kill -KILL "$io_pid"
    not login "$iqn"
    io "$new" 'read -P 3 0 64k'
    # Another venue: the machine has only one.
    sleep 1
    target duo duo seat-1 2 127.0.0.1
    not login "$new"
    login "$duo" 2
}

@test "a target nobody comes to goes, and so does one that was left" {
    need_bridge
    make_venues
    start_bridge --bridge-grace 1
    target iqn cafe seat-1 1 127.0.0.1
    is_state seat-1 ready
    wait_for "its end" is_state seat-1 ""
    not login "$iqn"
    target iqn cafe seat-1 1 127.0.0.1
    io "$iqn" 'write -P 4 0 4k' flush 'sleep 10000' &
    io_pid=$!
    wait_for "the login" is_state seat-1 used
    sleep 3                     # longer than the grace
    is_state seat-1 used
    wait "$io_pid"
    wait_for "its end" is_state seat-1 ""
}

@test "nbdkit killed: who is logged in goes on, and loses no write that was answered" {
    need_bridge
    make_venues
    start_bridge
    target iqn cafe seat-1 1 127.0.0.1
    io "$iqn" 'write -P 5 1M 2M' 'write -P 6 1088k 4k' 'sleep 4000' 'write -P 7 4M 64k' \
        'read -P 5 1M 64k' 'read -P 6 1088k 4k' flush &
    io_pid=$!
    wait_for "the writes" grep -q 'offset 1114112' io.log
    ask stack
    kill -9 "$line"
    wait "$io_pid"
    [ "$(overlay_byte cafe@seat-1 1048576)" = 5 ]
    [ "$(overlay_byte cafe@seat-1 1114112)" = 6 ]
    [ "$(overlay_byte cafe@seat-1 4194304)" = 7 ]
    grep -q 'goes on' "$RUN/disks.log"
}

@test "a ticket that was renewed long ago still connects a disk again" {
    need_bridge
    make_venues
    start_bridge --require-ticket on --ticket-opens 1 --ticket-valid 20
    target iqn cafe seat-1 1 127.0.0.1
    io "$iqn" 'write -P 5 1M 64k' 'sleep 15000' 'write -P 6 2M 64k' 'read -P 5 1M 64k' flush &
    io_pid=$!
    # renewed at 10, and not looked at by anybody for longer than ticket-opens
    sleep 14
    ask stack
    kill -9 "$line"
    wait "$io_pid"
    not grep -q 'result=refused' "$STORE/run/audit.log"
}

@test "tgtd killed, espalierd-disks killed: the same targets come back" {
    need_bridge
    make_venues
    start_bridge
    target iqn cafe seat-1 1 127.0.0.1 joe correct-horse-1
    CHAP=joe%correct-horse-1
    io "$iqn" 'write -P 8 0 64k' flush
    for name in tgtd disks; do
        read -r pid _ <"$RUN/$name.pid"
        kill -9 "$pid"
        wait_for "another $name" eval 'read -r new _ <"$RUN/$name.pid" && [ "$new" != "$pid" ]'
        wait_for "the target" login "$iqn"
        io "$iqn" 'read -P 8 0 64k'
    done
    # An initiator that is at work meanwhile tries again by itself.
    io "$iqn" 'write -P 9 0 64k' 'sleep 3000' 'read -P 9 0 64k' 'write -P 10 0 4k' flush &
    io_pid=$!
    wait_for "the write" grep -q wrote io.log
    read -r pid _ <"$RUN/tgtd.pid"
    kill -9 "$pid"
    wait "$io_pid"
    [ "$(overlay_byte cafe@seat-1 0)" = 10 ]
}

@test "the end with somebody logged in leaves nothing behind" {
    need_bridge
    make_venues
    start_bridge
    target iqn cafe seat-1 1 127.0.0.1
    stdbuf -oL qemu-io -t none -f raw -c 'write -P 11 0 64k' -c 'sleep 30000' "$(iscsi "$iqn")" >io.log 2>&1 3>&- &
    PIDS+=("$!")
    wait_for "the write" grep -q wrote io.log
    pid=$BRIDGE_PID
    begin=$SECONDS
    echo quit >&"${BRIDGE[1]}"
    wait "$pid"
    [ $((SECONDS - begin)) -lt 10 ]
    [ -z "$(left)" ]
    # What was answered was written.
    start_bridge
    [ "$(overlay_byte cafe@seat-1 0)" = 11 ]
}

@test "killed, the daemon takes all with it; what could not go the next one clears; a stranger is not touched" {
    need_bridge
    make_venues
    start_bridge
    target iqn cafe seat-1 1 127.0.0.1
    login "$iqn"
    kill -9 "$BRIDGE_PID"
    wait_for "the end of all" eval '[ "$(left)" = "$RUN" ]'

    start_bridge
    target iqn cafe seat-1 1 127.0.0.1
    login "$iqn"
    # It cannot end itself.
    read -r pid _ <"$RUN/disks.pid"
    kill -STOP "$pid"
    old=$BRIDGE_PID
    kill -9 "$old"
    wait_for "the end of the daemon" not runs "$old"
    runs "$pid"
    start_bridge
    not runs "$pid"
    [ -z "$(left | grep -v "^$RUN\$")" ]
    target iqn cafe seat-1 1 127.0.0.1
    login "$iqn"

    read -r pid born boot <"$RUN/disks.pid"
    kill -9 "$BRIDGE_PID"
    wait_for "the end of all" eval '[ "$(left)" = "$RUN" ]'
    # The number of one of them belongs to somebody else now.
    sleep 300 3>&- &
    stranger=$!
    PIDS+=("$stranger")
    echo "$stranger $born $boot" >"$RUN/disks.pid"
    start_bridge
    runs "$stranger"
    target iqn cafe seat-1 1 127.0.0.1
    login "$iqn"
    pid=$BRIDGE_PID
    echo quit >&"${BRIDGE[1]}"
    wait "$pid"
    [ -z "$(left)" ]
}

@test "what does not work is said once, with what to do; the rest goes on" {
    need_bridge
    make_venues
    hold_port
    ISCSI_PORT=$PORT
    python3 -m http.server --bind 127.0.0.1 "$PORT" >http.log 2>&1 3>&- &
    http=$!
    PIDS+=("$http")
    wait_for "a server" grep -q Serving http.log || true
    wait_for "a listener" eval ': </dev/tcp/127.0.0.1/$PORT'
    start_bridge
    ask target cafe seat-1 1 127.0.0.1
    [[ $line == error*in\ use*tgt* ]]
    kill "$http"
    wait "$http" || true
    target iqn cafe seat-1 1 127.0.0.1
    login "$iqn"
    ask target none seat-2 1 127.0.0.1
    [[ $line == error*none*seat-2* ]]
    is_state seat-2 ""
    ask counts
    [ "$line" = "1 0" ]
    pid=$BRIDGE_PID
    echo quit >&"${BRIDGE[1]}"
    wait "$pid"

    ESPALIERD_DISKS=/nonexistent start_bridge
    ask target cafe seat-1 1 127.0.0.1
    [[ $line == error*nonexistent* ]]
    pid=$BRIDGE_PID
    echo quit >&"${BRIDGE[1]}"
    wait "$pid"

    start_bridge --iscsi-listen ""
    ask target cafe seat-1 1 127.0.0.1
    [[ $line == error*iscsi-listen* ]]
    [ ! -e "$RUN" ]
}

@test "a client that boots in another way has no target any more" {
    need_bridge
    need curl jq
    make_venues
    start_espalierd
    local script="$WEB/boot.ipxe?mac=52:54:00:00:00:07&venue=cafe"
    curl -fsS "$script" | grep -q '^sanboot iscsi:'
    curl -fsS "$WEB/api/server" | jq -e '.bridge.targets | length == 1'
    espalier --quiet client add 52:54:00:00:00:07 --venue cafe --boot http
    curl -fsS "$script" | grep -q '^sanboot http:'
    sleep 1.2                   # the answer is kept for a second
    curl -fsS "$WEB/api/server" | jq -e '.bridge.targets == []'
    stop_espalierd
}

@test "nbdkit killed, and the overlay with it: errors, never another disk" {
    need_bridge
    make_venues
    start_bridge --nbd-options "--mode memory"
    target iqn cafe seat-1 1 127.0.0.1
    not io "$iqn" 'write -P 5 1M 64k' flush 'sleep 3000' 'read -P 0 1M 64k' &
    io_pid=$!
    wait_for "the write" grep -q 'offset 1048576' io.log
    sleep 1
    ask stack
    kill -9 "$line"
    wait "$io_pid"
    not grep -q '^read 65536' io.log
    grep -q 'this is another disk' "$RUN/disks.log"
}

@test "one address that invents machines does not get all targets" {
    need_bridge
    make_venues
    start_bridge
    ask many 200 cafe 127.0.0.1
    [[ $line == *'127.0.0.1 has 128 targets that no machine came for'* ]]
    hear
    [ "${line#* }" = 128 ]
    # Others are served.
    target iqn cafe seat-1 1 127.0.0.2
    ask many 150 cafe -
    [ "${line#* }" = 150 ]
}
