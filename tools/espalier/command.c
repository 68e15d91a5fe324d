/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of commands: finding one, help, the nearest to what was meant. */

#include <config.h>

#include <stdio.h>
#include <string.h>

#include "espalier.h"

static const struct command *const groups[] = {
  init_commands, root_commands, rp_commands, venue_commands, client_commands,
  need_commands, overlay_commands,
  store_commands, scrub_commands, center_commands, center_gc_commands,
  transfer_commands, fetch_commands, key_commands, ticket_commands, hydrate_commands, serve_commands, stats_commands,
  help_commands,
};
#define NGROUPS (sizeof groups / sizeof groups[0])

#define EACH_COMMAND(c)                         \
  for (size_t g_ = 0; g_ < NGROUPS; g_++)       \
    for (const struct command *c = groups[g_]; c->name; c++)

/* Is WORD the first word of a command with two? */
bool
command_is_group (const char *word)
{
  size_t len = strlen (word);

  EACH_COMMAND (c)
    if (strncmp (c->name, word, len) == 0 && c->name[len] == ' ')
      return true;
  return false;
}

static unsigned
min3 (unsigned a, unsigned b, unsigned c)
{
  unsigned m = a < b ? a : b;
  return m < c ? m : c;
}

/* The number of letters to change, add or take away to get from A to B
 * (Levenshtein's distance, by rows).  Names are short.
 */
static unsigned
distance (const char *a, const char *b)
{
  unsigned row[64];
  size_t n = strlen (b);

  if (n >= 64 || strlen (a) >= 64)
    return 64;
  for (unsigned j = 0; j <= n; j++)
    row[j] = j;
  for (unsigned i = 1; a[i - 1]; i++) {
    unsigned diagonal = row[0];
    row[0] = i;
    for (unsigned j = 1; j <= n; j++) {
      unsigned above = row[j];
      row[j] = min3 (row[j] + 1, row[j - 1] + 1,
                     diagonal + (a[i - 1] != b[j - 1]));
      diagonal = above;
    }
  }
  return row[n];
}

/* The first word of a command's name, "" where it has one only. */
static void
group_of (const struct command *c, char word[64])
{
  const char *blank = strchr (c->name, ' ');
  snprintf (word, 64, "%.*s", blank ? (int) (blank - c->name) : 0, c->name);
}

/* Copy NAME to BEST when it is nearer to TEXT than what was there. */
static void
nearer (const char *text, const char *name, unsigned *least, char best[64])
{
  unsigned d = distance (text, name);

  if (d < *least && d < strlen (name)) {
    *least = d;
    snprintf (best, 64, "%s", name);
  }
}

/* The command or group that is nearest to TEXT, or NULL where none is. */
static const char *
nearest (const char *text)
{
  static char best[64];
  char word[64];
  unsigned least = 4;

  best[0] = 0;
  EACH_COMMAND (c) {
    nearer (text, c->name, &least, best);
    group_of (c, word);
    nearer (text, word, &least, best);
  }
  return best[0] ? best : NULL;
}

static const struct command *
find_by_name (const char *name)
{
  EACH_COMMAND (c)
    if (strcmp (c->name, name) == 0)
      return c;
  return NULL;
}

/* "there is no command X: did you mean Y?" */
static void
unknown (const char *text)
{
  char buf[128];
  const char *near = nearest (text);

  esp_escape (text, buf, sizeof buf);
  if (near)
    usage (NULL, "there is no command \"%s\": did you mean \"%s\"?", buf, near);
  else
    usage (NULL, "there is no command \"%s\"", buf);
}

const struct command *
command_find (int argc, char **argv, int *words)
{
  CLEANUP_FREE char *two = NULL;
  const struct command *c;

  *words = 0;
  if (!command_is_group (argv[0])) {
    *words = 1;
    if ((c = find_by_name (argv[0])) != NULL)
      return c;
    *words = 0;
    two = argc > 1 ? xasprintf ("%s %s", argv[0], argv[1]) : xstrdup (argv[0]);
    unknown (argc > 1 && nearest (two) ? two : argv[0]);
    return NULL;
  }
  if (argc > 1 && (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0)) {
    *words = 1;
    return NULL;
  }
  if (argc == 1 || argv[1][0] == '-') {
    if (cli.help)
      *words = 1;
    else
      esp_error ("%s: which of its commands? (see: espalier help %s)",
                 argv[0], argv[0]);
    return NULL;
  }
  two = xasprintf ("%s %s", argv[0], argv[1]);
  *words = 2;
  if ((c = find_by_name (two)) != NULL)
    return c;
  *words = 0;
  unknown (two);
  return NULL;
}

static void
print_options (const struct opt *o)
{
  for (; o && o->name; o++) {
    CLEANUP_FREE char *left =
      xasprintf ("%c%c%c --%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? ',' : ' ', o->name,
                 o->arg ? " " : "", o->arg ? o->arg : "");
    printf ("  %-32s %s%s\n", left, o->help, o->many ? " (repeatable)" : "");
  }
}

void
command_help (const struct command *cmd)
{
  printf ("espalier %s %s\n\n%s.\n", cmd->name, cmd->synopsis, cmd->help);
  if (cmd->more)
    printf ("\n%s\n", cmd->more);
  if (cmd->options) {
    puts ("\nOptions:");
    print_options (cmd->options);
  }
  puts ("\nOptions of every command:");
  print_options (global_options);
  puts ("\nMore: man espalier");
}

static void
print_commands (const struct command *c, const char *group)
{
  size_t len = group ? strlen (group) : 0;

  for (; c->name; c++)
    if (!group || (strncmp (c->name, group, len) == 0 && c->name[len] == ' '))
      printf ("  %-16s %s\n", c->name, c->help);
}

void
command_group_help (const char *group)
{
  printf ("Commands of espalier %s:\n", group);
  for (size_t i = 0; i < NGROUPS; i++)
    print_commands (groups[i], group);
  puts ("\nMore: espalier help COMMAND, man espalier");
}

void
command_overview (void)
{
  puts ("espalier [--store DIR] [--json] [--quiet] [--verbose] COMMAND ...\n\n"
        "Serves disk images that form a tree of restore points.\n\n"
        "Commands:");
  for (size_t i = 0; i < NGROUPS; i++)
    print_commands (groups[i], NULL);
  puts ("\nOptions of every command:");
  print_options (global_options);
  puts ("  -V, --version                    print the version and exit\n\n"
        "More: espalier help COMMAND, man espalier");
}

/* --- help itself -------------------------------------------------------- */

static int
list_names (void)
{
  EACH_COMMAND (c)
    puts (c->name);
  return CLI_OK;
}

static int
help_run (const struct args *args)
{
  int words;
  const struct command *c;

  if (opt_has (args, "commands"))
    return list_names ();
  if (args->n == 0) {
    command_overview ();
    return CLI_OK;
  }
  if (args->n == 1 && command_is_group (args->arg[0])) {
    command_group_help (args->arg[0]);
    return CLI_OK;
  }
  c = command_find ((int) args->n, args->arg, &words);
  if (!c)
    return CLI_USAGE;
  if ((unsigned) words != args->n)
    return usage (args->cmd, "unexpected argument %s", args->arg[words]);
  command_help (c);
  return CLI_OK;
}

static const struct opt help_options[] = {
  { "commands", 0, NULL, "print the names of all commands, one a line", false },
  { 0 },
};

const struct command help_commands[] = {
  { "help", "[COMMAND | --commands]", "Print help on a command, or the list of commands",
    NULL, help_options, 0, 2, CMD_NO_JSON, help_run },
  { 0 },
};
