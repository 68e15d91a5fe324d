# SPDX-License-Identifier: BSD-3-Clause
# What the tests of image centers share.  Load it behind ../lib/common.

# fails CODE PATTERN COMMAND...: the exit status and what standard error says
fails ()
{
    local code=$1 pattern=$2 status=0; shift 2
    "$@" 2>"$D/err" >"$D/out" || status=$?
    [ "$status" -eq "$code" ] || { cat "$D/err" >&2; echo "exit status $status" >&2; return 1; }
    grep -qE -- "$pattern" "$D/err" || { cat "$D/err" >&2; return 1; }
}

# cut_off BYTES COMMAND...: the kernel kills it at its first write behind BYTES of
# any file: a push ends there however busy the machine is
cut_off ()
{
    local kib=$(($1 >> 10)) status=0; shift
    (ulimit -c 0; ulimit -f "$kib"; exec "$@") || status=$?
    [ "$status" -eq $((128 + $(kill -l XFSZ))) ] || { echo "not cut off: $*: exit status $status" >&2; return 1; }
}

# image FILE MIB SEED: half of it random, the rest text and zeroes
image ()
{
    random_file "$1" $(($2 << 19)) "$3"
    seq 1 $(($2 * 20000)) | head -c $(($2 << 18)) >>"$1"
    truncate -s "$2M" "$1"
}

# at STORE COMMAND...: with another store
at ()
{
    local store=$D/$1; shift
    ESPALIER_STORE=$store espalier "$@"
}

# two_stores: a has base, v2 over it, and the venue cafe; both know the center
# c and trust each other
two_stores ()
{
    local s
    mkdir c
    for s in a b; do
        at $s -q init
        at $s -q center add c ./c
        at $s key public >$s.pub
    done
    at a -q key trust b b.pub
    at b -q key trust a a.pub
    image base.img "${1:-24}" 1
    cp base.img v2.img
    random_file patch 300000 2
    dd if=patch of=v2.img bs=1 seek=1234567 conv=notrunc status=none
    at a -q root add base base.img --note "the base" --env debian=12
    at a -q rp create v2 --parent base --from-image v2.img --app chess
    at a -q venue add cafe --disk v2 --description "The seats"
}

# another_center NAME DIRECTORY [OPTIONS]: a second origin, with NAME.log and
# NAME.faults; its URL in $WEB
another_center ()
{
    local name=$1 dir=$2; shift 2
    rm -f "$D/$name.port"
    echo '[]' >"$D/$name.faults"
    python3 "$ESPALIER_SRCDIR/tests/origin" --log "$D/$name.log" --faults "$D/$name.faults" "$@" "$D/$dir" \
        >"$D/$name.port" 2>"$D/$name.err" 3>&- &
    ORIGIN_PID=$!
    PIDS+=("$ORIGIN_PID")
    wait_for "tests/origin" test -s "$D/$name.port"
    WEB=http://127.0.0.1:$(cat "$D/$name.port")
}

# faults NAME JSON: of the center NAME, from now on
faults ()
{
    printf '%s\n' "$2" >"$D/$1.faults.new"
    mv "$D/$1.faults.new" "$D/$1.faults"
}

# serve_center [OPTIONS]: the directory c over HTTP; its URL in $WEB, its log in
# $D/web.log
serve_center () { another_center web c "$@"; }
web_faults () { faults web "$1"; }

# rp_dir NAME: its directory at the center c, from store a
rp_dir ()
{
    printf 'c/restore-points/%s' "$(at a rp show "$1" --json | jq -r .uuid)"
}

# flip FILE [OFFSET]: turn a bit over; without OFFSET in the middle
flip ()
{
    python3 - "$1" "${2-}" <<'PY'
import os, sys
with open(sys.argv[1], "r+b") as f:
    at = int(sys.argv[2]) if sys.argv[2] else os.fstat(f.fileno()).st_size // 2
    f.seek(at); b = f.read(1)[0]; f.seek(at); f.write(bytes([b ^ 8]))
PY
}
