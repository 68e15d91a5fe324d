# SPDX-License-Identifier: BSD-3-Clause
# espalierd's HTTP server against clients that are broken, or mean harm: it
# survives, and others are answered within a second.
load ../lib/common
load ../lib/daemon

# attack KIND: and the daemon is the same process that is still well
attack ()
{
    need python3
    start_espalierd
    python3 "$ESPALIER_SRCDIR/tests/lib/http-attack.py" "$1" "${WEB##*:}"
    kill -0 "$ESPALIERD_PID"
    stop_espalierd
    not grep -i 'sanitizer\|runtime error' espalierd.log
}

@test "HTTP: paths and queries that can be read in two ways are refused" { attack targets; }
@test "HTTP: bodies are refused" { attack bodies; }
@test "HTTP: headers that are huge, many, missing, twice" { attack headers; }
@test "HTTP: garbage" { attack garbage; }
@test "HTTP: requests cut off at every byte" { attack halves; }
@test "HTTP: 300 requests at once on one connection" { attack pipeline; }
@test "HTTP: 2,000 connections" { attack many; }
@test "HTTP: slowloris" { attack slow; }

@test "HTTP: headers of every answer; a connection is used again" {
    need curl
    start_espalierd
    for path in /healthz /nothing '/%'; do
        curl -sS -i "$WEB$path" | tr -d '\r' >answer
        grep -qx 'X-Content-Type-Options: nosniff' answer
        grep -qx 'Cache-Control: no-store' answer
        grep -qix 'Content-Type: text/plain; charset=utf-8' answer
    done
    [ "$(curl -sS -o /dev/null -o /dev/null -w '%{num_connects} ' "$WEB/healthz" "$WEB/nothing")" = "1 0 " ]
    curl -sS -I "$WEB/healthz" | tr -d '\r' | grep -qx 'Content-Length: 3'
}

@test "HTTP: every route, asked for what nobody should ask" {
    need python3
    espalier --quiet init
    head -c 2000000 /dev/urandom >disk.img
    espalier --quiet root add base disk.img --app chess=4.1
    espalier --quiet venue add cafe --disk base --description 'The "seats" of <café>'
    espalier --quiet venue add café --disk base
    espalier --quiet need add Office --app chess
    espalier --quiet client add 52:54:00:12:34:56 --venue cafe
    start_espalierd
    python3 "$ESPALIER_SRCDIR/tests/lib/http-hostile.py" "$ESPALIER_SRCDIR/daemon/routes.c" "${WEB##*:}" 15
    kill -0 "$ESPALIERD_PID"
    stop_espalierd
    not grep -i 'sanitizer\|runtime error' espalierd.log
}
