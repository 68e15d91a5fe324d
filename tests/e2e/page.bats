# SPDX-License-Identifier: BSD-3-Clause
# The page of espalierd in a real browser: what it shows, at every width, in both
# themes; names are text, whatever they are.
load ../lib/common
load ../lib/center
load ../lib/daemon

BROWSER="$ESPALIER_SRCDIR/tests/lib/browser.py"

# look ARGUMENTS...: the page in Chromium; fails for any fault that it finds
look ()
{
    timeout -k 5 150 /usr/bin/python3 "$BROWSER" "$WEB/" "$@" 3>&-
}

need_browser ()
{
    need chromium jq curl
    [ -x /usr/bin/python3 ] || skip "python3 is not installed"
}

# three_venues: a store with a small tree
three_venues ()
{
    espalier -q init
    random_file base.raw 1048576 1
    cp base.raw games.raw
    dd if=/dev/zero of=games.raw bs=4096 count=3 conv=notrunc status=none
    espalier -q root add windows base.raw --note "as it came"
    espalier -q rp create games --parent windows --from-image games.raw --app chess
    espalier -q venue add cafe --disk games --description "The seats"
    espalier -q venue add lab --disk windows
    espalier -q venue add office --disk windows
}

# need_client: skip the test where libnbd cannot be used from Python
need_client ()
{
    /usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"
}

# connected EXPORT: a client that wrote something, and stays
connected ()
{
    EXPORT=$1 PORT=$NBD_PORT N=$((N + 1)) /usr/bin/python3 -c 'import nbd, os, signal; h = nbd.NBD()
h.set_export_name(os.environ["EXPORT"]); h.connect_tcp("127.0.0.1", os.environ["PORT"])
h.pread(65536, 0); h.pwrite(b"x" * 65536, 0); h.flush()
open("client" + os.environ["N"], "w").close()
signal.pause()' >client.log 2>&1 3>&- &
    PIDS+=("$!")
    N=$((N + 1))
    wait_for "$1" test -e "client$N"
}

@test "page: a store without anything says what to do first" {
    need_browser
    start_espalierd
    look --run 'document.getElementById("first").hidden' \
        --run 'document.getElementById("first-steps").textContent' \
        --run 'document.getElementById("seats").hidden' >out
    [ "$(sed -n 1p out)" = false ]
    grep -q 'espalier root add' out
    grep -q "$WEB/boot.ipxe" out
    [ "$(sed -n 3p out)" = true ]
}

@test "page: venues, tree and clients of a small store" {
    need_browser
    need_client
    three_venues
    start_espalierd --nbd-options "--quota 1M"
    connected cafe@seat-7
    look --wait 'document.querySelectorAll(".seat[data-on=yes]").length === 1' \
        --run '[...document.querySelectorAll("#venues-list .row-name")].map((e) => e.textContent)' \
        --run '[...document.querySelectorAll(".tree .node")].map((e) => e.getAttribute("aria-label"))' \
        --run 'document.querySelector(".seat").innerText' \
        --run 'document.querySelector(".seat .bar").getAttribute("aria-valuenow")' \
        --run 'document.getElementById("well-text").textContent' >out
    jq -se '.[0] == ["cafe", "lab", "office"]' out
    jq -se '.[1] | length == 2 and (.[0] | startswith("windows,") and contains("lab, office")) and (.[1] | contains("serves cafe"))' out
    jq -se '.[2] | contains("seat-7") and contains("cafe") and contains("64.0\u00a0KiB of 1.00\u00a0MiB")' out
    jq -se '.[3] == "6"' out
    jq -se '.[4] | startswith("All is well: 1\u00a0seat is served")' out
}

@test "page: the site's other servers, and that one is silent" {
    need_browser
    three_venues
    start_espalierd --server http://127.0.0.1:1
    look --wait 'document.querySelectorAll("#servers-list li").length === 1' \
        --run 'document.getElementById("servers").innerText' \
        --run 'document.getElementById("well").innerText' >out
    grep -q 'http://127.0.0.1:1.*does not answer' out
    grep -q 'machines are not sent there' out
    curl -fsS "$WEB/api/server" | jq -e '.servers == [{url: "http://127.0.0.1:1", state: "silent", answered: null, connections: 0, why: .servers[0].why}] and (.servers[0].why | contains("connect"))'
}

@test "page: nothing is wider than the window, light and dark" {
    need_browser
    three_venues
    espalier -q venue set cafe --disk games --description "$(printf 'W%.0s' {1..300})"
    start_espalierd
    for size in 360x640 390x844 820x1180 1440x900 3840x2160; do
        for scheme in light dark; do
            look --size "$size" --scheme "$scheme" --run 'getComputedStyle(document.body).backgroundColor' >"out-$scheme"
        done
        not cmp -s out-light out-dark
    done
}

@test "page: the switch of the theme wins over what the system prefers" {
    need_browser
    start_espalierd
    look --scheme light --run 'document.getElementById("theme").click(), document.getElementById("theme").click(), getComputedStyle(document.body).backgroundColor' \
        --run 'document.getElementById("theme-name").textContent' >out
    [ "$(sed -n 1p out)" = '"rgb(17, 21, 18)"' ]
    [ "$(sed -n 2p out)" = '"dark"' ]
}

