# SPDX-License-Identifier: BSD-3-Clause
# GET /api/…: the command line's objects, and what only a daemon knows.
load ../lib/common
load ../lib/center
load ../lib/delayload
load ../lib/daemon

setup_store ()
{
    random_file one.raw 1048576 1
    espalier -q init
    espalier -q root add one one.raw --note "a note"
    espalier -q rp create two --parent one --size 2M --app chess
    espalier -q venue add cafe --disk two --disk one --description "The seats"
    espalier -q venue add lab --disk one
}

api () { curl -fsS --max-time 20 "$WEB/api/$1"; }
api_has () { api "$1" | jq -e "$2" >/dev/null; }
soon () { wait_for "$1: $2" api_has "$1" "$2" || { api "$1" | jq . >&2; return 1; }; }

# need_client: skip the test where libnbd cannot be used from Python
need_client ()
{
    /usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"
}

client ()
{
    EXPORT=$1 PORT=$NBD_PORT /usr/bin/python3 -c 'import nbd, os, signal; h = nbd.NBD()
h.set_export_name(os.environ["EXPORT"]); h.connect_tcp("127.0.0.1", os.environ["PORT"])
h.pread(4096, 0); h.pwrite(b"x" * 65536, 0); h.flush()
open("ready", "w").close()
signal.pause()' >client.log 2>&1 3>&- &
    CLIENT=$!
    PIDS+=("$CLIENT")
    wait_for "$1" test -e ready
}

@test "api: restore points, venues and overlays are what --json prints" {
    need jq curl
    need_client
    setup_store
    start_espalierd
    client cafe@a
    kill "$CLIENT"; wait "$CLIENT" || true
    wait_for "nobody holds it" eval "espalier overlay list --json | jq -e '.[0].holder == null' >/dev/null"
    soon overlays '.[0].holder == null'
    diff <(espalier rp list --json | jq -S .) <(api tree | jq -S .)
    diff <(espalier venue list --json | jq -S .) <(api venues | jq -S .)
    diff <(espalier venue show cafe --json | jq -S '{id, description, disks, log, overlays, revision}') \
        <(api venues/cafe | jq -S '{id, description, disks, log, overlays, revision}')
    diff <(espalier overlay list --json | jq -S .) <(api overlays | jq -S .)
}

@test "api: a client has its overlay, its counters and how fast they grow" {
    need jq curl
    need_client
    setup_store
    start_espalierd --nbd-options "--quota 8M"
    client cafe@a
    soon clients '.connected == 1 and .total == 1 and (.clients[0] | .writes == 1 and .overlay.used > 0)'
    api clients | jq -e '.clients[0] | [.client, .venue, .disk, .export, .connected, .connections, .reads, .write_bytes, .overlay.quota, .overlay.tip_name]
        == ["a", "cafe", 0, "cafe/0@a", true, 1, 1, 65536, 8388608, "two"]'
    api_has clients '.clients[0] | (.per_second | has("read_bytes")) and (.since > 1700000000)'
    kill "$CLIENT"
    soon clients '.connected == 0 and (.clients[0] | .connected == false and .per_second == null and .overlay.used > 0)'
}

@test "api: an unchanged state is not sent again" {
    need jq curl
    setup_store
    start_espalierd
    soon state '.server.stack.state == "up" and (.server.processes | length == 1) and (.history.read_bytes | length > 1)'
    local tag tree
    # The history grows in the first minutes: an answer stands for a second.
    unchanged ()
    {
        curl -fsS -D head -o state "$WEB/api/state"
        tag=$(sed -n 's/^ETag: \(".*"\)\r$/\1/p' head)
        [ "$(curl -sS -o body -w '%{http_code}' -H "If-None-Match: $tag" "$WEB/api/state")" = 304 ] && [ ! -s body ]
    }
    wait_for "304" unchanged
    # Who has the tree is not sent it again, until it changes.
    tree=$(jq -r .tree.tag state)
    jq -e '.tree.points | length == 2' state
    api_has "state?tree=$tree" ".tree == {tag: \"$tree\"}"
    espalier -q rp create three --parent one --size 4M
    soon "state?tree=$tree" '.tree.points | length == 3'
    api_has "state?tree=nonsense" '.tree.points | length == 3'
}

