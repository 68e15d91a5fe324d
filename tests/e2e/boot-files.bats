# SPDX-License-Identifier: BSD-3-Clause
# Kernels and initrds over HTTP: files of the server, and out of disk images of
# many kinds, broken ones among them.
bats_require_minimum_version 1.5.0
load ../lib/common
load ../lib/daemon
load ../lib/center

PATH=$PATH:/usr/sbin:/sbin
OLD=6.1.0-9-amd64 NEW=6.1.0-40-amd64

# get ARGUMENTS...: curl; the body in body, the headers in headers, $status
get ()
{
    rm -f body headers
    status=$(curl -sS --max-time 90 -o body -D headers -w '%{http_code}' "$@")
    touch body
}
is () { [ "$status" = "$1" ] || { echo "status $status, not $1: $(head -c 300 body)"; return 1; }; }
header () { tr -d '\r' <headers | sed -n "s/^$1: //Ip" | tail -n 1; }
says () { grep -q -- "$1" body || { echo "does not say '$1': $(head -c 1000 body)"; return 1; }; }
uuid () { espalier rp show "$1" --json | jq -r .uuid; }

need_fuse ()
{
    need curl jq nbdfuse grub-fstest mke2fs
    [ -w /dev/fuse ] || skip "no FUSE here"
}

# tree: what a Debian has in /boot, in tree/
tree ()
{
    mkdir -p tree/boot
    local v
    for v in $OLD $NEW; do
        random_file "tree/boot/vmlinuz-$v" 300001 "${#v}1"
        random_file "tree/boot/initrd.img-$v" 700003 "${#v}2"
    done
    echo "only text" >tree/boot/config
}

# ext4 FILE TREE [OFFSET [SIZE]]: a file system GRUB 2.06 reads
ext4 ()
{
    mke2fs -q -F -t ext4 -O ^metadata_csum_seed,^orphan_file -d "$2" -E "offset=${3:-0}" "$1" "${4:-24M}"
}

# image NAME SIZE: an empty file
image () { rm -f "$1"; truncate -s "$2" "$1"; }

# serve IMAGE...: a venue of the same name for each IMAGE.img, and espalierd
serve ()
{
    espalier --quiet init
    local i
    for i in "$@"; do venue "$i"; done
    start_espalierd
} >/dev/null

venue ()
{
    espalier --quiet root add "$1" "$1.img"
    espalier --quiet venue add "$1" --disk "$1"
}

# mounts: what nbdfuse shows below our directory
mounts () { grep -c " $D/" /proc/self/mounts || true; }

@test "files of the server: as they are, with ranges and conditions" {
    need_fuse
    image empty.img 4M
    serve empty
    random_file linux 100000 5
    random_file ird 50000 6
    espalier venue set empty --kernel "$D/linux" --initrd "$D/ird"
    get "$WEB/venues/empty/kernel"; is 200
    cmp body linux
    [ "$(header content-length)" = 100000 ]
    local tag; tag=$(header etag)
    get -H "If-None-Match: $tag" "$WEB/venues/empty/kernel"; is 304
    get -r 1000-1999 "$WEB/venues/empty/initrd"; is 206
    cmp body <(tail -c +1001 ird | head -c 1000)
    get -I "$WEB/venues/empty/initrd"; is 200
    [ "$(header content-length)" = 50000 ]
    # Another file is another ETag.
    random_file linux 100000 7
    get -H "If-None-Match: $tag" "$WEB/venues/empty/kernel"; is 200
    cmp body linux
    rm linux
    get "$WEB/venues/empty/kernel"; is 404
    mkfifo linux
    get "$WEB/venues/empty/kernel"; is 500
    says 'not a file'
    get "$WEB/venues/nowhere/kernel"; is 404
}

@test "ext4 on an MBR: paths, links, the partition given or found" {
    need_fuse
    need sfdisk
    tree
    ln -s "boot/vmlinuz-$OLD" tree/vmlinuz
    ln -s "/boot/initrd.img-$OLD" tree/boot/link
    image disk.img 32M
    echo "start=2048, type=83" | sfdisk -q --label dos disk.img
    ext4 disk.img tree 1048576
    serve disk
    espalier venue set disk --kernel "image:/boot/vmlinuz-$NEW" --initrd "image:(msdos1)/boot/initrd.img-$NEW"
    get "$WEB/venues/disk/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
    get "$WEB/venues/disk/initrd"; is 200
    cmp body tree/boot/initrd.img-$NEW
    get -r 5-9 "$WEB/venues/disk/initrd"; is 206
    cmp body <(tail -c +6 tree/boot/initrd.img-$NEW | head -c 5)
    espalier venue set disk --kernel image:/vmlinuz --initrd image:/boot/link
    get "$WEB/venues/disk/kernel"; is 200
    cmp body tree/boot/vmlinuz-$OLD
    get "$WEB/venues/disk/initrd"; is 200
    cmp body tree/boot/initrd.img-$OLD
    [ "$(mounts)" = 0 ]
}

