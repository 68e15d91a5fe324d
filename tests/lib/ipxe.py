#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A machine without a disk: QEMU with Debian's iPXE, driven over its serial console.

    ipxe.py [OPTIONS] STEP... [-- QEMU ARGUMENTS]

Options:
    --chain URL     iPXE asks for URL (with 10.0.2.2 for this host), with a
                    fixed address: the fast way
    --script FILE   iPXE runs FILE (it has the network's address already)
    --bootfile URL  the card's own ROM asks DHCP, and gets URL as boot file
    --efi           UEFI firmware (package ovmf) and the EFI driver
    --mac M, --uuid U, --memory MB, --card MODEL, --log FILE
    --timeout S     of each step, 60 s unless set
Steps, one after another:
    expect=TEXT     wait for TEXT: on the screen as it is, or in what went by
    screen=REGEX    wait until a row of the screen matches
    absent=TEXT     TEXT is not on the screen now
    key=KEYS        send KEYS; \\r, \\e, \\x.. as in Python; up, down, enter, esc
    show            print the screen
    sleep=S         wait S seconds
    exit            wait for the end of QEMU; its status becomes ours
At the end the machine is switched off.  A step that fails prints the screen,
and the status is 1.
"""
import argparse
import os
import re
import select
import subprocess
import sys
import tempfile
import time

KEYS = {"up": "\x1b[A", "down": "\x1b[B", "pgup": "\x1b[5~", "pgdn": "\x1b[6~",
        "enter": "\r", "esc": "\x1b"}
OVMF = "/usr/share/OVMF/OVMF_CODE.fd"


class Screen:
    """80 columns of a terminal: as much of one as firmware uses."""

    def __init__(self, rows=40, cols=100):
        self.rows, self.cols = rows, cols
        self.cells = [[" "] * cols for _ in range(rows)]
        self.row = self.col = 0
        self.rest = ""
        self.passed = ""            # everything, without escapes

    def text(self):
        return "\n".join("".join(r).rstrip() for r in self.cells).rstrip("\n")

    def newline(self):
        if self.row == self.rows - 1:
            self.cells.pop(0)
            self.cells.append([" "] * self.cols)
        else:
            self.row += 1

    def escape(self, params, final):
        n = [int(p) if p.isdigit() else 0 for p in params.lstrip("?").split(";")]
        if final in "Hf":
            self.row = min(max(n[0], 1), self.rows) - 1
            self.col = min(max(n[1] if len(n) > 1 else 1, 1), self.cols) - 1
            self.passed += "\n"
        elif final == "J":
            first = 0 if n[0] == 2 else self.row + 1
            for r in range(first, self.rows):
                self.cells[r] = [" "] * self.cols
            if n[0] != 2:
                self.cells[self.row][self.col:] = [" "] * (self.cols - self.col)
        elif final == "K":
            self.cells[self.row][self.col:] = [" "] * (self.cols - self.col)
        elif final == "C":
            self.col = min(self.col + max(n[0], 1), self.cols - 1)

    def put(self, c):
        if c == "\n":
            self.newline()
        elif c == "\r":
            self.col = 0
        elif c == "\b":
            self.col = max(self.col - 1, 0)
        elif c >= " ":
            self.cells[self.row][self.col] = c
            self.col = min(self.col + 1, self.cols - 1)
        if c >= " " or c == "\n":
            self.passed += c

    def feed(self, data):
        s = self.rest + data
        i = 0
        while i < len(s):
            if s[i] != "\x1b":
                self.put(s[i])
                i += 1
                continue
            m = re.match(r"\x1b(?:\[([0-9;?=]*)([@-~])|[()][A-Z0-9]|[=>cM78])", s[i:])
            if m:
                if m[2]:
                    self.escape(m[1], m[2])
                i += m.end()
            elif len(s) - i < 24:
                break               # the rest of it comes
            else:
                i += 1
        self.rest = s[i:]


class Machine:
    def __init__(self, o, more):
        self.o = o
        self.dir = tempfile.TemporaryDirectory(prefix="ipxe-")
        self.screen = Screen()
        self.log = open(o.log, "wb") if o.log else None
        self.qemu = subprocess.Popen(self.command(more), stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.qemu.stdout.fileno(), False)

    def script(self):
        if self.o.script:
            with open(self.o.script) as f:
                return f.read()
        return f"#!ipxe\n:again\nchain --replace --autofree {self.o.chain} || goto again\n"

    def command(self, more):
        o = self.o
        net = "user,id=n" + (f",bootfile={o.bootfile}" if o.bootfile else "")
        card = f"{o.card},netdev=n,mac={o.mac}"
        cmd = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc", "-m", str(o.memory),
               "-nographic", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nodefaults",
               "-netdev", net]
        if o.uuid:
            cmd += ["-uuid", o.uuid]
        if o.efi:
            cmd += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF}"]
            rom = "efi-virtio.rom" if o.card.startswith("virtio") else f"efi-{o.card}.rom"
            cmd += ["-device", f"{card},bootindex=1,romfile=/usr/lib/ipxe/qemu/{rom}"]
        elif o.bootfile:
            cmd += ["-boot", "n", "-device", card]
        else:
            body = self.script().split("\n", 1)
            path = os.path.join(self.dir.name, "x.ipxe")
            with open(path, "w") as f:
                f.write("#!ipxe\nset net0/ip 10.0.2.15\nset net0/netmask 255.255.255.0\n"
                        "set net0/gateway 10.0.2.2\nset net0/dns 10.0.2.3\nifopen net0\n" + body[1])
            cmd += ["-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", path, "-device", f"{card},romfile="]
        return cmd + more

    def read(self, seconds):
        """What came within SECONDS into the screen; False at the end."""
        fd = self.qemu.stdout.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            return True
        data = os.read(fd, 65536)
        if self.log:
            self.log.write(data)
            self.log.flush()
        self.screen.feed(data.decode("latin-1"))
        return bool(data)

    def wait(self, what, seen):
        end = time.monotonic() + self.o.timeout
        while not seen():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {self.o.timeout} s: {what}")
            if not self.read(min(left, 0.2)) and not seen():
                raise EOFError(f"the machine ended before: {what}")

    def expect(self, text):
        def seen():
            at = self.screen.passed.find(text)
            if at >= 0:             # once only: the next one must come anew
                self.screen.passed = self.screen.passed[at + len(text):]
            return at >= 0 or text in self.screen.text()
        self.wait(text, seen)

    def row(self, regex):
        self.wait(regex, lambda: re.search(regex, self.screen.text(), re.M))

    def key(self, keys):
        self.screen.passed = ""
        keys = KEYS.get(keys) or keys.replace(r"\e", r"\x1b").encode().decode("unicode_escape")
        self.qemu.stdin.write(keys.encode("latin-1"))
        self.qemu.stdin.flush()

    def wait_exit(self):
        end = time.monotonic() + self.o.timeout
        while self.read(0.2) and time.monotonic() < end:
            pass
        return self.qemu.wait(max(end - time.monotonic(), 0.1))

    def off(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        self.dir.cleanup()


def run(m, step):
    """One step; the status to end with, or None."""
    verb, _, value = step.partition("=")
    if verb == "expect":
        m.expect(value)
    elif verb == "screen":
        m.row(value)
    elif verb == "absent":
        if value in m.screen.text():
            raise ValueError(f"on the screen: {value}")
    elif verb == "key":
        m.key(value)
    elif verb == "show":
        print(m.screen.text(), flush=True)
    elif verb == "sleep":
        end = time.monotonic() + float(value)
        while time.monotonic() < end:
            if not m.read(min(0.2, max(end - time.monotonic(), 0))):
                break
    elif verb == "exit":
        return m.wait_exit()
    else:
        raise ValueError(f"no such step: {step}")
    return None


def main():
    args, more = sys.argv[1:], []
    if "--" in args:
        at = args.index("--")
        args, more = args[:at], args[at + 1:]
    p = argparse.ArgumentParser(usage=__doc__)
    for name in ("chain", "script", "bootfile", "uuid", "log"):
        p.add_argument("--" + name)
    p.add_argument("--efi", action="store_true")
    p.add_argument("--mac", default="52:54:00:12:34:56")
    p.add_argument("--memory", type=int, default=512)
    p.add_argument("--card", default="virtio-net-pci")
    p.add_argument("--timeout", type=float, default=60)
    p.add_argument("steps", nargs="+")
    o = p.parse_intermixed_args(args)
    if not (o.chain or o.script or o.bootfile):
        p.error("give --chain, --script or --bootfile")
    m = Machine(o, more)
    try:
        for step in o.steps:
            status = run(m, step)
            if status is not None:
                return status
        return 0
    except (OSError, EOFError, ValueError, subprocess.TimeoutExpired) as e:
        print(f"ipxe.py: {e}\n--- the screen\n{m.screen.text()}\n---", file=sys.stderr)
        return 1
    finally:
        m.off()


if __name__ == "__main__":
    sys.exit(main())
