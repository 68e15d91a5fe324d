/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking the site's other servers.
 *
 * Each server has a thread that asks it and sleeps, so that a dead one slows
 * nobody.  What it answered last is kept under one lock, held for look-ups
 * only, never while anything is waited for.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/remote.h"
#include "peers.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define ASK_SECONDS 5
#define SILENT_US (15 * UINT64_C (1000000))     /* three times unheard */
#define ANSWER_MAX (16u << 20)

struct peer {
  struct peer *next;
  char *url;
  struct esp_remote *remote;
  pthread_t thread;
  /* Under the lock: */
  bool stop;
  uint64_t heard_us;            /* esp_now_us; 0: never */
  uint64_t answered;            /* the same, seconds since the epoch */
  struct peer_answer answer;
  char why[256];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake;             /* somebody is to stop */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct peer *peers;
static char instance[ESP_UUID_TEXT];    /* of this process */

static void
init_once (void)
{
  pthread_condattr_t attr;
  esp_uuid u;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&wake, &attr);
  pthread_condattr_destroy (&attr);
  esp_uuid_new (&u);
  esp_uuid_text (&u, instance);
}

const char *
peers_instance (void)
{
  pthread_once (&once, init_once);
  return instance;
}

/* --- asking --------------------------------------------------------------- */

/* One question.  0 with *ANSWER, or -1 with WHY. */
static int
ask (struct peer *p, struct peer_answer *answer, char *why, unsigned size)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;

  esp_catch_errors (why, size);
  text = esp_remote_get_all (p->remote, "peer/venues", ANSWER_MAX, &len, NULL);
  esp_catch_errors (NULL, 0);
  if (!text) {
    if (errno == ENOENT)        /* which is not reported */
      snprintf (why, size, "%s: no espalierd answers there", p->url);
    return -1;
  }
  if (peer_answer_parse (text, len, answer) == 0)
    return 0;
  snprintf (why, size, "%s: what it answers is not what an espalierd says",
            p->url);
  return -1;
}

/* Say it when a server becomes silent, and when it is back: not each time. */
static void
say_change (const struct peer *p, bool before, bool now, const char *why)
{
  if (before && !now)
    esp_warning ("another server is silent: %s", why);
  else if (!before && now)
    esp_debug ("another server answers: %s", p->url);
}

static bool
heard_locked (const struct peer *p)
{
  return p->heard_us && esp_now_us () - p->heard_us < SILENT_US;
}

static void *
asking (void *arg)
{
  struct peer *p = arg;
  bool first = true;

  pthread_mutex_lock (&lock);
  while (!p->stop) {
    struct peer_answer answer = { .n = 0 };
    char why[sizeof p->why] = "";

    pthread_mutex_unlock (&lock);
    bool ok = ask (p, &answer, why, sizeof why) == 0;
    pthread_mutex_lock (&lock);
    bool before = p->heard_us && !*p->why;
    memcpy (p->why, why, sizeof why);
    if (ok) {
      peer_answer_clear (&p->answer);
      p->answer = answer;
      p->heard_us = esp_now_us ();
      p->answered = time (NULL);
    }
    say_change (p, before || first, ok, why);
    first = false;

    struct timespec until;
    clock_gettime (CLOCK_MONOTONIC, &until);
    until.tv_sec += ASK_SECONDS;
    while (!p->stop && pthread_cond_timedwait (&wake, &lock, &until) == 0)
      ;
  }
  pthread_mutex_unlock (&lock);
  return NULL;
}

/* --- the list -------------------------------------------------------------- */

static void
free_peer (struct peer *p)
{
  if (p->remote)
    esp_remote_close (p->remote);
  peer_answer_clear (&p->answer);
  free (p->url);
  free (p);
}
ESP_DEFINE_CLEANUP (peer, struct peer *, free_peer)

