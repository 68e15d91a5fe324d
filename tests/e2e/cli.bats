# SPDX-License-Identifier: BSD-3-Clause
# The program espalier: each command as it should go, and the ways to go wrong.
bats_require_minimum_version 1.5.0
load ../lib/common

# A store with one root, base, of 2 MiB: random bytes, a hole, random bytes.
small_store ()
{
    espalier --quiet init
    random_file base.img 600000 7
    truncate -s 2M base.img
    espalier --quiet root add base base.img
}

# change FROM TO AT: copy an image, with 5,000 other bytes at AT
change ()
{
    cp "$1" "$2"
    random_file "$D/piece" 5000 "$3"
    dd if="$D/piece" of="$2" bs=1000 seek="$(($3 / 1000))" conv=notrunc status=none
}

# base -- a -- b, and base -- c
small_tree ()
{
    small_store
    change base.img a.img 8000
    change a.img b.img 900000
    change base.img c.img 1500000
    espalier --quiet rp create a --parent base --from-image a.img --note "first change"
    espalier --quiet rp create b --parent a --from-image b.img
    espalier --quiet rp create c --parent base --from-image c.img
    espalier --quiet venue add cafe --disk b --description "The seats"
    espalier --quiet venue add office --disk c --disk base
}

# fails CODE COMMAND...: it ends with CODE and an error that begins rightly
fails ()
{
    local code=$1; shift
    run --separate-stderr "$@"
    if [ "$status" -ne "$code" ] || [[ "$stderr" != "espalier: "* ]]; then
        printf '%s: status %s: %s\n' "$*" "$status" "$stderr"; return 1
    fi
}

# says TEXT: the last command's errors contain it
says () { [[ "$stderr" == *"$1"* ]] || { echo "no \"$1\" in: $stderr"; return 1; }; }

# same RP FILE: the restore point reads as the file
same ()
{
    rm -f "$D/export.raw"
    espalier --quiet rp export "$1" "$D/export.raw" --format raw
    cmp "$D/export.raw" "$2"
}

# serve ARGUMENTS...: espalier serve on a Unix socket; $URI-functions work
serve ()
{
    SOCK=$D/serve.sock
    espalier serve --socket "$SOCK" --pidfile "$D/serve.pid" "$@" >serve.log 2>&1 3>&- &
    NBDKIT_PID=$!
    PIDS+=("$NBDKIT_PID")
    wait_for "espalier serve" test -s "$D/serve.pid" || { cat serve.log; return 1; }
}

# put_bytes EXPORT: write 64 KiB of 0x5a at 128 KiB as this client
put_bytes () { nbdsh -u "$(uri "$1")" -c 'h.pwrite(b"\x5a" * 65536, 131072); h.flush()'; }

# twin_of_row RP UUID NAME: in the catalog, a copy of a row with another UUID
# and name, so that two UUIDs begin alike
twin_of_row ()
{
    sqlite3 "$STORE/catalog.db" "INSERT INTO rp SELECT x'${2//-/}', '$3', parent, kind, size, created,
        data_blocks, zero_blocks, note, path FROM rp WHERE name = '$1'"
}

# --- init, help, wrong usage -------------------------------------------------

@test "cli: init makes a store, and only once" {
    run espalier init
    [ "$status" -eq 0 ]
    [[ "$output" == *"made the store $STORE"* ]]
    [ -e "$STORE/catalog.db" ]
    fails 1 espalier init
    mkdir full; touch full/file
    fails 1 espalier init full
    espalier --store other init
    [ -e other/catalog.db ]
    [ "$(espalier init third --json | jq -r .store)" = "$D/third" ]
}

@test "cli: without a store every command says how to make one" {
    local c
    for c in "rp list" "rp tree" "rp show x" "venue list" "overlay list" "store stats" "store check" "serve --print" \
             "root add x --blank 1M" "rp delete x" "venue delete x" "store rebuild" "store gc"; do
        # shellcheck disable=SC2086
        fails 1 espalier $c
        says " init'"
    done
}

