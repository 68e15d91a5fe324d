/* SPDX-License-Identifier: BSD-3-Clause */
/* Plain images behind NBD: a pool of connections for each server.
 *
 * A request takes an idle connection or makes one, keeps up to RING reads
 * under way on it, and gives it back.  A connection that failed is closed,
 * never given back: NBD cannot take a request back, so that an answer that is
 * no longer wanted can only be left behind with its connection.  An idle one
 * that the server closed meanwhile is no error: the next one is taken.
 *
 * libnbd's blocking calls have no time-outs; so everything here is its
 * asynchronous side, driven by conn_wait, which looks at the clock and at the
 * caller's flag.
 *
 * NBD knows no version of a disk: its size is compared at each new
 * connection, its bytes by the digests of segments that were fetched before.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <libnbd.h>

#include "center/origin-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define RING 4u                               /* reads under way */
#define PIECE (UINT64_C (1) << 20)            /* bytes of one read */
#define STATUS_BYTES (UINT64_C (1) << 30)     /* of one block status */
#define CONNECT_SECONDS 10
#define IDLE_SECONDS 30                       /* without progress */
#define POLL_MS 100                           /* between looks at the flag */
#define RETRIES 4u
#define IDLE_CONNECTIONS 16u

struct conn {
  struct conn *next;
  struct nbd_handle *nbd;
  uint64_t size;                /* of the disk */
  struct slot { int64_t cookie; char *buf; uint64_t len; } ring[RING];
};

struct nbd_pool {
  char *url;

  /* Protected by the table's mutex. */
  struct nbd_pool *next;
  unsigned refs;

  pthread_mutex_t mutex;        /* protects the two below */
  struct conn *idle;
  unsigned nidle;
};

static pthread_mutex_t pools_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct nbd_pool *pools;          /* protected by pools_mutex */

/* --- one connection --------------------------------------------------------- */

static void
conn_free (struct conn *c)
{
  int saved = errno;

  nbd_close (c->nbd);           /* lets go of the buffers */
  for (unsigned i = 0; i < RING; i++)
    free (c->ring[i].buf);
  free (c);
  errno = saved;
}

ESP_DEFINE_CLEANUP (conn, struct conn *, conn_free)

/* Report what libnbd said. */
static int
conn_error (const struct nbd_pool *pool, const char *what)
{
  const char *text = nbd_get_error ();
  int e = nbd_get_errno ();

  errno = e == ENOENT || e == EACCES || e == ETIMEDOUT ? e : EIO;
  esp_error ("%s: %s: %s", pool->url, what, text ? text : "connection lost");
  return -1;
}

static int64_t
now_ms (void)
{
  return (int64_t) (esp_now_us () / 1000);
}

/* How long something may take, from the last progress on. */
struct patience {
  const struct nbd_pool *pool;
  const char *what;             /* "it cannot be read" */
  const atomic_bool *cancel;    /* may be NULL */
  int64_t ms, deadline;
};

static struct patience
patience (const struct nbd_pool *pool, const char *what, unsigned seconds,
          const atomic_bool *cancel)
{
  int64_t ms = seconds * INT64_C (1000);

  return (struct patience) { pool, what, cancel, ms, now_ms () + ms };
}

/* Let the connection work until something happened, or a little while. */
static int
conn_wait (struct conn *c, struct patience *p)
{
  int r;

  if (p->cancel && atomic_load_explicit (p->cancel, memory_order_relaxed)) {
    errno = ECANCELED;
    esp_error ("%s: canceled", p->pool->url);
    return -1;
  }
  r = nbd_poll (c->nbd, POLL_MS);
  if (r == -1)
    return conn_error (p->pool, p->what);
  if (r > 0)
    p->deadline = now_ms () + p->ms;
  else if (now_ms () > p->deadline) {
    errno = ETIMEDOUT;
    esp_error ("%s: %s: no answer for %d seconds", p->pool->url, p->what,
               (int) (p->ms / 1000));
    return -1;
  }
  return 0;
}