@test "api: what is wrong is said in words, worst first" {
    need jq curl
    need_client
    setup_store
    start_espalierd --nbd-options "--quota 68K"
    soon state '.problems == []'
    client cafe@a
    soon state '.problems | map([.severity, .about, .name]) == [["warning", "overlay", "cafe/0@a"]]'
    rm -f "$STORE/overlays/cafe/0/a/overlay"
    soon state '.problems[0] | .severity == "error" and .about == "overlay" and (.text | contains("damaged"))'
}

@test "api: centers tell no secrets, and what is fetched is counted" {
    need jq curl
    setup_store
    mkdir c
    espalier -q center add near ./c
    espalier -q center add s3 's3://bucket/prefix?endpoint=http://127.0.0.1:1&region=eu' --credentials one.raw ||
        espalier -q center add s3 's3://bucket/prefix?endpoint=http://127.0.0.1:1&region=eu'
    start_espalierd
    api centers | jq -e 'map(.name) == ["near", "s3"] and .[1].url == "s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=eu"'
    api centers | jq -e 'all(.[]; keys == ["created", "live", "name", "unsigned", "url"])'
    api_has hydration '. == []'
    api_has cache '. == {tiers: [], nodes: []}'
    api_has boots '. == []'
}

@test "api: what is fetched, and a center that went away" {
    need jq curl
    need_client
    pushed 4
    serve_center
    local center=$ORIGIN_PID
    RETRIES=0 TIMEOUT=1 pulled b "far=$WEB"
    STORE=$D/b
    start_espalierd --nbd-options "--background off --profile off"
    api hydration | jq -e 'map(.name) | sort == ["base", "v2"]'
    api_has hydration 'all(.local_bytes == 0 and .bytes > 0 and .wished == false)'
    api_has centers '.[0] | .name == "far" and .live == null'
    client cafe@a
    soon hydration 'any(.local_bytes > 0 and .live.center_bytes > 0)'
    soon centers '.[0].live | .out == false and .requests > 0 and .bytes > 0'
    kill -9 "$center"; wait "$center" || true
    PORT=$NBD_PORT /usr/bin/python3 -c 'import nbd, os; h = nbd.NBD()
h.set_export_name("cafe@b"); h.connect_tcp("127.0.0.1", os.environ["PORT"])
for i in range(3):
    try: h.pread(65536, (1 << 20) + (i << 18))
    except nbd.Error: pass' 3>&-
    soon centers '.[0].live | .out == true and .errors > 0'
    soon state '.problems | any(.about == "center" and .name == "far" and .severity == "error")'
}

@test "api: what is not there is 404, and nothing but GET and HEAD is done" {
    need jq curl
    setup_store
    start_espalierd
    [ "$(curl -sS -o out -w '%{http_code}' "$WEB/api/venues/nowhere")" = 404 ]
    grep -q 'no such venue' out
    [ "$(curl -sS -o /dev/null -w '%{http_code}' -X POST "$WEB/api/state")" = 405 ]
    [ "$(curl -sS -o /dev/null -w '%{http_code}' -X DELETE "$WEB/api/venues/cafe")" = 405 ]
    [ "$(curl -sS -I -o /dev/null -w '%{http_code}' "$WEB/api/state")" = 200 ]
}

@test "api: ten pages cost what one costs, over a thousand overlays" {
    need jq curl
    setup_store
    espalier -q venue clone cafe --count 1000 --name seat-%04d
    start_espalierd
    local i pids=()
    for i in {1..10}; do
        curl -fsS --max-time 30 -o "s$i" "$WEB/api/state" 3>&- &
        pids+=("$!")
    done
    for i in "${pids[@]}"; do wait "$i"; done
    for i in {2..10}; do cmp <(jq -S 'del(.history)' s1) <(jq -S 'del(.history)' "s$i"); done
    local n
    n=$(espalier overlay list --json | jq length)
    [ "$n" -ge 1000 ]
    jq -e --argjson n "$n" '.clients.total == $n and .summary.overlays == $n and (.clients.clients | length <= 500)' s1
}
