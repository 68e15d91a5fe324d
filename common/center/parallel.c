/* SPDX-License-Identifier: BSD-3-Clause */
/* Many small pieces of work by several threads, each the next one that is
 * left.  Requests to a distant center wait most of the time.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "center/center-internal.h"

#define THREADS_MAX 32

struct work {
  size_t n;
  int (*fn) (void *arg, size_t i);
  void *arg;
  atomic_size_t next;
  atomic_int failed;            /* errno of the first that failed */
};

unsigned
center_cores (void)
{
  long n = sysconf (_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (unsigned) n;
}

unsigned
center_threads (const struct esp_center *center)
{
  unsigned n = center->config.connections ? center->config.connections : 16;

  if (esp_remote_kind (center->remote) == ESP_REMOTE_DIR)
    n = center_cores ();
  return n > THREADS_MAX ? THREADS_MAX : n;
}

static void *
worker (void *arg)
{
  struct work *w = arg;
  size_t i;

  while (atomic_load (&w->failed) == 0 &&
         (i = atomic_fetch_add (&w->next, 1)) < w->n)
    if (w->fn (w->arg, i) == -1) {
      int none = 0;
      atomic_compare_exchange_strong (&w->failed, &none,
                                      errno ? errno : EIO);
    }
  return NULL;
}

int
center_parallel (size_t n, unsigned threads,
                 int (*fn) (void *arg, size_t i), void *arg)
{
  struct work w = { .n = n, .fn = fn, .arg = arg };
  pthread_t thread[THREADS_MAX];
  unsigned started = 0;

  if (threads > THREADS_MAX)
    threads = THREADS_MAX;
  /* This thread works, too; without others it does it all. */
  while (started + 1 < threads && started + 1 < n &&
         pthread_create (&thread[started], NULL, worker, &w) == 0)
    started++;
  worker (&w);
  while (started > 0)
    pthread_join (thread[--started], NULL);
  errno = atomic_load (&w.failed);
  return errno ? -1 : 0;
}
