# SPDX-License-Identifier: BSD-3-Clause
# What a site says of its machines: espalier client.
bats_require_minimum_version 1.5.0
load ../lib/common

MAC=52:54:00:00:00:01

cafe ()
{
    espalier init
    espalier root add base --blank 1M
    espalier venue add cafe --disk base
    espalier venue add bar --disk base
} >/dev/null

# refused STATUS WORDS COMMAND...: it fails with STATUS, says WORDS, and has
# changed nothing of what is said of clients
refused ()
{
    local want=$1 words=$2 before; shift 2
    before=$(espalier client list --json)
    run "$@"
    [ "$status" -eq "$want" ] || { echo "status $status: $output" >&2; return 1; }
    [[ $output == *"$words"* ]] || { echo "said: $output" >&2; return 1; }
    [ "$(espalier client list --json)" = "$before" ]
}

@test "clients are added, shown, changed and deleted" {
    cafe
    run espalier client list
    [[ $output == "no clients yet"* ]]
    run espalier client add 52-54-00-00-00-01 --name seat-1 --venue cafe --boot http
    [ "$output" = "added client $MAC, seat-1: venue cafe, boots by http" ]
    run espalier client add 10.0.0.0/24
    [ "$output" = "added client 10.0.0.0/24: it chooses its venue" ]
    espalier client add 4C4C4544-0043-3510-8052-B4C04F4A4E31 --quiet
    run espalier client list --names
    [ "$output" = "$MAC
4c4c4544-0043-3510-8052-b4c04f4a4e31
10.0.0.0/24" ]
    run espalier client set seat-1 --venue bar --boot default
    [ "$output" = "set client $MAC, seat-1: venue bar" ]
    run espalier client set 525400000001 --no-venue --no-name
    [ "$output" = "set client $MAC: it chooses its venue" ]
    run espalier client show $MAC
    [[ $output == *"MAC address"*"it chooses"*"never"* ]]
    espalier client delete 10.0.0.0/24
    run espalier client delete 10.0.0.0/24
    [ "$status" -eq 1 ] && [[ $output == *"no client '10.0.0.0/24'"* ]]
    espalier store check
}

@test "JSON says what was said" {
    cafe
    run espalier client add $MAC --name seat-1 --venue cafe --boot nbdroot --json
    [ "$(jq -r '[.key, .kind, .name, .venue, .boot, .chap, .last_seen] | @csv' <<<"$output")" = \
      "\"$MAC\",\"mac\",\"seat-1\",\"cafe\",\"nbdroot\",," ]
    run espalier client delete seat-1 --json
    [ "$(jq -r .deleted <<<"$output")" = $MAC ]
    [ "$(espalier client list --json | jq length)" = 0 ]
}

@test "what is wrong is refused, and changes nothing" {
    cafe
    espalier client add $MAC --name seat-1 --venue cafe
    refused 2 "no MAC address, UUID or network" espalier client add seat-2
    refused 2 "10.0.0.0/24" espalier client add 10.0.0.1/24
    refused 2 "no single machine" espalier client add 00:00:00:00:00:00
    refused 2 "iscsi, http or nbdroot" espalier client add 10.0.0.1 --boot tftp
    refused 2 "give a name" espalier client add 10.0.0.1 --venue ''
    refused 2 "--chap goes with --chap-secret" espalier client add 10.0.0.1 --chap me
    refused 2 "goes with --chap USER" espalier client add 10.0.0.1 --chap-secret x
    refused 2 "no comma" espalier client add 10.0.0.1 --chap me,you --chap-secret x
    refused 2 "nothing to set" espalier client set seat-1
    refused 2 "not both" espalier client set seat-1 --venue bar --no-venue
    refused 1 "already a client $MAC" espalier client add $MAC
    refused 1 "no venue 'pub'" espalier client add 10.0.0.1 --venue pub
    refused 1 "no venue 'pub'" espalier client set seat-1 --venue pub
    refused 1 "is client $MAC's" espalier client add 52:54:00:00:00:02 --name seat-1
    refused 1 "another machine's" espalier client add 52:54:00:00:00:02 --name $MAC
    refused 1 "many machines" espalier client add 10.0.0.0/8 --name net
    refused 1 "no client 'seat-9'" espalier client set seat-9 --no-name
    refused 1 "no client 'seat-9'" espalier client show seat-9
}

@test "secrets of CHAP are private, and never shown" {
    cafe
    echo correct-horse-battery >secret
    refused 1 "12 to 256" espalier client add $MAC --chap me --chap-secret <(echo short)
    espalier client add $MAC --name seat-1 --chap me --chap-secret secret
    [ "$(stat -c %a "$STORE"/keys/chap/*)" = 600 ]
    [ "$(cat "$STORE"/keys/chap/*)" = correct-horse-battery ]
    not grep -r correct-horse "$STORE" --exclude-dir=keys
    not grep -q correct-horse <<<"$(espalier client show seat-1)$(espalier client show seat-1 --json)$(espalier client list)"
    echo another-horse-battery | espalier client set seat-1 --chap-secret -
    [ "$(cat "$STORE"/keys/chap/*)" = another-horse-battery ]
    refused 1 "12 to 256" espalier client set seat-1 --chap you --chap-secret <(echo short)
    espalier client set seat-1 --chap you
    [ "$(espalier client show seat-1 --json | jq -r .chap)" = you ]
    espalier client set seat-1 --no-chap
    [ -z "$(ls "$STORE"/keys/chap)" ]
    refused 1 "no CHAP secret" espalier client set seat-1 --chap you
    espalier store check
}

@test "a venue that has clients is not deleted without --force" {
    cafe
    espalier client add $MAC --venue cafe
    run espalier venue delete cafe
    [ "$status" -eq 1 ]
    [[ $output == *"client $MAC is assigned to it"*"--force"* ]]
    espalier venue show cafe >/dev/null
    espalier venue delete cafe --force
    [ "$(espalier client show $MAC --json | jq -r .venue)" = null ]
    espalier store check
}

@test "a rebuild gives the same clients" {
    cafe
    espalier client add $MAC --name seat-1 --venue cafe --boot http
    espalier client add 10.0.0.0/24 --venue bar
    before=$(espalier client list --json)
    rm "$STORE"/catalog.db*
    espalier store rebuild
    [ "$(espalier client list --json)" = "$before" ]
    espalier store check
    rm "$STORE/clients"
    run espalier client delete seat-1
    [[ $output == *"'clients' is missing"* ]]
    espalier store check --repair
    [ "$(espalier client list --json)" = "$before" ]
}

@test "how machines boot is said here: a push does not send it, a pull keeps it" {
    cafe
    espalier rp create more --parent base --size 2M
    mkdir center
    espalier center add c "$D/center"
    espalier venue set cafe --weight 7 --network 10.0.0.0/24
    espalier push cafe c
    not grep -rq '10.0.0.0/24' center
    # another store, whose venue has other settings, and goes on
    espalier key public >key.pub
    export ESPALIER_STORE=$D/other
    espalier init
    espalier key trust first key.pub
    espalier center add c "$D/center"
    espalier pull c cafe
    [ "$(espalier venue show cafe --json | jq -c '[.weight, .networks]')" = '[100,[]]' ]
    espalier venue set cafe --weight 9
    # the first one maps it anew: the other one follows, and keeps its own
    espalier --store "$STORE" venue set cafe --disk more
    espalier --store "$STORE" push cafe c
    espalier pull c cafe
    [ "$(espalier venue show cafe --json | jq -c '[.disks[0].tip_name, .weight]')" = '["more",9]' ]
    espalier --store "$STORE" venue rollback cafe
    [ "$(espalier --store "$STORE" venue show cafe --json | jq -c '[.disks[0].tip_name, .weight, .networks]')" = '["base",7,["10.0.0.0/24"]]' ]
    espalier store check
    espalier --store "$STORE" store check
}

@test "machines that were seen are listed, with the entry that counts" {
    need sqlite3
    cafe
    run espalier client seen
    [[ $output == "no machine was seen yet"* ]]
    espalier client add $MAC --name seat-1 --venue cafe
    espalier client add 10.0.0.0/24
    sqlite3 "$STORE/catalog.db" "INSERT INTO client_seen VALUES
        ('seat-1', 'cafe', '$MAC', '', '10.0.0.1', 'Office
CS2', 100, 200, 7), ('52:54:00:00:00:09', '', '52:54:00:00:00:09', '', '192.168.0.1', '', 100, 300, 1),
        ('10.0.0.9', 'bar', '', '', '10.0.0.9', '', 100, 400, 2)"
    [ "$(espalier client seen --unknown --names)" = 52:54:00:00:00:09 ]
    [ "$(espalier client seen --json | jq -r '.[] | "\(.name) \(.entry) \(.needs)"')" = \
'10.0.0.9 10.0.0.0/24 []
52:54:00:00:00:09 null []
seat-1 52:54:00:00:00:01 ["Office","CS2"]' ]
    [ "$(espalier client list --json | jq -r '.[] | "\(.key) \(.last_seen)"')" = "$MAC 200
10.0.0.0/24 400" ]
    run espalier client show seat-1
    [[ $output == *"Seen:"*"venue cafe, 7 boots"* ]]
}