@test "cli: every command has help, by name and by --help" {
    local c
    espalier help --commands >commands
    [ "$(wc -l <commands)" -gt 25 ]
    while read -r c; do
        # shellcheck disable=SC2086
        diff <(espalier help $c) <(espalier $c --help)
        espalier help "${c%% *}" | grep -qF "$c"
    done <commands
    espalier --help | grep -q "rp create"
    espalier --version | grep -qE '^espalier [0-9]'
}

@test "cli: an unknown command suggests the nearest" {
    fails 2 espalier rp lst; says 'did you mean "rp list"'
    fails 2 espalier vnue list; says 'did you mean "venue list"'
    fails 2 espalier oberlay; says 'did you mean "overlay"'
    fails 2 espalier frobnicate; says 'no command "frobnicate"'
    fails 2 espalier rp; says "espalier help rp"
    fails 2 espalier
}

@test "cli: wrong usage ends with 2 and changes nothing" {
    small_tree
    espalier rp list --json >before
    fails 2 espalier rp list --nope; says "--nope"
    fails 2 espalier rp list -x; says "-x"
    fails 2 espalier rp list a b; says "unexpected argument b"
    fails 2 espalier rp list --json=yes; says "takes no value"
    fails 2 espalier rp create x --parent --from-image a.img; says "--parent needs a value"
    fails 2 espalier rp create x --parent base --parent a --from-image a.img; says "twice"
    fails 2 espalier rp create x --from-image a.img; says "--parent RP is missing"
    fails 2 espalier rp create x --parent base; says "--from-image"
    fails 2 espalier rp create x --parent base --from-overlay cafe@c; says "without --parent"
    fails 2 espalier rp create x --from-overlay cafe; says "names no client"
    fails 2 espalier rp create x --parent base --size 4x
    fails 2 espalier rp rename a; says "missing argument"
    fails 2 espalier rp export a file; says "--format is missing"
    fails 2 espalier rp export a file --format vmdk; says "raw or qcow2"
    fails 2 espalier rp resources a; says "--none"
    fails 2 espalier rp resources a --env linux --env linux=2; says "twice"
    fails 2 espalier rp resources a --env =2; says "no name"
    fails 2 espalier root add x; says "--blank SIZE"
    fails 2 espalier root add x a.img --blank 1M; says "not both"
    fails 2 espalier root add x a.img --in-place --format qcow2; says "--in-place"
    fails 2 espalier venue add x; says "--disk RP is missing"
    fails 2 espalier venue set cafe; says "nothing to set"
    fails 2 espalier venue rollback cafe 0
    fails 2 espalier venue rollback cafe -- -1
    fails 2 espalier overlay reset; says "--venue ID"
    fails 2 espalier overlay show cafe; says "names no client"
    fails 2 espalier serve --mode maybe; says "keep, discard or memory"
    fails 2 espalier serve --port 70000; says "1 to 65535"
    fails 2 espalier serve --socket s --port 1; says "without --address"
    fails 2 espalier serve --json; says "--json"
    fails 2 espalier serve extra; says "extra"
    fails 2 espalier serve --tls off --tls-psk f
    fails 2 espalier --store; says "needs a value"
    diff before <(espalier rp list --json)
}

@test "cli: bad names are refused" {
    small_store
    local n
    for n in "" "a b" "../x" "a/b" ".x" "x@y" "rp:x" $'x\n' "$(printf 'n%.0s' {1..129})"; do
        fails 2 espalier root add --blank 1M -- "$n"
        fails 2 espalier rp rename base "$n"
        fails 2 espalier venue add --disk base -- "$n"
    done
    fails 2 espalier root add -- -x base.img
    [ "$(espalier rp list --names)" = base ]
    [ -z "$(espalier venue list --names)" ]
    espalier rp rename base "$(printf 'n%.0s' {1..128})"
}

@test "cli: output that cannot be written is an error" {
    small_store
    run bash -c 'espalier rp list >/dev/full'
    [ "$status" -eq 1 ]
}

