# SPDX-License-Identifier: BSD-3-Clause
# Boot menus: what machines with Debian's iPXE are told, and what they do with it.
load ../lib/common
load ../lib/daemon
load ../lib/ipxe

# site [OPTIONS]: three venues, a daemon; $BOOT is the script's address for machines,
# $SCRIPT for us
site ()
{
    need curl jq
    espalier --quiet init
    truncate -s 4M disk.img
    espalier --quiet root add base disk.img
    for v in "cafe Seats" "office Desks" "school Lab"; do
        espalier --quiet venue add "${v% *}" --disk base --boot http --description "${v#* }"
    done
    start_espalierd --address 10.0.2.2 "$@"
    SCRIPT=$WEB/boot.ipxe
    BOOT=http://10.0.2.2:${WEB##*:}/boot.ipxe
}

# script QUERY: what a machine gets
script () { curl -fsS --max-time 20 "$SCRIPT?$1"; }

ME="mac=52-54-00-12-34-56"

# booted VENUE: it was remembered
booted () { [ "$(sqlite3 "$STORE/catalog.db" "SELECT venue FROM client_seen WHERE name = '${2:-52:54:00:12:34:56}'")" = "$1" ]; }

@test "first contact asks again with all that iPXE knows" {
    site
    script "" >out
    head -n 2 out | tail -n 1 | grep -qx "set u $BOOT"
    grep -q '^chain .*mac=${netX/mac:hexhyp}&uuid=${uuid}&' out
}

@test "a machine sees the menu, and a key chooses a venue" {
    need_ipxe
    site
    ipxe --chain "$BOOT" 'screen=\(1\) cafe - Seats' 'screen=\(2\) office - Desks' 'screen=\(3\) school - Lab' \
        key=2 'expect=Venue office - Desks' 'expect=as 52:54:00:12:34:56'
    grep -q 'event=script client=52:54:00:12:34:56 venue=office .*way=http' "$STORE/run/audit.log"
}

@test "the card's own ROM with DHCP gets the menu, arrows choose" {
    need_ipxe
    site
    ipxe --bootfile "$BOOT" --timeout 90 'screen=school - Lab' key=down key=down key=enter 'expect=Venue school'
}

@test "UEFI firmware shows the same menu" {
    need_ipxe efi
    site
    ipxe --efi --bootfile "$BOOT" --timeout 120 'screen=school - Lab' key=3 'expect=Venue school'
}

@test "the time-out takes the venue that was booted last, which is first" {
    need_ipxe
    site --menu-timeout 2
    script "$ME&venue=office" >/dev/null
    wait_for "it is remembered" booted office
    ipxe --chain "$BOOT" 'screen=\(1\) office' 'screen=\(2\) cafe' 'expect=Venue office'
}

@test "what cannot be booted is said, and asked for again only after a pause" {
    need_ipxe
    site
    # A kernel that is there no more when somebody wants it.
    echo none >kernel
    espalier --quiet venue set cafe --boot nbdroot --kernel "$D/kernel"
    rm kernel
    ipxe --chain "$BOOT" 'screen=school' key=1 'expect=could not boot this machine' 'expect=Once more in 10 seconds' \
        sleep=5
    [ "$(grep -c 'way=nbdroot' "$STORE/run/audit.log")" -eq 1 ]
    script "$ME&venue=cafe&try=1" | grep -x 'sleep 20 ||'
    script "$ME&venue=cafe&try=99" | grep -x 'sleep 60 ||'
}

