/* SPDX-License-Identifier: BSD-3-Clause */
/* How long layers and views that nobody reads stay mapped: a thread that looks
 * now and then.  (What idle ones are: layer.c, view.c.)
 *
 * `lock` protects all that stands here, and is held while they are
 * released; nobody waits for it but who turns the keeping off.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "store/image.h"
#include "store/layer.h"
#include "store/view.h"
#include "util/cleanup.h"
#include "util/host.h"

#define IDLE_SECONDS 30         /* of a layer or view */
#define LOOK_SECONDS 10         /* between two looks */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_t thread;
static bool running, stop;

static void *
look (void *arg)
{
  struct timespec next;

  ESP_LOCK_SCOPE (&lock);
  while (!stop) {
    clock_gettime (CLOCK_REALTIME, &next);
    next.tv_sec += LOOK_SECONDS;
    /* Early or late: a clock that is set costs nothing here. */
    pthread_cond_timedwait (&cond, &lock, &next);
    layer_trim (IDLE_SECONDS);
    view_trim (IDLE_SECONDS);
  }
  return arg;
}

static int
start (void)
{
  ESP_LOCK_SCOPE (&lock);
  if (running)
    return 0;
  stop = false;
  int err = pthread_create (&thread, NULL, look, NULL);
  if (err != 0) {
    errno = err;
    esp_error ("pthread_create: %m");
    return -1;
  }
  running = true;
  layer_keep_idle (true);
  view_keep_idle (true);
  return 0;
}

static void
end_thread (void)
{
  pthread_mutex_lock (&lock);
  bool was = running;
  stop = true;
  running = false;
  pthread_cond_signal (&cond);
  pthread_mutex_unlock (&lock);
  if (was)
    pthread_join (thread, NULL);
}

int
esp_image_keep_idle (bool keep)
{
  if (keep)
    return start ();
  end_thread ();
  layer_keep_idle (false);
  layer_trim (0);
  view_keep_idle (false);
  view_trim (0);
  return 0;
}
