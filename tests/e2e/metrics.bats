# SPDX-License-Identifier: BSD-3-Clause
# GET /metrics: what Prometheus reads, and what stands in contrib/ for it.
load ../lib/common
load ../lib/daemon

setup_store ()
{
    random_file one.raw 1048576 1
    espalier -q init
    espalier -q root add one one.raw
    espalier -q venue add cafe --disk one
}

scrape () { curl -fsS --max-time 20 -o scrape "$WEB/metrics"; }

# value SAMPLE: its value in the last scrape
value () { awk -v s="$1" '$1 == s { print $2 }' scrape; }

# metric SAMPLE VALUE: it has it soon
has_value () { scrape && [ "$(value "$1")" = "$2" ]; }
metric ()
{
    wait_for "$1 $2" has_value "$1" "$2" || { grep "^${1%%\{*}" scrape >&2; return 1; }
}

# reads EXPORT BYTES
reads ()
{
    EXPORT=$1 N=$2 PORT=$NBD_PORT nbdsh -c 'import os
h.set_export_name(os.environ["EXPORT"]); h.connect_tcp("127.0.0.1", os.environ["PORT"])
h.pread(int(os.environ["N"]), 0)
import time; time.sleep(1.5)
h.shutdown()'
}

@test "metrics: promtool finds nothing to say" {
    need promtool curl
    need_nbdsh
    setup_store
    start_espalierd
    reads cafe@a 4096
    metric 'espalier_venue_reads_total{venue="cafe",disk="0"}' 1
    curl -fsS -D head "$WEB/metrics" | promtool check metrics
    grep -qi '^Content-Type: text/plain; version=0.0.4' head
}

@test "metrics: clients' requests, the store and requests to the daemon" {
    need curl
    need_nbdsh
    setup_store
    start_espalierd
    reads cafe@a 8192
    reads rp:one 4096
    metric 'espalier_venue_read_bytes_total{venue="cafe",disk="0"}' 8192
    metric 'espalier_venue_read_bytes_total{venue="rp:"}' 4096
    [ "$(value 'espalier_restore_points{kind="stored"}')" = 1 ]
    [ "$(value espalier_venues)" = 1 ]
    [ "$(value espalier_stack_up)" = 1 ]
    [ "$(value 'espalier_boots_total{way="iscsi"}')" = 0 ]
    [ "$(value espalier_store_free_bytes)" -gt 0 ]
    grep -q '^espalier_build_info{version="' scrape
    grep -q '^espalier_http_requests_total{route="/metrics",code="' scrape
    # No client and no restore point is the name of anything.
    not grep -qE '@a|one' scrape
}

@test "metrics: nothing that counts shrinks when the server is started again" {
    need curl
    need_nbdsh
    setup_store
    start_espalierd
    local all='espalier_venue_read_bytes_total{venue="cafe",disk="0"}' i pid old=0 now
    for i in 1 2 3; do
        reads cafe@a 65536
        metric "$all" $((i * 65536))
        pid=$(curl -fsS "$WEB/api/server" | jq .stack.pid)
        kill -9 "$pid"
        # While it is down, and when there is another one.
        scrape
        [ "$(value "$all")" = $((i * 65536)) ]
        wait_for "another server" eval '[ "$(curl -fsS "$WEB/api/server" | jq "if .stack.state == \"up\" then .stack.pid else $pid end")" != "$pid" ]'
        scrape
        now=$(value "$all")
        [ "$now" -ge "$old" ] && [ "$now" = $((i * 65536)) ]
        old=$now
    done
    [ "$(value espalier_stack_restarts_total)" = 3 ]
}

@test "metrics: who scrapes at once gets one answer's worth of work" {
    need curl
    setup_store
    start_espalierd
    local i pids=()
    for i in {1..20}; do
        curl -fsS -o "s$i" "$WEB/metrics" 3>&- &
        pids+=("$!")
    done
    for i in "${pids[@]}"; do wait "$i"; done
    for i in {1..20}; do grep -q '^espalier_venues 1$' "s$i"; done
}

@test "metrics: the alert rules and the dashboard name metrics that there are" {
    need promtool jq curl
    setup_store
    start_espalierd
    scrape
    cp "$ESPALIER_SRCDIR/contrib/prometheus/espalier.rules.yml" .
    promtool check rules espalier.rules.yml
    jq -e '.title == "Espalier" and (.panels | length >= 10) and (.panels | map(.id) | unique | length) == (.panels | length)' \
        "$ESPALIER_SRCDIR/contrib/grafana/espalier.json"
    jq -r '.. | .expr? // empty' "$ESPALIER_SRCDIR/contrib/grafana/espalier.json" >expressions
    grep -oE 'espalier_[a-z_]+' expressions espalier.rules.yml -h | sort -u >named
    sed -n 's/^# TYPE \(espalier_[a-z_]*\) .*/\1/p' scrape | sort -u >there
    comm -23 named there >missing
    cat missing
    [ ! -s missing ]
    # And each expression is one.
    { echo 'groups:'; echo '- name: dashboard'; echo '  rules:'
      i=0; while read -r e; do i=$((i + 1)); printf -- '  - record: a:%s\n    expr: %s\n' "$i" "$(jq -Rn --arg e "$e" '$e | gsub("\\$__rate_interval"; "5m") | gsub("\\$(venue|instance)"; ".*")')"; done <expressions; } >dashboard.yml
    promtool check rules dashboard.yml
}
