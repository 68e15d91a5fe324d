/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool of HTTP connections: at most `max` handles, each used by one
 * request at a time, the one that was used last first, so that few stay
 * warm rather than many grow cold.
 *
 * Gentle handles have connections with small receive buffers: when their
 * sink waits, the sender stops soon, and the line is free for others.  They
 * are kept apart, and are at most half of all, so that background requests
 * whose sinks wait never hold everything that clients need.
 *
 * Nothing is shared between handles (CURLSH is not safe for connections).
 * A sink must not start a request of the same remote: with one connection
 * it would wait for itself.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "center/remote-internal.h"

int
esp_pool_init (struct esp_pool *pool, unsigned max)
{
  pthread_mutex_init (&pool->lock, NULL);
  pthread_cond_init (&pool->freed[0], NULL);
  pthread_cond_init (&pool->freed[1], NULL);
  pool->max = max;
  return 0;
}

static void
conn_free (struct esp_conn *conn)
{
  if (conn->easy)
    curl_easy_cleanup (conn->easy);
  if (conn->multi)
    curl_multi_cleanup (conn->multi);
  free (conn);
}

void
esp_pool_destroy (struct esp_pool *pool)
{
  for (unsigned i = 0; i < 2; ++i)
    while (pool->idle[i]) {
      struct esp_conn *conn = pool->idle[i];
      pool->idle[i] = conn->next;
      conn_free (conn);
    }
  pthread_cond_destroy (&pool->freed[0]);
  pthread_cond_destroy (&pool->freed[1]);
  pthread_mutex_destroy (&pool->lock);
}

static struct esp_conn *
conn_new (bool gently)
{
  struct esp_conn *conn = calloc (1, sizeof *conn);

  if (!conn)
    return NULL;
  conn->gently = gently;
  conn->easy = curl_easy_init ();
  conn->multi = curl_multi_init ();
  if (conn->easy && conn->multi)
    return conn;
  conn_free (conn);
  errno = ENOMEM;
  return NULL;
}

/* Take an idle connection of that kind off its list. */
static struct esp_conn *
pop_locked (struct esp_pool *pool, bool gently)
{
  struct esp_conn *conn = pool->idle[gently];

  if (conn)
    pool->idle[gently] = conn->next;
  return conn;
}

/* Is there room for one more?  An idle one of the other kind makes some and
 * goes to *OLD.
 */
static bool
room_locked (struct esp_pool *pool, bool gently, struct esp_conn **old)
{
  unsigned most_gentle = pool->max > 1 ? pool->max / 2 : 1;

  if (gently && pool->gentle >= most_gentle)
    return false;
  if (pool->total == pool->max) {
    *old = pop_locked (pool, !gently);
    if (!*old)
      return false;
    pool->total--;
    pool->gentle -= (*old)->gently;
  }
  pool->total++;
  pool->gentle += gently;
  return true;
}

static void
wait_locked (struct esp_pool *pool, bool gently, const atomic_bool *cancel)
{
  struct timespec ts;

  clock_gettime (CLOCK_REALTIME, &ts);
  ts.tv_nsec += 50000000;
  if (ts.tv_nsec >= 1000000000) {
    ts.tv_sec++;
    ts.tv_nsec -= 1000000000;
  }
  pool->waiting[gently]++;
  if (cancel)
    pthread_cond_timedwait (&pool->freed[gently], &pool->lock, &ts);
  else
    pthread_cond_wait (&pool->freed[gently], &pool->lock);
  pool->waiting[gently]--;
}

/* Wake one that waits; both kinds can use any place, clients come first. */
static void
wake_locked (struct esp_pool *pool)
{
  pthread_cond_signal (&pool->freed[pool->waiting[0] == 0]);
}

/* 1: *CONN is an idle one; 0: make a new one (its place is taken); -1. */
static int
take_place (struct esp_pool *pool, bool gently, const atomic_bool *cancel,
            struct esp_conn **conn, struct esp_conn **old)
{
  ESP_LOCK_SCOPE (&pool->lock);

  for (;;) {
    *conn = pop_locked (pool, gently);
    if (*conn)
      return 1;
    if (room_locked (pool, gently, old))
      return 0;
    if (cancel && atomic_load (cancel)) {
      errno = ECANCELED;
      return -1;
    }
    wait_locked (pool, gently, cancel);
  }
}

static void
give_place (struct esp_pool *pool, bool gently)
{
  ESP_LOCK_SCOPE (&pool->lock);
  pool->total--;
  pool->gentle -= gently;
  wake_locked (pool);
}

struct esp_conn *
esp_pool_take (struct esp_pool *pool, bool gently, const atomic_bool *cancel)
{
  struct esp_conn *conn = NULL, *old = NULL;
  int e = take_place (pool, gently, cancel, &conn, &old);

  if (old)
    conn_free (old);
  if (e == 0) {
    conn = conn_new (gently);
    if (!conn)
      give_place (pool, gently);
  }
  return conn;
}

void
esp_pool_give (struct esp_pool *pool, struct esp_conn *conn)
{
  ESP_LOCK_SCOPE (&pool->lock);
  conn->next = pool->idle[conn->gently];
  pool->idle[conn->gently] = conn;
  wake_locked (pool);
}
