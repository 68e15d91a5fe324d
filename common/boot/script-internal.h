/* SPDX-License-Identifier: BSD-3-Clause */
/* What script.c and script-boot.c share. */

#ifndef ESPALIER_SCRIPT_INTERNAL_H
#define ESPALIER_SCRIPT_INTERNAL_H

#include <stdio.h>

#include "boot/script.h"
#include "util/cleanup.h"

/* A script as it grows. */
struct script { FILE *fp; char *text; size_t size; };
extern void script_cleanup (struct script *s);
#define CLEANUP_SCRIPT __attribute__ ((cleanup (script_cleanup)))

/* Its first lines; -1, reported. */
extern int script_begin (struct script *s, const struct esp_script_page *page);
/* The whole, malloced; NULL where R is -1 or something could not be written. */
extern char *script_end (struct script *s, int r);

/* EINVAL, reported, for what is no URL, or has characters that iPXE would
 * touch.
 */
extern int script_check_url (const char *url, const char *what);
extern int script_check_query (const char *query);

/* A word of LEN bytes of printable ASCII without "${": written so that iPXE sees
 * that word.
 */
extern void script_word (FILE *fp, const char *s, size_t len);
/* "COMMAND TEXT" and a newline; -1 without memory. */
extern int script_line (FILE *fp, const char *command, const char *text);
/* "chain … QUERY", the line not ended. */
extern void script_chain (FILE *fp, const char *query);
/* Wait, with a shell where there may be one. */
extern void script_pause (FILE *fp, const struct esp_script_page *page,
                          unsigned seconds);

#endif /* ESPALIER_SCRIPT_INTERNAL_H */
