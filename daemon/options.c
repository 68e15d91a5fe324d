/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line: every name of the configuration is a long option, the rest
 * stands in one table here.
 */

#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "util/host.h"

#define USAGE 2
#define NAMES_MAX 64

enum { OPT_CONFIG = 256, OPT_CHECK, OPT_PRINT };

static const struct { struct option option; const char *arg, *help; } others[] = {
  { { "config", required_argument, NULL, OPT_CONFIG }, "FILE",
    "read this (/etc/espalier/espalierd.conf, if it is there)" },
  { { "check-config", no_argument, NULL, OPT_CHECK }, NULL,
    "is the configuration right?  Do not run" },
  { { "print-config", no_argument, NULL, OPT_PRINT }, NULL,
    "print what holds, as the file has it; do not run" },
  { { "verbose", no_argument, NULL, 'v' }, NULL, "log requests, too" },
  { { "help", no_argument, NULL, 'h' }, NULL, "print this" },
  { { "version", no_argument, NULL, 'V' }, NULL, "print the version" },
};
#define NOTHERS (sizeof others / sizeof *others)

/* Long options: names first, so that an index is that of a setting. */
static size_t
make_table (struct option table[NAMES_MAX])
{
  struct config_setting s;
  size_t n = 0;

  for (; config_setting (n, &s); n++)
    table[n] = (struct option) { s.name, required_argument, NULL, 0 };
  for (size_t i = 0; i < NOTHERS; i++)
    table[n + i] = others[i].option;
  table[n + NOTHERS] = (struct option) { 0 };
  return n;
}

static void
add (struct options *o, const char *name, const char *value)
{
  struct config_option *list = (struct config_option *) o->source.option;

  list = realloc (list, (o->source.noptions + 1) * sizeof *list);
  if (!list)
    abort ();
  list[o->source.noptions++] = (struct config_option) { name, value };
  o->source.option = list;
}

static int
usage (void)
{
  fputs ("Try espalierd --help.\n", stderr);
  return USAGE;
}

int
options_parse (int argc, char **argv, struct options *out)
{
  struct option table[NAMES_MAX];
  int c, index = 0;

  *out = (struct options) { 0 };
  make_table (table);
  while ((c = getopt_long (argc, argv, "vhV", table, &index)) != -1)
    switch (c) {
    case 0: add (out, table[index].name, optarg); break;
    case OPT_CONFIG: out->source.file = optarg; break;
    case OPT_CHECK: out->action = ACTION_CHECK; break;
    case OPT_PRINT: out->action = ACTION_PRINT; break;
    case 'v': out->verbose = true; break;
    case 'h': out->action = ACTION_HELP; return 0;
    case 'V': out->action = ACTION_VERSION; return 0;
    default: return usage ();
    }
  if (optind < argc) {
    fprintf (stderr, "espalierd: '%s': there are only options\n", argv[optind]);
    return usage ();
  }
  return 0;
}

void
options_clear (struct options *options)
{
  free ((void *) options->source.option);
  options->source.option = NULL;
}

static void
help_line (const char *name, const char *arg, const char *help)
{
  char left[64];

  snprintf (left, sizeof left, "--%s%s%s", name, arg ? " " : "",
            arg ? arg : "");
  printf ("  %-38s %s\n", left, help);
}

void
options_help (void)
{
  struct config_setting s;

  printf ("Usage: espalierd [OPTIONS]\n\n"
          "Boot menus, HTTP, bridges and the NBD server of a store.\n\n"
          "Options:\n");
  for (size_t i = 0; i < NOTHERS; i++)
    help_line (others[i].option.name, others[i].arg, others[i].help);
  printf ("\nOptions that are also names of the configuration:\n");
  for (size_t i = 0; config_setting (i, &s); i++)
    help_line (s.name, s.arg, s.help);
  printf ("\nSIGHUP: read the configuration again.  SIGTERM: end.  "
          "See espalierd(8).\n");
}
