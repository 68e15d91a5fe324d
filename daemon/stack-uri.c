/* SPDX-License-Identifier: BSD-3-Clause */
/* How the stack is reached: by ourselves, and by clients. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "stack-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

/* Written once, before there are other threads. */
static char *socket_path;       /* of our own, or NULL */
static char *outside;           /* config->nbd, or NULL */
static char listen_host[64];
static unsigned listen_port;    /* 0: for nobody */

void
stack_uri_set (const char *path, const char *nbd, const char *host,
               unsigned port)
{
  free (socket_path);
  free (outside);
  socket_path = path ? strdup (path) : NULL;
  outside = nbd ? strdup (nbd) : NULL;
  snprintf (listen_host, sizeof listen_host, "%s", host);
  listen_port = port;
}

/* S with all but what is harmless in a path and in a query as %XX. */
static char *
encode (const char *s)
{
  char *out = malloc (3 * strlen (s) + 1), *to = out;

  if (!out)
    abort ();
  for (; *s; s++)
    if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
        (*s >= '0' && *s <= '9') || strchr ("-._~/@:", *s))
      *to++ = *s;
    else
      to += sprintf (to, "%%%02X", (unsigned char) *s);
  *to = 0;
  return out;
}

char *
stack_uri (const char *export)
{
  CLEANUP_FREE char *name = encode (export), *path = NULL;
  char *uri;

  if (outside) {
    size_t n = strcspn (strstr (outside, "://") + 3, "/?") +
      (size_t) (strstr (outside, "://") + 3 - outside);
    const char *query = strchr (outside, '?');
    uri = esp_asprintf ("%.*s/%s%s", (int) n, outside, name, query ? query : "");
  }
  else {
    path = encode (socket_path);
    uri = esp_asprintf ("nbd+unix:///%s?socket=%s", name, path);
  }
  if (!uri)
    esp_error ("malloc: %m");
  return uri;
}

static bool
is_local (const char *host)
{
  return strcasecmp (host, "localhost") == 0 || strncmp (host, "127.", 4) == 0 ||
    strcmp (host, "::1") == 0 || !*host;
}

/* Host and port of OUTSIDE, with or without brackets.  -1: a Unix socket. */
static int
outside_address (char host[256], unsigned *port)
{
  const char *s = strstr (outside, "://") + 3, *at, *end, *colon;

  if (strncmp (outside, "nbd://", 6) != 0 && strncmp (outside, "nbds://", 7) != 0)
    return -1;
  end = s + strcspn (s, "/?");
  at = memchr (s, '@', (size_t) (end - s));
  if (at)
    s = at + 1;                 /* the user of a TLS key */
  if (*s == '[' && (at = memchr (s, ']', (size_t) (end - s)))) {
    snprintf (host, 256, "%.*s", (int) (at - s - 1), s + 1);
    colon = at[1] == ':' ? at + 1 : NULL;
  }
  else {
    colon = memchr (s, ':', (size_t) (end - s));
    snprintf (host, 256, "%.*s", (int) ((colon ? colon : end) - s), s);
  }
  *port = colon ? (unsigned) strtoul (colon + 1, NULL, 10) : 10809;
  return 0;
}

int
stack_client_address (const struct config *config, const char *request_host,
                      char host[256], unsigned *port)
{
  if (outside) {
    if (outside_address (host, port) == -1)
      return -1;
    if (is_local (host))
      snprintf (host, 256, "%s", config->address ? config->address : request_host);
    return 0;
  }
  if (listen_port == 0)
    return -1;
  *port = listen_port;
  snprintf (host, 256, "%s", config->address ? config->address
            : *listen_host ? listen_host : request_host);
  return 0;
}
