/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as the target of a request: what is accepted has a harmless path,
 * and parts and values that are text.
 */

#include "fuzz.h"

#include "daemon/uri.h"
#include "util/cleanup.h"

static void
check_path (const char *path)
{
  FUZZ_REQUIRE (*path == '/' && !strstr (path, "//") && !strstr (path, "/./") &&
                !strstr (path, "/../"));
  FUZZ_REQUIRE (uri_text_ok (path, strlen (path)));
  size_t n = strlen (path);
  FUZZ_REQUIRE (n < 2 || strcmp (path + n - 2, "/.") != 0);
  FUZZ_REQUIRE (n < 3 || strcmp (path + n - 3, "/..") != 0);
}

static void
check_match (const char *path)
{
  static const char *const patterns[] = { "/", "/*", "/*/*", "/a/*", "/*/a/*/b" };

  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    CLEANUP_FREE char *buf = malloc (strlen (path) + 1);
    const char *part[2] = { NULL, NULL };

    if (uri_match (patterns[i], path, buf, part, 2))
      for (int k = 0; k < 2 && part[k]; k++)
        FUZZ_REQUIRE (*part[k] && !strchr (part[k], '/') &&
                      strstr (path, part[k]));
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *raw = malloc (size + 1);
  struct uri u;
  const char *why = NULL;

  memcpy (raw, data, size);
  raw[size] = 0;
  unsigned r = uri_parse (raw, &u, &why);
  FUZZ_REQUIRE (r == 0 ? !why : why && (r == 400 || r == 414));
  if (r == 0) {
    check_path (u.path);
    check_match (u.path);
    for (size_t i = 0; i < u.nparameters; i++) {
      const struct uri_parameter *p = &u.parameter[i];
      FUZZ_REQUIRE (uri_text_ok (p->name, strlen (p->name)));
      FUZZ_REQUIRE (!p->value || (strlen (p->value) <= URI_VALUE_MAX &&
                                  uri_text_ok (p->value, strlen (p->value))));
    }
    uri_query (&u, "a", 1);
  }
  uri_clear (&u);
  return 0;
}