# --- root stores ---------------------------------------------------------------

@test "cli: root add keeps a raw image byte for byte" {
    small_store
    same base base.img
    random_file odd.img 1234567
    espalier root add odd odd.img >out
    grep -q "added odd" out
    espalier rp show odd --json | jq -e '.size == 1234567 and .parent == null and .depth == 1'
    same odd odd.img
}

@test "cli: root add reads the formats of qemu-img" {
    need qemu-img qemu-nbd
    small_store
    local f
    for f in qcow2 vmdk vhdx vdi; do
        qemu-img convert -O "$f" base.img "base.$f"
        espalier --quiet root add "from-$f" "base.$f"
        same "from-$f" base.img
    done
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    qemu-io -f qcow2 -c "write -P 3 65536 4096" top.qcow2 >/dev/null
    espalier --quiet root add from-chain top.qcow2 --format qcow2
    qemu-img convert -O raw top.qcow2 top.raw
    same from-chain top.raw
}

@test "cli: root add --in-place serves the file, refuses other formats, notices a change" {
    need qemu-img qemu-nbd
    small_store
    cp base.img live.img
    espalier root add live live.img --in-place
    [ "$(espalier rp show live --json | jq -r '.kind + " " + .path')" = "in-place $D/live.img" ]
    same live live.img
    qemu-img convert -O qcow2 base.img base.qcow2
    fails 1 espalier root add other base.qcow2 --in-place
    says "is qcow2"
    printf x | dd of=live.img conv=notrunc status=none
    fails 1 espalier rp export live out.raw --format raw
    says "written to"
    [ ! -e out.raw ]
    espalier rp delete live >out
    grep -q "its image stays: $D/live.img" out
    [ -e live.img ]
}

@test "cli: root add --blank makes an empty disk" {
    espalier --quiet init
    espalier --quiet root add empty --blank 3M
    truncate -s 3M zero.img
    same empty zero.img
    espalier rp show empty --json | jq -e '.size == 3145728 and .data_bytes == 0'
}

@test "cli: a taken name, a missing image, a damaged image: refused" {
    need qemu-img qemu-nbd
    small_store
    fails 1 espalier root add base base.img; says "base"
    fails 1 espalier root add other missing.img; says "missing.img"
    qemu-img create -q -f qcow2 -b "$D/base.img" -F raw orphan.qcow2
    mv base.img away.img
    fails 1 espalier root add other orphan.qcow2
    says "base.img"
    fails 1 espalier root add other away.img --format nonsense
    : >empty.img
    fails 1 espalier root add other empty.img
    [ "$(espalier rp list --names)" = base ]
    [ -z "$(ls -A "$STORE/tmp")" ]
}

@test "cli: an interrupt of root add leaves nothing" {
    espalier --quiet init
    random_file piece 33554432
    for _ in {1..24}; do cat piece; done >large.img
    # nice: on a busy machine it does not end before this looks
    nice -n 19 espalier root add large large.img 2>err 3>&- &
    local pid=$!
    PIDS+=("$pid")
    wait_for "a draft" eval '[ -n "$(ls -A "$STORE/tmp")" ]'
    kill -INT "$pid"
    status=0
    wait "$pid" || status=$?
    [ "$status" -eq 1 ]
    grep -q '^espalier: .*interrupted' err
    [ -z "$(espalier rp list --names)" ]
    [ -z "$(ls -A "$STORE/tmp")" ]
    [ -z "$(ls -A "$STORE/restore-points")" ]
    # killed: invisible, and gc removes what it left
    nice -n 19 espalier root add large large.img 2>err 3>&- &
    pid=$!
    PIDS+=("$pid")
    wait_for "a draft" eval '[ -n "$(ls -A "$STORE/tmp")" ]'
    [ "$(espalier store gc --json | jq '.removed | length')" -eq 0 ]
    kill -KILL "$pid"
    wait "$pid" || true
    [ -z "$(espalier rp list --names)" ]
    [ "$(espalier store gc --dry-run --json | jq '.removed | length')" -eq 1 ]
    [ -n "$(ls -A "$STORE/tmp")" ]
    espalier store gc | grep -q "removed 1 object"
    [ -z "$(ls -A "$STORE/tmp")" ]
    espalier store check
}

