/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections to the stack, shared by all that read disks for HTTP.
 *
 * A connection is to one restore point (export rp:UUID), so what it reads never
 * changes, whatever a venue is mapped to meanwhile.  It has a thread of its
 * own, its driver, that alone waits for its socket: so requests of many readers
 * are under way on it at the same time, and a reader that has begun a read and
 * then waits for its client holds nobody up.  nbdkit serves a connection with
 * one thread (tools/espalier/serve.c): parallel readers, or one that reads
 * ahead, get several.
 *
 *   CONNECTING ──► READY ──► GONE          idle for IDLE_S, broken, its place
 *        └───────────────────► GONE        is needed, or pool_stop
 *
 * What is GONE is in no list; its driver serves the reads that are under way
 * (unless it is broken or we stop) and frees it.
 *
 * `pool.lock' protects the list, each connection's counts and `state', and each
 * read's `state'.  A user is a request that has chosen the connection and has
 * not come back; one that is `entering' is about to call libnbd, and keeps the
 * handle from being closed.  Nothing of libnbd is called with `lock' held: its
 * handle has a lock of its own, under which read_over runs and takes ours.
 *
 * A connection that breaks fails its reads with BROKEN; pool_read_wait starts
 * such a read once again.  The stack's sockets stay when it is started again
 * (docs/boot.md), so connecting waits meanwhile, for CONNECT_S at most.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#include "san-conn.h"
#include "san-pool.h"

#define CONNS_MAX 12u           /* of all restore points */
#define CONNS_EACH 4u           /* of one */
#define READ_S 120u             /* a center may be slow */

enum read_state { UNDER_WAY, DONE, FAILED, BROKEN };

struct pool_read {
  struct conn *conn;            /* until libnbd has done with it */
  enum read_state state;
  int error;                    /* FAILED */
  bool forgotten;               /* its reader has gone: free it when it comes */
  pthread_cond_t came;
  esp_uuid tip;
  uint64_t pos;
  size_t len;
  char buf[];
};

struct pool pool = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .why_not = "the stack hung up",
};
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t bytes;          /* of all reads; atomic */

static void
pool_init (void)
{
  conn_cond_init (&pool.changed);
}

uint64_t
pool_bytes (void)
{
  return __atomic_load_n (&bytes, __ATOMIC_RELAXED);
}

/* --- choosing one ------------------------------------------------------------- */

struct seen { struct conn *best; unsigned n, connecting; };

/* The connections to TIP, and of those that are ready the least busy one. */
static struct seen
look_locked (const esp_uuid *tip)
{
  struct seen s = { 0 };

  for (struct conn *c = pool.conns; c; c = c->next) {
    if (!esp_uuid_eq (&c->tip, tip))
      continue;
    s.n++;
    if (c->state == CONNECTING)
      s.connecting++;
    else if (!s.best || c->users < s.best->users)
      s.best = c;
  }
  return s;
}

/* Make a place: that idle connection goes which was used longest ago, else one
 * of those of which a restore point has several.
 */
static void
make_place_locked (void)
{
  struct conn *idle = NULL, *spare = NULL;

  for (struct conn *c = pool.conns; c; c = c->next) {
    if (c->state != READY)
      continue;
    if (c->users == 0 && (!idle || c->used < idle->used))
      idle = c;
    else if (c->users > 0 && look_locked (&c->tip).n > 1)
      spare = c;
  }
  if (idle || spare)
    conn_retire_locked (idle ? idle : spare);
}

static unsigned
going_locked (void)
{
  unsigned listed = 0;

  for (struct conn *c = pool.conns; c; c = c->next)
    listed++;
  return pool.nconns - listed;
}

/* Wait for a change, until UNTIL. */
static int
wait_locked (const struct timespec *until)
{
  if (pthread_cond_timedwait (&pool.changed, &pool.lock, until) == 0)
    return 0;
  esp_error ("the stack does not answer, or too many disks are read at once");
  errno = EAGAIN;
  return -1;
}

/* A connection to TIP for one more user who is entering.  NULL, reported. */
static struct conn *
choose (const esp_uuid *tip)
{
  struct timespec until = conn_in_seconds (CONN_CONNECT_S + 1);
  bool tried = false;
  ESP_LOCK_SCOPE (&pool.lock);

  for (;;) {
    struct seen s = look_locked (tip);
    bool more = !s.best || s.best->users > 1;

    if (pool.stopping) {
      esp_error ("espalierd is about to end");
      errno = EAGAIN;
      return NULL;
    }
    if (!s.best && s.connecting == 0 && tried) {
      esp_error ("%s", pool.why_not);
      errno = EAGAIN;
      return NULL;
    }
    if (more && s.n < CONNS_EACH && s.connecting == 0 && pool.nconns < CONNS_MAX) {
      if (conn_new_locked (tip) == -1 && !s.best)
        return NULL;
      tried = true;
    }
    else if (!s.best && s.connecting == 0 && going_locked () == 0)
      make_place_locked ();
    else if (!s.best)
      tried = s.connecting > 0;
    if (s.best) {
      s.best->users++;
      s.best->entering++;
      return s.best;
    }
    if (wait_locked (&until) == -1)
      return NULL;
  }
}

