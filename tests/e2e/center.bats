#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Image centers: what a store knows of them, push, pull, verify; two stores and
# a center in a directory.

load ../lib/common
load ../lib/center

@test "a center is added, listed, shown and removed" {
    espalier -q init; mkdir c
    espalier -q center add near ./c
    espalier -q center add far https://images.example/x --retries 0 --timeout 7 --unsigned
    [ "$(espalier center list --names | tr '\n' ' ')" = "far near " ]
    espalier center show far --json |
        jq -e '.url == "https://images.example/x" and .retries == 0 and .timeout == 7 and .unsigned and .connections == null'
    espalier center show near --json | jq -e --arg u "$D/c" '.url == $u and (.unsigned | not) and .retries == null'
    [ "$(stat -c %a "$STORE/centers/near")" = 600 ]
    espalier -q center remove far
    [ "$(espalier center list --names)" = near ]
}

@test "a center that cannot be is refused, and nothing is kept" {
    espalier -q init
    fails 1 "write file:///" espalier center add x ftp://example/
    fails 1 "do not belong there" espalier center add x https://me:secret@example/
    not grep -q secret err
    fails 2 "center" espalier center add ../x file:///tmp
    fails 2 "go together" espalier center add x https://example --cert /etc/hostname
    fails 1 "No such file" espalier center add x https://example --ca "$D/none"
    fails 2 "--retries" espalier center add x https://example --retries -1
    fails 1 "no center x" espalier center show x
    fails 1 "no center x" espalier center remove x
    [ -z "$(espalier center list --names)" ]
    espalier -q center add x file:///tmp
    fails 1 "already a center x" espalier center add x file:///var
    espalier center show x --json | jq -e '.url == "file:///tmp"'
}

# --- push and pull: stores a and b, a center in the directory c ----------------

@test "a venue that was pushed is pulled with its chain, names and words" {
    two_stores
    at a push cafe c --json | jq -e '.restore_points == 2 and .venues == 1 and .stored_bytes < .bytes'
    at b pull c cafe --json | jq -e '.restore_points == 2 and .venues == 1'
    [ "$(at a rp list --json | jq -c '[.[] | {uuid, name, parent, size, created, data_bytes, note, resources}]')" = \
      "$(at b rp list --json | jq -c '[.[] | {uuid, name, parent, size, created, data_bytes, note, resources}]')" ]
    [ "$(at b venue show cafe --json | jq -r '.description + .disks[0].tip_name')" = "The seatsv2" ]
    at b store check
    at a store check
}

@test "what the center has is not sent again, what the store has not made again" {
    two_stores
    at a -q push base c
    at a push v2 c --json | jq -e '.restore_points == 1 and .already == 1'
    cp -a c c.before
    at a push cafe c --json | jq -e '.restore_points == 0 and .stored_bytes == 0 and .already == 2'
    diff -r c.before/restore-points c/restore-points
    at b -q pull c base
    at b pull c cafe --json | jq -e '.restore_points == 1'
    at b pull c cafe --json | jq -e '.restore_points == 0 and .venues == 1'
    [ "$(at b venue log cafe --json | jq length)" = 1 ]
}

@test "fetch shows what is there and what of it is new" {
    two_stores
    at a -q push cafe c
    at b -q pull c base
    at b fetch c --json | jq -e '.venues[0].state == "new" and ([.restore_points[] | {(.name): .here}] | add == {"base": true, "v2": false})'
    at a fetch c --json | jq -e '.venues[0].state == "here"'
    at a -q venue set cafe --disk base
    at a fetch c --json | jq -e '.venues[0].state == "differs"'
}

@test "what nobody signed, and what a stranger signed, is refused" {
    two_stores
    at b -q key untrust a
    at a -q push cafe c
    ESPALIER_STORE=$D/b fails 1 "key trust" espalier pull c cafe
    [ -z "$(at b rp list --names)" ]
    rm -rf c/*
    at a -q push cafe c --no-sign
    at b -q key trust a a.pub
    ESPALIER_STORE=$D/b fails 1 "sign" espalier pull c cafe
    at b -q center add open ./c --unsigned
    at b -q pull open cafe
    [ "$(at b rp list --names | wc -l)" = 2 ]
}

@test "a manifest that was changed is refused" {
    two_stores
    at a -q push cafe c
    sed -i 's/"the base"/"the b4se"/' c/restore-points/*/manifest
    ESPALIER_STORE=$D/b fails 1 "manifest" espalier pull c cafe
    [ -z "$(at b rp list --names)" ]
}