@test "what is not there: says what is" {
    need_fuse
    tree
    image plain.img 24M
    ext4 plain.img tree
    serve plain
    espalier venue set plain --kernel image:/boot/vmlinuz-7 --initrd 'image:(msdos3)/boot/initrd'
    get "$WEB/venues/plain/kernel"; is 404
    says "no file /boot/vmlinuz-7 in any file system of disk 0 (restore point plain)"
    says "vmlinuz-$NEW"
    says "espalier venue set"
    get "$WEB/venues/plain/initrd"; is 404
    says "(loop0,msdos3)"
    says "vmlinuz-$NEW"
    espalier venue set plain --kernel image:/boot --initrd none
    get "$WEB/venues/plain/kernel"; is 404
    get "$WEB/venues/plain/initrd"; is 404
    says "has a kernel and no initrd"
}

@test "nothing leads out of the image" {
    need_fuse
    tree
    ln -s "(host)/etc/passwd" tree/boot/out
    ln -s /etc/passwd tree/boot/passwd
    image plain.img 24M
    ext4 plain.img tree
    serve plain
    local path
    for path in '(host)/etc/passwd' '(hd0)/boot/config' '(proc)/self' '(loop0)/boot/config' '(lvm/../x)/etc/passwd' \
        '(msdos1)(host)/etc/passwd' '/boot/(host)/etc/passwd' '/boot/"x"' '/boot/a\b' "($(printf '%0100d' 1))/x"; do
        espalier venue set plain --kernel "image:$path" || continue
        get "$WEB/venues/plain/kernel"; is 500
        not grep -q root: body
    done
    for path in /boot/out /boot/passwd /../../../../../etc/passwd; do
        espalier venue set plain --kernel "image:$path"
        get "$WEB/venues/plain/kernel"; is 404
        not grep -q root: body
    done
    # In the service, grub-fstest may have a network name space of its own.
    grep -q '^RestrictNamespaces=net$' "$ESPALIER_SRCDIR/contrib/systemd/espalierd.service.in"
}

@test "nothing is set: the links, else the newest kernel, and its initrd" {
    need_fuse
    tree
    image newest.img 24M
    ext4 newest.img tree
    ln -s boot/vmlinuz-$OLD tree/vmlinuz
    ln -s boot/initrd.img-$OLD tree/initrd.img
    image links.img 24M
    ext4 links.img tree
    rm tree/vmlinuz tree/initrd.img "tree/boot/initrd.img-$NEW"
    cp tree/boot/vmlinuz-$NEW tree/boot/vmlinuz-0-rescue-abc
    image half.img 24M
    ext4 half.img tree
    serve newest links half
    get "$WEB/venues/newest/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
    get "$WEB/venues/newest/initrd"; is 200
    [ "$(stat -c %s body)" = 700003 ]
    get "$WEB/venues/links/kernel"; is 200
    cmp body tree/boot/vmlinuz-$OLD
    get "$WEB/venues/links/initrd"; is 200
    cmp body tree/boot/initrd.img-$OLD
    # The newest has no initrd: both are the older one's.
    get "$WEB/venues/half/initrd"; is 200
    cmp body tree/boot/initrd.img-$OLD
    get "$WEB/venues/half/kernel"; is 200
    cmp body tree/boot/vmlinuz-$OLD
}

@test "GPT, with a partition of its own for /boot" {
    need_fuse
    need sgdisk
    tree
    mkdir root
    ln -s boot/vmlinuz-$OLD root/vmlinuz
    mkdir root/boot
    image disk.img 64M
    sgdisk -n 1:2048:+25M -n 2:0:+25M disk.img >/dev/null
    ext4 disk.img tree/boot 1048576
    ext4 disk.img root $((27 * 1048576 - 1048576))
    serve disk
    espalier venue set disk --kernel "image:/boot/vmlinuz-$NEW" --initrd "image:(gpt1)/initrd.img-$NEW"
    get "$WEB/venues/disk/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
    get "$WEB/venues/disk/initrd"; is 200
    cmp body tree/boot/initrd.img-$NEW
    espalier venue set disk --kernel none --initrd none
    get "$WEB/venues/disk/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
}

