# SPDX-License-Identifier: BSD-3-Clause
# Remotes over a real S3 server, Ceph's gateway; and over servers that are
# none.  One Ceph serves all tests of this file, each has its own prefix.
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/ceph

TOOL=$ESPALIER_BUILDDIR/tests/lib/remote-tool

# s3: the URL of this test's prefix in $U, and credentials
s3 ()
{
    local m; m=$(missing_for_ceph)
    [ -z "$m" ] || skip "$m is not installed"
    U="s3://bucket/$BATS_TEST_NUMBER/center?endpoint=$ENDPOINT"
    export AWS_ACCESS_KEY_ID=TESTKEY AWS_SECRET_ACCESS_KEY=TESTSECRET
}

tool () { timeout 240 "$TOOL" --timeout 30 "$@" 2>err; }

fails ()
{
    local want=$1; shift
    if tool "$@" >out; then echo "it did not fail: $*"; return 1; fi
    [ "$(tail -n 1 err)" = "$want" ] || { cat err; return 1; }
}

@test "objects are put, read, listed and deleted" {
    s3
    random_file x 3000000
    tool "$U" put a/x x -- put venues/caf%C3%A9 x -- delete nothing
    tool --twin x "$U" storm a/x 100000 8 10 -- get a/x 100 50 >got
    cmp got <(tail -c +101 x | head -c 50)
    tool "$U" all venues/caf%C3%A9 3000000 | cmp - x
    [ "$(tool "$U" list "" | cut -d' ' -f1-2)" = $'a/x 3000000\nvenues/caf%C3%A9 3000000' ]
    [ "$(tool "$U" list venues/)" = "$(echo venues/caf%C3%A9; tool "$U" head a/x)" ] ||
        [ "$(tool "$U" list venues/)" = "venues/caf%C3%A9 $(tool "$U" head venues/caf%C3%A9)" ]
    tool "$U" delete a/x
    fails ENOENT "$U" head a/x
    fails ENOENT "$U" get a/x 0 1
    [ "$(cat err)" = ENOENT ]
}

@test "lists have as many pages as they need" {
    s3
    echo >e
    # shellcheck disable=SC2046
    tool "$U" $(printf 'put o/%s e -- ' {1..1005}) >out
    tool "$U" list o/ -- counters >out
    [ "$(grep -c '^o/' out)" -eq 1005 ]
    grep '^o/' out | cut -d' ' -f1 | LC_ALL=C sort -c -u
    grep -q 'requests=2 ' out
}

@test "put_absent and put_if: one of many wins, and nothing is left of the probe" {
    s3
    echo one >one; echo two >two
    local v
    v=$(tool "$U" put-absent ref one)
    fails EEXIST "$U" put-absent ref two
    [ "$(cat err)" = EEXIST ]
    tool "$U" put-if ref two "$v"
    fails ESTALE "$U" put-if ref one "$v"
    [ "$(cat err)" = ESTALE ]
    fails ESTALE "$U" put-if nothing one "$v"
    [ "$(tool "$U" all ref 10)" = two ]
    [ "$(tool "$U" race new 16)" = 1 ]
    [ "$(curl -s --aws-sigv4 aws:amz:us-east-1:s3 -u TESTKEY:TESTSECRET "$ENDPOINT/bucket?list-type=2" | grep -c probe)" = 0 ]
}

@test "large objects in parts, which another process goes on with" {
    s3
    random_file 1 6000000 1; random_file 2 5500000 2; random_file 3 1000 3
    local id p1 p2 p3
    id=$(tool "$U" begin big)
    p2=$(tool "$U" part big "$id" 2 2)
    p1=$(tool "$U" part big "$id" 1 2)
    p1=$(tool "$U" part big "$id" 1 1)
    p3=$(tool "$U" part big "$id" 3 3)
    [ "$(tool "$U" check big "$id" $p1 $p2 $p3)" = 1 ]
    [ "$(tool "$U" check big "$id" $p1 2 5500000 0000)" = 0 ]
    fails ENOENT "$U" head big
    tool "$U" end big "$id" $p1 $p2 $p3 >out
    [ "$(cat out)" = "$(tool "$U" head big)" ]
    tool "$U" all big 20000000 | cmp - <(cat 1 2 3)
    [ "$(tool "$U" check big "$id" $p1 $p2 $p3)" = 0 ]
}

