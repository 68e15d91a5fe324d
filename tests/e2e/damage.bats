# SPDX-License-Identifier: BSD-3-Clause
# A damaged file of each kind, seen by clients and by the operator: a clear
# error, everything else goes on, check finds it, --repair mends it or sets it
# aside, and what can be read afterwards reads right.
bats_require_minimum_version 1.5.0
load ../lib/common

# base <- mid <- tip (venue cafe) and other (venue lab), each beside its raw
# file; written.raw is tip with what client s wrote.
damage_store ()
{
    python3 - <<'PY'
import random
r = random.Random(3); size = (3 << 20) + 4096 * 7 + 512
def save(n, d): open(n + ".raw", "wb").write(d)
def put(d, at, n): d[at:at + n] = r.randbytes(n)
d = bytearray(size); put(d, 0, 300000); put(d, 2 << 20, 70000); put(d, size - 512, 512); save("base", d)
put(d, 4096 * 3, 8192); d[65536:131072] = bytes(65536); save("mid", d)
put(d, (1 << 20) - 4096, 8192); put(d, size - 5000, 5000); save("tip", d)
d[200000:200007] = b"written"; save("written", d)
d = bytearray(size); put(d, 500000, 500000); save("other", d)
PY
    espalier init
    espalier root add base base.raw
    espalier rp create mid --parent base --from-image mid.raw
    espalier rp create tip --parent mid --from-image tip.raw
    espalier root add other other.raw
    espalier venue add cafe --disk tip --description "The cafe"
    espalier venue add lab --disk other
    serve
    nbdsh -u "$(uri cafe@s)" -c 'h.pwrite(b"written", 200000); h.flush()'
    nbdsh -u "$(uri lab@s)" -c 'h.pwrite(b"written", 200000); h.flush()'
    stop_nbdkit
} >/dev/null

serve ()
{
    start_nbdkit stack -t 1 --filter="$OVERLAY" "$VENUE" "store=$STORE" overlay-min-free=0
}

# rp_file RP FILE: its path, made writable
rp_file ()
{
    local f
    f=$STORE/restore-points/$(espalier rp show "$1" --json | jq -r .uuid)/$2
    chmod u+w "$f"
    echo "$f"
}

garbage () { printf 'garbage that is longer than a line\n' >"$1"; }

# same FILE EXPORT: the export's bytes are the file's
same ()
{
    rm -f copy.raw
    nbdcopy "$(uri "$2")" copy.raw && cmp "$1" copy.raw
}

# spoilt EXPORT: it can't be read to the end
spoilt ()
{
    ! nbdcopy "$(uri "$1")" /dev/null 2>/dev/null || { echo "$1 can be read"; return 1; }
}

others_work () { same other.raw lab && kill -0 "$NBDKIT_PID"; }

# found WORDS: check ends with 3 and its findings have the words
found ()
{
    local w
    run --separate-stderr espalier store check
    [ "$status" -eq 3 ] || { echo "check: status $status: $output $stderr"; return 1; }
    for w in "$@"; do [[ $output == *"$w"* ]] || { echo "no '$w' in: $output"; return 1; }; done
}

repaired ()
{
    espalier store check --repair
    espalier store check
}

@test "damage: a data file cut short" {
    need_nbdsh
    damage_store
    truncate -s 15000 "$(rp_file mid data)"
    serve
    spoilt cafe
    spoilt cafe@s
    others_work
    same base.raw rp:base
    found mid 'data has 15000 bytes'
    stop_nbdkit
    repaired
    # what stood on it went aside with it, nothing was thrown away
    [ "$(find "$STORE/damaged" -name data | wc -l)" -eq 3 ]
    serve
    others_work
    same base.raw rp:base
    [ "$(espalier rp list --names | sort | xargs)" = "base other" ]
    spoilt cafe
}

@test "damage: a data file that is gone" {
    need_nbdsh
    damage_store
    mv "$(rp_file tip data)" away
    serve
    spoilt cafe
    others_work
    same mid.raw rp:mid
    found tip
    stop_nbdkit
    repaired
    serve
    same mid.raw rp:mid
    same base.raw rp:base
    others_work
}

@test "damage: a map" {
    need_nbdsh
    damage_store
    local map
    map=$(rp_file tip map)
    cp "$map" before.map
    garbage "$map"
    serve
    same written.raw cafe@s         # clients are served from the chain map
    others_work
    found tip map
    stop_nbdkit
    repaired
    run espalier rp create child --parent tip --size 5M
    [ "$status" -eq 0 ]
    serve
    same written.raw cafe@s
    same tip.raw rp:tip
}