# --- restore points --------------------------------------------------------------

@test "cli: rp create keeps only the blocks that differ" {
    small_tree
    same a a.img; same b b.img; same c c.img; same base base.img
    espalier rp show a --json | jq -e '.data_bytes == 12288 and .parent_name == "base" and .note == "first change"'
    fails 1 espalier rp create a --parent base --from-image b.img
    fails 1 espalier rp create x --parent nobody --from-image b.img; says "nobody"
    truncate -s 1M short.img
    fails 1 espalier rp create x --parent base --from-image short.img
    [ "$(espalier rp list --names | wc -l)" -eq 4 ]
}

@test "cli: a child may be larger than its parent" {
    small_store
    espalier --quiet rp create larger --parent base --size 5M
    cp base.img larger.img; truncate -s 5M larger.img
    same larger larger.img
    espalier rp show larger --json | jq -e '.data_bytes == 0'
    fails 1 espalier rp create smaller --parent larger --size 4M
}

@test "cli: names, UUIDs and their beginnings name a restore point; ambiguous ones do not" {
    need sqlite3
    small_tree
    local uuid other
    uuid=$(espalier rp show a --json | jq -r .uuid)
    [ "$(espalier rp show "$uuid" --json | jq -r .name)" = a ]
    [ "$(espalier rp show "${uuid:0:8}" --json | jq -r .name)" = a ]
    fails 1 espalier rp show "${uuid:0:3}"
    if [ "${uuid:35:1}" = 0 ]; then other=${uuid:0:35}1; else other=${uuid:0:35}0; fi
    twin_of_row a "$other" twin
    fails 1 espalier rp show "${uuid:0:8}"
    says "a"; says "twin"
    [ "$(espalier rp show "$uuid" --json | jq -r .name)" = a ]
}

@test "cli: rp tree draws branches, and straight lines for only children" {
    small_tree
    espalier --quiet rp rename base grandmother
    LC_ALL=C.UTF-8 espalier rp tree >tree
    cut -d' ' -f1,2 tree >names
    diff names - <<'END'
NAME 
■ grandmother
├─● a
│ ●
└─● c
END
    grep -q '^│ ● b .*2M .*cafe' tree
    grep -q '^└─● c .* office$' tree
    grep -q '^■ grandmother .* office/1$' tree
    grep -q 'first change$' tree
    LC_ALL=C espalier rp tree c | grep -q '^\* c '
    LC_ALL=C espalier rp tree | grep -q '^`-\* c '
    [ "$(espalier rp tree a --json | jq -r '.[].name' | xargs)" = "a b" ]
    # columns are aligned, whatever bytes the strokes take
    python3 - <<'PY'
lines = open("tree", encoding="utf-8").read().splitlines()
assert len({l.index(" 2M ") for l in lines[1:]}) == 1, lines
assert lines[0].index("SIZE") + 4 == lines[1].index(" 2M ") + 3, lines
PY
}

@test "cli: rp show tells relations, and what starts with it" {
    small_tree
    espalier --quiet rp resources base --env linux=6.1 --app editor=1
    espalier --quiet rp resources b --app editor=2 --app chess
    espalier rp show b >show
    grep -q '^Inherited: *env linux 6.1, from base$' show
    grep -q '^Resources: *app editor 2$' show
    not grep -q 'editor 1' show
    espalier rp show a --json | jq -e '
        .chain == ["base", "a"] and .children == ["b"] and .open_by == [] and
        .starts.restore_points == ["a", "b"] and .starts.venues == ["cafe"] and
        ([.inherited_resources[].name] | sort) == ["editor", "linux"]'
    espalier rp show base --json | jq -e '.starts.venues == ["cafe", "office"] and .venues == ["office/1"]'
    espalier --quiet rp resources b --none
    espalier rp show b --json | jq -e '.resources == []'
}

