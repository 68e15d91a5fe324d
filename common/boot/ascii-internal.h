/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables behind ascii.h. */

#ifndef ESPALIER_ASCII_INTERNAL_H
#define ESPALIER_ASCII_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* The syllable of a Chinese character, in small letters; NULL: not known.
 * Static.
 */
extern const char *ascii_han (uint32_t c);

/* What a letter, digit or sign of another script is in ASCII: in BUF or static,
 * "" for what is not written (a combining accent); NULL: not known.
 */
extern const char *ascii_letter (uint32_t c, char buf[16]);

#endif /* ESPALIER_ASCII_INTERNAL_H */
