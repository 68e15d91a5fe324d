/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster as a whole: opening, closing, counters.  docs/segment-cache.md,
 * "Cluster", has the design; cluster-internal.h the parts.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cluster-internal.h"
#include "cache/tls.h"
#include "util/file.h"
#include "util/host.h"

#define TIMEOUT_MS 250u
#define LEASE_MS 3000u
#define WAIT_MS 10000u
#define LOGIN_MAX 1024u

/* "user:password" on the first line of PATH. */
static int
load_login (const char *path, struct esp_wire_login *out)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;
  char *colon;

  if (esp_read_file (AT_FDCWD, path, LOGIN_MAX, &text, &len) == -1) {
    esp_error ("open: %s: %m", path);
    return -1;
  }
  text[strcspn (text, "\r\n")] = 0;
  colon = strchr (text, ':');
  if (!colon || colon == text || !colon[1]) {
    errno = EINVAL;
    esp_error ("%s: write one line: user:password", path);
    return -1;
  }
  *colon = 0;
  out->user = strdup (text);
  out->password = strdup (colon + 1);
  explicit_bzero (text, len);
  if (out->user && out->password)
    return 0;
  esp_error ("%s: malloc: %m", path);
  return -1;
}

static void
clear_login (struct esp_wire_login *login)
{
  if (login->password)
    explicit_bzero (login->password, strlen (login->password));
  free (login->user);
  free (login->password);
}

static struct esp_nodes *
nodes_of (const char *nodes)
{
  return esp_nodes_is_file (nodes) ? esp_nodes_load (nodes)
    : esp_nodes_parse (nodes, "segcache-nodes");
}

int
esp_cluster_check (const struct esp_shared_params *params)
{
  CLEANUP_FREE struct esp_nodes *nodes = nodes_of (params->nodes);
  struct esp_wire_login login = { 0 };
  int r = nodes ? 0 : -1;

  if (r == 0 && params->sasl_file)
    r = load_login (params->sasl_file, &login);
  clear_login (&login);
  if (r == 0 && params->tls_ca) {
    struct esp_tls *tls = tls_new (params);
    r = tls ? 0 : -1;
    tls_free (tls);
  }
  return r;
}

/* --- opening ----------------------------------------------------------------------- */

static void
init_locks (struct esp_cluster *c)
{
  pthread_condattr_t attr;

  pthread_mutex_init (&c->lock, NULL);
  pthread_mutex_init (&c->leases.lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&c->keeper_cond, &attr);
  pthread_cond_init (&c->prober_cond, &attr);
  pthread_cond_init (&c->probed_cond, &attr);
  pthread_condattr_destroy (&attr);
}

static int
open_nodes (struct esp_cluster *c, const char *nodes)
{
  CLEANUP_FREE struct esp_nodes *fixed = NULL;

  if (!esp_nodes_is_file (nodes)) {
    fixed = nodes_of (nodes);
    return fixed ? list_set (c, fixed, false) : -1;
  }
  c->nodes_file = strdup (nodes);
  if (!c->nodes_file) {
    esp_error ("strdup: %m");
    return -1;
  }
  if (list_set (c, NULL, false) == -1)
    return -1;
  keeper_read_file (c, true);
  return 0;
}

static int
open_all (struct esp_cluster *c, const struct esp_shared_params *params)
{
  if (params->sasl_file) {
    if (load_login (params->sasl_file, &c->login) == -1)
      return -1;
    c->use_login = &c->login;
  }
  if (params->tls_ca && !(c->tls = tls_new (params)))
    return -1;
  if (open_nodes (c, params->nodes) == -1)
    return -1;
  return keeper_start (c);
}

struct esp_cluster *
esp_cluster_open (const struct esp_shared_params *params,
                  const struct esp_sealer *sealer)
{
  struct esp_cluster *c = calloc (1, sizeof *c);

  if (!c) {
    esp_error ("malloc: %m");
    return NULL;
  }
  c->sealer = sealer;
  c->timeout_ms = params->timeout_ms ? params->timeout_ms : TIMEOUT_MS;
  c->lease_ms = params->lease_ms ? params->lease_ms : LEASE_MS;
  c->wait_ms = params->wait_ms ? params->wait_ms : WAIT_MS;
  init_locks (c);
  if (open_all (c, params) == 0)
    return c;
  int err = errno;
  esp_cluster_close (c);
  errno = err;
  return NULL;
}

void
esp_cluster_close (struct esp_cluster *cluster)
{
  if (!cluster)
    return;
  keeper_stop (cluster);
  for (struct lease *l = cluster->leases.first, *next; l; l = next) {
    next = l->next;
    lease_drop (l);             /* others need not wait until it runs out */
    lease_free (l);
  }
  list_unref (cluster->list);
  tls_free (cluster->tls);
  clear_login (&cluster->login);
  free (cluster->nodes_file);
  pthread_mutex_destroy (&cluster->leases.lock);
  pthread_mutex_destroy (&cluster->lock);
  pthread_cond_destroy (&cluster->keeper_cond);
  pthread_cond_destroy (&cluster->prober_cond);
  pthread_cond_destroy (&cluster->probed_cond);
  free (cluster);
}

/* --- counters ---------------------------------------------------------------------- */

void
esp_cluster_counters (struct esp_cluster *cluster,
                      struct esp_cluster_counters *out)
{
  *out = (struct esp_cluster_counters) {
    .hits = COUNTED (cluster->hits),
    .misses = COUNTED (cluster->misses),
    .bytes_read = COUNTED (cluster->bytes_read),
    .bytes_written = COUNTED (cluster->bytes_written),
    .leases = COUNTED (cluster->leased),
    .waits = COUNTED (cluster->waits),
    .waited_us = COUNTED (cluster->waited_us),
    .takeovers = COUNTED (cluster->takeovers),
    .errors = COUNTED (cluster->errors),
    .lies = COUNTED (cluster->lies),
    .full = COUNTED (cluster->full),
  };
}

size_t
esp_cluster_nodes (struct esp_cluster *cluster, struct esp_node_counters *out,
                   size_t max)
{
  CLEANUP_LIST struct list *list = list_current (cluster);

  for (size_t i = 0; i < list->n && i < max; ++i) {
    struct node *n = list->node[i];
    out[i] = (struct esp_node_counters) {
      .out = !n->good, .hits = COUNTED (n->hits),
      .misses = COUNTED (n->misses), .errors = COUNTED (n->errors),
      .timeouts = COUNTED (n->timeouts), .lies = COUNTED (n->lies),
      .answer_us = COUNTED (n->answer_us),
    };
    strcpy (out[i].name, n->name.name);
  }
  return list->n;
}
