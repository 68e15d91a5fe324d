/* SPDX-License-Identifier: BSD-3-Clause */
/* Values of the configuration: from text, to text, and whether they go
 * together.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config-internal.h"
#include "listen.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/name.h"
#include "uri.h"
#include "words.h"

#define SERVERS_MAX 64

static const char *const unknown_words[] = { "menu", "default", "refuse" };

/* --- what is wrong with a value: NULL, or a text ----------------------------- */

static bool
is_plain (const char *s, const char *besides)
{
  for (; *s; s++)
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
          (*s >= '0' && *s <= '9') || strchr (besides, *s)))
      return false;
  return true;
}

static const char *
wrong_listen (const char *v)
{
  struct listen_at at;

  return !*v || listen_parse (v, 0, &at) == 0 ? NULL
    : "not ADDRESS:PORT, [ADDRESS]:PORT or :PORT with a numeric address";
}

static bool
begins (const char *s, const char *with)
{
  return strncmp (s, with, strlen (with)) == 0;
}

static const char *
wrong_nbd (const char *v)
{
  static const char *const schemes[] =
    { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", NULL };

  if (!*v)
    return NULL;
  for (const char *const *s = schemes; *s; s++)
    if (begins (v, *s)) {
      const char *path = v + strlen (*s) + strcspn (v + strlen (*s), "/?");
      return (*path == '/' && path[1] && path[1] != '?')
        ? "leave out the export's name: venues are found by theirs" : NULL;
    }
  return "not an NBD URI: nbd://HOST:PORT or nbd+unix:///?socket=PATH";
}

/* Options that are ours to give. */
static const char *
wrong_words (const char *v)
{
  static const char *const ours[] =
    { "--socket", "--address", "--port", "--daemon", "--pidfile", "--print",
      "--store", "--require-ticket", "--audit", "--help", NULL };
  CLEANUP_WORDS struct words words = { 0 };

  if (words_split (v, &words) == -1)
    return "a quote (\") has no end";
  for (size_t i = 0; i < words.n; i++)
    for (const char *const *o = ours; *o; o++)
      if (begins (words.word[i], *o) &&
          (words.word[i][strlen (*o)] == 0 || words.word[i][strlen (*o)] == '='))
        return "espalierd gives --socket, --address, --port, --store, "
          "--require-ticket and --audit itself (see nbd-listen, store, "
          "require-ticket, audit), and has no use for --daemon, --pidfile and "
          "--print";
  return NULL;
}

static const char *
wrong_host (const char *v)
{
  struct listen_at at;
  char brackets[80];

  if (strlen (v) > 253)
    return "too long for a host name";
  snprintf (brackets, sizeof brackets, "[%.64s]", v);
  if (strchr (v, ':') && (strlen (v) > 63 || listen_parse (brackets, 0, &at) == -1))
    return "not a host name or an address (without a port)";
  if (!strchr (v, ':') && (!is_plain (v, ".-_") || *v == '-'))
    return "not a host name or an address (without a port)";
  return NULL;
}

static const char *
wrong_url (const char *v)
{
  if (!begins (v, "http://") || !v[7] || v[7] == '/' || strlen (v) > 512 ||
      !is_plain (v + 7, ".-_:[]%/"))
    return "not http://HOST:PORT";
  return NULL;
}

static const char *
wrong_string (const struct config_name *n, const char *v)
{
  switch (n->kind) {
  case KIND_LISTEN: return wrong_listen (v);
  case KIND_NBD: return wrong_nbd (v);
  case KIND_WORDS: return wrong_words (v);
  case KIND_HOST: return wrong_host (v);
  case KIND_VENUE: return !*v || esp_name_ok (v) ? NULL : "no venue has such a name";
  case KIND_PATH: return strlen (v) < PATH_MAX ? NULL : "too long for a path";
  default: return strlen (v) <= 128 ? NULL : "longer than 128 bytes";
  }
}

/* --- from text --------------------------------------------------------------- */

static int
wrong (const char *where, const struct config_name *n, const char *value,
       const char *why)
{
  char text[100];

  errno = EINVAL;
  esp_error ("%s: %s '%s': %s", where, n->name,
             esp_escape (value, text, sizeof text), why);
  return -1;
}

static char *
xstrdup (const char *s)
{
  char *copy = strdup (s);

  if (!copy)
    abort ();
  return copy;
}

static int
set_string (struct config *config, const char *where,
            const struct config_name *n, const char *value)
{
  const char *why = wrong_string (n, value);
  char **at = config_at (config, n);

  if (why)
    return wrong (where, n, value, why);
  free (*at);
  *at = xstrdup (value);
  return 0;
}

static int
set_on_off (struct config *config, const char *where,
            const struct config_name *n, const char *value)
{
  bool on = strcmp (value, "on") == 0;

  if (!on && strcmp (value, "off") != 0)
    return wrong (where, n, value, "on or off");
  *(bool *) config_at (config, n) = on;
  return 0;
}

/* Seconds, or with a unit: 10m, 12h, 7d. */
static int
set_seconds (struct config *config, const char *where,
             const struct config_name *n, const char *value)
{
  static const char units[] = "smhd";
  static const unsigned factor[] = { 1, 60, 3600, 86400 };
  size_t digits = strspn (value, "0123456789");
  const char *unit = value[digits] ? strchr (units, value[digits]) : units;
  unsigned long long number;
  char why[100];

  if (digits && digits < 12 && unit && (!value[digits] || !value[digits + 1])) {
    number = strtoull (value, NULL, 10) * factor[unit - units];
    if (number >= n->min && number <= n->max) {
      *(unsigned *) config_at (config, n) = (unsigned) number;
      return 0;
    }
  }
  snprintf (why, sizeof why, "a number of seconds from %u to %u, or of minutes, "
            "hours, days: 10m, 12h, 7d", n->min, n->max);
  return wrong (where, n, value, why);
}

static int
set_unknown (struct config *config, const char *where,
             const struct config_name *n, const char *value)
{
  for (unsigned i = 0; i < 3; i++)
    if (strcmp (value, unknown_words[i]) == 0) {
      config->unknown_clients = (enum unknown_clients) i;
      return 0;
    }
  return wrong (where, n, value, "menu, default or refuse");
}

static int
add_url (struct config *config, const char *where, const struct config_name *n,
         const char *value)
{
  const char *why = wrong_url (value);
  size_t len = strlen (value);

  if (!why && config->nservers == SERVERS_MAX)
    why = "more than 64 servers";
  if (why)
    return wrong (where, n, value, why);
  while (value[len - 1] == '/')
    len--;
  config->servers = realloc (config->servers,
                             (config->nservers + 1) * sizeof *config->servers);
  if (!config->servers)
    abort ();
  config->servers[config->nservers] = strndup (value, len);
  if (!config->servers[config->nservers++])
    abort ();
  return 0;
}

int
config_set (struct config *config, const char *where, const char *name,
            const char *value)
{
  const char *near;
  const struct config_name *n = config_find (name, &near);
  char text[100];

  if (!n) {
    errno = EINVAL;
    esp_escape (name, text, sizeof text);
    if (near)
      esp_error ("%s: '%s' is unknown: is '%s' meant?", where, text, near);
    else
      esp_error ("%s: '%s' is unknown: see espalierd(8)", where, text);
    return -1;
  }
  if (!uri_text_ok (value, strlen (value)))
    return wrong (where, n, value, "has control characters, or is not UTF-8");
  switch (n->kind) {
  case KIND_ON_OFF: return set_on_off (config, where, n, value);
  case KIND_SECONDS: return set_seconds (config, where, n, value);
  case KIND_UNKNOWN: return set_unknown (config, where, n, value);
  case KIND_URLS: return add_url (config, where, n, value);
  default: return set_string (config, where, n, value);
  }
}

/* --- to text ------------------------------------------------------------------ */

char *
config_text (const struct config *config, const char *name, size_t i)
{
  const char *near, *s;
  const struct config_name *n = config_find (name, &near);
  char number[16];

  if (!n)
    return NULL;
  if (n->kind == KIND_URLS)
    return i < config->nservers ? xstrdup (config->servers[i]) : NULL;
  if (i > 0)
    return NULL;
  switch (n->kind) {
  case KIND_ON_OFF: s = *(bool *) config_at (config, n) ? "on" : "off"; break;
  case KIND_UNKNOWN: s = unknown_words[config->unknown_clients]; break;
  case KIND_SECONDS:
    snprintf (number, sizeof number, "%u", *(unsigned *) config_at (config, n));
    s = number;
    break;
  default: s = *(char **) config_at (config, n);
  }
  return xstrdup (s ? s : "");
}

/* --- what follows ------------------------------------------------------------- */

/* Empty strings that stand for "not set" become NULL. */
static void
none_if_empty (char **s)
{
  if (*s && !**s) {
    free (*s);
    *s = NULL;
  }
}

static int
absolute (char **path, const char *what)
{
  CLEANUP_FREE char *cwd = NULL;
  char *full;

  if (**path == '/')
    return 0;
  cwd = getcwd (NULL, 0);
  full = cwd ? esp_asprintf ("%s/%s", cwd, *path) : NULL;
  if (!full) {
    esp_error ("getcwd: for %s '%s': %m", what, *path);
    return -1;
  }
  free (*path);
  *path = full;
  return 0;
}

/* Ourselves, we speak to the stack without TLS. */
static int
check_tls (const struct config *config)
{
  CLEANUP_WORDS struct words words = { 0 };
  bool tls = false, on = false;

  if (!config->nbd_options || words_split (config->nbd_options, &words) == -1)
    return 0;
  for (size_t i = 0; i < words.n; i++) {
    const char *w = words.word[i];
    tls = tls || begins (w, "--tls");
    on = on || strcmp (w, "--tls=on") == 0 || strcmp (w, "--tls=off") == 0 ||
      (strcmp (w, "--tls") == 0 && i + 1 < words.n &&
       strcmp (words.word[i + 1], "require") != 0);
  }
  if (!tls || on)
    return 0;
  errno = EINVAL;
  esp_error ("nbd-options: with TLS required, espalierd itself could not read "
             "over its Unix socket: add --tls on");
  return -1;
}

int
config_finish (struct config *config)
{
  char *store;

  none_if_empty (&config->store);
  none_if_empty (&config->nbd);
  none_if_empty (&config->nbd_options);
  none_if_empty (&config->address);
  none_if_empty (&config->default_venue);
  if (!*config->listen) {
    errno = EINVAL;
    esp_error ("listen: an address or a port is needed");
    return -1;
  }
  if (config->unknown_clients == UNKNOWN_DEFAULT && !config->default_venue) {
    errno = EINVAL;
    esp_error ("unknown-clients = default: which venue?  Set default-venue");
    return -1;
  }
  if (config->nbd && config->nbd_options) {
    errno = EINVAL;
    esp_error ("nbd and nbd-options: with nbd, espalierd starts no server that "
               "could have options");
    return -1;
  }
  store = esp_store_default_path (config->store);
  if (!store)
    return -1;
  free (config->store);
  config->store = store;
  if (!config->audit && !(config->audit = esp_asprintf ("%s/run/audit.log", store)))
    abort ();
  none_if_empty (&config->audit);
  return config->audit && absolute (&config->audit, "audit") == -1 ? -1
    : check_tls (config);
}