@test "cli: rp rename and rp note" {
    small_tree
    espalier rp rename a alpha | grep -q "renamed alpha"
    fails 1 espalier rp rename alpha base
    espalier --quiet rp note alpha $'two\nlines \e[31m'
    [ "$(espalier rp show alpha --json | jq .note)" = '"two\nlines \u001b[31m"' ]
    espalier rp show alpha >show
    not grep -q $'\e' show
    espalier --quiet rp note alpha ""
    [ "$(espalier rp show alpha --json | jq -r .note)" = "" ]
    same b b.img
}

@test "cli: notes and resources that cannot be kept are refused" {
    small_tree
    local long; long=$(printf '%070000d' 0)
    fails 1 espalier rp note a "$long"; says "its note is longer than 65536 bytes"
    fails 1 espalier rp note a $'\xff'; says "its note is not valid UTF-8"
    fails 1 espalier rp resources a --app "${long:0:200}=1"; says "resource's name is longer than 128"
    fails 1 espalier root add other b.img --app "x=${long:0:200}"; says "resource's version"
    fails 1 espalier rp create other --parent a --from-image b.img --note "$long"; says "its note"
    [ "$(espalier rp show a --json | jq -r .note)" = "first change" ]
    espalier store check
}

@test "cli: rp delete refuses with every reason, then deletes" {
    small_tree
    fails 1 espalier rp delete base; says "a"; says "c"; says "office"
    fails 1 espalier rp delete b; says "cafe"
    espalier --quiet venue set cafe --disk base
    espalier rp delete b | grep -q "deleted b"
    fails 1 espalier rp show b
    espalier rp delete a --json | jq -e '.deleted == "a"'
    same c c.img
    espalier store check
}

@test "cli: rp merge folds into the only child" {
    small_tree
    fails 1 espalier rp merge base
    fails 1 espalier rp merge b
    espalier rp merge a | grep -q "^merged a (.*) into b"
    [ "$(espalier rp show b --json | jq -r '.parent_name')" = base ]
    same b b.img; same base base.img; same c c.img
    espalier store check
}

@test "cli: rp export writes raw and qcow2, and replaces only by --force" {
    need qemu-img
    small_tree
    espalier rp export b b.qcow2 --format qcow2 --json | jq -e '.format == "qcow2"'
    qemu-img compare -f qcow2 -F raw b.qcow2 b.img
    fails 1 espalier rp export b b.qcow2 --format qcow2
    says "--force"
    espalier --quiet rp export c b.qcow2 --format qcow2 --force
    qemu-img compare -f qcow2 -F raw b.qcow2 c.img
    fails 1 espalier rp export b missing/b.raw --format raw
}

@test "cli: rp diff counts what cmp counts" {
    small_tree
    espalier rp diff base a --json | jq -e --argjson n "$(cmp -l base.img a.img | wc -l)" \
        '.bytes == $n and .blocks == 3 and .block_size == 4096'
    espalier rp diff b c --json | jq -e --argjson n "$(cmp -l b.img c.img | wc -l)" '.bytes == $n'
    [ "$(espalier rp diff a a)" = "a and a do not differ" ]
    espalier --quiet rp create longer --parent a --size 5M
    espalier rp diff a longer | grep -q "do not differ, but the longer one"
}

# --- venues -------------------------------------------------------------------------

@test "cli: venue add, set, list, show, log, rollback, delete" {
    small_tree
    fails 1 espalier venue add cafe --disk a
    fails 1 espalier venue add other --disk nobody
    espalier venue set cafe --disk a --disk c --description new --json | jq -e '.revision == 2 and (.disks | length) == 2'
    espalier --quiet venue set cafe --disk a --disk c
    espalier venue log cafe --json | jq -e 'length == 2 and .[0].tip_names == ["b"] and .[1].description == "new"'
    espalier venue rollback cafe | grep -q 'rolled back venue cafe: b (revision 3)'
    espalier venue rollback cafe 2 | grep -q 'a, c (revision 4)'
    fails 1 espalier venue rollback cafe 99
    espalier venue list | grep -qE '^cafe +0 +a '
    espalier venue list --json | jq -e '[.[].id] == ["cafe", "office"]'
    espalier venue show cafe >show
    grep -q 'nbd://SERVER/cafe@CLIENT' show
    grep -qE '^Disk 1: +c, ' show
    grep -q 'no client has written' show
    espalier venue show cafe --json | jq -e '(.log | length) == 4 and .overlays == []'
    espalier venue delete cafe | grep -q 'deleted venue cafe'
    fails 1 espalier venue show cafe; says "cafe"
    [ "$(espalier venue list --names)" = office ]
}