static struct peer *
new_peer (const char *url)
{
  static const struct esp_remote_options options = {
    .connect_timeout = 2, .timeout = 3, .retries = UINT_MAX, .connections = 1,
  };
  ESP_CLEANUP (peer) struct peer *p = calloc (1, sizeof *p);
  int r;

  if (!p || !(p->url = strdup (url))) {
    esp_error ("servers: %m");
    return NULL;
  }
  /* As it is put in front of paths. */
  for (size_t n = strlen (p->url); n > 0 && p->url[n - 1] == '/'; )
    p->url[--n] = 0;
  p->remote = esp_remote_open (p->url, &options);
  if (!p->remote)
    return NULL;
  r = pthread_create (&p->thread, NULL, asking, p);
  if (r != 0) {
    errno = r;
    esp_error ("servers: pthread_create: %m");
    return NULL;
  }
  return ESP_STEAL (p);
}

/* End and free a list that was taken out already. */
static void
end_peers (struct peer *list)
{
  pthread_mutex_lock (&lock);
  for (struct peer *p = list; p; p = p->next)
    p->stop = true;
  pthread_cond_broadcast (&wake);
  pthread_mutex_unlock (&lock);
  while (list) {
    struct peer *p = list;
    list = p->next;
    pthread_join (p->thread, NULL);
    free_peer (p);
  }
}

/* The list that was there goes out, LIST comes in. */
static struct peer *
exchange (struct peer *list)
{
  ESP_LOCK_SCOPE (&lock);
  struct peer *before = peers;

  peers = list;
  return before;
}

int
peers_set (const struct config *config)
{
  struct peer *list = NULL, **end = &list;

  pthread_once (&once, init_once);
  for (size_t i = 0; i < config->nservers; i++) {
    *end = new_peer (config->servers[i]);
    if (!*end) {
      end_peers (list);
      return -1;
    }
    end = &(*end)->next;
  }
  end_peers (exchange (list));
  return 0;
}

void
peers_stop (void)
{
  pthread_once (&once, init_once);
  end_peers (exchange (NULL));
}

/* --- who can serve it ------------------------------------------------------ */

static bool
is_self (const struct peer *p)
{
  return strcmp (p->answer.instance, instance) == 0;
}

struct found { char *url; unsigned connections; };

static int
compare_found (const void *a, const void *b)
{
  const struct found *x = a, *y = b;

  if (x->connections != y->connections)
    return x->connections < y->connections ? -1 : 1;
  return strcmp (x->url, y->url);
}

/* Those that can serve VENUE; -1 without memory. */
static int
find_locked (const struct esp_venue *venue, struct found *found, size_t *n)
{
  for (const struct peer *p = peers; p; p = p->next) {
    if (!heard_locked (p) || !p->answer.up || is_self (p) ||
        !peer_answer_has (&p->answer, venue))
      continue;
    found[*n].connections = p->answer.connections;
    if (!(found[*n].url = strdup (p->url)))
      return -1;
    ++*n;
  }
  return 0;
}

static size_t
count_locked (void)
{
  size_t n = 0;

  for (const struct peer *p = peers; p; p = p->next)
    n++;
  return n;
}

int
peers_for (const struct esp_venue *venue, char ***urls, size_t *n)
{
  CLEANUP_FREE struct found *found = NULL;
  int r;

  *urls = NULL;
  *n = 0;
  {
    ESP_LOCK_SCOPE (&lock);
    size_t all = count_locked ();
    if (all == 0)
      return 0;
    found = calloc (all, sizeof *found);
    *urls = calloc (all, sizeof **urls);
    r = found && *urls ? find_locked (venue, found, n) : -1;
  }
  if (found)
    qsort (found, *n, sizeof *found, compare_found);
  for (size_t i = 0; *urls && i < *n; i++)
    (*urls)[i] = found[i].url;
  if (r == 0)
    return 0;
  peers_free (*urls, *n);
  *urls = NULL;
  *n = 0;
  errno = ENOMEM;
  esp_error ("servers: %m");
  return -1;
}

void
peers_free (char **urls, size_t n)
{
  for (size_t i = 0; urls && i < n; i++)
    free (urls[i]);
  free (urls);
}

void
peers_each (void (*fn) (void *arg, const struct peer_seen *seen), void *arg)
{
  ESP_LOCK_SCOPE (&lock);

  for (const struct peer *p = peers; p; p = p->next) {
    struct peer_seen seen = {
      .url = p->url,
      .state = !heard_locked (p) ? "silent" : is_self (p) ? "self" : "answers",
      .answered = p->answered,
      .connections = p->answer.connections,
      .why = p->why,
    };
    fn (arg, &seen);
  }
}