@test "XFS" {
    need_fuse
    need mkfs.xfs
    tree
    cat >proto <<PROTO
/
0 0
d--755 0 0
boot d--755 0 0
kernel ---644 0 0 $D/tree/boot/vmlinuz-$NEW
link l--777 0 0 kernel
\$
\$
PROTO
    image xfs.img 320M
    mkfs.xfs -q -p proto xfs.img
    serve xfs
    espalier venue set xfs --kernel image:/boot/link
    get "$WEB/venues/xfs/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
}

@test "btrfs" {
    need_fuse
    need mkfs.btrfs
    tree
    ln -s vmlinuz-$NEW tree/boot/link
    image btrfs.img 128M
    mkfs.btrfs -q --rootdir tree btrfs.img >/dev/null
    serve btrfs
    espalier venue set btrfs --kernel image:/boot/link
    get "$WEB/venues/btrfs/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
}

@test "FAT" {
    need_fuse
    need mkfs.vfat mcopy
    tree
    image fat.img 32M
    mkfs.vfat fat.img >/dev/null
    mcopy -i fat.img "tree/boot/vmlinuz-$NEW" ::LINUX.EFI
    serve fat
    espalier venue set fat --kernel image:/linux.efi
    get "$WEB/venues/fat/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
}

# lvm COMMAND ARGUMENTS...: on $LOOP alone, without the kernel's device mapper
lvm_tool ()
{
    LVM_SUPPRESS_FD_WARNINGS=1 timeout 30 "$1" --driverloaded n \
        --config "devices{use_devicesfile=0 filter=[\"a|^$LOOP\$|\",\"r|.*|\"]} backup{backup=0 archive=0}" "${@:2}" 3>&-
}

@test "LVM" {
    need_fuse
    need losetup pvcreate vgcreate lvcreate
    tree
    image lvm.img 48M
    LOOP=$(losetup -f --show lvm.img) || skip "no loop device"
    { lvm_tool pvcreate -ff -y "$LOOP" && lvm_tool vgcreate vg-1 "$LOOP" &&
        lvm_tool lvcreate -y -an -Zn -Wn -n root -L 32M vg-1; } >lvm.log 2>&1 || touch failed
    losetup -d "$LOOP"
    [ ! -e failed ] || { cat lvm.log; return 1; }
    ext4 lvm.img tree 1048576
    serve lvm
    get "$WEB/venues/lvm/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
    espalier venue set lvm --kernel "image:(lvm/vg--1-root)/boot/vmlinuz-$OLD"
    get "$WEB/venues/lvm/kernel"; is 200
    cmp body tree/boot/vmlinuz-$OLD
}

@test "a file that is too large" {
    need_fuse
    mkdir -p tree/boot
    printf begin >tree/boot/vmlinuz
    truncate -s 600M tree/boot/vmlinuz
    printf end >>tree/boot/vmlinuz
    image big.img 24M
    ext4 big.img tree
    serve big
    espalier venue set big --kernel image:/boot/vmlinuz
    get "$WEB/venues/big/kernel"; is 500
    says "larger than 512 MiB"
    [ -z "$(ls -d "$STORE"/run/espalierd/boot/tmp.* 2>/dev/null)" ]
}

@test "many at once: one extraction; it is kept; another tip is another file" {
    need_fuse
    tree
    image one.img 24M
    ext4 one.img tree
    mv "tree/boot/vmlinuz-$OLD" "tree/boot/vmlinuz-$NEW"
    image two.img 24M
    ext4 two.img tree
    serve one
    espalier --quiet root add two two.img
    local i pids=() tip; tip=$(uuid one)
    for i in $(seq 12); do
        curl -sS --max-time 60 -o "got$i" "$WEB/venues/one/kernel" 3>&- & pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    for i in $(seq 12); do cmp got1 "got$i"; done
    [ "$(find "$STORE/run/espalierd/boot" -name "$tip-*" | wc -l)" = 1 ]
    espalier --quiet venue set one --disk two
    get "$WEB/venues/one/kernel"; is 200
    cmp body "tree/boot/vmlinuz-$NEW"
    not cmp -s body got1
    get "$WEB/venues/one/kernel?tip=$tip"; is 200
    cmp body got1
    # What is kept needs no disk.
    pkill -9 -P "$ESPALIERD_PID" nbdkit
    get "$WEB/venues/one/kernel"; is 200
    stop_espalierd
    # Another format is wiped.
    echo 0 >"$STORE/run/espalierd/boot/format"
    start_espalierd
    [ -z "$(find "$STORE/run/espalierd/boot" -name "$tip-*")" ]
    get "$WEB/venues/one/kernel?tip=$tip"; is 200
    cmp body got1
}

