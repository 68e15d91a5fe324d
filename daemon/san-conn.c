/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection of the pool, and its driver: the thread that connects it,
 * waits for its socket, and closes it.  The design note is in san-pool.c.
 */

#include <config.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#include "san-conn.h"
#include "tip.h"

#define IDLE_S 30u
#define DRIVER_STACK (128u << 10)

void
conn_cond_init (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

struct timespec
conn_in_seconds (unsigned seconds)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  t.tv_sec += seconds;
  return t;
}

/* --- connecting ------------------------------------------------------------ */

static struct nbd_handle *
handle_new (void)
{
  struct nbd_handle *nbd = nbd_create ();

  if (!nbd)
    esp_error ("nbd_create: %s", nbd_get_error ());
  /* Simple replies are one message less; the bytes are all overwritten, or the
   * read fails.
   */
  else if (nbd_set_request_structured_replies (nbd, false) == -1 ||
           nbd_set_pread_initialize (nbd, false) == -1) {
    esp_error ("libnbd: %s", nbd_get_error ());
    nbd_close (nbd);
    nbd = NULL;
  }
  return nbd;
}

/* Let libnbd do what its socket is ready for, for at most MS milliseconds, or
 * until FD can be read.  -1 where the connection is broken.
 */
static int
turn (struct nbd_handle *nbd, int wake, int ms)
{
  unsigned dir = nbd_aio_get_direction (nbd);
  struct pollfd fd[2] = {
    { .fd = nbd_aio_get_fd (nbd),
      .events = (dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0) },
    { .fd = wake, .events = POLLIN },
  };
  eventfd_t n;
  int r = 0;

  if (fd[0].fd == -1)
    return -1;
  if (poll (fd, 2, ms) == -1)
    return errno == EINTR ? 0 : -1;
  if (fd[1].revents)
    eventfd_read (wake, &n);
  /* Asked again: another thread may have sent a request meanwhile. */
  dir = nbd_aio_get_direction (nbd);
  if (fd[0].revents & (POLLIN | POLLHUP | POLLERR) &&
      dir & LIBNBD_AIO_DIRECTION_READ)
    r = nbd_aio_notify_read (nbd);
  else if (fd[0].revents & (POLLOUT | POLLHUP | POLLERR) &&
           dir & LIBNBD_AIO_DIRECTION_WRITE)
    r = nbd_aio_notify_write (nbd);
  if (r == -1 || nbd_aio_is_dead (nbd) || nbd_aio_is_closed (nbd))
    return -1;
  return 0;
}

static int
no_answer (const char *why)
{
  esp_error ("the stack does not answer: %s", why ? why : "it hung up");
  errno = EAGAIN;
  return -1;
}

/* Connect C; nobody else uses it yet. */
static int
connect_to (struct conn *c)
{
  CLEANUP_FREE char *uri = tip_uri (&c->tip);
  uint64_t until = esp_now_us () + CONN_CONNECT_S * 1000000ull;
  int64_t size;

  c->nbd = uri ? handle_new () : NULL;
  if (!c->nbd)
    return -1;
  if (nbd_aio_connect_uri (c->nbd, uri) == -1)
    return no_answer (nbd_get_error ());
  while (!nbd_aio_is_ready (c->nbd)) {
    uint64_t now = esp_now_us ();

    if (now >= until)
      return no_answer ("it takes too long");
    if (turn (c->nbd, c->wake, (int) ((until - now) / 1000) + 1) == -1)
      return no_answer (nbd_get_error ());
  }
  size = nbd_get_size (c->nbd);
  if (size < 0)
    return no_answer (nbd_get_error ());
  c->size = (uint64_t) size;
  return 0;
}

/* --- the driver -------------------------------------------------------------- */

static void
unlist_locked (struct conn *c)
{
  for (struct conn **p = &pool.conns; *p; p = &(*p)->next)
    if (*p == c) {
      *p = c->next;
      break;
    }
  c->state = GONE;
  pthread_cond_broadcast (&pool.changed);
}

void
conn_retire_locked (struct conn *c)
{
  unlist_locked (c);
  eventfd_write (c->wake, 1);
}

static void
conn_unlist (struct conn *c)
{
  ESP_LOCK_SCOPE (&pool.lock);

  if (c->state != GONE)
    unlist_locked (c);
}

static void
conn_ready (struct conn *c)
{
  ESP_LOCK_SCOPE (&pool.lock);

  if (c->state == CONNECTING)
    c->state = READY;
  c->used = esp_now_us ();
  pthread_cond_broadcast (&pool.changed);
}

/* It cannot be connected: those who wait for it are told why. */
static void
conn_failed (struct conn *c, const char *why)
{
  ESP_LOCK_SCOPE (&pool.lock);

  snprintf (pool.why_not, sizeof pool.why_not, "%s", why);
  if (c->state != GONE)
    unlist_locked (c);
}

/* Is the driver's work done?  An idle connection is out of the list then. */
static bool
over (struct conn *c)
{
  ESP_LOCK_SCOPE (&pool.lock);

  if (c->state == GONE)
    return pool.stopping || c->users == 0;
  if (c->users > 0 || esp_now_us () - c->used < IDLE_S * 1000000ull)
    return false;
  unlist_locked (c);
  return true;
}

/* Close C, which is in no list: what is under way fails.  Its place is free
 * only then.
 */
static void
conn_free (struct conn *c)
{
  {
    ESP_LOCK_SCOPE (&pool.lock);
    while (c->entering > 0)
      pthread_cond_wait (&pool.changed, &pool.lock);
  }
  if (c->nbd)
    nbd_close (c->nbd);
  assert (c->users == 0);
  close (c->wake);
  free (c);

  ESP_LOCK_SCOPE (&pool.lock);
  pool.nconns--;
  pthread_cond_broadcast (&pool.changed);
}

static void *
driver (void *arg)
{
  struct conn *c = arg;
  char why[256] = "";
  int r;

  esp_catch_errors (why, sizeof why);
  r = connect_to (c);
  esp_catch_errors (NULL, 0);
  if (r == 0) {
    conn_ready (c);
    while (!over (c))
      if (turn (c->nbd, c->wake, IDLE_S * 1000 + 100) == -1)
        break;
    conn_unlist (c);
  }
  else
    conn_failed (c, why);
  conn_free (c);
  return NULL;
}

static int
start_driver (struct conn *c)
{
  pthread_attr_t attr;
  pthread_t thread;
  int r;

  pthread_attr_init (&attr);
  pthread_attr_setdetachstate (&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize (&attr, DRIVER_STACK);
  r = pthread_create (&thread, &attr, driver, c);
  pthread_attr_destroy (&attr);
  if (r != 0) {
    errno = r;
    esp_error ("pthread_create: %m");
    return -1;
  }
  return 0;
}

int
conn_new_locked (const esp_uuid *tip)
{
  struct conn *c = calloc (1, sizeof *c);

  if (!c) {
    esp_error ("malloc: %m");
    return -1;
  }
  c->tip = *tip;
  c->wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (c->wake == -1)
    esp_error ("eventfd: %m");
  if (c->wake == -1 || start_driver (c) == -1) {
    if (c->wake != -1)
      close (c->wake);
    free (c);
    return -1;
  }
  c->next = pool.conns;
  pool.conns = c;
  pool.nconns++;
  return 0;
}

void
conn_leave_locked (struct conn *c)
{
  c->users--;
  c->used = esp_now_us ();
  if (c->state == GONE && c->users == 0)
    eventfd_write (c->wake, 1);
  if (c->users == 0)
    pthread_cond_broadcast (&pool.changed);
}
