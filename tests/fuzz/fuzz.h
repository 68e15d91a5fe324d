/* SPDX-License-Identifier: BSD-3-Clause */
/* What every fuzzer needs: errors go nowhere, but their text is made, and
 * what must hold is checked in every build.
 */

#ifndef ESPALIER_FUZZ_H
#define ESPALIER_FUZZ_H

#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/host.h"

#define FUZZ_REQUIRE(cond)                                              \
  do {                                                                  \
    if (!(cond)) {                                                      \
      fprintf (stderr, "%s:%d: does not hold: %s\n", __FILE__,          \
               __LINE__, #cond);                                        \
      abort ();                                                         \
    }                                                                   \
  } while (0)

extern int LLVMFuzzerInitialize (int *argc, char ***argv);
extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* How many errors were reported so far. */
static unsigned fuzz_errors;

static void
fuzz_error (const char *fmt, va_list args)
{
  char text[1024];

  vsnprintf (text, sizeof text, fmt, args);
  ++fuzz_errors;
}

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  static const struct esp_host host = { .error = fuzz_error };

  (void) argc;
  (void) argv;
  esp_set_host (&host);
  return 0;
}

#endif /* ESPALIER_FUZZ_H */
