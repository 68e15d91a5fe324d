/* SPDX-License-Identifier: BSD-3-Clause */
/* What commands that list print. */

#include <config.h>

#include <stdio.h>

#include "espalier.h"

int
json_print (json_t *root)
{
  int r = root ? json_dumpf (root, stdout, JSON_INDENT (2)) : -1;

  json_decref (root);
  if (r == -1) {
    esp_error ("json: the output could not be written");
    return CLI_FAILED;
  }
  putchar ('\n');
  return CLI_OK;
}

const struct opt list_options[] = {
  { "names", 0, NULL, "print names only, one a line", false },
  { 0 },
};

static int
print_names (const struct listing *l)
{
  for (size_t i = 0; i < l->n; i++) {
    CLEANUP_FREE char *name = l->name (l->arg, i);
    puts (name);
  }
  return CLI_OK;
}

static int
print_array (const struct listing *l)
{
  json_t *array = json_array ();

  for (size_t i = 0; i < l->n; i++)
    json_array_append_new (array, l->json (l->arg, i));
  return json_print (array);
}

void
list_table (const struct listing *l)
{
  struct table *t = table_new (l->header);

  for (size_t i = 0; i < l->n; i++)
    l->rows (t, l->arg, i);
  table_end (t, l->empty);
}

int
list_print (const struct args *args, const struct listing *l)
{
  if (opt_has (args, "names"))
    return print_names (l);
  if (cli.json)
    return print_array (l);
  list_table (l);
  return CLI_OK;
}