@test "cli: a rollback to a restore point that is gone names it" {
    small_tree
    espalier --quiet venue set cafe --disk c
    espalier --quiet rp delete b
    fails 1 espalier venue rollback cafe
    espalier venue log cafe | grep -q '(deleted)'
    [ "$(espalier venue show cafe --json | jq .revision)" -eq 2 ]
}

@test "cli: empty tables say how to begin" {
    espalier --quiet init
    espalier rp list | grep -q "root add"
    espalier rp tree | grep -q "root add"
    espalier venue list | grep -q "venue add"
    espalier overlay list | grep -q "no overlays"
    [ "$(espalier rp list --json; espalier venue list --json; espalier overlay list --json)" = $'[]\n[]\n[]' ]
}

# --- serving, overlays ------------------------------------------------------------------

@test "cli: serve prints nbdkit's command line, quoted, with what stands behind --" {
    small_tree
    mkdir "with blank"; espalier --quiet init "with blank/s"
    run --separate-stderr espalier --store "with blank/s" serve --print --port 1234 --mode memory --quota 1G --client peer \
        --threads 3 --tls-psk "a'b" -- --filter=log -D nbdkit.x=1
    [ "$status" -eq 0 ]
    [[ "$output" == *" -f -t 3 -p 1234 --tls=require '--tls-psk=a'\\''b' --filter="*overlay*" "*venue*" 'store=$D/with blank/s' "* ]]
    [[ "$output" == *" overlay-mode=memory overlay-client=peer overlay-quota=1G --filter=log -D nbdkit.x=1" ]]
    fails 1 espalier serve --start nobody --print; says "nobody"
    fails 1 espalier serve --venue nobody --print; says "nobody"
    ESPALIER_MODULES=$D fails 1 espalier serve --print; says ESPALIER_MODULES
}

@test "cli: serve serves the venues, and with --start those of the subtree" {
    need nbdinfo nbdcopy
    small_tree
    serve --mode memory
    nbdinfo --list --json "$(uri "")" | jq -e '[.exports[]."export-name"] | sort == ["cafe", "office", "office/1"]'
    nbdcopy "$(uri cafe)" out.raw
    cmp out.raw b.img
    nbdcopy "$(uri rp:a)" out.raw
    cmp out.raw a.img
    espalier rp show b --json >show
    stop_nbdkit
    grep -q '^/.*nbdkit -f .*store=' serve.log
    rm serve.pid
    serve --start a --mode memory
    nbdinfo --list --json "$(uri "")" | jq -e '[.exports[]."export-name"] == ["cafe"]'
    not nbdinfo --size "$(uri office)"
    not nbdinfo --size "$(uri rp:base)"
}

