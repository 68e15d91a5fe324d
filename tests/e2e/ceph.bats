#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# An image center in a real S3 server, Ceph's gateway: push, pull, conflicts,
# interruption.  One Ceph serves all tests of this file, each has its own
# prefix.
load ../lib/common
load ../lib/center
load ../lib/ceph

# s3_stores [MIB]: as two_stores, with the center s in the bucket
s3_stores ()
{
    local m s
    m=$(missing_for_ceph)
    [ -z "$m" ] || skip "$m is not installed"
    two_stores "${1:-8}"
    printf '[default]\naws_access_key_id = TESTKEY\naws_secret_access_key = TESTSECRET\n' >credentials
    chmod 600 credentials
    for s in a b; do
        at $s -q center add s "s3://bucket/$BATS_TEST_NUMBER/center?endpoint=$ENDPOINT" --credentials credentials
    done
}

@test "a center in S3 does what pushes and pulls need" {
    s3_stores
    at a center check s --json | jq -e '.failed == 0 and ([.answers[] | select(.what == "writable")][0].text | startswith("yes"))'
    at a -q push cafe s
    at a center check s --json | jq -e '.failed == 0'
    not grep -rq TESTSECRET a/centers
}

@test "what a push left in S3 is told, and is not taken away before its time" {
    s3_stores
    at a -q push cafe s
    AWS_ACCESS_KEY_ID=TESTKEY AWS_SECRET_ACCESS_KEY=TESTSECRET "$ESPALIER_BUILDDIR/tests/lib/remote-tool" \
        "s3://bucket/$BATS_TEST_NUMBER/center?endpoint=$ENDPOINT" begin restore-points/x/v.pack >id
    at a center gc s --json | jq -e '.removed == []'
    at a center gc s --older-than 1h --json | jq -e '.removed == [] and .bytes == 0'
    at a center check s --json | jq -e '.failed == 0'
}

@test "a venue goes through S3 to another store, with every byte" {
    s3_stores
    at a push cafe s --json | jq -e '.restore_points == 2'
    at a push cafe s --json | jq -e '.restore_points == 0 and .already == 2'
    at a center verify s base
    at b fetch s --json | jq -e '.venues[0].id == "cafe" and (.restore_points | length == 2)'
    at b -q pull s cafe --now
    at b -q rp export v2 out.raw --format raw
    cmp out.raw v2.img
}

@test "a push to S3 that was killed goes on where it was" {
    local pid size
    s3_stores 4
    random_file big.img $((96 << 20)) 7
    at a -q root add big big.img
    ESPALIER_STORE=$D/a espalier push big s >/dev/null 2>&1 3>&- &
    pid=$!; PIDS+=("$pid")
    journal () { local f; for f in a/tmp/push-*; do [ -e "$f" ] && [ "$(stat -c %s "$f")" -gt 2600 ] && return 0; done; return 1; }
    wait_for "a part" eval "journal || ! kill -0 $pid 2>/dev/null"
    kill -9 "$pid" || skip "the push was faster than the test"
    wait "$pid" || true
    at a push big s --json >pushed
    jq -e '.resumed_bytes >= 16777216 and .resumed_bytes + .stored_bytes < 101000000' pushed
    at a center verify s big
    [ -z "$(ls a/tmp)" ]
}

@test "of two stores that replace a venue in S3, the second is told" {
    s3_stores 4
    at a -q push cafe s
    at b -q pull s cafe
    at b -q venue set cafe --description "from b"; at b -q push cafe s
    at a -q venue set cafe --description "from a"
    ESPALIER_STORE=$D/a fails 1 "venue cafe was replaced by" espalier push cafe s
    at a -q push cafe s --force
    at b -q pull s cafe
    [ "$(at b venue show cafe --json | jq -r .description)" = "from a" ]
}

@test "pushes to S3 at once, of one thing and of several, all end well" {
    local pid pids=() i
    s3_stores 4
    for i in 1 2 3; do at a -q venue add "room$i" --disk v2 --description "$i"; done
    cp -a a a2
    for i in 1 2 3; do
        ESPALIER_STORE=$D/a espalier -q push "room$i" s 2>>err 3>&- & pids+=("$!"); PIDS+=("$!")
        ESPALIER_STORE=$D/a2 espalier -q push "room$i" s 2>>err 3>&- & pids+=("$!"); PIDS+=("$!")
    done
    # a2's rooms are the same: who is second finds them there
    for pid in "${pids[@]}"; do wait "$pid" || { cat err >&2; return 1; }; done
    at b fetch s --json | jq -e '[.venues[].id] | sort == ["room1", "room2", "room3"]'
    at b -q pull s --all
    at a center verify s v2
}

@test "a wrong secret is told, and not shown" {
    s3_stores 2
    sed -i 's/TESTSECRET/WRONGSECRET/' credentials
    ESPALIER_STORE=$D/a fails 1 "403|refused|SignatureDoesNotMatch" espalier push cafe s
    not grep -q WRONGSECRET err
}

@test "a plain image in S3 is a delayed root store" {
    need curl
    s3_stores
    local url=s3://bucket/$BATS_TEST_NUMBER
    random_file i.raw 3000000 5
    curl -sf --aws-sigv4 aws:amz:us-east-1:s3 -u TESTKEY:TESTSECRET \
         -H "x-amz-content-sha256: $(sha256sum i.raw | cut -d' ' -f1)" \
         -T i.raw "$ENDPOINT/bucket/$BATS_TEST_NUMBER/i.raw"
    export AWS_ACCESS_KEY_ID=TESTKEY AWS_SECRET_ACCESS_KEY=TESTSECRET
    at a -q root add plain "$url/i.raw?endpoint=$ENDPOINT" --delayed
    at a -q rp export plain out.raw --format raw
    cmp out.raw i.raw
    not at a root add none "$url/none.raw?endpoint=$ENDPOINT" --delayed
    not grep -rq TESTSECRET a
}
