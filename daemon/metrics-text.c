/* SPDX-License-Identifier: BSD-3-Clause */
/* Prometheus's text format. */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "metrics-text.h"
#include "util/cleanup.h"
#include "util/name.h"

void
metric_head (FILE *f, const char *name, enum metric_type type,
             const char *help)
{
  fprintf (f, "# HELP espalier_%s %s\n# TYPE espalier_%s %s\n", name, help,
           name, type == METRIC_COUNTER ? "counter" : "gauge");
}

static void
put_escaped (FILE *f, const char *value)
{
  for (; *value; value++)
    switch (*value) {
    case '\\': fputs ("\\\\", f); break;
    case '"': fputs ("\\\"", f); break;
    case '\n': fputs ("\\n", f); break;
    default: putc (*value, f);
    }
}

/* Only UTF-8 may stand in a label: anything else is made legible. */
static void
put_value (FILE *f, const char *value)
{
  json_t *utf8 = json_string (value);
  size_t size = 4 * strlen (value) + 4;
  CLEANUP_FREE char *buf = utf8 ? NULL : malloc (size);

  if (utf8)
    put_escaped (f, value);
  else if (buf)
    put_escaped (f, esp_escape (value, buf, size));
  json_decref (utf8);
}

void
metric_sample (FILE *f, const char *name, const char *const *labels,
               uint64_t value, enum metric_unit unit)
{
  fprintf (f, "espalier_%s", name);
  for (size_t i = 0; labels && labels[i]; i += 2) {
    fprintf (f, "%c%s=\"", i ? ',' : '{', labels[i]);
    put_value (f, labels[i + 1]);
    fputs (labels[i + 2] ? "\"" : "\"}", f);
  }
  if (unit == METRIC_MICROSECONDS)
    fprintf (f, " %" PRIu64 ".%06" PRIu64 "\n", value / 1000000,
             value % 1000000);
  else
    fprintf (f, " %" PRIu64 "\n", value);
}