@test "cli: overlays are listed, kept as restore points, reset and deleted" {
    need nbdsh
    small_tree
    serve --mode keep --quota 1M
    put_bytes cafe@one; put_bytes cafe@two; put_bytes office/1@one
    stop_nbdkit
    [ "$(espalier overlay list --names | xargs)" = "cafe/0@one cafe/0@two office/1@one" ]
    espalier overlay list cafe --json | jq -e 'length == 2 and .[0].tip_name == "b" and .[0].mode == "keep" and .[0].used >= 65536
        and .[0].holder == null and .[0].damage == null'
    espalier overlay show cafe@one | grep -qE '^Restore point: +b$'
    fails 1 espalier overlay show cafe@nobody
    espalier rp show b | grep -qE '^Overlays: +cafe/0@one$'
    fails 1 espalier rp delete b

    espalier rp create kept --from-overlay cafe@one --note "what one wrote" | grep -q '^made kept'
    cp b.img kept.img
    head -c 65536 /dev/zero | tr '\0' '\132' | dd of=kept.img bs=65536 seek=2 conv=notrunc status=none
    same kept kept.img
    espalier rp show kept --json | jq -e '.parent_name == "b" and .data_bytes == 65536'
    [ "$(espalier overlay list cafe --names)" = cafe/0@two ]
    fails 1 espalier rp create again --from-overlay cafe@one

    espalier --quiet venue set cafe --disk kept
    espalier overlay list | grep -q 'old: the venue has kept now'
    espalier overlay reset cafe@two | grep -q '^deleted what cafe/0@two wrote'
    espalier overlay reset cafe@two | grep -q 'clean'
    fails 1 espalier overlay delete cafe@two
    fails 1 espalier venue delete office; says "--force"
    espalier venue delete office --force | grep -q '^deleted overlay office/1@one'
    espalier overlay list | grep -q 'no overlays'
    espalier store check
}

@test "cli: what a connected client uses is refused, naming the holder" {
    need nbdsh
    small_tree
    serve --mode keep
    mkfifo go
    nbdsh -u "$(uri cafe@one)" -c 'h.pwrite(b"x" * 4096, 0); h.flush(); open("ready", "w"); open("go").read()' 3>&- &
    local client=$!
    PIDS+=("$client")
    wait_for "the client" test -e ready
    fails 1 espalier overlay reset cafe@one; says "nbdkit"
    fails 1 espalier overlay delete cafe@one; says "nbdkit"
    fails 1 espalier rp create x --from-overlay cafe@one; says "nbdkit"
    fails 1 espalier venue delete cafe --force
    espalier overlay list | grep -q "now  *nbdkit"
    espalier overlay show cafe@one --json | jq -e '.holder.program == "nbdkit" and .holder.pid > 0'
    espalier rp show b --json | jq -e '[.open_by[].program] == ["nbdkit"]'
    espalier overlay reset --venue cafe --json >out || true
    [ "$(jq '.deleted | length' out)" -eq 0 ]
    echo >go
    wait "$client"
    wait_for "the overlay to be free" espalier overlay reset cafe@one
    espalier overlay list | grep -q 'no overlays'
}

@test "cli: serve removes the socket of a killed server, not of a living one" {
    need nbdinfo
    small_tree
    serve --mode memory
    fails 1 espalier serve --socket "$SOCK"
    says "listens there already"
    nbdinfo --size "$(uri cafe)"
    kill -KILL "$NBDKIT_PID"
    wait "$NBDKIT_PID" || true
    rm serve.pid
    [ -S "$SOCK" ]
    serve --mode memory
    nbdinfo --size "$(uri cafe)"
}

@test "cli: serve takes systemd's socket" {
    need nbdinfo python3
    small_tree
    SOCK=$D/activated.sock
    python3 - "$SOCK" 3>&- <<'PY' >serve.log 2>&1 &
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp("espalier", ["espalier", "serve", "--mode", "memory"])
PY
    PIDS+=($!)
    wait_for "the socket" test -S "$SOCK"
    [ "$(nbdinfo --size "$(uri cafe)")" -eq 2097152 ]
}