int
pool_size (const esp_uuid *tip, uint64_t *size)
{
  struct conn *c;

  pthread_once (&once, pool_init);
  c = choose (tip);
  if (!c)
    return -1;
  *size = c->size;
  ESP_LOCK_SCOPE (&pool.lock);
  c->entering--;
  conn_leave_locked (c);
  return 0;
}

/* --- reads -------------------------------------------------------------------- */

static void
read_free (struct pool_read *r)
{
  __atomic_sub_fetch (&bytes, r->len, __ATOMIC_RELAXED);
  pthread_cond_destroy (&r->came);
  free (r);
}

/* libnbd: the answer is there, in *ERROR. */
static int
read_done (void *arg, int *error)
{
  struct pool_read *r = arg;
  ESP_LOCK_SCOPE (&pool.lock);

  r->state = *error == 0 ? DONE : FAILED;
  r->error = *error;
  return 1;
}

/* libnbd: it has no more to do with the read, answered or not. */
static void
read_over (void *arg)
{
  struct pool_read *r = arg;
  struct conn *c = r->conn;
  bool forgotten;

  {
    ESP_LOCK_SCOPE (&pool.lock);
    forgotten = r->forgotten;
    if (r->state == UNDER_WAY ||
        (r->state == FAILED &&
         (r->error == ENOTCONN || r->error == ESHUTDOWN ||
          r->error == ECONNRESET || r->error == EPIPE)))
      r->state = BROKEN;
    r->conn = NULL;
    conn_leave_locked (c);
    pthread_cond_signal (&r->came);
  }
  if (forgotten)
    read_free (r);
}

/* Send R to a connection. */
static int
submit (struct pool_read *r)
{
  nbd_completion_callback cb = { read_done, r, read_over };
  struct conn *c = choose (&r->tip);
  bool write;

  if (!c)
    return -1;
  r->state = UNDER_WAY;
  r->conn = c;
  /* Where it fails, read_over is called too: the read is BROKEN then. */
  write = nbd_aio_pread (c->nbd, r->buf, r->len, r->pos, cb, 0) != -1 &&
    nbd_aio_get_direction (c->nbd) & LIBNBD_AIO_DIRECTION_WRITE;
  if (write)
    eventfd_write (c->wake, 1);
  ESP_LOCK_SCOPE (&pool.lock);
  c->entering--;
  pthread_cond_broadcast (&pool.changed);
  return 0;
}

struct pool_read *
pool_read_start (const esp_uuid *tip, uint64_t pos, size_t len)
{
  struct pool_read *r = malloc (sizeof *r + len);

  pthread_once (&once, pool_init);
  if (!r) {
    esp_error ("malloc: %m");
    return NULL;
  }
  memset (r, 0, sizeof *r);
  conn_cond_init (&r->came);
  r->tip = *tip;
  r->pos = pos;
  r->len = len;
  __atomic_add_fetch (&bytes, len, __ATOMIC_RELAXED);
  if (submit (r) == 0)
    return r;
  read_free (r);
  return NULL;
}

/* Wait until it is not under way. */
static enum read_state
await (struct pool_read *r)
{
  struct timespec until = conn_in_seconds (READ_S);
  ESP_LOCK_SCOPE (&pool.lock);

  while (r->conn)
    if (pthread_cond_timedwait (&r->came, &pool.lock, &until) != 0)
      return UNDER_WAY;
  return r->state;
}

const char *
pool_read_wait (struct pool_read *r)
{
  enum read_state state = await (r);

  if (state == BROKEN) {
    if (submit (r) == -1)
      return NULL;
    state = await (r);
  }
  if (state == DONE)
    return r->buf;
  errno = state == FAILED ? r->error : state == BROKEN ? ENOTCONN : ETIMEDOUT;
  esp_error ("read: %zu bytes at %" PRIu64 ": %m", r->len, r->pos);
  return NULL;
}

void
pool_read_free (struct pool_read *r)
{
  if (!r)
    return;
  {
    ESP_LOCK_SCOPE (&pool.lock);
    if (r->conn) {
      r->forgotten = true;
      return;
    }
  }
  read_free (r);
}

void
pool_stop (void)
{
  pthread_once (&once, pool_init);
  ESP_LOCK_SCOPE (&pool.lock);
  pool.stopping = true;
  while (pool.conns)
    conn_retire_locked (pool.conns);
  while (pool.nconns > 0)
    pthread_cond_wait (&pool.changed, &pool.lock);
}