/* Connect; the size of the disk is known then. */
static int
conn_connect (struct nbd_pool *pool, struct conn *c, const atomic_bool *cancel)
{
  struct patience p = patience (pool, "it cannot be connected to",
                                CONNECT_SECONDS, cancel);
  int64_t size;

  /* Files that the URI names (tls-certificates=, tls-psk-file=): it is the
   * operator's own.
   */
  if (nbd_set_uri_allow_local_file (c->nbd, true) == -1 ||
      nbd_add_meta_context (c->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
      nbd_aio_connect_uri (c->nbd, pool->url) == -1)
    return conn_error (pool, p.what);
  while (nbd_aio_is_connecting (c->nbd) == 1)
    if (conn_wait (c, &p) == -1)
      return -1;
  if (nbd_aio_is_ready (c->nbd) != 1 || (size = nbd_get_size (c->nbd)) == -1)
    return conn_error (pool, p.what);
  c->size = (uint64_t) size;
  return 0;
}

static struct conn *
conn_new (struct nbd_pool *pool, const atomic_bool *cancel)
{
  ESP_CLEANUP (conn) struct conn *c = calloc (1, sizeof *c);

  if (!c || !(c->nbd = nbd_create ())) {
    free (ESP_STEAL (c));
    errno = ENOMEM;
    esp_error ("malloc: connection to %s: %m", pool->url);
    return NULL;
  }
  return conn_connect (pool, c, cancel) == 0 ? ESP_STEAL (c) : NULL;
}

/* Wait until command COOKIE is done. */
static int
conn_finish (struct conn *c, int64_t cookie, struct patience *p)
{
  int r;

  while ((r = nbd_aio_command_completed (c->nbd, (uint64_t) cookie)) == 0)
    if (conn_wait (c, p) == -1)
      return -1;
  return r == -1 ? conn_error (p->pool, p->what) : 0;
}

/* --- reading ------------------------------------------------------------------ */

static int
begin_piece (struct conn *c, struct slot *s, uint64_t offset, uint64_t len,
             struct patience *p)
{
  if (!s->buf && !(s->buf = malloc (PIECE))) {
    esp_error ("malloc: buffers for %s: %m", p->pool->url);
    return -1;
  }
  s->len = len;
  s->cookie = nbd_aio_pread (c->nbd, s->buf, len, offset, NBD_NULL_COMPLETION,
                             0);
  return s->cookie == -1 ? conn_error (p->pool, p->what) : 0;
}

/* One attempt: *DONE bytes have gone to the sink, and grow.  *SUNK: it was
 * the sink that ended it.
 */
static int
conn_read (struct nbd_pool *pool, struct conn *c, const struct nbd_read *read,
           uint64_t *done, bool *sunk)
{
  struct patience p = patience (pool, "it cannot be read", IDLE_SECONDS,
                                read->cancel);
  uint64_t next = *done;
  unsigned head = 0, count = 0;

  while (*done < read->len) {
    while (count < RING && next < read->len) {
      uint64_t k = read->len - next < PIECE ? read->len - next : PIECE;

      if (begin_piece (c, &c->ring[(head + count) % RING],
                       read->offset + next, k, &p) == -1)
        return -1;
      next += k;
      count++;
    }
    struct slot *s = &c->ring[head];
    if (conn_finish (c, s->cookie, &p) == -1)
      return -1;
    *done += s->len;
    *sunk = read->sink (read->arg, s->buf, s->len) != 0;
    if (*sunk)
      return -1;
    head = (head + 1) % RING;
    count--;
    /* The sink may have waited: the time was not the server's. */
    p.deadline = now_ms () + p.ms;
  }
  return 0;
}

/* --- the pool ----------------------------------------------------------------- */

bool
nbd_pool_is_url (const char *url)
{
  static const char *const schemes[] = {
    "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://",
    "nbds+vsock://",
  };

  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
    if (strncasecmp (url, schemes[i], strlen (schemes[i])) == 0)
      return true;
  return false;
}

struct nbd_pool *
nbd_pool_get (const char *url)
{
  struct nbd_pool *p;

  ESP_LOCK_SCOPE (&pools_mutex);
  for (p = pools; p; p = p->next)
    if (strcmp (p->url, url) == 0) {
      p->refs++;
      return p;
    }
  p = calloc (1, sizeof *p);
  if (!p || !(p->url = strdup (url))) {
    free (p);
    errno = ENOMEM;
    esp_error ("malloc: connections to %s: %m", url);
    return NULL;
  }
  pthread_mutex_init (&p->mutex, NULL);
  p->refs = 1;
  p->next = pools;
  return pools = p;
}

void
nbd_pool_put (struct nbd_pool *pool)
{
  struct conn *next;

  if (!pool)
    return;
  {
    ESP_LOCK_SCOPE (&pools_mutex);
    if (--pool->refs)
      return;
    for (struct nbd_pool **at = &pools; *at; at = &(*at)->next)
      if (*at == pool) {
        *at = pool->next;
        break;
      }
  }
  for (struct conn *c = pool->idle; c; c = next) {
    next = c->next;
    if (nbd_aio_is_ready (c->nbd) == 1)
      (void) nbd_aio_disconnect (c->nbd, 0);    /* a courtesy */
    conn_free (c);
  }
  pthread_mutex_destroy (&pool->mutex);
  free (pool->url);
  free (pool);
}

/* An idle connection (*REUSED), or a new one. */
static struct conn *
take (struct nbd_pool *pool, const atomic_bool *cancel, bool *reused)
{
  *reused = false;
  {
    ESP_LOCK_SCOPE (&pool->mutex);
    if (pool->idle) {
      struct conn *c = pool->idle;
      pool->idle = c->next;
      pool->nidle--;
      *reused = true;
      return c;
    }
  }
  return conn_new (pool, cancel);
}

static void
give_back (struct nbd_pool *pool, struct conn *c)
{
  {
    ESP_LOCK_SCOPE (&pool->mutex);
    if (pool->nidle < IDLE_CONNECTIONS) {
      c->next = pool->idle;
      pool->idle = c;
      pool->nidle++;
      return;
    }
  }
  conn_free (c);
}

static int
check_size (const struct nbd_pool *pool, const struct conn *c,
            const struct nbd_read *read)
{
  if (read->size == 0 || c->size == read->size)
    return 0;
  errno = ESTALE;
  esp_error ("%s is not what it was: it has %" PRIu64 " bytes now, and had %"
             PRIu64 ": " PLAIN_CHANGED_ADVICE, pool->url, c->size, read->size);
  return -1;
}

/* Wait before attempt N; false when canceled. */
static bool
back_off (unsigned n, const atomic_bool *cancel)
{
  int64_t ms = INT64_C (100) << n;
  struct timespec t = { .tv_nsec = 20 * 1000000 };

  for (ms += now_ms () % (ms / 2 + 1); ms > 0; ms -= 20) {
    if (cancel && atomic_load_explicit (cancel, memory_order_relaxed))
      return false;
    nanosleep (&t, NULL);
  }
  return true;
}

/* One attempt, on a connection of the pool. */
static int
attempt (struct nbd_pool *pool, const struct nbd_read *read, uint64_t *done,
         bool *sunk, bool *reused)
{
  struct conn *c = take (pool, read->cancel, reused);

  if (!c)
    return -1;
  if (check_size (pool, c, read) == -1 ||
      conn_read (pool, c, read, done, sunk) == -1) {
    conn_free (c);
    return -1;
  }
  give_back (pool, c);
  return 0;
}

int
nbd_pool_read (struct nbd_pool *pool, const struct nbd_read *read)
{
  uint64_t done = 0;
  unsigned tries = 0;

  for (;;) {
    char why[256] = "";
    uint64_t before = done;
    bool sunk = false, reused = false;
    struct esp_catch outer = esp_catch_begin (why, sizeof why);
    int r = attempt (pool, read, &done, &sunk, &reused);

    esp_catch_end (outer);
    if (r == 0)
      return 0;
    if (!sunk && errno == EIO && reused && done == before)
      continue;                 /* it died while nobody used it */
    int saved = errno;
    if (sunk || (saved != EIO && saved != ETIMEDOUT) || read->once ||
        tries >= RETRIES || !back_off (tries, read->cancel)) {
      errno = saved;
      if (*why)
        esp_error ("%s", why);
      return -1;
    }
    esp_debug ("%s: again: %s", pool->url, why);
    tries++;
  }
}

int
nbd_pool_size (struct nbd_pool *pool, uint64_t *size)
{
  bool reused;
  struct conn *c = take (pool, NULL, &reused);

  if (!c)
    return -1;
  *size = c->size;
  give_back (pool, c);
  return 0;
}

/* --- block status --------------------------------------------------------------- */

struct status {
  uint64_t at;                  /* how far it was told */
  nbd_data_fn fn;
  void *arg;
};

static int
on_extents (void *user, const char *context, uint64_t offset,
            uint32_t *entries, size_t n, int *error)
{
  struct status *s = user;

  (void) error;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != s->at)
    return 0;
  for (size_t i = 0; i + 1 < n; i += 2) {
    if (!(entries[i + 1] & LIBNBD_STATE_ZERO))
      s->fn (s->arg, s->at, entries[i]);
    s->at += entries[i];
  }
  return 0;
}

