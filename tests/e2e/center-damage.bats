#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# What lies at a center is damaged, exchanged, forged, encrypted, or comes over
# a bad line: nothing wrong is taken, and the message says what it is.

load ../lib/common
load ../lib/center

# refused PATTERN: pulling the venue fails, and leaves nothing
refused ()
{
    ESPALIER_STORE=$D/b fails 1 "$1" espalier pull c cafe
    [ -z "$(at b rp list --names)" ]
    [ -z "$(at b venue list --names)" ]
}

# damage_found [RP]: verify says so, with its exit status
damage_found ()
{
    ESPALIER_STORE=$D/a fails 3 . espalier center verify c "${1:-base}"
}

@test "verify finds one wrong bit in any object" {
    local f
    two_stores 4
    at a -q push cafe c
    at a center verify c base
    for f in map 256K-zstd.index 256K-zstd.pack manifest; do
        cp "$(rp_dir base)/$f" keep
        flip "$(rp_dir base)/$f"
        damage_found
        cat keep >"$(rp_dir base)/$f"
    done
    at a center verify c base
}

@test "verify finds an object that is missing, short, or longer" {
    local f
    two_stores 4
    at a -q push cafe c
    for f in map 256K-zstd.index 256K-zstd.pack; do
        mv "$(rp_dir base)/$f" keep; damage_found
        head -c -1 keep >"$(rp_dir base)/$f"; damage_found
        { cat keep; echo; } >"$(rp_dir base)/$f"; damage_found
        mv keep "$(rp_dir base)/$f"
    done
    mv "$(rp_dir base)/manifest" keep; damage_found v2
    mv keep "$(rp_dir base)/manifest"
    at a center verify c v2
}

@test "a pull takes no damaged map, index or manifest" {
    local f
    two_stores 4
    at a -q push cafe c
    for f in map 256K-zstd.index manifest; do
        cp "$(rp_dir base)/$f" keep
        flip "$(rp_dir base)/$f"
        refused "center c: .*$f"
        cat keep >"$(rp_dir base)/$f"
    done
    at b -q pull c cafe
    at b store check
}

@test "another restore point's objects in its place are refused" {
    local f
    two_stores 4
    at a -q push cafe c
    for f in manifest map 256K-zstd.index; do
        cp "$(rp_dir base)/$f" keep
        cat "$(rp_dir v2)/$f" >"$(rp_dir base)/$f"
        refused "center c: .*$f"
        cat keep >"$(rp_dir base)/$f"
    done
    cat "$(rp_dir v2)/256K-zstd.pack" >"$(rp_dir base)/256K-zstd.pack"
    damage_found
}

@test "a reference of another venue, or one that was changed, is refused" {
    two_stores 4
    at a -q venue add office --disk base
    at a -q push cafe c; at a -q push office c
    cp c/venues/cafe keep
    cp c/venues/office c/venues/cafe
    refused "venues/cafe"
    sed 's/The seats/The s3ats/' keep >c/venues/cafe
    refused "venues/cafe"
    # refs is no authority
    cp keep c/venues/cafe
    flip c/refs 200
    ESPALIER_STORE=$D/b fails 1 "refs" espalier fetch c
    at b -q pull c cafe
}

@test "what was damaged at a center is put anew by a push" {
    two_stores 4
    at a -q push cafe c
    rm "$(rp_dir base)/256K-zstd.pack"
    damage_found
    at a -q push cafe c
    at a center verify c base
    head -c 1000 "$(rp_dir v2)/256K-zstd.pack" >keep; cp keep "$(rp_dir v2)/256K-zstd.pack"
    at a push cafe c
    at a center verify c v2
}

@test "data that is damaged in the store is not pushed" {
    local data
    two_stores 4
    at a -q push base c
    data=a/restore-points/$(at a rp show base --json | jq -r .uuid)/data
    chmod u+w "$data"; flip "$data" 5000
    ESPALIER_STORE=$D/a fails 1 "damaged: nothing of it was pushed" espalier push base c --variant 256K,none
    [ "$(find c -name '*none*' | wc -l)" = 0 ]
}

@test "an encrypted variant needs its key, and a wrong one is told" {
    two_stores 4
    at a -q key create school
    at a -q push cafe c --variant 256K,zstd,key=school
    not grep -rq "line\|base" "$(rp_dir base)/256K-zstd-school.pack"
    refused "key import school"
    at b -q key create school
    refused "key"
    at b -q key delete school
    at a -q key export school school.key
    [ "$(stat -c %a school.key)" = 600 ]
    at b -q key import school school.key
    at b -q pull c cafe
    at b center verify c base
    at b center verify c base --key-file school.key
    ESPALIER_STORE=$D/a fails 1 "key" espalier push cafe c --variant 64K,none,key=other
}

@test "a pull over HTTP asks for a chain together, and outlives a bad line" {
    two_stores 4
    at a -q push cafe c
    serve_center
    at b -q center add web "$WEB"
    at b fetch web --json | jq -e '.venues | length == 1'
    web_faults '[{"path": "manifest", "nth": 1, "action": "500"}, {"path": "index", "nth": 1, "action": "cut"}, {"path": "map", "nth": 2, "action": "reset"}]'
    at b -q pull web cafe
    [ "$(at b rp list --names | tr '\n' ' ')" = "base v2 " ]
    at b store check
    at b center check web --json | jq -e '.failed == 0'
}

@test "a center that lies over HTTP is not believed" {
    two_stores 4
    at a -q push cafe c
    serve_center
    at b -q center remove c; at b -q center add c "$WEB" --retries 0
    web_faults '[{"path": "manifest", "action": "flip"}]'; refused manifest
    web_faults '[{"path": "map$", "action": "flip"}]'; refused map
    web_faults '[{"path": "index$", "action": "short-length"}]'; refused index
    web_faults '[{"path": "venues/", "action": "404"}]'; refused "no venue"
    web_faults '[{"path": "map$", "action": "404"}]'; refused "map"
    web_faults '[]'
    at b -q pull c cafe
}

@test "the center is a further source of what another one gave" {
    two_stores 4
    at a -q push cafe c
    cp -a c d
    at b -q pull c cafe
    at b -q center add d ./d
    at b pull d cafe --json | jq -e '.restore_points == 0'
    ls b/restore-points/*/index-d
    at b -q center remove c
    ESPALIER_STORE=$D/b fails 1 "only source of what is not here yet of 2 restore points \(base, v2\)" espalier center remove d
    at b -q center remove d --force
}