@test "needs are ticked and matched, with reasons" {
    need_ipxe
    site
    espalier --quiet root add full disk.img --app office=7 --app paint
    espalier --quiet venue set office --disk full
    espalier --quiet need add Office --app office --description "Letters, tables"
    espalier --quiet need add "CS2 tournament" --app cs2
    ipxe --chain "$BOOT" 'screen=Choose by needs' key=n 'screen=\(1\) \[ \] CS2 tournament' \
        'screen=\(2\) \[ \] Office - Letters, tables' key=2 'screen=\(2\) \[x\] Office' key=f \
        'screen=\(1\) office - .*[Oo]ffice' 'screen=Other needs' key=1 'expect=Venue office'
    # The next time they are ticked.
    wait_for "it is remembered" booted office
    script "$ME&page=needs" | grep -q '\[x\] Office'
    script "$ME&page=needs" | grep -q '\[ \] CS2'
    # Nothing serves this.
    script "$ME&page=match&need=CS2%20tournament" | grep -q 'No venue serves'
}

@test "a need's name may have what means something in URLs" {
    need_ipxe
    site
    espalier --quiet need add "R&D = 100% ~41 x+y #1; ü" --app paint
    ipxe --chain "$BOOT" 'screen=Choose by needs' key=n 'screen=\(1\) \[ \] R&D = 100% ~41 x\+y #1; u' key=1 \
        'screen=\(1\) \[x\] R&D = 100%' key=1 'screen=\(1\) \[ \] R&D = 100%'
}

@test "scripts carry tickets where they are required" {
    site --require-ticket on
    espalier --quiet venue set office --boot nbdroot --kernel image:/boot/vmlinuz
    script "$ME&venue=cafe" >one
    script "$ME&venue=cafe" >two
    url=$(sed -n 's/^sanboot \([^ ]*\) ||$/\1/p' one)
    not grep -qF "$url" two
    curl -fsS -r 0-511 -o sector "$WEB/${url#http://*/}"
    [ "$(stat -c %s sector)" -eq 512 ]
    not curl -fsS -r 0-511 -o sector "$WEB/venues/cafe/disk/0"
    script "$ME&venue=office" | grep -q ' nbdroot=10.0.2.2:[0-9]*/office/0@52:54:00:12:34:56+[A-Za-z0-9_-]\{40,\} '
    not grep -q '[A-Za-z0-9_-]\{60,\}' "$STORE/run/audit.log"
}

@test "an assigned machine boots at once, as what the operator calls it" {
    need_ipxe
    site
    espalier --quiet client add 52:54:00:12:34:56 --venue school --name seat-7
    ipxe --chain "$BOOT" 'expect=Venue school - Lab' 'expect=as seat-7'
    script "mac=525400123456&venue=cafe" | grep -q 'may boot its own venue only'
    # By UUID and by network, and the smallest of them.
    espalier --quiet client add 7b2e3a1c-1111-4222-8333-444455556666 --venue cafe
    espalier --quiet client add 127.0.0.0/8 --venue office
    script "mac=52-54-00-00-00-01&uuid=7B2E3A1C-1111-4222-8333-444455556666" | grep -q '^echo Venue cafe'
    script "mac=52-54-00-00-00-01" | grep -q '^echo Venue office'
}

@test "who may not is refused, and told why" {
    need_ipxe
    site --unknown-clients refuse
    ipxe --chain "$BOOT" 'expect=This machine is not known here' 'expect=This machine: 52:54:00:12:34:56'
    grep -q 'way=refused why="This machine is not known here"' "$STORE/run/audit.log"
    script "$ME&venue=cafe" | grep -q 'not known here'
    espalier --quiet client add 52:54:00:12:34:56
    script "$ME" | grep -q '^menu '
    espalier --quiet venue set cafe --network 192.0.2.0/24
    script "$ME" >out
    not grep -q 'cafe' out
    grep -q 'office' out
    script "$ME&venue=cafe" | grep -q "not for this machine's network"
}

@test "unknown machines get the default venue where the site says so" {
    site --unknown-clients default --default-venue school
    script "$ME" | grep -q '^echo Venue school'
    script "$ME&venue=cafe" | grep -q 'own venue only'
    espalier --quiet client add 52:54:00:12:34:56 --venue cafe
    script "$ME" | grep -q '^echo Venue cafe'
}