@test "damage: a chain map" {
    need_nbdsh
    damage_store
    garbage "$(rp_file mid chain)"
    garbage "$(rp_file tip chain)"
    serve
    spoilt cafe
    spoilt cafe@s
    grep -q 'error: .*chain' stack.log
    others_work
    same base.raw rp:base
    found mid tip chain
    stop_nbdkit
    repaired
    serve
    same tip.raw cafe
    same written.raw cafe@s
    same mid.raw rp:mid
}

@test "damage: a meta file" {
    need_nbdsh
    damage_store
    espalier rp note mid "a note" >/dev/null
    garbage "$(rp_file mid meta)"
    serve
    same written.raw cafe@s
    others_work
    found mid meta
    stop_nbdkit
    repaired
    rm "$STORE"/catalog.db*
    espalier store rebuild
    [ "$(espalier rp show mid --json | jq -r .note)" = "a note" ]
    serve
    same written.raw cafe@s
}

@test "damage: the catalog" {
    need_nbdsh
    damage_store
    local before c
    espalier rp list --json | jq -S . >before
    for c in "head -c 40960 /dev/urandom" "head -c 5000 before.db" "garbage_all"; do
        cp "$STORE/catalog.db" before.db
        rm -f "$STORE"/catalog.db-*
        if [ "$c" = garbage_all ]; then garbage "$STORE/catalog.db"; else $c >"$STORE/catalog.db"; fi
        run nbdkit -U - --filter="$OVERLAY" "$VENUE" "store=$STORE" venue=cafe --run 'nbdinfo --size "$uri"'
        [ "$status" -ne 0 ]
        [[ $output == *catalog.db* && $output == *"store rebuild"* ]] || { echo "$output"; false; }
        run espalier rp list
        [ "$status" -ne 0 ]
        [[ $output == *"store rebuild"* ]] || { echo "$output"; false; }
        found catalog
        repaired
        espalier rp list --json | jq -S . | diff before -
        serve
        same written.raw cafe@s
        others_work
        stop_nbdkit
    done
}

@test "damage: a catalog that breaks under a server spoils new connections only" {
    need_nbdsh
    damage_store
    serve
    SOCK=$SOCK nbdsh -u "$(uri cafe@s)" -c - <<'PY'
import os, subprocess
raw = open("written.raw", "rb").read(); store = os.environ["ESPALIER_STORE"]
with open(store + "/catalog.db", "r+b") as f: f.write(os.urandom(os.path.getsize(store + "/catalog.db")))
for n in ("-wal", "-shm"):
    if os.path.exists(store + "/catalog.db" + n): os.truncate(store + "/catalog.db" + n, 0)
assert h.pread(h.get_size(), 0) == raw
h.pwrite(b"later", 300000); h.flush()
PY
    kill -0 "$NBDKIT_PID"
    stop_nbdkit
    repaired
    serve
    run nbdsh -u "$(uri cafe@s)" -c 'print(h.pread(5, 300000), h.pread(7, 200000))'
    [ "$output" = "bytearray(b'later') bytearray(b'written')" ]
}

@test "damage: a venue's document" {
    need_nbdsh
    damage_store
    garbage "$STORE/venues/cafe"
    rm "$STORE/venues/lab"
    serve
    same written.raw cafe@s
    others_work
    found cafe lab
    stop_nbdkit
    repaired
    rm "$STORE"/catalog.db*
    espalier store rebuild
    [ "$(espalier venue show cafe --json | jq -r .description)" = "The cafe" ]
    serve
    same written.raw cafe@s
    others_work
}

@test "damage: the document of an overlay, and its map" {
    need_nbdsh
    damage_store
    local f
    for f in overlay map; do
        cp -a "$STORE/overlays/cafe/0/s" saved
        garbage "$STORE/overlays/cafe/0/s/$f"
        serve
        spoilt cafe@s
        grep -q 'error: .*overlay cafe/0@s: .*overlay reset' stack.log
        same tip.raw cafe@t
        run nbdsh -u "$(uri lab@s)" -c 'print(h.pread(7, 200000))'
        [ "$output" = "bytearray(b'written')" ]
        others_work
        stop_nbdkit
        espalier overlay show cafe@s | grep -qi damage
        espalier overlay show lab@s --json | jq -e '.damage == null'
        espalier overlay list >list     # goes on whatever one of them has
        grep -q lab/0@s list
        found cafe/0@s
        repaired
        [ -e "$STORE/damaged/overlay-cafe-0-s/data" ]
        serve
        same tip.raw cafe@s
        stop_nbdkit
        # moved back whole, it is the client's again
        espalier overlay delete cafe@s >/dev/null || true
        rm -rf "$STORE/damaged/overlay-cafe-0-s" "$STORE/overlays/cafe/0/s"
        mkdir -p "$STORE/overlays/cafe/0"
        mv saved "$STORE/overlays/cafe/0/s"
        serve
        same written.raw cafe@s
        stop_nbdkit
    done
}