# nbdfuse_export: the export that nbdfuse is told on its command line
nbdfuse_export ()
{
    local f
    for f in /proc/[0-9]*/cmdline; do
        tr '\0' '\n' <"$f" 2>/dev/null | grep -qF "$STORE/run/espalierd/mnt/" || continue
        tr '\0' '\n' <"$f" | sed -n 's/%2B/+/; s,^nbd+unix:///\(rp:[^?]*\)[?].*,\1,p'
    done 2>/dev/null
}

@test "the ticket on nbdfuse's command line is good for minutes only" {
    need_fuse
    image empty.img 4M
    serve empty
    stop_espalierd
    start_espalierd --require-ticket on
    local mine stack curl_pid export
    mine=$(espalier ticket create empty/0 --read-only)
    stack=$(curl -fsS "$WEB/api/server" | jq .stack.pid)
    kill -STOP "$stack"
    curl -sS --max-time 60 -o body "$WEB/venues/empty/kernel?t=${mine#*+}" 3>&- &
    curl_pid=$!
    wait_for nbdfuse eval '[ "$(nbdfuse_export)" ]'
    export=$(nbdfuse_export)
    kill -CONT "$stack"
    [ "$(espalier ticket show "$export" --json | jq '.valid_until - .issued')" -le 300 ]
    wait "$curl_pid"
    says 'no file system'
}

@test "file systems that are damaged on purpose" {
    need_fuse
    need mkfs.vfat mcopy mkfs.btrfs
    tree
    image ext.img 24M; ext4 ext.img tree
    image btrfs.img 112M; mkfs.btrfs -q --rootdir tree btrfs.img >/dev/null
    image fat.img 32M; mkfs.vfat fat.img >/dev/null; mcopy -i fat.img tree/boot/vmlinuz-$NEW ::vmlinuz
    local fs n names=()
    for fs in ext btrfs fat; do
        for n in 1 2 3 4; do
            cp --sparse=always $fs.img $fs$n.img
            python3 - $fs$n.img $fs $n <<'PY'
import random, sys
name, fs, seed = sys.argv[1:]; r = random.Random(fs + seed)
at = {"ext": 1024, "btrfs": 65536, "fat": 0}[fs]
with open(name, "r+b") as f:
    for _ in range(40 * int(seed)):
        f.seek(at + r.randrange(1024)); f.write(r.randbytes(r.choice((1, 2, 4))))
    for _ in range(200):
        f.seek(r.randrange(1 << 20)); f.write(r.randbytes(4))
PY
            names+=("$fs$n")
        done
    done
    serve "${names[@]}"
    for n in "${names[@]}"; do
        get "$WEB/venues/$n/kernel"
        case $status in 200|404|503) ;; *) echo "$n: $status"; return 1 ;; esac
    done
    get "$WEB/healthz"; is 200
    [ "$(mounts)" = 0 ]
}

@test "a daemon that is killed leaves nothing behind the next start" {
    need_fuse
    tree
    image one.img 24M
    ext4 one.img tree
    serve one
    # As it would be, killed in the middle.
    mkdir -p "$STORE/run/espalierd/mnt/abc" "$STORE/run/espalierd/boot/tmp.abc"
    echo part >"$STORE/run/espalierd/boot/tmp.abc/file"
    nbdkit -U "$D/n.sock" -P "$D/n.pid" memory 1M
    PIDS+=("$(cat n.pid)")
    nbdfuse -P "$D/f.pid" "$STORE/run/espalierd/mnt/abc/nbd" "nbd+unix:///?socket=$D/n.sock" >/dev/null 2>&1 3>&- &
    PIDS+=($!)
    wait_for nbdfuse test -s f.pid
    kill -9 "$ESPALIERD_PID"
    wait "$ESPALIERD_PID" || true
    start_espalierd
    [ "$(mounts)" = 0 ]
    [ -z "$(ls "$STORE/run/espalierd/mnt")" ]
    [ ! -e "$STORE/run/espalierd/boot/tmp.abc" ]
    get "$WEB/venues/one/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
}

@test "out of a restore point of which nothing is local yet" {
    need_fuse
    tree
    image far.img 24M
    ext4 far.img tree
    mkdir c
    at a -q init
    at a -q center add c ./c
    at a -q root add far far.img
    at a -q venue add far --disk far
    at a -q push far c
    espalier --quiet init
    espalier --quiet center add c ./c --unsigned
    espalier --quiet pull c far
    [ "$(espalier rp show far --json | jq -r .kind)" = delayed ]
    start_espalierd
    get "$WEB/venues/far/kernel"; is 200
    cmp body tree/boot/vmlinuz-$NEW
    get -r 1000000-1999999 "$WEB/venues/far/disk/0"; is 206
    cmp body <(tail -c +1000001 far.img | head -c 1000000)
}