@test "page: names and notes are text, whatever is in them" {
    need_browser
    need_client
    espalier -q init
    random_file base.raw 1048576 1
    local long chinese=网吧-旗舰版 hebrew=שלום evil='<script>document.title="owned"</script><img src=x onerror=alert(1)> "&amp;'
    long=$(printf 'x%.0s' {1..128})
    espalier -q root add "$chinese" base.raw --note "$evil" --app "$evil"
    espalier -q rp create "$hebrew" --parent "$chinese" --size 2M --note "‮gnp.exe"
    espalier -q rp create "$long" --parent "$hebrew" --size 3M
    espalier -q venue add "$chinese" --disk "$chinese" --description "$evil"
    espalier -q venue add "$hebrew" --disk "$long" --description "'\"><svg onload=alert(2)>"
    start_espalierd --title "$evil"
    connected "$chinese@$long"
    connected "$hebrew@::1"
    look --size 390x844 --wait 'document.querySelectorAll(".seat[data-on=yes]").length === 2' \
        --run 'document.querySelectorAll("main script, main img, svg svg").length' \
        --run '[...document.querySelectorAll("#venues-list .row-words")].map((e) => e.textContent)' \
        --run '(document.querySelectorAll("#venues-list button")[1].click(), document.getElementById("tree-detail").textContent)' \
        --run '[...document.querySelectorAll(".seat-name")].map((e) => e.textContent)' \
        --run 'document.getElementById("title").textContent' >out
    jq -se --arg e "$evil" '.[0] == 0 and (.[1] | index([$e])) != null and .[4] == $e' out
    jq -se --arg e "$evil" '.[2] | contains($e)' out
    jq -se --arg l "$long" '.[3] | sort == (["::1", $l] | sort)' out
}

@test "page: hundreds of restore points are folded, keys walk and unfold them" {
    need_browser
    three_venues
    local parent=games i
    for ((i = 1; i <= 40; i++)); do
        espalier -q rp create "day-$i" --parent "$parent" --size "$((i + 1))M"
        parent=day-$i
    done
    espalier -q venue set cafe --disk day-40
    start_espalierd
    # The run of day-1 to day-39 is one mark; from the root it is two steps away.
    look --run 'document.querySelectorAll(".run").length' \
        --run 'document.querySelectorAll(".node").length' \
        --run '(() => { const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            document.querySelector(".tree [tabindex=\"0\"]").focus(); key("ArrowRight"); const at = document.activeElement.dataset.run !== undefined;
            key("Enter"); return [at, document.querySelectorAll(".node").length, document.activeElement.getAttribute("aria-label")]; })()' >out
    jq -se '.[0] == 1 and .[1] == 2' out
    jq -se '.[2][0] == true and .[2][1] == 42 and (.[2][2] | startswith("games,"))' out
}

@test "page: says since when the server does not answer, and finds it again" {
    need_browser
    three_venues
    start_espalierd
    # Requests fail for a while, as when the network is gone.
    look --wait 'document.getElementById("live").dataset.kind === "live"' \
        --run 'new Promise((done) => { const real = window.fetch; window.fetch = () => Promise.reject(new TypeError("gone"));
            setTimeout(() => { const lost = document.getElementById("live-text").textContent; window.fetch = real;
                setTimeout(() => done([lost, document.getElementById("live-text").textContent]), 4500); }, 4500); })' >out
    jq -se '.[0][0] | test("^No answer since .*: what is shown is old$")' out
    jq -se '.[0][1] == "Live"' out
}

@test "page: the browser of these tests sees faults" {
    need_browser
    start_espalierd
    not look --run 'console.error("a fault")' 2>err
    grep -q 'console: a fault' err
    not look --run 'document.body.append(Object.assign(document.createElement("img"), { src: "http://127.0.0.1:9/x.png" })), new Promise((r) => setTimeout(r, 500))' 2>err
    grep -q 'policy: ' err
}

@test "page: its files have a policy, strong tags, and answer 304" {
    need curl
    start_espalierd
    local f tag
    for f in / /page/app.js /page/style.css /page/favicon.svg; do
        curl -fsS -D head -o body "$WEB$f"
        grep -qi "^Content-Security-Policy: default-src 'self';" head
        grep -qi '^X-Content-Type-Options: nosniff' head
        tag=$(sed -n 's/^ETag: \(".*"\)\r$/\1/p' head)
        [ -n "$tag" ]
        [ "$(curl -sS -o /dev/null -w '%{http_code}' -H "If-None-Match: $tag" "$WEB$f")" = 304 ]
    done
    cmp body "$ESPALIER_SRCDIR/daemon/page/favicon.svg"
    [ "$(curl -sS -o /dev/null -w '%{http_code}' "$WEB/page/embed")" = 404 ]
    # Nothing from elsewhere: no URL in what is served, but for the name of SVG.
    for f in index.html app.js dom.js parts.js seats.js tree.js theme.js style.css; do
        curl -fsS "$WEB/page/$f"
    done | grep -oE '(https?:)?//[a-z0-9.-]+\.[a-z]+' | sort -u >urls
    [ "$(cat urls)" = http://www.w3.org ]
}

@test "page: text has the contrast that WCAG AA asks for, in both themes" {
    python3 - "$ESPALIER_SRCDIR/daemon/page/style.css" <<'PY'
import re, sys
css = open(sys.argv[1]).read()
themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
          for block in re.findall(r"color-scheme: (?:light|dark);(.*?)\}", css, re.S)]
assert len(themes) == 3 and themes[1] == themes[2] != themes[0]

def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)

text = [(c, on) for c in ("ink", "muted") for on in ("paper", "card", "sunk")]
text += [(c, on) for c in ("leaf", "fruit", "bad", "warn", "water") for on in ("card", "sunk")]
text += [(c, c + "-soft") for c in ("leaf", "fruit", "bad", "warn")]
low = ["%s on %s: %.2f" % (a, b, contrast(t[a], t[b])) for t in themes for a, b in text if contrast(t[a], t[b]) < 4.5]
low += ["%s on card: %.2f" % (a, contrast(t[a], t["card"])) for t in themes for a in ("wood",) if contrast(t[a], t["card"]) < 3]
print("\n".join(low))
sys.exit(bool(low))
PY
}
