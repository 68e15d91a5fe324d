/* SPDX-License-Identifier: BSD-3-Clause */
/* One disk of espalierd-disks: its connections, and what was not flushed yet.
 *
 * A connection serves one request at a time; a disk has up to CONNS of them,
 * opened when they are needed and the server allows several.
 *
 * LOST: a connection broke.  From then on nobody takes one; requests on the
 * others are cut off, and tried again later.  When the last one is back, one
 * of those who wait becomes the mender: it connects, writes the unflushed
 * writes again in their order, and wakes the rest.  A server that was there all
 * the time gets the same bytes again, in the same order, with nobody
 * reading meanwhile: that changes nothing.
 *
 * The order of the log is right: a write enters it after the server's answer
 * and before ours, so a write that an initiator makes because another one was
 * answered comes behind it.  A flush forgets only a prefix: what stood in
 * the log when it began.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libnbd.h>

#include "disks-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* Unflushed bytes that are remembered for one disk, and for all. */
#define LOG_MAX (16 << 20)
#define LOG_MIN (1 << 20)
#define LOG_ALL (256 << 20)

static atomic_ullong logged_all;

/* --- the log -------------------------------------------------------------- */

void
disk_forget_locked (struct disk *d, uint64_t serial)
{
  struct entry *e;

  while ((e = d->first) && e->serial <= serial) {
    d->first = e->next;
    if (serial != UINT64_MAX)
      disk_probe_add_locked (d, e);
    d->logged -= e->cost;
    logged_all -= e->cost;
    free (e->data);
    free (e);
  }
  if (!d->first)
    d->last = &d->first;
}

/* Remember a write.  Takes DATA over. */
static void
log_add_locked (struct disk *d, struct entry *e, uint64_t pos, uint64_t len,
                void *data)
{
  *e = (struct entry) {
    .pos = pos, .len = len, .serial = ++d->serial, .data = data,
    .cost = sizeof *e + (data ? len : 0)
  };
  *d->last = e;
  d->last = &e->next;
  d->logged += e->cost;
  logged_all += e->cost;
}

static bool
log_is_full_locked (const struct disk *d)
{
  return d->logged > LOG_MAX || (d->logged > LOG_MIN && logged_all > LOG_ALL);
}

/* --- connections ---------------------------------------------------------- */

/* Wait for H to do something.  false: it is of no use any more. */
static bool
conn_wait (struct disk *d, struct nbd_handle *h)
{
  return nbd_poll (h, POLL_MS) >= 0 && !d->cut;
}

struct nbd_handle *
disk_connect (struct disk *d, uint64_t deadline, char *why, size_t why_size)
{
  struct nbd_handle *h = nbd_create ();
  char *uri CLEANUP_FREE = NULL;

  {
    ESP_LOCK_SCOPE (&d->lock);
    uri = strdup (d->uri);
  }
  if (!h || !uri)
    goto failed;
  nbd_set_uri_allow_local_file (h, true);
  if (nbd_aio_connect_uri (h, uri) == -1)
    goto failed;
  while (nbd_aio_is_connecting (h)) {
    if (esp_now_us () > deadline) {
      snprintf (why, why_size, "the NBD server does not answer");
      goto closed;
    }
    if (!conn_wait (d, h) || d->closing)
      goto failed;
  }
  if (nbd_aio_is_ready (h))
    return h;
failed:
  snprintf (why, why_size, "%s",
            nbd_get_error () ? nbd_get_error () : "the connection broke");
closed:
  nbd_close (h);
  return NULL;
}

static struct conn *
conn_free_locked (struct disk *d)
{
  for (unsigned i = 0; i < d->max; i++)
    if (!d->conns[i].busy && d->conns[i].nbd)
      return &d->conns[i];
  for (unsigned i = 0; i < d->max; i++)
    if (!d->conns[i].busy)
      return &d->conns[i];
  return NULL;
}

/* The place C gets a connection.  The lock is let go meanwhile. */
static bool
conn_fill_locked (struct disk *d, struct conn *c)
{
  char why[256];
  struct nbd_handle *h;

  pthread_mutex_unlock (&d->lock);
  h = disk_connect (d, esp_now_us () + DISK_OPEN_S * UINT64_C (1000000), why,
                 sizeof why);
  pthread_mutex_lock (&d->lock);
  c->nbd = h;
  return h != NULL;
}

static void
conn_give_locked (struct disk *d, struct conn *c)
{
  c->busy = false;
  d->busy--;
  pthread_cond_broadcast (&d->changed);
}