@test "of two pushes of a changed venue the second is told who was first" {
    two_stores
    at a -q push cafe c
    at b -q pull c cafe
    at a -q venue set cafe --disk base
    at a -q push cafe c
    at b -q venue set cafe --description "Ours"
    ESPALIER_STORE=$D/b fails 1 "was replaced by .* since this store knew it last.*espalier pull c cafe" espalier push cafe c
    ESPALIER_STORE=$D/b fails 1 "changed here .*--force" espalier pull c cafe
    [ "$(at b venue show cafe --json | jq -r .description)" = Ours ]
    at b -q pull c cafe --force
    [ "$(at b venue show cafe --json | jq -r '.disks[0].tip_name')" = base ]
    at b -q venue set cafe --description "Ours"
    at b -q push cafe c
    ESPALIER_STORE=$D/a fails 1 "was replaced by" espalier push cafe c
    at a -q pull c cafe
    [ "$(at a venue show cafe --json | jq -r .description)" = Ours ]
}

@test "a name that another restore point has here is refused, and --as helps" {
    two_stores
    at a -q push v2 c
    image other.img 4 9
    at b -q root add v2 other.img
    ESPALIER_STORE=$D/b fails 1 "rp rename v2 NEWNAME.*--as" espalier pull c "$(at a rp show v2 --json | jq -r .uuid)"
    [ "$(at b rp list --names)" = v2 ]
    at b -q pull c v2 --as theirs
    [ "$(at b rp list --names | sort | tr '\n' ' ')" = "base theirs v2 " ]
}

@test "a center that can only be read takes no push" {
    espalier -q init; espalier -q center add web http://127.0.0.1:9/x
    image r.img 2 1; espalier -q root add r r.img
    fails 1 "can only be read" espalier push r web
}

# --- data --------------------------------------------------------------------------

@test "what is pulled has the bytes of what was pushed, in every packing" {
    local v id
    two_stores 6
    at a -q key create k
    for v in 64K,none 256K,zstd 1M,zstd:9 4M,zstd 128K,zstd,key=k; do at a -q push v2 c --variant "$v"; done
    at a center show c base | grep -qE "^128K-zstd-k +[0-9]+ +128K +zstd +k "
    at a center show c base --json | jq -e '.variants | length == 5 and
        ([.[].id] | index("64K-none") != null) and all(.pack_size > 0 and .segments > 0)'
    at a -q key export k k.key
    for id in 64K-none 256K-zstd 1M-zstd 4M-zstd 128K-zstd-k; do
        rm -rf b; at b -q init; at b -q center add c ./c; at b -q key trust a a.pub; at b -q key import k k.key
        at b -q pull c v2 --variant "$id" --now
        at b -q rp export v2 out.raw --format raw --force
        cmp out.raw v2.img
        at b store check
    done
}

@test "pull --now loads all, after which the center is not needed" {
    two_stores 6
    at a -q push cafe c
    at b -q pull c cafe --now
    at b -q center remove c
    rm -rf c
    at b -q rp export v2 out.raw --format raw
    cmp out.raw v2.img
}

@test "what was pulled and is all here can be pushed to another center" {
    two_stores 6
    at a -q push cafe c
    mkdir d; at b -q center add d ./d
    at b -q pull c cafe
    ESPALIER_STORE=$D/b fails 1 "hydrate base --now" espalier push cafe d
    [ ! -e d/venues ]
    at b -q pull c cafe --now
    at b -q push cafe d
    at b center verify d v2
    at b center verify d base
    at a -q center add d ./d
    at a -q pull d cafe
}