@test "damage: the data of an overlay" {
    need_nbdsh
    damage_store
    truncate -s 4096 "$STORE/overlays/cafe/0/s/data"
    serve
    spoilt cafe@s
    same tip.raw cafe@t
    others_work
    stop_nbdkit
    found cafe/0@s 'cut short'
    repaired
    serve
    same tip.raw cafe@s
}

@test "damage: the lock of an overlay only tells who has it" {
    need_nbdsh
    damage_store
    garbage "$STORE/overlays/cafe/0/s/lock"
    rm "$STORE/overlays/lab/0/s/lock"
    espalier overlay list --json | jq -e 'length == 2 and all(.[]; .holder == null)'
    serve
    same written.raw cafe@s
    run nbdsh -u "$(uri lab@s)" -c 'print(h.pread(7, 200000))'
    [ "$output" = "bytearray(b'written')" ]
    stop_nbdkit
    espalier store check
}

@test "damage: the store's own document" {
    need_nbdsh
    damage_store
    local how
    for how in garbage rm; do
        $how "$STORE/espalier"
        run nbdkit -U - --filter="$OVERLAY" "$VENUE" "store=$STORE" --run true
        [ "$status" -ne 0 ]
        [[ $output == *"$STORE"*"store check --repair"* ]] || { echo "$output"; false; }
        run espalier rp list
        [ "$status" -ne 0 ]
        [[ $output == *"$STORE"*"store check --repair"* ]] || { echo "$output"; false; }
        run espalier init
        [ "$status" -ne 0 ]
        found "file espalier"
        if [ $how = rm ]; then espalier store rebuild; else repaired; fi
        espalier store check
        serve
        same written.raw cafe@s
        others_work
        stop_nbdkit
    done
    # what never was a store is none
    mkdir other
    run espalier --store other store check --repair
    [ "$status" -eq 1 ]
    [ -z "$(ls -A other)" ]
}

@test "damage: a flipped byte in what is not data is an error or nothing, never other bytes" {
    need_nbdsh
    damage_store
    python3 - <<'PY'
import glob, os, random, subprocess
seed = int(os.environ.get("ESPALIER_TEST_SEED", random.randrange(1 << 32)))
print(f"# seed {seed} (ESPALIER_TEST_SEED={seed})")
r = random.Random(seed); store = os.environ["ESPALIER_STORE"]
want = {"cafe@s": open("written.raw", "rb").read(), "cafe": open("tip.raw", "rb").read()}
files = [f for k in ("chain", "map", "meta") for f in sorted(glob.glob(store + "/restore-points/*/" + k))]
files += [store + "/overlays/cafe/0/s/map", store + "/overlays/cafe/0/s/overlay", store + "/venues/cafe"]
right = wrong = 0
for f in files:
    os.chmod(f, 0o644)
    size = os.path.getsize(f)
    for i in range(3):
        old = open(f, "rb").read()
        used = [k for k in range(size) if old[k]] or [0]
        at = r.choice(used) if i else r.randrange(size)
        new = bytearray(old); new[at] ^= 1 << r.randrange(8)
        name = r.choice(list(want))
        with open(f, "r+b") as o: o.write(new)
        if os.path.exists("got.raw"): os.remove("got.raw")
        p = subprocess.run(["nbdkit", "-U", "-", "-r", "--filter=" + os.environ["OVERLAY"], os.environ["VENUE"], "store=" + store,
            "overlay-min-free=0", "--run", "nbdcopy \"nbd+unix:///" + name + "?socket=$unixsocket\" got.raw"],
            capture_output=True, text=True, timeout=240)
        assert p.returncode in (0, 1), (f, at, p)
        if p.returncode == 0:
            assert open("got.raw", "rb").read() == want[name], f"{f}: byte {at}: {name} has other bytes"
            right += 1
        else:
            assert "nbdkit: " in p.stderr, p.stderr
            wrong += 1
        with open(f, "r+b") as o: o.write(old)
print(f"# {right} read right, {wrong} refused")
assert right and wrong
PY
    espalier store check
}