static void
conn_drop_locked (struct disk *d, struct conn *c)
{
  nbd_close (c->nbd);
  c->nbd = NULL;
  d->lost = true;
  conn_give_locked (d, c);
}

static int64_t
op_send (struct nbd_handle *h, const struct op *op)
{
  const nbd_completion_callback none = NBD_NULL_COMPLETION;

  switch (op->what) {
  case OP_READ: return nbd_aio_pread (h, op->buf, op->len, op->pos, none, 0);
  case OP_WRITE: return nbd_aio_pwrite (h, op->buf, op->len, op->pos, none, 0);
  case OP_ZERO: return nbd_aio_zero (h, op->len, op->pos, none, 0);
  default: return nbd_aio_flush (h, none, 0);
  }
}

int
disk_op (struct disk *d, struct nbd_handle *h, const struct op *op)
{
  int64_t cookie = op_send (h, op);
  int r = 0;

  if (cookie == -1)
    return nbd_aio_is_ready (h) || nbd_aio_is_processing (h)
      ? nbd_get_errno () ? : EIO : -1;
  while (!(r = nbd_aio_command_completed (h, (uint64_t) cookie)))
    if (!conn_wait (d, h) || d->lost)
      return -1;
  if (r == 1)
    return 0;
  r = nbd_get_errno () ? : EIO;
  return nbd_aio_is_dead (h) || nbd_aio_is_closed (h) ? -1 : r;
}

/* --- mending -------------------------------------------------------------- */

/* Write the log again.  Nobody else has a connection, so nobody changes it. */
static int
mend_replay (struct disk *d, struct nbd_handle *h)
{
  for (struct entry *e = d->first; e; e = e->next) {
    struct op op = { .what = e->data ? OP_WRITE : OP_ZERO, .buf = e->data,
                     .len = e->len, .pos = e->pos };
    int r = disk_op (d, h, &op);

    if (r)
      return r;
  }
  return 0;
}

/* A connection with all that was lost written again; NULL: closing, or WHY; STALE:
 * to try again is of no use.
 */
static struct nbd_handle *
mend_try (struct disk *d, uint64_t deadline, char *why, size_t why_size,
          bool *stale)
{
  struct nbd_handle *h = disk_connect (d, deadline, why, why_size);
  int r;

  if (!h)
    return NULL;
  if (nbd_get_size (h) != (int64_t) d->size) {
    snprintf (why, why_size, "the disk has another size now");
    nbd_close (h);
    return NULL;
  }
  d->lost = false;
  r = disk_probe (d, h);
  if (r == ESTALE) {
    snprintf (why, why_size, "this is another disk: what was written before "
              "is not on it");
    *stale = true;
  }
  else if (r == 0 && (r = mend_replay (d, h)) == 0)
    return h;
  else
    snprintf (why, why_size, "writing again what was lost: %s",
              r > 0 ? strerror (r) : "the connection broke");
  d->lost = true;
  nbd_close (h);
  return NULL;
}

void
disk_disconnect_locked (struct disk *d)
{
  for (unsigned i = 0; i < CONNS; i++) {
    nbd_close (d->conns[i].nbd);
    d->conns[i].nbd = NULL;
  }
}

/* Wait for the server to come back.  Called by one, with nothing busy. */
static void
mend_locked (struct disk *d)
{
  uint64_t deadline = esp_now_us () + DISK_PATIENCE_S * UINT64_C (1000000);
  struct nbd_handle *h = NULL;
  char why[256] = "";
  bool stale = false;

  d->mending = true;
  disk_disconnect_locked (d);
  pthread_mutex_unlock (&d->lock);
  fprintf (stderr, "espalierd-disks: %s: the NBD server is gone: waiting\n",
           d->name);
  while (!d->closing
         && !(h = mend_try (d, deadline, why, sizeof why, &stale))
         && !stale && esp_now_us () < deadline)
    nanosleep (&(struct timespec) { .tv_nsec = 200000000 }, NULL);
  if (!d->closing)
    fprintf (stderr, "espalierd-disks: %s: %s%s\n", d->name,
             h ? "goes on" : "given up: ", h ? "" : why);
  pthread_mutex_lock (&d->lock);
  d->conns[0].nbd = h;
  d->failed = !h;
  d->mending = false;
  d->lost = false;
  pthread_cond_broadcast (&d->changed);
}

