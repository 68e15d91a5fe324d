#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Issue a ticket as docs/boot.md describes it, without Espalier's code: prints
the export name with it.  Times are seconds from now.  Its nonces follow each
other in time."""
import argparse, base64, hashlib, hmac, os, struct, time

p = argparse.ArgumentParser()
p.add_argument("key", help="keys/tickets.key")
p.add_argument("export", help="canonical: cafe/0@seat-7")
p.add_argument("--address", default="")
p.add_argument("--readonly", action="store_true")
p.add_argument("--issued", type=int, default=0)
p.add_argument("--opens", type=int, default=600)
p.add_argument("--valid", type=int, default=3600)
a = p.parse_args()

with open(a.key) as f:
    key = base64.b64decode(f.read())
ns = time.time_ns()
now, fraction = divmod(ns, 10**9)
flags = (1 if a.address else 0) | (2 if a.readonly else 0)
body = struct.pack(">BBIII", 1, flags, now + a.issued, now + a.opens, now + a.valid)
body += struct.pack(">I", (fraction << 32) // 10**9) + os.urandom(4)
mac = hmac.new(key, b"espalier-ticket-1\0" + body + a.export.encode() + b"\0"
               + a.address.encode() + b"\0", hashlib.sha256).digest()[:16]
print(a.export + "+" + base64.urlsafe_b64encode(body + mac).rstrip(b"=").decode())