@test "a disk whose size is no multiple of anything comes back to the byte" {
    mkdir c; at a -q init; at a -q center add c ./c; at b -q init; at b -q center add c ./c --unsigned
    random_file odd.img 1234567 3
    at a -q root add odd odd.img
    at a -q push odd c --variant 64K,zstd
    at b -q pull c odd --now
    at b -q rp export odd out.raw --format raw
    cmp out.raw odd.img
}

@test "an empty disk is pushed and pulled" {
    mkdir c; at a -q init; at a -q center add c ./c; at b -q init; at b -q center add c ./c --unsigned
    at a -q root add none --blank 64M
    at a -q push none c
    at a center verify c none
    at b -q pull c none --now
    at b rp show none --json | jq -e '.data_bytes == 0'
}

@test "pull --all takes what it can" {
    two_stores 4
    at a -q venue add office --disk base
    at a -q push cafe c; at a -q push office c
    at b -q pull c --all
    [ "$(at b venue list --names | tr '\n' ' ')" = "cafe office " ]
    at b -q venue set cafe --description "mine"
    at a -q venue set cafe --description "theirs"; at a -q push cafe c
    at a -q venue set office --description "new"; at a -q push office c
    ESPALIER_STORE=$D/b fails 1 "venue cafe was changed here" espalier pull c --all
    [ "$(at b venue show office --json | jq -r .description)" = new ]
    [ "$(at b venue show cafe --json | jq -r .description)" = mine ]
}

@test "what a killed pull --now had loaded is not fetched again" {
    local pid size
    two_stores 4
    random_file big.img $((64 << 20)) 7
    at a -q root add big big.img; at a -q push big c
    serve_center --rate 20M
    web_faults '[{"path": "pack$", "from": 48000000, "action": "hang"}]'    # the end never comes
    at b -q center remove c; at b -q center add c "$WEB"
    ESPALIER_STORE=$D/b espalier pull c big --now >/dev/null 2>&1 3>&- &
    pid=$!; PIDS+=("$pid")
    some () { [ "$(awk '/pack/ { n += $6 } END { print n + 0 }' web.log)" -gt 20000000 ]; }
    wait_for "some data" some
    kill -9 "$pid"; wait "$pid" || true
    web_faults '[]'
    at b -q pull c big --now
    at b -q rp export big out.raw --format raw
    cmp out.raw big.img
    # twice at most what was in flight: 16 requests
    size=$(stat -c %s "$(rp_dir big)/256K-zstd.pack")
    awk -v size="$size" '/pack/ { n += $6 } END { exit !(n < size + 20000000) }' web.log
}

@test "center check says whose signatures are not trusted" {
    two_stores 4
    at a -q push cafe c
    at b center check c --json | jq -e '.failed == 0'
    at b -q key untrust a
    ESPALIER_STORE=$D/b fails 1 "key trust" espalier center check c
    grep -q "^BAD  signatures" out
}

@test "center check says what a web server cannot do" {
    two_stores 4
    at a -q push cafe c
    serve_center
    at b -q center add web "$WEB" --retries 0
    at b center check web --json | jq -e '.failed == 0 and ([.answers[] | select(.what == "ranges" and .ok)] | length == 1)'
    web_faults '[{"path": "refs", "action": "200"}]'
    not at b center check web >out
    grep -q "^BAD  ranges" out
    web_faults '[{"method": "*", "action": "500"}]'
    not at b center check web >out
    grep -q "^BAD  reachable .*500" out
}

@test "a key file without an encrypted variant is refused: nothing goes out in the clear" {
    two_stores 2
    at a -q key create school; at a -q key export school school.key
    ESPALIER_STORE=$D/a fails 2 "key=NAME" espalier push cafe c --key-file school.key
    ESPALIER_STORE=$D/a fails 2 "key=NAME" espalier push cafe c --variant 64K,zstd --key-file school.key
    [ -z "$(ls -A c)" ]
    at a -q push cafe c --variant 64K,zstd,key=school --key-file school.key
}

