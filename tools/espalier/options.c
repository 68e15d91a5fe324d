/* SPDX-License-Identifier: BSD-3-Clause */
/* Options and arguments, read by getopt_long from a command's table. */

#include <config.h>

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "espalier.h"

const struct opt global_options[] = {
  { "store", 0, "DIR", "the store (else $ESPALIER_STORE, else the default)", false },
  { "json", 0, NULL, "print JSON instead of text", false },
  { "quiet", 'q', NULL, "print neither progress nor what was done", false },
  { "verbose", 'v', NULL, "print debug messages on standard error", false },
  { "help", 'h', NULL, "print help and exit", false },
  { 0 },
};

static const struct opt version_option[] = {
  { "version", 'V', NULL, "print the version and exit", false },
  { 0 },
};

#define OPTS_MAX 40

/* getopt's view of the tables. */
struct table_of_options {
  const struct opt *opt[OPTS_MAX];
  struct option longs[OPTS_MAX + 1];
  char shorts[2 * OPTS_MAX + 3];
  unsigned n;
};

static void
add_options (struct table_of_options *t, const struct opt *o)
{
  size_t s = strlen (t->shorts);

  for (; o && o->name; o++) {
    t->opt[t->n] = o;
    t->longs[t->n] = (struct option) {
      o->name, o->arg ? required_argument : no_argument, NULL,
      (int) (0x100 + t->n)
    };
    t->n++;
    if (o->letter) {
      t->shorts[s++] = o->letter;
      if (o->arg)
        t->shorts[s++] = ':';
    }
  }
}

static const struct opt *
option_of (const struct table_of_options *t, int c)
{
  if (c >= 0x100)
    return t->opt[c - 0x100];
  for (unsigned i = 0; i < t->n; i++)
    if (t->opt[i]->letter == c)
      return t->opt[i];
  return NULL;
}

int
usage (const struct command *cmd, const char *fmt, ...)
{
  CLEANUP_FREE char *text = NULL;
  va_list args;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) < 0)
    text = NULL;
  va_end (args);
  if (cmd)
    esp_error ("%s: %s (see: espalier help %s)", cmd->name,
               text ? text : fmt, cmd->name);
  else
    esp_error ("%s (see: espalier help)", text ? text : fmt);
  return CLI_USAGE;
}

/* The value stands in the next argument, and that is an option: the value
 * was forgotten.
 */
static bool
value_is_option (const struct table_of_options *t, const char *value)
{
  if (strncmp (value, "--", 2) != 0 || !value[2])
    return false;
  for (unsigned i = 0; i < t->n; i++) {
    size_t len = strlen (t->opt[i]->name);
    if (strncmp (value + 2, t->opt[i]->name, len) == 0 &&
        (value[2 + len] == 0 || value[2 + len] == '='))
      return true;
  }
  return false;
}

static int
unknown_option (const struct command *cmd, int letter, const char *text)
{
  char buf[128], name[3] = { '-', (char) letter, 0 };

  if (letter)
    text = name;
  return usage (cmd, "unknown or ambiguous option %s",
                esp_escape (text, buf, sizeof buf));
}

/* Take one option: remember it, or set what the whole run knows. */
static int
take (const struct command *cmd, struct args *out, const struct opt *o,
      const char *value)
{
  if (!o->many && opt_has (out, o->name))
    return usage (cmd, "--%s was given twice", o->name);
  out->values[out->nvalues++] = (struct opt_value) { o->name, value };
  return 0;
}

static int
run_getopt (const struct command *cmd, const struct table_of_options *t,
            int argc, char **argv, struct args *out)
{
  int c;

  opterr = 0;
  optind = 0;
  while ((c = getopt_long (argc, argv, t->shorts, t->longs, NULL)) != -1) {
    const struct opt *o;

    if (c == ':')
      return usage (cmd, "option %s needs a value", argv[optind - 1]);
    if (c == '?' && optopt >= 0x100)
      return usage (cmd, "option --%s takes no value",
                    option_of (t, optopt)->name);
    if (c == '?')
      return unknown_option (cmd, optopt, argv[optind - 1]);
    o = option_of (t, c);
    if (o->arg && optarg == argv[optind - 1] && value_is_option (t, optarg))
      return usage (cmd, "option --%s needs a value, found %s", o->name, optarg);
    if (take (cmd, out, o, optarg) != 0)
      return CLI_USAGE;
  }
  return 0;
}

