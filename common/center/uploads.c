/* SPDX-License-Identifier: BSD-3-Clause */
/* Parts of one upload, put by a few threads side by side: a buffer is filled
 * by who packs, queued, put by the next thread, and free again.  There are
 * one more than threads, so that memory is bounded and packing goes on while
 * all threads put.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "center/uploads.h"
#include "util/host.h"

#define UPLOADERS 3
#define BUFFERS (UPLOADERS + 1)

struct uploads {
  struct esp_remote *remote;
  const char *object, *id;
  int journal;
  const struct esp_segment *segments;

  pthread_mutex_t lock;         /* protects all below, and the journal */
  pthread_cond_t changed;
  struct {
    struct upload_buffer b;
    enum { BUFFER_FREE, BUFFER_FILLING, BUFFER_QUEUED, BUFFER_BUSY } state;
  } buffer[BUFFERS];
  bool ending, cancelled;
  int error;
  struct journal_part *parts;
  size_t nparts;
  pthread_t thread[UPLOADERS];
  unsigned nthreads;
};

/* A queued buffer, the one with the lowest number; -1: there will be none. */
static int
next_queued_locked (struct uploads *u)
{
  int best = -1;

  for (int i = 0; i < BUFFERS; i++)
    if (u->buffer[i].state == BUFFER_QUEUED &&
        (best == -1 || u->buffer[i].b.part.part.number <
         u->buffer[best].b.part.part.number))
      best = i;
  return best;
}

static int
take (struct uploads *u)
{
  ESP_LOCK_SCOPE (&u->lock);
  int i;

  for (;;) {
    if (u->error || u->cancelled)
      return -1;
    if ((i = next_queued_locked (u)) != -1)
      break;
    if (u->ending)
      return -1;
    pthread_cond_wait (&u->changed, &u->lock);
  }
  u->buffer[i].state = BUFFER_BUSY;
  return i;
}

/* The center has it: remember that before anything else. */
static int
remember_locked (struct uploads *u, const struct journal_part *part)
{
  struct journal_part *more =
    reallocarray (u->parts, u->nparts + 1, sizeof *more);
  size_t len;
  void *record;

  if (!more)
    return center_no_memory ();
  u->parts = more;
  more[u->nparts++] = *part;
  record = journal_format_part (part, u->segments, &len);
  return journal_append (u->journal, record, len);
}

static void
finish (struct uploads *u, int i, int error)
{
  ESP_LOCK_SCOPE (&u->lock);

  if (!error && remember_locked (u, &u->buffer[i].b.part) == -1)
    error = errno ? errno : EIO;
  if (error && !u->error)
    u->error = error;
  u->buffer[i].state = BUFFER_FREE;
  pthread_cond_broadcast (&u->changed);
}

static void *
uploader (void *arg)
{
  struct uploads *u = arg;
  int i;

  while ((i = take (u)) != -1) {
    struct upload_buffer *b = &u->buffer[i].b;
    unsigned number = b->part.part.number;
    int r = esp_remote_parts_put (u->remote, u->object, u->id, number,
                                  b->data, b->len, &b->part.part);
    b->part.part.number = number;
    b->part.part.size = b->len;
    finish (u, i, r == -1 ? (errno ? errno : EIO) : 0);
  }
  return NULL;
}

struct uploads *
uploads_new (struct esp_remote *remote, const char *object, const char *id,
             int journal, const struct esp_segment *segments)
{
  struct uploads *u = calloc (1, sizeof *u);

  if (!u) {
    center_no_memory ();
    return NULL;
  }
  u->remote = remote;
  u->object = object;
  u->id = id;
  u->journal = journal;
  u->segments = segments;
  pthread_mutex_init (&u->lock, NULL);
  pthread_cond_init (&u->changed, NULL);
  while (u->nthreads < UPLOADERS &&
         (errno = pthread_create (&u->thread[u->nthreads], NULL, uploader,
                                  u)) == 0)
    u->nthreads++;
  if (u->nthreads > 0)
    return u;
  esp_error ("pthread_create: %m");
  uploads_end (u, true, NULL, NULL);
  return NULL;
}

struct upload_buffer *
uploads_buffer (struct uploads *u)
{
  ESP_LOCK_SCOPE (&u->lock);

  for (;;) {
    if (u->error) {
      errno = u->error;
      return NULL;
    }
    for (int i = 0; i < BUFFERS; i++)
      if (u->buffer[i].state == BUFFER_FREE) {
        u->buffer[i].state = BUFFER_FILLING;
        u->buffer[i].b.len = 0;
        return &u->buffer[i].b;
      }
    pthread_cond_wait (&u->changed, &u->lock);
  }
}

void
uploads_put (struct uploads *u, struct upload_buffer *buffer)
{
  ESP_LOCK_SCOPE (&u->lock);

  for (int i = 0; i < BUFFERS; i++)
    if (&u->buffer[i].b == buffer)
      u->buffer[i].state = BUFFER_QUEUED;
  pthread_cond_broadcast (&u->changed);
}

static void
stop_threads (struct uploads *u, bool cancel)
{
  {
    ESP_LOCK_SCOPE (&u->lock);
    u->ending = true;
    u->cancelled = cancel;
    pthread_cond_broadcast (&u->changed);
  }
  while (u->nthreads > 0)
    pthread_join (u->thread[--u->nthreads], NULL);
}

int
uploads_end (struct uploads *u, bool cancel, struct journal_part **parts,
             size_t *n)
{
  int error;

  stop_threads (u, cancel);
  error = u->error;
  if (parts) {
    *parts = ESP_STEAL (u->parts);
    *n = u->nparts;
  }
  for (int i = 0; i < BUFFERS; i++)
    free (u->buffer[i].b.data);
  free (u->parts);
  pthread_cond_destroy (&u->changed);
  pthread_mutex_destroy (&u->lock);
  free (u);
  errno = error;
  return error ? -1 : 0;
}
