#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-3-Clause
# Image centers: what a store knows of them, push, pull, verify; two stores and
# a center in a directory.

load ../lib/common

# fails CODE PATTERN COMMAND...: the exit status and what standard error says
fails ()
{
    local code=$1 pattern=$2 status=0; shift 2
    "$@" 2>"$D/err" >"$D/out" || status=$?
    [ "$status" -eq "$code" ] || { cat "$D/err" >&2; echo "exit status $status" >&2; return 1; }
    grep -qE -- "$pattern" "$D/err" || { cat "$D/err" >&2; return 1; }
}

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