static void
take_globals (const struct args *args)
{
  if (opt_has (args, "store"))
    cli.store_option = opt_value (args, "store");
  cli.json |= opt_has (args, "json");
  cli.quiet |= opt_has (args, "quiet");
  cli.verbose |= opt_has (args, "verbose");
  cli.help |= opt_has (args, "help");
  cli.version |= opt_has (args, "version");
}

static int
check_count (const struct command *cmd, const struct args *args)
{
  char buf[128];

  if (cli.help)
    return 0;
  if (cli.json && (cmd->flags & CMD_NO_JSON))
    return usage (cmd, "it has no --json");
  if (args->n < cmd->min_args)
    return usage (cmd, "missing argument: espalier %s %s", cmd->name,
                  cmd->synopsis);
  if (args->n > cmd->max_args)
    return usage (cmd, "unexpected argument %s",
                  esp_escape (args->arg[cmd->max_args], buf, sizeof buf));
  return 0;
}

/* Split off what stands behind "--"; returns the arguments before it. */
static int
split_rest (int argc, char **argv, struct args *out)
{
  for (int i = 1; i < argc; i++)
    if (strcmp (argv[i], "--") == 0) {
      out->nrest = (unsigned) (argc - i - 1);
      out->rest = argv + i + 1;
      return i;
    }
  return argc;
}

int
args_parse (const struct command *cmd, int argc, char **argv,
            struct args *out)
{
  struct table_of_options t = { .shorts = ":" };

  *out = (struct args) { .cmd = cmd };
  out->values = xcalloc ((size_t) argc + 1, sizeof *out->values);
  if (cmd->flags & CMD_PASS_REST)
    argc = split_rest (argc, argv, out);
  add_options (&t, cmd->options);
  add_options (&t, global_options);
  if (run_getopt (cmd, &t, argc, argv, out) != 0)
    return CLI_USAGE;
  take_globals (out);
  out->n = (unsigned) (argc - optind);
  out->arg = argv + optind;
  return check_count (cmd, out);
}

int
args_parse_global (int argc, char **argv, struct args *out, int *index)
{
  struct table_of_options t = { .shorts = "+:" };

  *out = (struct args) { .cmd = NULL };
  out->values = xcalloc ((size_t) argc + 1, sizeof *out->values);
  add_options (&t, global_options);
  add_options (&t, version_option);
  if (run_getopt (NULL, &t, argc, argv, out) != 0)
    return CLI_USAGE;
  take_globals (out);
  *index = optind;
  return 0;
}

void
args_free (struct args *args)
{
  free (args->values);
  args->values = NULL;
}

const char *
opt_nth (const struct args *args, const char *name, unsigned i)
{
  for (unsigned k = 0; k < args->nvalues; k++)
    if (strcmp (args->values[k].name, name) == 0 && i-- == 0)
      return args->values[k].value ? args->values[k].value : "";
  return NULL;
}

bool
opt_has (const struct args *args, const char *name)
{
  return opt_nth (args, name, 0) != NULL;
}

const char *
opt_value (const struct args *args, const char *name)
{
  return opt_nth (args, name, 0);
}

unsigned
opt_count (const struct args *args, const char *name)
{
  unsigned n = 0;

  while (opt_nth (args, name, n))
    n++;
  return n;
}

int
opt_duration (const struct args *args, const char *name, uint32_t *out)
{
  static const struct { const char *unit; uint64_t seconds; } units[] = {
    { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 },
  };
  const char *text = opt_value (args, name);
  char *end;
  unsigned long long n;

  if (!text)
    return 0;
  n = strtoull (text, &end, 10);
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
    if (*text >= '0' && *text <= '9' && strcmp (end, units[i].unit) == 0 &&
        n > 0 && n <= OPT_DURATION_MAX / units[i].seconds) {
      *out = (uint32_t) (n * units[i].seconds);
      return 0;
    }
  return usage (args->cmd, "--%s %s: a time such as 90s, 15m, 8h or 30d, at most "
                "ten years", name, text);
}

int
opt_size (const struct args *args, const char *name, uint64_t *out)
{
  CLEANUP_FREE char *what = xasprintf ("--%s", name);
  const char *value = opt_value (args, name);

  if (value && esp_size_parse (value, what, out) == -1)
    return CLI_USAGE;
  return 0;
}
