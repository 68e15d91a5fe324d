/* SPDX-License-Identifier: BSD-3-Clause */
/* What the commands share: the open store, long work, indexes of the
 * catalog, options that several commands have.
 */

#include <config.h>

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "espalier.h"
#include "util/bits.h"

/* --- memory: this program has nothing to do without it ------------------ */

static void *
must (void *p)
{
  if (!p) {
    esp_error ("malloc: %m");
    exit (CLI_FAILED);
  }
  return p;
}

void *
xcalloc (size_t n, size_t size)
{
  return must (calloc (n ? n : 1, size));
}

char *
xstrdup (const char *s)
{
  return must (strdup (s));
}

char *
xasprintf (const char *fmt, ...)
{
  char *text;
  va_list args;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) < 0)
    text = NULL;
  va_end (args);
  return must (text);
}

char *
shell_word (const char *text)
{
  static const char safe[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    "%+,-./:=@_";
  char *word, *p;

  if (*text && strspn (text, safe) == strlen (text))
    return xstrdup (text);
  p = word = xcalloc (4 * strlen (text) + 3, 1);
  *p++ = '\'';
  for (; *text; text++)
    if (*text == '\'')
      p = stpcpy (p, "'\\''");
    else
      *p++ = *text;
  *p = '\'';
  return word;
}

/* --- the store ---------------------------------------------------------- */

int
cli_open (void)
{
  CLEANUP_FREE char *path = esp_store_default_path (cli.store_option);

  if (!path)
    return CLI_FAILED;
  cli.store = esp_store_open (path);
  if (!cli.store)
    return CLI_FAILED;
  cli_fetch_begin ();
  return CLI_OK;
}

struct esp_catalog *
cli_catalog (void)
{
  return esp_store_catalog (cli.store);
}

int
cli_done (json_t *root, const char *fmt, ...)
{
  va_list args;

  if (cli.json)
    return json_print (root ? root : json_object ());
  json_decref (root);
  if (cli.quiet)
    return CLI_OK;
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
  return CLI_OK;
}

/* --- long work ----------------------------------------------------------- */

/* The first signal asks the work to stop where nothing is left half done; a
 * second one ends the process as it would without us.
 */
static void
on_signal (int sig)
{
  if (esp_progress_interrupted ()) {
    signal (sig, SIG_DFL);
    raise (sig);
  }
  esp_progress_interrupt ();
}

struct esp_progress *
work_begin (const char *label)
{
  struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
  struct sigaction hup;

  sigemptyset (&sa.sa_mask);
  sigaction (SIGINT, &sa, NULL);
  sigaction (SIGTERM, &sa, NULL);
  /* A terminal that was closed, unless nohup says to go on. */
  if (sigaction (SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
    sigaction (SIGHUP, &sa, NULL);
  return must (esp_progress_new (label, cli.quiet));
}

/* --- resources ----------------------------------------------------------- */

const struct opt resource_options[2] = {
  { "env", 0, "NAME[=VERSION]", "it has this environment", true },
  { "app", 0, "NAME[=VERSION]", "it has this application", true },
};

static int
add_resource (const struct args *args, struct esp_resource *list, size_t *n,
              const char *kind, const char *text)
{
  const char *equals = strchr (text, '=');
  size_t len = equals ? (size_t) (equals - text) : strlen (text);

  if (len == 0)
    return usage (args->cmd, "--%s %s: there is no name", kind, text);
  list[*n] = (struct esp_resource) {
    xstrdup (kind), must (strndup (text, len)),
    xstrdup (equals ? equals + 1 : "")
  };
  for (size_t i = 0; i < *n; i++)
    if (strcmp (list[i].kind, kind) == 0 &&
        strcmp (list[i].name, list[*n].name) == 0) {
      ++*n;
      return usage (args->cmd, "--%s %s was given twice", kind, list[i].name);
    }
  ++*n;
  return 0;
}

int
resources_parse (const struct args *args, struct esp_resource **list,
                 size_t *n)
{
  size_t room = opt_count (args, "env") + opt_count (args, "app");
  struct esp_resource *r = xcalloc (room + 1, sizeof *r);

  *n = 0;
  for (unsigned k = 0; k < 2; k++) {
    const char *kind = resource_options[k].name, *text;
    for (unsigned i = 0; (text = opt_nth (args, kind, i)) != NULL; i++)
      if (add_resource (args, r, n, kind, text) != 0) {
        resources_free (r, *n);
        return CLI_USAGE;
      }
  }
  *list = r;
  return 0;
}

void
resources_free (struct esp_resource *list, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    free (list[i].kind);
    free (list[i].name);
    free (list[i].version);
  }
  free (list);
}

int
export_parse_client (const struct args *args, const char *text,
                     struct esp_export *out)
{
  char buf[128];

  if (esp_export_parse (text, out) == -1)
    return CLI_USAGE;
  if (!out->client[0])
    return usage (args->cmd, "%s names no client: write VENUE[/DISK]@CLIENT",
                  esp_escape (text, buf, sizeof buf));
  return 0;
}

/* --- venues by tip --------------------------------------------------------- */

static void
print_uses (FILE *f, const struct venue_index *index, const esp_uuid *tip)
{
  const char *comma = "";

  for (size_t i = venue_index_first (index, tip);
       i < index->n && esp_uuid_eq (&index->use[i].tip, tip); i++) {
    fprintf (f, "%s%s", comma, index->use[i].venue->id);
    if (index->use[i].disk > 0)
      fprintf (f, "/%u", index->use[i].disk);
    comma = ", ";
  }
}

char *
venue_index_text (const struct venue_index *index, const esp_uuid *tip)
{
  char *text = NULL;
  size_t size;
  FILE *f = must (open_memstream (&text, &size));

  print_uses (f, index, tip);
  fclose (f);                   /* only now TEXT is where it stays */
  return must (text);
}

/* --- restore points ---------------------------------------------------- */

void
table_own (struct table *table, const struct esp_rp *rp)
{
  char size[16];
  unsigned percent;

  if (rp->kind == ESP_RP_IN_PLACE)
    table_cell (table, "in place");
  else if (rp->kind == ESP_RP_STORED)
    table_size (table, rp->data_blocks << ESP_BLOCK_SHIFT);
  else {
    rp_local (cli.store, rp, &percent);
    table_cellf (table, "%u%% of %s", percent,
                 esp_size_format (rp->data_blocks << ESP_BLOCK_SHIFT, size));
  }
}
