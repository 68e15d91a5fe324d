/* SPDX-License-Identifier: BSD-3-Clause */
/* Names: of restore points, venues and clients; export names; UUIDs.
 *
 * A name has 1 to 128 bytes: letters and digits (of any script, as valid
 * UTF-8), '.', '_' and '-'; it begins with a letter, a digit or '_'.  A
 * client's name may also contain ':', in front too (hardware and IPv6
 * addresses, "::1").  So a name is always one harmless component of a path,
 * and never an option.
 *
 * Letters and digits are what iswalnum says in the locale C.UTF-8, whatever
 * the process's locale is.  That includes the vowel signs of Indic and Thai
 * scripts, but no accents that are characters of their own (U+0301): names
 * are written composed, so that two that look the same are the same.
 */

#ifndef ESPALIER_NAME_H
#define ESPALIER_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

#define ESP_NAME_MAX 128                /* bytes, without the NUL */
#define ESP_DISK_NUMBER_MAX 255         /* disks of a venue: 0 to 255 */

/* Is S a valid name (of a restore point or venue), a client's name?
 * Report nothing.
 */
extern bool esp_name_ok (const char *s);
extern bool esp_client_ok (const char *s);

/* As above, but an invalid one is reported ("WHAT name ...: ...", with
 * unprintable bytes escaped) with EINVAL.
 */
extern int esp_name_check (const char *s, const char *what);
extern int esp_client_check (const char *s);

/* S with bytes that are not printable, or not UTF-8, as \xNN, at most SIZE
 * - 1 bytes ("..." where cut).  For messages.  Returns BUF.
 */
extern const char *esp_escape (const char *s, char *buf, size_t size);

/* An export name, taken apart: VENUE[/DISK][@CLIENT][+TICKET] or
 * rp:NAME-OR-UUID[@CLIENT][+TICKET].
 */
#define ESP_TICKET_MAX 127              /* bytes, without the NUL */
struct esp_export {
  bool is_rp;
  char name[ESP_NAME_MAX + 1];    /* the venue, or the restore point */
  unsigned disk;                  /* 0 for rp: */
  char client[ESP_NAME_MAX + 1];  /* "" where none was given */
  char ticket[ESP_TICKET_MAX + 1];  /* base64url; "" where none was given */
};

/* Parse S.  An empty S is EINVAL too: the caller resolves defaults first.
 * Reports one error with what is wrong, which never shows the ticket.
 */
extern int esp_export_parse (const char *s, struct esp_export *out);

/* The longest export name that is valid, with its NUL. */
#define ESP_EXPORT_MAX \
  (ESP_NAME_MAX + 1 + 3 + 1 + ESP_NAME_MAX + 1 + 3 + 1 + ESP_TICKET_MAX)

/* Write OUT's canonical form, without the ticket: "cafe/0@seat-7", "rp:base".
 * Returns BUF.
 */
extern const char *esp_export_format (const struct esp_export *e, char *buf,
                                      size_t size);

/* S as esp_escape, but a ticket in it as "+...": for messages about what is,
 * or is no, export name.  Returns BUF.
 */
extern const char *esp_export_escape (const char *s, char *buf, size_t size);

/* Any bytes as one component of a path that is never "." or ".." and at
 * most 255 bytes long: bytes outside [A-Za-z0-9_-] become %XX, and a dot
 * stays unless it is first; what gets too long ends in "%%" and a hash.
 * Different inputs have different results.  "" becomes "%".  malloced.
 */
extern char *esp_path_component (const char *s);

/* UUIDs: 16 bytes; lower case with dashes as text. */
typedef struct { uint8_t b[16]; } esp_uuid;
#define ESP_UUID_TEXT 37                /* with the NUL */
extern void esp_uuid_new (esp_uuid *u);
extern const char *esp_uuid_text (const esp_uuid *u, char buf[ESP_UUID_TEXT]);
/* Parse the whole of S.  -1 with EINVAL; reports nothing. */
extern int esp_uuid_parse (const char *s, esp_uuid *u);
extern bool esp_uuid_eq (const esp_uuid *a, const esp_uuid *b);
extern bool esp_uuid_is_null (const esp_uuid *u);

/* Sizes as nbdkit reads them: whole numbers, with a unit in either case: b
 * (bytes), s (sectors of 512 bytes), K, M, G, T, P, E (powers of 1024); also
 * KiB, MiB and so on.  Below 8E.  -1 with EINVAL or ERANGE, reported as
 * "WHAT: ...".
 */
extern int esp_size_parse (const char *s, const char *what, uint64_t *out);
/* "1.5G", "4K", "0", 1000 is "0.98K": three digits at most; for people.  Returns BUF. */
extern const char *esp_size_format (uint64_t n, char buf[16]);
/* "2026-11-23 10:00:00" in local time.  Returns BUF. */
extern const char *esp_time_format (uint64_t seconds, char buf[32]);

#pragma GCC visibility pop
#endif /* ESPALIER_NAME_H */
