/* SPDX-License-Identifier: BSD-3-Clause */
/* A line of words as an operator writes it: blanks part them, "double quotes"
 * keep blanks within one.
 */

#ifndef ESPALIERD_WORDS_H
#define ESPALIERD_WORDS_H

#include <stddef.h>

struct words { char **word; size_t n; };        /* word[n] is NULL */
/* 0, or -1 with EINVAL where a quote has no end; reports nothing. */
extern int words_split (const char *s, struct words *out);
extern void words_clear (struct words *words);
/* One more word at the end; WORD is copied. */
extern void words_add (struct words *words, const char *word);
#define CLEANUP_WORDS __attribute__ ((cleanup (words_clear)))

#endif /* ESPALIERD_WORDS_H */