@test "verify tells what it could not check from what is damaged" {
    two_stores 2
    at a -q key create school; at a -q key export school school.key
    at a -q key create other; at a -q key export other other.key
    at a -q push cafe c; at a -q push cafe c --variant 64K,zstd,key=school
    export ESPALIER_STORE=$D/b
    fails 1 "variant 64K-zstd-school was not checked" espalier center verify c base
    not grep -q damaged err; not grep -q damaged out
    fails 1 "other.key: is not the key" espalier center verify c base --key-file other.key
    fails 1 "has no variant 1M-zstd: it has 256K-zstd, 64K-zstd-school" espalier center verify c base --variant 1M-zstd
    espalier center verify c base --variant 256K-zstd
    espalier center verify c base --key-file school.key
    printf xx | dd of="c/restore-points/$(at a rp show base --json | jq -r .uuid)/256K-zstd.pack" bs=1 seek=5000 conv=notrunc status=none
    fails 3 "is damaged" espalier center verify c base
}

@test "a pull says that it kept what was changed here" {
    two_stores 2
    at a -q push cafe c; at b -q pull c cafe
    [[ $(at b pull c cafe) == *"were here"* ]]
    at b -q venue set cafe --disk base
    at b pull c cafe | grep -q "kept venue cafe: it was changed here.*--force"
    at b pull c --all | grep -q "kept venues"
    at b pull c cafe --json | jq -e '.kept == 1 and .venues == 0'
    [ "$(at b venue show cafe --json | jq -r '.disks[0].tip_name')" = base ]
    at b pull c cafe --force --json | jq -e '.kept == 0 and .venues == 1'
}

@test "a variant that no center can have is refused, whatever is here" {
    two_stores 2
    at a -q push cafe c
    export ESPALIER_STORE=$D/b
    for v in 64K,none "" 64k-none 3K-none 64K-zip 64K-zstd-; do
        fails 2 "such as 64K-none" espalier pull c cafe --variant "$v"
    done
    espalier -q pull c cafe --variant 64K-none
}

@test "fetch does not call a center empty whose venues it cannot believe" {
    two_stores 2
    at a -q push cafe c; at b -q key untrust a
    at b fetch c 2>err | grep -q "no venue there that can be believed"
    grep -q "does not trust" err
    at b fetch c --json 2>err | jq -e '.left_out > 0 and .venues == []'
}

@test "bad names of keys are wrong usage, and what is neither venue nor restore point is told" {
    espalier -q init; espalier -q center add c "$D"
    echo >f
    fails 2 "key name" espalier key create ../x
    fails 2 "key name" espalier key import "" f
    fails 2 "key name" espalier key export a/b f
    fails 2 "key name" espalier key trust "a b" f
    fails 2 "key name" espalier key untrust ""
    fails 2 "key name" espalier key delete .
    fails 1 "no such venue, and no restore point 'nosuch'" espalier push nosuch c
    fails 1 "no such venue, and no restore point 'nosuch'" espalier hydrate nosuch
    fails 2 "goes with --delayed" espalier root add x http://localhost:1/disk.img
}

@test "the completion knows which words are values of options" {
    [ -r /usr/share/bash-completion/bash_completion ] || skip "bash-completion is not installed"
    espalier -q init; espalier -q root add disk --blank 1M
    espalier -q venue add cafe --disk disk; espalier -q center add near "$D"
    cat >complete <<'END'
. /usr/share/bash-completion/bash_completion
. "$ESPALIER_SRCDIR/contrib/bash-completion/espalier"
read -ra COMP_WORDS <<<"$1"
COMP_WORDS+=("")
COMP_LINE="$1 " COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=$((${#1} + 1)) COMPREPLY=()
_espalier
echo "${COMPREPLY[*]}"
END
    [ "$(bash complete "espalier push --variant 64K cafe")" = near ]
    [ "$(bash complete "espalier push --variant 64K")" = "cafe disk" ]
    [ "$(bash complete "espalier root add x http://y --delayed --segment")" = "64K 128K 256K 512K 1M 2M 4M" ]
    [ -z "$(bash complete "espalier venue clone cafe --start")" ]
    [ -z "$(bash complete "espalier venue clone cafe --name")" ]
    [ "$(bash complete "espalier serve --start")" = disk ]
}