static int
conn_data (struct nbd_pool *pool, struct conn *c, uint64_t size,
           struct status *s)
{
  struct patience p = patience (pool, "its holes cannot be asked for",
                                IDLE_SECONDS, NULL);
  nbd_extent_callback cb = { .callback = on_extents, .user_data = s };

  while (s->at < size) {
    uint64_t before = s->at, left = size - before;
    int64_t cookie = nbd_aio_block_status (c->nbd, left < STATUS_BYTES ? left
                                           : STATUS_BYTES, before, cb,
                                           NBD_NULL_COMPLETION, 0);

    if (cookie == -1)
      return conn_error (pool, p.what);
    if (conn_finish (c, cookie, &p) == -1)
      return -1;
    if (s->at == before) {
      errno = EPROTO;
      esp_error ("%s: %s: an answer without extents", pool->url, p.what);
      return -1;
    }
  }
  return 0;
}

int
nbd_pool_data (struct nbd_pool *pool, uint64_t size, nbd_data_fn fn, void *arg)
{
  struct status s = { .fn = fn, .arg = arg };
  bool reused;
  struct conn *c = take (pool, NULL, &reused);

  if (!c)
    return -1;
  if (nbd_can_meta_context (c->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
    fn (arg, 0, size);          /* the server cannot tell */
  else if (conn_data (pool, c, size, &s) == -1) {
    conn_free (c);
    return -1;
  }
  give_back (pool, c);
  return 0;
}
