# SPDX-License-Identifier: BSD-3-Clause
# What users ask for, and who serves it: espalier need.
bats_require_minimum_version 1.5.0
load ../lib/common

# Windows <- office <- games (CS2), and a venue for each
site ()
{
    espalier init
    espalier root add windows --blank 1M --env windows=11
    espalier rp create office --parent windows --size 1M --app office=2021
    espalier rp create games --parent office --size 1M --app cs2 --app discord
    espalier venue add plain --disk windows
    espalier venue add office --disk office
    espalier venue add arena --disk games
} >/dev/null

@test "needs are added, shown, changed and deleted" {
    site
    run espalier need list
    [[ $output == "no needs yet"* ]]
    run espalier need add 'CS2 tournament' --env windows=11 --app cs2 --description 'on Fridays'
    [ "$output" = "added need CS2 tournament: venue arena serves it" ]
    run espalier need add Office --app office
    [ "$output" = "added need Office: venue arena and 1 more serve it" ]
    run espalier need add 办公 --app wps
    [ "$output" = "added need 办公: no venue serves it yet" ]
    [ "$(espalier need list --names)" = "CS2 tournament
Office
办公" ]
    run espalier need list
    [[ $output == *"CS2 tournament  windows 11, cs2  arena"*"on Fridays"* ]]
    [[ $output == *"Office          office           arena, office "* ]]
    run espalier need show 'CS2 tournament'
    [[ $output == *"env windows 11"*"app cs2"*"arena"*"games"* ]]
    espalier need set Office --app office=2024
    run espalier need show Office
    [[ $output == *"none serves it"* ]]
    espalier need set Office --description text
    [ "$(espalier need show Office --json | jq -rc '[.description, .resources[0].version, .venues]')" = '["text","2024",[]]' ]
    espalier need delete Office
    run espalier need show Office
    [ "$status" -eq 1 ] && [[ $output == *"no need 'Office'"* ]]
    espalier store check
}

@test "what is wrong is refused, and changes nothing" {
    site
    espalier need add Office --app office
    before=$(espalier need list --json)
    for words in "need add" "need add Office" "need add x --description y" "need set Office" \
                 "need match" "need show"; do
        # shellcheck disable=SC2086
        run espalier $words
        [ "$status" -eq 2 ] || { echo "$words: $status $output"; false; }
    done
    run espalier need add Office --app x
    [ "$status" -eq 1 ] && [[ $output == *"already a need 'Office'"* ]]
    run espalier need add $'a\nb' --app x
    [ "$status" -eq 1 ] && [[ $output == *"one line"* ]]
    run espalier need add x --app y --app y
    [ "$status" -eq 1 ] && [[ $output == *"twice"* ]]
    run espalier need match Office nothing
    [ "$status" -eq 1 ] && [[ $output == *"no need 'nothing'"* ]]
    [ "$(espalier need list --json)" = "$before" ]
}

@test "a new restore point serves its needs at once, and says so" {
    site
    espalier need add Office --app office
    espalier need add CS2 --env windows=11 --app cs2
    run espalier rp create tools --parent games --size 1M --app blender
    [[ $output == "made tools: "*", serves CS2 and Office" ]]
    run espalier rp create other --parent windows --size 1M
    [[ $output != *serves* ]]
    run espalier rp resources other --app office=2024
    [[ $output == *", serves Office" ]]
    run espalier rp show tools
    [[ $output == *"Serves:"*"CS2"*"Office"*"Venues:"* ]]
    [ "$(espalier rp show tools --json | jq -c .needs)" = '["CS2","Office"]' ]
    [ "$(espalier rp show windows --json | jq -c .needs)" = '[]' ]
    # a version that is nearer to the tip hides an older one
    espalier need add 'Office 2021' --app office=2021
    espalier rp create newer --parent games --size 1M --app office=2024
    [ "$(espalier rp show newer --json | jq -c .needs)" = '["CS2","Office"]' ]
    [ "$(espalier rp show tools --json | jq -c .needs)" = '["CS2","Office","Office 2021"]' ]
}

@test "an overlay that is kept says what it serves" {
    need nbdsh
    need_nbdsh
    site
    espalier need add CS2 --env windows=11 --app cs2
    start_nbdkit s --filter="$OVERLAY" "$VENUE" "store=$STORE"
    nbdsh -u "$(uri arena@seat-1)" -c 'h.pwrite(b"x" * 4096, 0); h.flush()'
    stop_nbdkit
    run espalier rp create kept --from-overlay arena@seat-1
    [[ $output == *", serves CS2" ]]
}

@test "the ranking: most served, fewest others, weight, id" {
    site
    espalier need add Office --app office
    espalier need add CS2 --app cs2
    run espalier need match CS2 Office
    [[ ${lines[1]} == "1  arena "*"serves CS2 and Office; 2 other programs" ]]
    [[ ${lines[2]} == "2  office "*"serves Office, not CS2; 1 other program" ]]
    [ "${#lines[@]}" -eq 3 ]
    [ "$(espalier need match Office Office --names)" = "office
arena" ]
    espalier venue add another --disk office
    [ "$(espalier need match Office --names)" = "another
office
arena" ]
    espalier venue set office --weight 200
    [ "$(espalier need match Office --names)" = "office
another
arena" ]
    run espalier need match CS2 Office --json
    [ "$(jq -c '.[1] | [.venue, .serves, .serves_not, .extra, .weight]' <<<"$output")" = \
      '["office",["Office"],["CS2"],1,200]' ]
    espalier need add nothing --app nothing
    run espalier need match nothing
    [ "$status" -eq 0 ] && [ "$output" = "no venue serves any of these" ]
}

@test "a rebuild gives the same needs and the same ranking" {
    site
    espalier need add Office --app office --description text
    espalier need add CS2 --env windows=11 --app cs2
    espalier venue set arena --weight 7 --network 10.0.0.0/24
    before=$(espalier need list --json; espalier need match Office CS2 --json)
    rm "$STORE"/catalog.db*
    espalier store rebuild
    [ "$(espalier need list --json; espalier need match Office CS2 --json)" = "$before" ]
    head -c 20 "$STORE/needs" >half && cp half "$STORE/needs"
    run espalier store check
    [ "$status" -eq 3 ]
    espalier store check --repair
    [ "$(espalier need list --json; espalier need match Office CS2 --json)" = "$before" ]
}