@test "an upload replaces nothing, and can be given up" {
    s3
    echo one >one
    local id p
    id=$(tool "$U" begin big)
    p=$(tool "$U" part big "$id" 1 one)
    tool "$U" put big one
    fails EEXIST "$U" end big "$id" $p
    tool "$U" abort big "$id" -- abort big "$id"
    [ "$(tool "$U" check big "$id" $p)" = 0 ]
    [ "$(tool "$U" all big 10)" = one ]
}

@test "uploads that nobody ended are found, and removed unless something came" {
    s3
    echo one >one
    local a b
    tool "$U" put big one
    a=$(tool "$U" begin big)
    b=$(tool "$U" begin big)
    tool "$U" begin p/small >/dev/null
    tool "s3://bucket/elsewhere?endpoint=$ENDPOINT" begin big >other
    tool "$U" part big "$a" 1 one
    tool "$U" uploads 0 | sort >out
    { echo "4 big $a"; echo "0 big $b"; echo "0 p/small"; } | sort | cut -d' ' -f1-2 | cmp - <(cut -d' ' -f1-2 out)
    grep -qx "4 big $a" out; grep -qx "0 big $b" out
    [ -z "$(tool "$U" uploads 3600)" ]
    [ "$(tool "$U" reap 3600)" = 0 ]
    [ "$(tool "$U" reap 0)" = 3 ]
    [ -z "$(tool "$U" uploads 0)" ]
    [ "$(tool "$U" all big 10)" = one ]
    tool "s3://bucket/elsewhere?endpoint=$ENDPOINT" uploads 0 | grep -q "big $(cat other)"
}

@test "more uploads than a page holds are all found" {
    s3
    local args=(begin big) i
    for ((i = 1; i < 110; i++)); do args+=(-- begin big); done
    tool "$U" "${args[@]}" | sort >begun
    [ "$(wc -l <begun)" = 110 ]
    tool "$U" uploads 0 | cut -d' ' -f3 | sort | cmp - begun
}

@test "credentials come from files and profiles, wrong ones are refused, none is shown" {
    s3
    echo one >one
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    printf '[default]\naws_access_key_id = NOBODY\naws_secret_access_key = WRONGSECRET\n[ceph]\naws_access_key_id = TESTKEY\naws_secret_access_key = TESTSECRET\n' >cred
    fails EACCES --credentials cred "$U" put x one
    not grep -q SECRET err
    tool --credentials cred --profile ceph "$U" put x one
    fails EINVAL --credentials cred --profile nobody "$U" put x one
    export HOME=$D
    mkdir .aws; mv cred .aws/credentials
    AWS_PROFILE=ceph tool "$U" head x
    rm -r .aws
    fails EACCES "$U" get x 0 1
    grep -q 'no credentials' err
}

@test "a bucket that is not there is an error that says so" {
    s3
    echo one >one
    fails EIO "s3://nobucket?endpoint=$ENDPOINT" list ""
    grep -q 'no bucket nobucket' err
    fails EIO "s3://nobucket?endpoint=$ENDPOINT" put x one
    fails EIO "s3://nobucket?endpoint=$ENDPOINT" get x 0 1
}

# A server that takes everything and knows no conditions.
careless ()
{
    cat >careless.py <<'PY'
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        open("asked", "a").write(f"{self.command} {self.path}\n")
        self.send_response(200)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_PUT = do_DELETE = answer
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
print(s.server_port, flush=True)
s.serve_forever()
PY
    /usr/bin/python3 careless.py >port 3>&- &
    PIDS+=($!)
    wait_for server test -s port
    U="s3://bucket?endpoint=http://127.0.0.1:$(cat port)"
}

@test "a store that ignores conditions is not trusted with them" {
    careless
    echo one >one
    fails ENOTSUP "$U" put-absent ref one
    grep -q 'ignores conditions' err
    fails ENOTSUP "$U" put-if ref one 0
    not grep -q /ref asked
    # Each process asks once, with an object that it removes again.
    [ "$(grep -c '^DELETE /bucket/.espalier-probe' asked)" -eq 2 ]
    tool "$U" put ref one
}
