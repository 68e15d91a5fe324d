#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# What interrupted pushes leave at a center, and who may take it away.  (In
# S3: remote-s3.bats, ceph.bats.)
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/center

TOOL=$ESPALIER_BUILDDIR/tests/lib/remote-tool

# left: an upload of one part, one that was cut off before it had a name, and
# a file that was being written
left ()
{
    head -c 6000000 /dev/zero >part
    ID=$("$TOOL" "$D/c" begin restore-points/x/v.pack)
    PART=$("$TOOL" "$D/c" part restore-points/x/v.pack "$ID" 1 part)
    mkdir c/.uploads/0d6d7f6e-8f4c-4d43-8a5d-3e4f5a6b7c8d
    mkdir -p c/.tmp
    head -c 5000 /dev/zero >c/.tmp/0123456789abcdef
}

# days N: as if all of it had been left N days ago
days () { find c/.uploads c/.tmp -exec touch -h -d "$1 days ago" {} +; }

@test "center gc removes what was left for a week, and nothing else" {
    two_stores 4
    at a -q push cafe c
    left
    days 8
    echo new >c/.tmp/fedcba9876543210
    (cd c && find restore-points venues -type f | sort | xargs sha256sum) >before
    run -0 at a center check c
    [[ $output == *"3 pushes that nobody went on with"*"espalier center gc c"* ]]
    run -0 at a center gc c --dry-run
    [[ $output == *"would remove restore-points/x/v.pack (5.7"*"8 days old"*"would remove 3 leftovers"* ]]
    [ -e "c/.uploads/$ID/data" ] && [ -e c/.tmp/0123456789abcdef ]
    at a center gc c --json >out
    jq -e '(.removed | length) == 3 and .bytes > 6000000 and .dry_run == false and (.removed[].idle_seconds > 600000)' out
    [ -z "$(ls c/.uploads)" ]
    [ "$(ls c/.tmp)" = fedcba9876543210 ]
    (cd c && find restore-points venues -type f | sort | xargs sha256sum) | cmp - before
    at a center check c | grep -c leftovers | grep -qx 0
    at a center gc c | grep -q 'removed 0 leftovers'
}

@test "what is younger than was asked for stays" {
    two_stores 4
    left
    days 3
    at a center gc c --json | jq -e '.removed == []'
    at a center gc c --older-than 4d --json | jq -e '.removed == []'
    # A part that was put today keeps all of it.
    "$TOOL" "$D/c" part restore-points/x/v.pack "$ID" 2 part
    at a center gc c --older-than 48h --json | jq -e '(.removed | length) == 2 and ([.removed[].object] | unique == [""])'
    # So does a push that only asks whether its parts are there.
    days 3
    [ "$("$TOOL" "$D/c" check restore-points/x/v.pack "$ID" $PART)" = 1 ]
    at a center gc c --older-than 2d --json | jq -e '.removed == []'
    [ -e "c/.uploads/$ID/data" ]
}

@test "a push whose beginning was taken away begins anew; one that runs is not disturbed" {
    two_stores 4
    random_file big.img 100000000 3
    at a -q root add big big.img
    ESPALIER_STORE=$D/a cut_off 80000000 espalier -q push big c --variant 64K,none
    days 8
    at a center gc c --json | jq -e '(.removed | length) >= 1 and .bytes > 5000000'
    [ -z "$(ls c/.uploads)" ]
    ESPALIER_STORE=$D/a espalier -q push big c --variant 64K,none 2>push.err 3>&- & push=$!; PIDS+=("$push")
    while kill -0 "$push" 2>/dev/null; do at b center gc c --older-than 1h --json | jq -e '.removed == []'; done
    wait "$push" || { cat push.err; return 1; }
    at a center verify c big
}

@test "bad ages, and centers that can only be read, are refused" {
    two_stores 4
    for age in 7 0d d -1d 1.5d 59m 99999d "" 18446744073709551617h; do
        ESPALIER_STORE=$D/a fails 2 "older-than" espalier center gc c --older-than "$age"
    done
    serve_center
    at a -q center add web "$WEB"
    ESPALIER_STORE=$D/a fails 1 "can only be read" espalier center gc web
    at a center check web | grep -c leftovers | grep -qx 0
    # What lies there and is not ours is not touched, links are not followed.
    mkdir -p c/.tmp c/.uploads other; echo mine >other/file
    ln -s "$D/other" c/.uploads/link; ln -s "$D/other/file" c/.tmp/link
    touch -h -d '9 days ago' c/.uploads/link c/.tmp/link; touch -d '9 days ago' other other/file
    at a center gc c --json | jq -e '.removed == []'
    [ "$(cat other/file)" = mine ]
}
