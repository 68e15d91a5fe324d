# SPDX-License-Identifier: BSD-3-Clause
# How a venue boots: its settings, what virtual machines are given, tickets.
load ../lib/common

# cafe: a store with a root of 2 MiB and the venue cafe with two disks
cafe ()
{
    espalier --quiet init
    espalier --quiet root add base --blank 2M
    espalier --quiet venue add cafe --disk base --disk base "$@"
}

# boot FILTER: of cafe's object
boot () { espalier venue show cafe --json | jq -c "$1"; }

# refused WORDS COMMAND...: the command fails, says WORDS, and changes nothing
refused ()
{
    local words=$1 before; shift
    before=$(cat "$STORE"/venues/*)
    run "$@"
    [ "$status" -ne 0 ] || { echo "not refused: $*"; return 1; }
    [[ $output == *"$words"* ]] || { echo "does not say '$words': $output"; return 1; }
    [ "$before" = "$(cat "$STORE"/venues/*)" ] || { echo "changed something: $*"; return 1; }
}

# serve OPTIONS...: espalier serve; waits until it answers
serve ()
{
    espalier serve "$@" >serve.log 2>&1 3>&- &
    SERVE=$!
    PIDS+=("$SERVE")
    wait_for "a server" answers
}
answers ()
{
    nbdinfo --size "$(espalier venue show cafe --uri probe --ticket | head -n 1)" >/dev/null 2>&1
}

@test "venue: how it boots is kept, shown and listed" {
    cafe --boot nbdroot --kernel image:/boot/vmlinuz --initrd 'image:(msdos1)/boot/initrd.img' \
        --cmdline 'quiet ip=dhcp' --weight 300 --network 10.0.0.0/24 --network fd00::/64
    [ "$(boot '[.boot, .kernel, .initrd, .cmdline, .weight, .networks]')" = \
        '["nbdroot","image:/boot/vmlinuz","image:(msdos1)/boot/initrd.img","quiet ip=dhcp",300,["10.0.0.0/24","fd00::/64"]]' ]
    [ "$(espalier venue list --json | jq -c '.[0] | [.boot, .weight]')" = '["nbdroot",300]' ]
    espalier venue show cafe >show
    grep -qx 'Boots by:  *nbdroot' show
    grep -qx 'Kernel:  *image:/boot/vmlinuz' show
    grep -qx 'Command line:  *quiet ip=dhcp' show
    grep -qx 'Weight:  *300' show
    grep -qx 'Networks:  *10.0.0.0/24 fd00::/64' show
}

@test "venue: what is not given stays; everything can be taken back" {
    cafe --boot http --weight 7 --network 10.0.0.7 --kernel image:/vmlinuz
    espalier venue set cafe --weight 8
    [ "$(boot '[.boot, .weight, .networks, .kernel]')" = '["http",8,["10.0.0.7/32"],"image:/vmlinuz"]' ] ||
        [ "$(boot '[.boot, .weight, .networks, .kernel]')" = '["http",8,["10.0.0.7"],"image:/vmlinuz"]' ]
    espalier venue set cafe --boot default --network any --kernel none --cmdline ''
    [ "$(boot '[.boot, .weight, .networks, .kernel, .cmdline]')" = '[null,8,[],null,null]' ]
}

@test "venue: how it boots is no revision, and a rollback leaves it" {
    cafe --network 10.0.0.0/24
    espalier --quiet root add other --blank 4M
    espalier venue set cafe --disk other
    espalier venue set cafe --network 10.9.0.0/24 --weight 5
    [ "$(boot .revision)" = 2 ]
    espalier venue rollback cafe
    [ "$(boot '[.revision, .disks[0].tip_name, .networks[0], .weight]')" = '[3,"base","10.9.0.0/24",5]' ]
    # Both at once, in one command.
    espalier venue set cafe --disk other --weight 6
    [ "$(boot '[.revision, .disks[0].tip_name, .weight]')" = '[4,"other",6]' ]
}

@test "venue: how it boots survives the loss of the catalog" {
    cafe --boot http --network 10.0.0.0/24 --weight 7
    boot . >before
    rm "$STORE"/catalog.db*
    espalier store rebuild
    boot . >after
    cmp before after
}

@test "venue: wrong settings are refused, and nothing is changed" {
    cafe
    refused 'pxe' espalier venue set cafe --boot pxe
    refused 'put it there first' espalier venue set cafe --kernel /nowhere/vmlinuz
    refused 'not a file' espalier venue set cafe --kernel "$D"
    : >empty
    refused 'empty' espalier venue set cafe --kernel empty
    refused 'whole path' espalier venue set cafe --kernel image:vmlinuz
    refused 'whole path' espalier venue set cafe --kernel 'image:(msdos1)vmlinuz'
    refused 'without a kernel' espalier venue set cafe --initrd image:/initrd.img
    refused '0 to 1000' espalier venue set cafe --weight 1001
    refused '0 to 1000' espalier venue set cafe --weight -1
    refused '10.0.0.0/24' espalier venue set cafe --network 10.0.0.1/24
    refused '10.0.0.300' espalier venue set cafe --network 10.0.0.300
    refused 'without other networks' espalier venue set cafe --network any --network 10.0.0.0/8
    refused 'one line of ASCII' espalier venue set cafe --cmdline $'quiet\ninit=/bin/sh'
    refused 'one line of ASCII' espalier venue set cafe --cmdline 'größe'
    refused 'a kernel takes' espalier venue set cafe --cmdline "$(printf %2000s x)"
    refused 'no venue' espalier venue set nope --weight 1
    # A disk that is not there, with settings that are fine: none of both.
    refused 'nope' espalier venue set cafe --disk nope --weight 1
    [ "$(boot .weight)" = 100 ]
    refused '0 to 1000' espalier venue add pub --disk base --weight 5000
    refused 'no venue' espalier venue show pub
}

@test "venue: a kernel's file is kept as an absolute path, links as they are" {
    cafe
    echo kernel >vmlinuz-1
    ln -s vmlinuz-1 "$D/vmlinuz"
    espalier venue set cafe --kernel vmlinuz-1
    [ "$(boot .kernel)" = "\"$(realpath "$D")/vmlinuz-1\"" ]
    espalier venue set cafe --kernel "$D/vmlinuz"
    [ "$(boot .kernel)" = "\"$D/vmlinuz\"" ]
}

@test "venue show --uri: a URI for each disk, of the server that runs" {
    cafe
    [ "$(espalier venue show cafe --uri seat-1)" = $'nbd://localhost:10809/cafe/0@seat-1\nnbd://localhost:10809/cafe/1@seat-1' ]
    serve --socket "$D/a b.sock"
    espalier venue show cafe --uri seat-1 >uris
    [ "$(wc -l <uris)" = 2 ]
    while read -r uri; do
        [ "$(nbdinfo --size "$uri")" = 2097152 ]
        nbdinfo --json "$uri" | jq -e '.exports[0].is_read_only == false' >/dev/null
    done <uris
    grep -qF 'a%20b.sock' uris
    # Killed: nobody is sent to it any more.
    kill -9 "$SERVE"; wait "$SERVE" || true
    [ "$(espalier venue show cafe --uri seat-1 | head -n 1)" = nbd://localhost:10809/cafe/0@seat-1 ]
    [ -z "$(ls "$STORE/run/servers")" ]
}

@test "venue show --uri: a server on TCP, one in the background, and which of two" {
    cafe
    hold_port
    serve --address 127.0.0.1 --port "$PORT"
    [ "$(espalier venue show cafe --uri seat-1 | head -n 1)" = "nbd://127.0.0.1:$PORT/cafe/0@seat-1" ]
    espalier serve --socket "$D/s" --daemon --pidfile "$D/pid" 3>&- >daemon.log 2>&1
    wait_for "a server in the background" test -s "$D/pid"
    PIDS+=("$(cat "$D/pid")")
    run espalier venue show cafe --uri seat-1
    [[ $output == *'2 servers of this store run'*"nbd://127.0.0.1:$PORT/"* ]]
    stop_nbdkit "$SERVE"
    [ "$(espalier venue show cafe --uri seat-1 | head -n 1)" = "nbd+unix:///cafe/0@seat-1?socket=$D/s" ]
    kill "$(cat "$D/pid")"
    gone () { [ "$(espalier venue show cafe --uri seat-1 | head -n 1)" = nbd://localhost:10809/cafe/0@seat-1 ]; }
    wait_for "the end of the server in the background" gone
}

@test "venue show --uri: addresses, and what makes no sense" {
    cafe
    [[ $(espalier venue show cafe --uri a --server 10.0.0.1) == nbd://10.0.0.1:10809/* ]]
    [[ $(espalier venue show cafe --uri a --server disks.example:99) == nbd://disks.example:99/* ]]
    [[ $(espalier venue show cafe --uri a --server fd00::1) == 'nbd://[fd00::1]:10809/'* ]]
    [[ $(espalier venue show cafe --uri a --server '[fd00::1]:99') == 'nbd://[fd00::1]:99/'* ]]
    [[ $(espalier venue show cafe --uri größe) == *'/cafe/0@gr%C3%B6%C3%9Fe'* ]]
    refused 'HOST:PORT' espalier venue show cafe --uri a --server disks:0
    refused 'HOST:PORT' espalier venue show cafe --uri a --server 'x,y'
    refused 'HOST:PORT' espalier venue show cafe --uri a --server ''
    refused 'not both' espalier venue show cafe --uri a --server h --socket s
    refused 'for whom' espalier venue show cafe --server h
    refused 'for whom' espalier venue show cafe --uri a --qemu b
    refused 'leave out --address' espalier venue show cafe --uri a --socket s --address 10.0.0.1
    refused 'name' espalier venue show cafe --uri ../x
    refused 'no venue' espalier venue show pub --uri a
    refused '30d' espalier venue show cafe --uri a --expires 5x
    refused 'one address' espalier venue show cafe --uri a --address 10.0.0.0/24
}

@test "venue show --libvirt-xml: a domain that libvirt's schema takes, the same each time" {
    need xmllint
    cafe
    espalier venue show cafe --libvirt-xml seat-1 >a.xml
    espalier venue show cafe --libvirt-xml seat-1 --ticket --server '[fd00::1]:99' >b.xml
    espalier venue show cafe --libvirt-xml 52:54:00:AA:BB:CC --socket "$D/it's <a> \"b\" & c" >c.xml
    for x in a b c; do xmllint --noout $x.xml; done
    [ "$(xmllint --xpath 'count(/domain/devices/disk)' a.xml)" = 2 ]
    [ "$(xmllint --xpath 'string(//disk[2]/source/@name)' a.xml)" = cafe/1@seat-1 ]
    [ "$(xmllint --xpath 'string(//disk[1]/source/host/@name)' b.xml)" = fd00::1 ]
    [ "$(xmllint --xpath 'string(//disk[1]/source/host/@socket)' c.xml)" = "$D/it's <a> \"b\" & c" ]
    [ "$(xmllint --xpath 'string(//mac/@address)' c.xml)" = 52:54:00:aa:bb:cc ]
    for what in /domain/uuid //mac/@address; do
        [ "$(xmllint --xpath "string($what)" a.xml)" = "$(xmllint --xpath "string($what)" b.xml)" ]
        [ "$(xmllint --xpath "string($what)" a.xml)" != "$(xmllint --xpath "string($what)" c.xml)" ]
    done
    [ "$(espalier venue show cafe --libvirt-xml seat-1 --json | jq -r .xml)" = "$(cat a.xml)" ]
    need virt-xml-validate
    for x in a b c; do virt-xml-validate $x.xml domain; done
}

# boot_it OPTIONS...: boot cafe as seat-1 by what --qemu OPTIONS prints, from
# sector.S's disk
boot_it ()
{
    local line
    line=$(espalier venue show cafe --qemu seat-1 "$@")
    run eval "timeout 60 qemu-system-x86_64 -accel tcg -M pc -display none -nic none -no-reboot \
        -device isa-debug-exit,iobase=0xf4,iosize=4 $line" 3>&-
    [ "$status" -eq 33 ] || { echo "QEMU: $status, with $line"; return 1; }
}

@test "venue show --qemu: a machine boots from it, and its write is the client's" {
    need qemu-system-x86_64 cc ld
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    cafe
    espalier --quiet root add sector sector.img
    espalier --quiet venue set cafe --disk sector --disk base
    serve --socket "$D/a, b.sock"
    boot_it
    espalier venue show cafe --uri seat-1 >uris
    nbdcopy "$(head -n 1 uris)" after.img
    [ "$(tail -c 512 after.img | head -c 20)" = 'written by the guest' ]
    cmp -n $((4095 * 512)) sector.img after.img
    nbdcopy "$(espalier venue show cafe --uri seat-2 | head -n 1)" other.img
    cmp sector.img other.img
}

@test "ticket: what is made is good, and says what it is for" {
    cafe
    name=$(espalier ticket create cafe@seat-1)
    [[ $name == cafe/0@seat-1+* ]]
    espalier ticket show "$name" >show
    grep -q '^Export: *cafe/0@seat-1$' show
    grep -q '^Ticket: *ok' show
    espalier ticket create cafe/1@seat-1 --address 10.0.0.7 --opens 1h --valid 2h --json >made.json
    espalier ticket show "$(jq -r .name made.json)" --address 10.0.0.7 --json >shown.json
    [ "$(jq -c '[.export, .address, .read_only, .opens_until, .valid_until]' made.json)" = \
        "$(jq -c '[.export, .address, .read_only, .opens_until, .valid_until]' shown.json)" ]
    [ "$(jq -c '[.opens_until - .issued, .valid_until - .issued, .state, .good, .problem]' shown.json)" = '[3600,7200,"ok",true,null]' ]
    # For reading, without a client; a restore point.
    espalier ticket show "$(espalier ticket create cafe --read-only)" | grep -q '^May write: *no$'
    espalier ticket show "$(espalier ticket create rp:base --read-only)" | grep -q '^Export: *rp:base$'
}

@test "ticket: what is not good is said to be so, with status 1" {
    cafe
    name=$(espalier ticket create cafe@seat-1)
    bad () { run espalier ticket show "$@"; [ "$status" -eq 1 ]; [[ $output == *forged* ]]; }
    bad "${name/seat-1/seat-2}"
    bad "${name/cafe\/0/cafe/1}"
    bad "${name%?????}AAAAA"
    bad "${name}" --address 10.0.0.7 || espalier ticket show "$name" --address 10.0.0.7
    bound=$(espalier ticket create cafe@seat-1 --address 10.0.0.7)
    bad "$bound"
    [[ $output == *--address* ]]
    bad "$bound" --address 10.0.0.8
    espalier ticket show "$bound" --address 10.0.0.7
    # Another site's key.
    ESPALIER_STORE=$D/other espalier --quiet init
    ESPALIER_STORE=$D/other run espalier ticket show "$name"
    [ "$status" -eq 1 ]
    # Too old.
    old=$(espalier ticket create cafe@seat-1 --opens 1s --valid 1s)
    expired () { run espalier ticket show "$old" --json; [ "$status" -eq 1 ] && [ "$(jq -r .state <<<"$output")" = expired ]; }
    wait_for "the ticket's end" expired
}

@test "ticket: what can have none is refused" {
    cafe
    refused 'whose is it' espalier ticket create cafe
    refused 'whose is it' espalier ticket create rp:base
    refused 'no venue' espalier ticket create pub@seat-1
    refused 'nope' espalier ticket create rp:nope --read-only
    refused 'disk' espalier ticket create cafe/2@seat-1
    refused 'longer than' espalier ticket create cafe@a --opens 2h --valid 1h
    refused '30d' espalier ticket create cafe@a --opens soon
    refused 'has a ticket already' espalier ticket create "$(espalier ticket create cafe@a)"
    refused 'has no ticket' espalier ticket show cafe@a
    [ "$(stat -c %a "$STORE/keys/tickets.key")" = 600 ]
}

@test "venue show: names carry tickets by themselves where the server asks for them" {
    cafe
    serve --socket "$D/s" --require-ticket
    uri=$(espalier venue show cafe --uri seat-1 | head -n 1)
    [[ $uri == *'@seat-1+'* ]]
    [ "$(nbdinfo --size "$uri")" = 2097152 ]
    not nbdinfo "${uri/+*[?]/?}"
    not nbdinfo "${uri/seat-1/seat-2}"
    # The same one again; not an older one than the newest that was used.
    nbdinfo "$uri" >/dev/null
    read -rt 1.1 <> <(:) || true      # tickets count seconds
    nbdinfo "$(espalier venue show cafe --uri seat-1 | head -n 1)" >/dev/null
    not nbdinfo "$uri"
    [ "$(espalier venue show cafe --uri seat-1 --expires 2h --json | jq '(.expires - now | . > 7000 and . < 7201)')" = true ]
    not nbdinfo "$(espalier ticket create cafe@seat-1 --address 10.0.0.7 | sed "s,^,nbd+unix:///,; s,\$,?socket=$D/s,")"
}

@test "venue show: a ticket is good from its address only" {
    cafe
    hold_port
    serve --address 127.0.0.1 --port "$PORT" --require-ticket
    nbdinfo "$(espalier venue show cafe --uri seat-1 --address 127.0.0.1 | head -n 1)" >/dev/null
    not nbdinfo "$(espalier venue show cafe --uri seat-2 --address 127.0.0.2 | head -n 1)"
}

@test "venue show --qemu: a machine boots with a ticket" {
    need qemu-system-x86_64 cc ld
    "$ESPALIER_SRCDIR/tests/lib/make-sector" sector.img
    cafe
    espalier --quiet root add sector sector.img
    espalier --quiet venue set cafe --disk sector
    serve --socket "$D/s" --require-ticket
    boot_it
}
