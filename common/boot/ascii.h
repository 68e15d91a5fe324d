/* SPDX-License-Identifier: BSD-3-Clause */
/* A legible stand-in in ASCII for text of any script, for firmware that shows
 * nothing else.
 */

#ifndef ESPALIER_ASCII_H
#define ESPALIER_ASCII_H

#include <stddef.h>

#pragma GCC visibility push(default)

/* What becomes of a character that has no reading. */
enum esp_ascii_rest {
  ESP_ASCII_CODES,              /* "U+0E01": different texts stay different */
  ESP_ASCII_MARK,               /* "?", one for all in a row */
};

/* TEXT (any bytes) in the characters from blank to '~': Latin letters lose
 * their accents, Greek, Cyrillic, kana, Hangul and the more common Chinese
 * characters are romanised, the rest is as REST says, and bytes that are no
 * UTF-8 like it ("%FF").  Runs of blanks and control characters become one
 * blank; none at the ends.  *LOST (or NULL): how many had no reading.  malloced; NULL
 * only without memory.
 */
extern char *esp_ascii (const char *text, enum esp_ascii_rest rest,
                        size_t *lost);

/* A line of a menu for what is called NAME and described by DESCRIPTION ("" or
 * NULL: not), in at most WIDTH columns (at least 8): "cafe - Internet cafe";
 * where the name has characters without a reading and the description has
 * none, the description goes first: "Bangkok (U+0E01U+0E02)".  malloced; NULL only without
 * memory.
 */
extern char *esp_ascii_line (const char *name, const char *description,
                             size_t width);

/* Make the N lines of LINES (malloced, not longer than WIDTH; empty ones stay as
 * they are) differ from each other: the second of two alike ends in " (2)", shortened where it must be.
 * The same lines in the same order always give the same.  0, or -1 without memory.
 */
extern int esp_ascii_distinct (char **lines, size_t n, size_t width);

#pragma GCC visibility pop
#endif /* ESPALIER_ASCII_H */
