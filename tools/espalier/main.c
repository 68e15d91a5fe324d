/* SPDX-License-Identifier: BSD-3-Clause */
/* The program espalier: options before the command, the command, its end. */

#include <config.h>

#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "espalier.h"

struct cli cli;

static void
host_debug (const char *fmt, va_list args)
{
  if (!cli.verbose)
    return;
  flockfile (stderr);
  fputs ("espalier: debug: ", stderr);
  vfprintf (stderr, fmt, args);
  fputc ('\n', stderr);
  funlockfile (stderr);
}

/* Standard output may be a file on a full disk. */
static int
finish (int code)
{
  cli_fetch_end ();
  esp_store_close (cli.store);
  if ((fflush (stdout) != 0 || ferror (stdout)) && code == CLI_OK) {
    esp_error ("write: standard output: %m");
    code = CLI_FAILED;
  }
  return code;
}

static int
run_command (int argc, char **argv)
{
  struct args args;
  int words, r;
  const struct command *cmd = command_find (argc, argv, &words);

  if (!cmd) {
    if (words != 1)
      return CLI_USAGE;
    command_group_help (argv[0]);
    return CLI_OK;
  }
  r = args_parse (cmd, argc - words + 1, argv + words - 1, &args);
  if (r == 0 && cli.help)
    command_help (cmd);
  else if (r == 0)
    r = cmd->run (&args);
  args_free (&args);
  return r;
}

int
main (int argc, char *argv[])
{
  struct args args;
  int index, r;

  setlocale (LC_ALL, "");
  esp_set_host (&(struct esp_host) { .debug = host_debug });

  r = args_parse_global (argc, argv, &args, &index);
  args_free (&args);
  if (r != 0)
    return r;
  if (cli.version) {
    printf ("espalier %s\n", esp_version ());
    return finish (CLI_OK);
  }
  if (index == argc && !cli.help)
    return usage (NULL, "which command?");
  if (index == argc)
    command_overview ();
  else
    r = run_command (argc - index, argv + index);
  return finish (r);
}