/* A connection for one request; NULL: the disk is gone. */
static struct conn *
conn_take (struct disk *d)
{
  ESP_LOCK_SCOPE (&d->lock);

  for (;;) {
    struct conn *c;

    if (d->closing || d->failed)
      return NULL;
    if (d->lost && !d->mending && !d->busy) {
      mend_locked (d);
      continue;
    }
    c = d->lost || d->mending ? NULL : conn_free_locked (d);
    if (!c) {
      pthread_cond_wait (&d->changed, &d->lock);
      continue;
    }
    c->busy = true;
    d->busy++;
    if (c->nbd || conn_fill_locked (d, c))
      return c;
    /* One more was not to be had: the others do. */
    if (c != d->conns && d->conns[0].nbd)
      d->max = (unsigned) (c - d->conns);
    else
      d->lost = true;
    conn_give_locked (d, c);
  }
}

/* --- verbs ---------------------------------------------------------------- */

/* Run OP until it was answered.  ENTRY (with its DATA) enters the log when a
 * write succeeded; UPTO is forgotten when a flush did.
 */
static int
disk_run (struct disk *d, const struct op *op, struct entry *entry)
{
  for (;;) {
    struct conn *c = conn_take (d);
    uint64_t upto;
    int r;

    if (!c)
      return EIO;
    {
      ESP_LOCK_SCOPE (&d->lock);
      upto = d->serial;
    }
    r = disk_op (d, c->nbd, op);
    ESP_LOCK_SCOPE (&d->lock);
    if (r == -1) {
      conn_drop_locked (d, c);
      continue;
    }
    if (r == 0 && entry)
      log_add_locked (d, entry, op->pos, op->len, op->buf);
    if (r == 0 && op->what == OP_FLUSH)
      disk_forget_locked (d, upto);
    conn_give_locked (d, c);
    return r;
  }
}

int
disk_read (struct disk *d, void *buf, size_t len, uint64_t pos)
{
  struct op op = { .what = OP_READ, .buf = buf, .len = len, .pos = pos };

  return len ? disk_run (d, &op, NULL) : 0;
}

int
disk_flush (struct disk *d)
{
  struct op op = { .what = OP_FLUSH };

  return disk_run (d, &op, NULL);
}

/* OP changes the disk; its buf was malloced, and is taken over. */
static int
disk_change (struct disk *d, struct op *op)
{
  struct entry *entry = malloc (sizeof *entry);
  int r = entry ? disk_run (d, op, entry) : ENOMEM;
  bool full;

  if (r) {
    free (entry);
    free (op->buf);
    return r;
  }
  pthread_mutex_lock (&d->lock);
  full = log_is_full_locked (d);
  pthread_mutex_unlock (&d->lock);
  /* That this flush fails is told by the next one that somebody asks for. */
  if (full)
    disk_flush (d);
  return 0;
}

int
disk_write (struct disk *d, const void *buf, size_t len, uint64_t pos)
{
  struct op op = { .what = OP_WRITE, .len = len, .pos = pos };

  if (!len)
    return 0;
  op.buf = malloc (len);
  if (!op.buf)
    return ENOMEM;
  memcpy (op.buf, buf, len);
  return disk_change (d, &op);
}

int
disk_zero (struct disk *d, uint64_t len, uint64_t pos)
{
  /* Some way below the limit of a request's length. */
  const uint64_t piece = 1 << 30;
  int r = 0;

  for (; len && !r; pos += piece) {
    struct op op = { .what = OP_ZERO, .pos = pos,
                     .len = len < piece ? len : piece };

    r = disk_change (d, &op);
    len -= op.len;
  }
  return r;
}

void
disk_last_flush_locked (struct disk *d)
{
  const struct op flush = { .what = OP_FLUSH };

  for (unsigned i = 0; i < CONNS && d->first; i++)
    if (d->conns[i].nbd) {
      uint64_t until = esp_now_us () + 5000000;
      int64_t cookie = op_send (d->conns[i].nbd, &flush);

      while (cookie >= 0 && esp_now_us () < until
             && !nbd_aio_command_completed (d->conns[i].nbd,
                                            (uint64_t) cookie)
             && nbd_poll (d->conns[i].nbd, POLL_MS) >= 0)
        ;
      break;
    }
  for (unsigned i = 0; i < CONNS; i++)
    if (d->conns[i].nbd && nbd_aio_is_ready (d->conns[i].nbd))
      nbd_aio_disconnect (d->conns[i].nbd, 0);
}
