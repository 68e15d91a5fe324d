/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier venue: what its files share. */

#ifndef ESPALIER_CLI_VENUE_H
#define ESPALIER_CLI_VENUE_H

#include "espalier.h"

/* --- how a venue boots (venue-boot.c) ------------------------------------ */

/* The options of `venue add` and `venue set` that say so, as a row of struct
 * opt's initialisers.
 */
#define BOOT_OPTIONS \
  { "boot", 0, "HOW", "iscsi, http, nbdroot, or default", false }, \
  { "kernel", 0, "WHERE", "a FILE, image:PATH on disk 0, or none", false }, \
  { "initrd", 0, "WHERE", "a FILE, image:PATH on disk 0, or none", false }, \
  { "cmdline", 0, "TEXT", "more of the kernel's command line", false }, \
  { "weight", 0, "N", "0 to 1000 (100): the heavier of two that fit alike", \
    false }, \
  { "network", 0, "CIDR", "clients of this network may have it; any: all", \
    true }

#define BOOT_SYNOPSIS \
  "[--boot HOW] [--kernel WHERE]\n       [--initrd WHERE] [--cmdline TEXT] " \
  "[--weight N] [--network CIDR ...]"
#define BOOT_MORE \
  "Machines without a disk boot by HOW (iscsi where nobody says otherwise); nbdroot\n" \
  "takes a kernel and an initrd, in files or out of disk 0 (image:/boot/vmlinuz)."

/* Was one of them given? */
extern bool boot_options_given (const struct args *args);
/* Change BOOT (the venue's present settings) as they say; every one of them is
 * checked.  An exit status, after an error was printed.
 */
extern int boot_options_apply (const struct args *args,
                               struct esp_venue_boot *boot);
/* The settings of venue ID where nothing was set. */
extern void boot_defaults (const char *id, struct esp_venue_boot *out);
extern void boot_copy (const struct esp_venue_boot *from,
                       struct esp_venue_boot *to);
/* The rows of `venue show`; only what is set. */
extern void boot_fields (const struct esp_venue_boot *boot);

/* --- a virtual machine's disks (venue-client.c) --------------------------- */

extern const struct opt venue_show_options[];
/* Were --uri, --qemu or --libvirt-xml given?  Then this prints them. */
extern bool venue_client_asked (const struct args *args);
extern int venue_client_run (const struct args *args);

#endif /* ESPALIER_CLI_VENUE_H */