@test "a shell is offered only where the site wants it" {
    need_ipxe
    site --shell on
    ipxe --chain "$BOOT" 'screen=\(s\) iPXE shell' key=s 'expect=iPXE>'
    stop_espalierd
    start_espalierd --address 10.0.2.2
    curl -fsS "$WEB/boot.ipxe?$ME" >out
    not grep -q shell out
}

@test "Chinese names are read, and never look alike" {
    need_ipxe
    site
    espalier --quiet venue add 网吧 --disk base --boot http --description '三楼'
    espalier --quiet venue add 王八 --disk base --boot http --description '三楼'
    ipxe --chain "$BOOT" 'screen=WangBa - SanLou$' 'screen=WangBa - SanLou \(2\)$' key=5 'expect=Venue WangBa'
    wait_for "it is remembered" booted 网吧
}

@test "more than fifty venues come page by page" {
    need_ipxe
    site
    for i in {100..155}; do printf 'venue add v%d --disk base --boot http --quiet\n' "$i"; done | xargs -L 1 espalier
    script "$ME" >first
    script "$ME&from=50" >second
    [ "$(grep -c '^chain .*&venue=' first)" -eq 50 ]
    [ "$(grep -c '^chain .*&venue=' second)" -eq 9 ]
    grep -q ' (m) More$' first && not grep -q 'Back$' first
    grep -q ' (b) Back$' second && not grep -q 'More$' second
    ipxe --chain "$BOOT" 'screen=\(1\) cafe' key=m 'screen=\(b\) Back' key=9 'expect=Venue v155'
}

@test "more than fifty needs come page by page, ticked and not" {
    site
    for i in {100..155}; do printf 'need add n%d --app a%d --quiet\n' "$i" "$i"; done | xargs -L 1 espalier
    script "$ME&page=needs" >first
    script "$ME&page=needs&ticked=1&from=50&need=n155" >second
    [ "$(grep -c '^item .*\[ \]' first)" -eq 50 ]
    [ "$(grep -c '^item .*\[[ x]\]' second)" -eq 6 ]
    grep -q '\[x\] n155' second
    grep -q ' (m) More$' first && grep -q ' (b) Back$' second
}

@test "a browser does not boot a machine" {
    site
    local header
    for header in 'User-Agent: Mozilla/5.0 (X11; Linux x86_64)' 'Origin: http://elsewhere.example' \
        'Referer: http://elsewhere.example/'; do
        [ "$(curl -sS -o body -w '%{http_code}' -H "$header" "$SCRIPT?$ME&venue=cafe")" = 403 ]
        grep -q curl body
    done
    not booted cafe
    not grep -q event=script "$STORE/run/audit.log"
    script "$ME&venue=cafe" | grep -q '^sanboot'
}

@test "no query breaks out of a script" {
    site
    python3 - "$SCRIPT" <<'PY'
import random, re, sys, urllib.error, urllib.parse, urllib.request
bad = ["${uuid}", "a || shell", "&& shell", "; shell", "#", "\\", "--key", "-", "", "a b", "a\nshell", "\0", "\x1b[2J",
       "%", "../../etc/passwd", "网吧", "\xff", "x" * 1000, "x" * 2000, "99999999999999", "-1", "1e3", "cafe/0", "cafe+x"]
names = ["mac", "uuid", "ip", "hostname", "platform", "arch", "page", "from", "at", "need", "venue", "try", "ticked", "ipxe"]
words = re.compile(r"(set|menu|item|choose|goto|chain|echo|sleep|sanboot|sanhook|sanunhook|clear|:[a-z0-9_]+)( |$)")
r = random.Random(5)
for n in range(1500):
    q = [(r.choice(names), r.choice(bad + ["cafe", "needs", "match", "52-54-00-12-34-56"])) for _ in range(r.randint(1, 6))]
    url = sys.argv[1] + "?" + urllib.parse.urlencode(q, encoding="latin-1" if n % 3 == 0 else "utf-8", errors="replace")
    try:
        text = urllib.request.urlopen(url, timeout=20).read().decode("ascii")
    except urllib.error.HTTPError as e:
        assert e.code in (400, 413, 414), (e.code, url)
        continue
    lines = text.splitlines()
    assert lines[0] == "#!ipxe" and text.endswith("\n"), (url, text)
    for line in lines[1:]:
        assert words.match(line), (url, line)
        assert not line.endswith("\\"), (url, line)
        assert "shell" not in line.split("||")[1:] and " && " not in line, (url, line)
        left = re.sub(r"\$\{(u|x|nil|uuid|netX/mac:hexhyp|netX/ip|hostname:uristring|platform|buildarch)\}", "", line)
        assert "${" not in left, (url, line)
        if "${uuid}" in line:
            assert line.startswith("chain --replace --autofree ${u}?mac="), (url, line)
PY
    curl -fsS "$WEB/healthz" >/dev/null
}

