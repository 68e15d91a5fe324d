/* SPDX-License-Identifier: BSD-3-Clause */
/* What every cmocka test needs: includes in the order that cmocka wants, a
 * private directory, the last error's text.
 */

#ifndef ESPALIER_UNIT_H
#define ESPALIER_UNIT_H

#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/host.h"

/* The text of the last error or warning, "" if there was none. */
static char unit_error[1024] __attribute__ ((unused));

static inline __attribute__ ((unused)) void
unit_error_fn (const char *fmt, va_list args)
{
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

  pthread_mutex_lock (&lock);   /* threads may report at once */
  vsnprintf (unit_error, sizeof unit_error, fmt, args);
  pthread_mutex_unlock (&lock);
}

/* Errors go to unit_error; call it first in main. */
static inline __attribute__ ((unused)) void
unit_init (void)
{
  static const struct esp_host host = { .error = unit_error_fn };
  esp_set_host (&host);
}

/* A fresh directory; unit_rmdir removes it with all below. */
static inline __attribute__ ((unused)) char *
unit_mkdir (void)
{
  const char *base = getenv ("TMPDIR");
  char *dir;

  if (asprintf (&dir, "%s/espalier-unit-XXXXXX", base ? base : "/tmp") < 0)
    abort ();
  assert_non_null (mkdtemp (dir));
  return dir;
}

static inline __attribute__ ((unused)) void
unit_rmdir (char *dir)
{
  char *cmd;

  if (asprintf (&cmd, "rm -rf -- '%s'", dir) < 0)
    abort ();
  assert_int_equal (system (cmd), 0);
  free (cmd);
  free (dir);
}

/* A seed for random tests: $ESPALIER_TEST_SEED, or a new one; printed. */
static inline __attribute__ ((unused)) unsigned
unit_seed (void)
{
  const char *s = getenv ("ESPALIER_TEST_SEED");
  unsigned seed = s ? (unsigned) strtoul (s, NULL, 0) : (unsigned) getpid () * 2654435761u;

  printf ("# seed %u (run again with ESPALIER_TEST_SEED=%u)\n", seed, seed);
  return seed;
}

#endif /* ESPALIER_UNIT_H */
