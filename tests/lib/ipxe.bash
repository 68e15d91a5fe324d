# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Machines without a disk.  Load it behind common.
#
#   need_ipxe [efi]              skip where QEMU or iPXE is not installed
#   ipxe [OPTIONS] STEP...       one machine: lib/ipxe.py says what it can do;
#                                its console is kept in $D/ipxe.log
# This host is 10.0.2.2 for the machine, and sees it as 127.0.0.1.

need_ipxe ()
{
    need qemu-system-x86_64 python3
    [ -e /usr/lib/ipxe/ipxe.lkrn ] || skip "ipxe is not installed"
    [ -e /usr/lib/ipxe/qemu/efi-virtio.rom ] || skip "ipxe-qemu is not installed"
    [ "${1-}" != efi ] || [ -e /usr/share/OVMF/OVMF_CODE.fd ] || skip "ovmf is not installed"
}

ipxe ()
{
    python3 "$ESPALIER_SRCDIR/tests/lib/ipxe.py" --log "$D/ipxe.log" "$@" 3>&-
}
