#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Pushes and pulls that are killed, and several at once.

load ../lib/common
load ../lib/center

# pack NAME: its pack at the center
pack () { printf '%s/256K-zstd.pack' "$(rp_dir "$1")"; }

# nothing_left DIRECTORY...: they are empty
nothing_left () { [ -z "$(find "$@" -mindepth 1)" ]; }

# one_store MIB: store a with the incompressible root r, and the center c
one_store ()
{
    mkdir c
    at a -q init; at a -q center add c ./c; at a key public >/dev/null
    random_file r.img $(($1 << 20)) 1
    at a -q root add r r.img
}

@test "a push that was killed goes on where it was, and sends nothing twice" {
    one_store 200
    # at the seventh part of 16 MiB or before it; three are put side by side
    ESPALIER_STORE=$D/a cut_off 100000000 espalier push r c
    [ ! -e "$(pack r)" ]
    at a push r c --json >pushed
    size=$(stat -c %s "$(pack r)")
    jq -e --argjson size "$size" '.resumed_bytes >= 16777216 and .resumed_bytes + .stored_bytes == $size' pushed
    at a center verify c r
    nothing_left c/.uploads a/tmp
}

@test "pushes that are killed anywhere end well in the end" {
    local i
    one_store 60
    cp r.img r2.img; random_file more 4000000 5
    dd if=more of=r2.img bs=1M seek=7 conv=notrunc status=none
    at a -q rp create r2 --parent r --from-image r2.img
    at a -q venue add cafe --disk r2
    for i in 1 2 3 4 5 6 7 8; do
        ESPALIER_STORE=$D/a timeout -s KILL "0.$((RANDOM % 35 + 2))" espalier push cafe c >/dev/null 2>&1 3>&- || true
        # whatever is named there is whole
        for f in c/restore-points/*/manifest; do
            [ ! -e "$f" ] || at a center verify c "$(basename "$(dirname "$f")")"
        done
    done
    at a -q push cafe c
    at a center verify c r
    at a center verify c r2
    at b -q init; at b -q center add c ./c --unsigned
    at b -q pull c cafe
    at b store check
    [ -z "$(ls a/tmp)" ]
}

@test "pulls that are killed anywhere leave whole restore points, and go on" {
    local i before=0 now
    mkdir c
    at a -q init; at a -q center add c ./c
    image r.img 4 1
    at a -q root add r0 r.img
    for ((i = 1; i <= 40; i++)); do at a -q rp create "r$i" --parent "r$((i - 1))" --size 4M; done
    at a -q venue add cafe --disk r40
    at a -q push cafe c
    at b -q init; at b -q center add c ./c --unsigned
    for i in 1 2 3 4 5 6; do
        ESPALIER_STORE=$D/b timeout -s KILL "0.$((RANDOM % 20 + 2))" espalier pull c cafe >/dev/null 2>&1 3>&- || true
        at b -q store check --repair
        now=$(at b rp list --names | wc -l)
        [ "$now" -ge "$before" ]
        before=$now
    done
    at b -q pull c cafe
    [ "$(at b rp list --names | wc -l)" = 41 ]
    at b store check
}

@test "pushes of the same at once, of one store and of two, end with one object" {
    local pid pids=() s
    one_store 40
    cp -a a b
    for s in a a b b; do
        ESPALIER_STORE=$D/$s espalier -q push r c --variant 256K,zstd >"$D/out" 2>>"$D/err" 3>&- &
        pids+=("$!"); PIDS+=("$!")
    done
    for pid in "${pids[@]}"; do wait "$pid" || { cat "$D/err" >&2; return 1; }; done
    at a center verify c r
    [ "$(find c/restore-points -name '*.pack' | wc -l)" = 1 ]
    nothing_left a/tmp b/tmp c/.uploads
}

@test "encrypted pushes of the same at once agree on one" {
    local pid pids=() s
    one_store 20
    at a -q key create k
    cp -a a b
    for s in a b; do
        ESPALIER_STORE=$D/$s espalier -q push r c --variant 256K,zstd,key=k 2>>"$D/err" 3>&- &
        pids+=("$!"); PIDS+=("$!")
    done
    for pid in "${pids[@]}"; do wait "$pid" || { cat "$D/err" >&2; return 1; }; done
    at a center verify c r
    at b center verify c r
}

@test "variants that are added at once are both in the manifest" {
    local pid pids=() v
    one_store 10
    at a -q push r c
    for v in 64K,none 128K,zstd:1 1M,zstd 512K,none; do
        ESPALIER_STORE=$D/a espalier -q push r c --variant "$v" 2>>"$D/err" 3>&- &
        pids+=("$!"); PIDS+=("$!")
    done
    for pid in "${pids[@]}"; do wait "$pid" || { cat "$D/err" >&2; return 1; }; done
    at a center verify c r
    [ "$(find c/restore-points -name '*.index' | wc -l)" = 5 ]
    for v in 64K-none 128K-zstd 1M-zstd 512K-none 256K-zstd; do at a center verify c r --variant "$v"; done
}

@test "gc keeps the journal of a push for a week, then ends its upload" {
    one_store 120
    ESPALIER_STORE=$D/a cut_off 60000000 espalier push r c
    [ -n "$(ls a/tmp)" ]
    at a -q store gc
    [ -n "$(ls a/tmp)" ]
    [ -n "$(ls c/.uploads)" ]
    touch -d "8 days ago" a/tmp/push-*
    at a store gc --dry-run --json | jq -e '.removed | length == 1'
    [ -n "$(ls a/tmp)" ]
    at a store gc --json | jq -e '.removed[0].object | startswith("tmp/push-")'
    nothing_left a/tmp c/.uploads
}

# deep N: store a with the chain r-1 … r-N, pushed to the center c
deep ()
{
    mkdir c
    at a -q init; at a -q center add c ./c
    image r.img 4 1
    at a -q root add r r.img
    "$ESPALIER_BUILDDIR/bench/mktree" stack a r "$1"
    at a -q push "r-$1" c
}

@test "a chain of 300 is pulled at once, and what is killed meanwhile goes on without a repair" {
    local i began
    [ -x "$ESPALIER_BUILDDIR/bench/mktree" ] || skip "bench/mktree is not built"
    deep 300
    at b -q init; at b -q center add c ./c --unsigned
    began=$(date +%s)
    at b pull c r-300 --json >pulled
    # seconds even on a slow disk: not an fsync for each of 2,400 files
    [ $(($(date +%s) - began)) -le 30 ]
    jq -e '.restore_points == 300' pulled
    at b store check
    [ -z "$(ls b/tmp)" ]
    at b rp show r-300 --json | jq -e '.depth == 300'

    at d -q init; at d -q center add c ./c --unsigned
    for i in 1 2 3 4 5 6 7 8; do
        ESPALIER_STORE=$D/d timeout -s KILL "0.$((RANDOM % 50 + 5))" espalier pull c r-300 >/dev/null 2>&1 3>&- || true
        at d store check --json >check.json || true
        # at worst whole restore points that the catalog does not know
        jq -e 'all(.findings[]; .kind == "orphan" or .kind == "leftover")' check.json || { cat check.json; false; }
    done
    at d -q pull c r-300
    at d -q store gc
    at d store check
    [ "$(at d rp list --names | wc -l)" = 300 ]
    at d -q hydrate r-300 --now
    at d rp export r-300 out.img --format raw
    at a rp export r-300 want.img --format raw
    cmp out.img want.img
}