@test "cli: serve with pre-shared keys refuses clients without" {
    need nbdinfo psktool
    nbdkit --dump-config | grep -q '^tls=yes' || skip "this nbdkit has no TLS"
    small_tree
    psktool -u seat -p keys.psk >/dev/null 2>&1
    serve --tls-psk "$D/keys.psk" --mode memory
    not nbdinfo --size "$(uri cafe)"
    [ "$(nbdinfo --size "nbds+unix://seat@/cafe?socket=$SOCK&tls-psk-file=$D/keys.psk")" -eq 2097152 ]
}

# --- the store ------------------------------------------------------------------------------

@test "cli: store check finds damage, ends with 3, and --repair mends" {
    small_tree
    espalier store check | grep -q sound
    espalier store check --json | jq -e '.findings == [] and .unmended == 0'
    local uuid
    uuid=$(espalier rp show b --json | jq -r .uuid)
    rm "$STORE/restore-points/$uuid/chain"
    run --separate-stderr espalier store check
    [ "$status" -eq 3 ]
    [[ "$output" == *damage*b* ]]
    run --separate-stderr espalier store check --json
    [ "$status" -eq 3 ]
    jq -e '.unmended >= 1 and .findings[0].mended == false' <<<"$output"
    espalier store check --repair
    espalier store check
    same b b.img
}

@test "cli: store check and rebuild work without a catalog" {
    small_tree
    rm "$STORE"/catalog.db*
    run espalier store check
    [ "$status" -eq 3 ]
    espalier store rebuild --json | jq -e '.restore_points == 4 and .venues == 2 and .left_out == []'
    same b b.img
    espalier venue log cafe --json | jq -e 'length == 1'
    espalier store check
}

@test "cli: store stats counts" {
    small_tree
    espalier store stats | grep -qE '^Restore points: +4, of them 1 root '
    espalier store stats --json | jq -e '.restore_points == 4 and .roots == 1 and .venues == 2 and .max_depth == 3
        and .restore_point_data > 600000 and .fs_free > 0'
}

@test "cli: a read-only store can be read, and refuses changes" {
    small_tree
    unshare -m true 2>/dev/null || skip "no right to mount"
    cat >inside <<'END'
mount --bind "$ESPALIER_STORE" "$ESPALIER_STORE" && mount -o remount,bind,ro "$ESPALIER_STORE" || exit 77
espalier rp tree >tree && espalier venue list >venues && espalier rp show b >show && espalier overlay list >overlays || exit 1
espalier rp export b out.raw --format raw --quiet && cmp out.raw b.img || exit 2
for c in "rp note b x" "rp delete b" "venue set cafe --disk c" "root add x --blank 1M" "rp create x --parent b --size 9M" \
         "venue delete cafe"; do
    espalier $c 2>err && exit 3
    grep -qi "read-only" err || { cat err; exit 4; }
done
END
    run unshare -m bash inside
    [ "$status" -ne 77 ] || skip "no right to mount"
    [ "$status" -eq 0 ]
    espalier store check
}

# --- completion ---------------------------------------------------------------------------------

# complete_line WORDS...: what the completion offers for the last word
complete_line ()
{
    bash -c '
        _init_completion () { words=("${line[@]}"); cword=$((${#line[@]} - 1)); cur=${line[-1]}; prev=${line[-2]}; }
        _filedir () { COMPREPLY=(FILES); }
        __ltrim_colon_completions () { :; }
        . "$ESPALIER_SRCDIR/contrib/bash-completion/espalier"
        line=("$@"); _espalier; echo "${COMPREPLY[*]}"' bash "$@"
}

@test "cli: the completion offers commands, options and names" {
    small_tree
    [ "$(complete_line espalier ov)" = overlay ]
    [ "$(complete_line espalier rp re)" = "rename resources" ]
    [ "$(complete_line espalier --store "$STORE" rp show c)" = c ]
    [ "$(complete_line espalier venue set cafe --disk "")" = "base a c b" ] ||
        [ "$(complete_line espalier venue set cafe --disk "" | xargs -n1 | sort | xargs)" = "a b base c" ]
    [ "$(complete_line espalier venue show o)" = office ]
    [ "$(complete_line espalier rp export --fo)" = "--format --force" ]
    [ "$(complete_line espalier rp export b f --format "")" = "raw qcow2" ]
    [ "$(complete_line espalier serve --mode k)" = keep ]
    [ "$(complete_line espalier root add x "")" = FILES ]
    [ "$(complete_line espalier help store g)" = gc ]
    [ "$(complete_line espalier init --v)" = "--verbose" ]
}