@test "a thousand boots a minute" {
    site
    sqlite3 "$STORE/catalog.db" "
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 997)
        INSERT INTO venue SELECT printf ('v%03d', i), 'Venue ' || i, created, changed, 1 FROM n, venue WHERE id = 'cafe';
        INSERT INTO venue_disk SELECT v.id, 0, k.tip FROM venue v, venue_disk k WHERE v.id LIKE 'v%' AND k.venue = 'cafe';
        WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
        INSERT INTO client SELECT printf ('52:54:00:00:%02x:%02x', i / 256, i % 256), 0, printf ('seat-%d', i), '', 2, '', 1, 1
        FROM n"
    # First contact, menu and boot of 1,000 machines, 16 at a time.
    python3 - "$WEB" "$ESPALIERD_PID" <<'PY' >&2
import http.client, os, sys, threading, time
host, pid = sys.argv[1][len("http://"):], sys.argv[2]
took, wrong = [], []
def cpu():
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
def ask(c, query, want):
    begin = time.monotonic()
    c.request("GET", "/boot.ipxe" + query)
    r = c.getresponse()
    text = r.read()
    took.append(time.monotonic() - begin)
    if r.status != 200 or want not in text:
        wrong.append((query, r.status, text))
def machines(k):
    for i in range(k, 1000, 16):
        c = http.client.HTTPConnection(host, timeout=30)
        me = f"?mac=52-54-00-00-{i // 256:02x}-{i % 256:02x}&uuid="
        ask(c, "", b"chain")
        ask(c, me, b"choose")
        ask(c, me + "&venue=cafe", f"as seat-{i}\n".encode())
        c.close()
before, begin = cpu(), time.monotonic()
threads = [threading.Thread(target=machines, args=(k,)) for k in range(16)]
for t in threads: t.start()
for t in threads: t.join()
seconds, used = time.monotonic() - begin, cpu() - before
took.sort()
p99 = took[len(took) * 99 // 100]
print(f"# 1,000 boots in {seconds:.1f} s: {used:.1f} ms of CPU each, p50 {took[len(took) // 2] * 1e3:.1f} ms, "
      f"p99 {p99 * 1e3:.1f} ms, longest {took[-1] * 1e3:.0f} ms")
assert not wrong, wrong[0]
assert len(took) == 3000 and seconds < 60 and used < 5 and p99 < 1
PY
    wait_for "the last is remembered" booted cafe seat-999
    [ "$(sqlite3 "$STORE/catalog.db" 'SELECT count (*) FROM client_seen')" -eq 1000 ]
}

@test "a catalog that somebody else is writing delays no boot" {
    site
    python3 - "$STORE/catalog.db" "$SCRIPT?$ME&venue=cafe" <<'PY'
import sqlite3, sys, time, urllib.request
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
begin = time.monotonic()
for _ in range(20):
    assert b"sanboot" in urllib.request.urlopen(sys.argv[2], timeout=30).read()
    time.sleep(0.05)
assert time.monotonic() - begin < 5
db.execute("ROLLBACK")
PY
    wait_for "it is remembered" booted cafe
}
