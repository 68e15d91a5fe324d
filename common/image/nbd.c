/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu-nbd as a child of ours, for one image and one connection.
 *
 * libnbd starts it by socket activation, so that there is no socket to find,
 * no race, and nothing to clean up: qemu-nbd ends when the connection does,
 * also when we are killed.  What it says on stderr goes into a memory file,
 * and from there into our message, since only there is the name of the
 * backing file that is missing.
 *
 * Reads are a ring of requests in the order of the image.  Runs that block
 * status calls zero are entries of the ring without a request, so that they
 * are handed on in their order, too.  Writes use the same ring.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <libnbd.h>

#include "image/image-internal.h"
#include "util/bits.h"
#include "util/file.h"
#include "util/host.h"

#define RING 8u                               /* requests under way */
#define STATUS_BYTES (UINT64_C (1) << 30)     /* of one block status */

struct slot {
  int64_t cookie;               /* of the request; 0: none */
  uint64_t offset, len;
  bool zero;
  char *buf;                    /* ESP_READ_BYTES */
};

/* What block status said: runs that begin where the one before ends. */
struct extents {
  struct { uint64_t len; bool zero; } *run;
  size_t n, size;
};

struct esp_server {
  struct nbd_handle *nbd;
  char *path, *format;
  int errors;                   /* qemu-nbd's stderr: a memory file */
  struct slot ring[RING];
  unsigned head, count;         /* used slots: from head on */
  struct extents extents;
};

/* --- starting and ending --------------------------------------------------- */

/* Report what qemu-nbd said last, or else what libnbd did. */
static void
server_error (struct esp_server *s, const char *what)
{
  char text[2048] = "";
  ssize_t r = pread (s->errors, text, sizeof text - 1, 0);
  const char *nbd = nbd_get_error ();
  bool missing = r > 0 && strstr (text, "not found") && strstr (text, "exec");

  if (esp_progress_interrupted ()) {
    /* Ctrl-C reaches qemu-nbd as well. */
    errno = ECANCELED;
    esp_error ("%s: interrupted", s->path);
    return;
  }
  errno = missing ? ENOENT : EIO;
  if (missing)
    esp_error ("%s: images in the format %s are read by qemu-nbd, which is "
               "not installed (package qemu-utils)", s->path, s->format);
  else
    esp_error ("%s: %s as %s: %s", s->path, what, s->format,
               r > 0 ? esp_first_line (text) : nbd ? nbd : "unknown error");
}

/* sh puts stderr where we can read it: libnbd leaves it as it is. */
static int
connect_qemu (struct esp_server *s, bool writable)
{
  CLEANUP_FREE char *path = esp_qemu_path (s->path);
  CLEANUP_FREE char *script = NULL;
  char *argv[12];
  int i = 0;

  if (path == NULL)
    return -1;
  script = esp_asprintf ("exec qemu-nbd \"$@\" 2>/proc/self/fd/%d", s->errors);
  if (script == NULL) {
    esp_error ("malloc: %m");
    return -1;
  }
  argv[i++] = (char *) "sh";
  argv[i++] = (char *) "-c";
  argv[i++] = script;
  argv[i++] = (char *) "sh";
  if (!writable)
    argv[i++] = (char *) "--read-only";
  argv[i++] = (char *) "--format";
  argv[i++] = s->format;
  argv[i++] = (char *) "--";
  argv[i++] = path;
  argv[i] = NULL;
  if (nbd_add_meta_context (s->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
      nbd_connect_systemd_socket_activation (s->nbd, argv) == 0)
    return 0;
  server_error (s, "it cannot be opened");
  return -1;
}

static int
server_prepare (struct esp_server *s, const char *path, const char *format)
{
  CLEANUP_CLOSE int fd = memfd_create ("qemu-nbd", 0);

  s->path = strdup (path);
  s->format = strdup (format);
  /* Above what the child's activation uses, and inherited. */
  s->errors = fd == -1 ? -1 : fcntl (fd, F_DUPFD, 16);
  s->nbd = nbd_create ();
  for (unsigned i = 0; i < RING; i++)
    if ((s->ring[i].buf = malloc (ESP_READ_BYTES)) == NULL)
      goto fail;
  if (s->path && s->format && s->errors != -1 && s->nbd)
    return 0;

 fail:
  esp_error ("malloc: connection to qemu-nbd: %m");
  return -1;
}

struct esp_server *
esp_server_start (const char *path, const char *format, bool writable)
{
  struct esp_server *s = calloc (1, sizeof *s);

  if (s == NULL) {
    esp_error ("malloc: connection to qemu-nbd: %m");
    return NULL;
  }
  s->errors = -1;
  if (server_prepare (s, path, format) == 0 && connect_qemu (s, writable) == 0)
    return s;
  esp_server_stop (s);
  return NULL;
}

void
esp_server_stop (struct esp_server *s)
{
  int saved = errno;

  if (s == NULL)
    return;
  if (s->nbd) {
    /* Ends the connection, so that qemu-nbd ends; close waits for it. */
    if (nbd_aio_is_ready (s->nbd) > 0)
      (void) nbd_shutdown (s->nbd, 0);
    nbd_close (s->nbd);
  }
  for (unsigned i = 0; i < RING; i++)
    free (s->ring[i].buf);
  if (s->errors >= 0)
    close (s->errors);
  free (s->extents.run);
  free (s->path);
  free (s->format);
  free (s);
  errno = saved;
}

uint64_t
esp_server_size (struct esp_server *s)
{
  int64_t r = nbd_get_size (s->nbd);

  return r < 0 ? 0 : (uint64_t) r;
}

/* --- the ring ------------------------------------------------------------------ */

/* Wait until the oldest entry is done. */
static int
wait_head (struct esp_server *s)
{
  struct slot *slot = &s->ring[s->head];
  int r;

  while (slot->cookie) {
    r = nbd_aio_command_completed (s->nbd, (uint64_t) slot->cookie);
    if (r > 0)
      slot->cookie = 0;
    else if (r == -1 || nbd_poll (s->nbd, -1) == -1)
      return -1;
  }
  return 0;
}

static struct slot *
new_slot (struct esp_server *s, uint64_t offset, uint64_t len)
{
  struct slot *slot = &s->ring[(s->head + s->count++) % RING];

  slot->cookie = 0;
  slot->offset = offset;
  slot->len = len;
  slot->zero = false;
  return slot;
}

static void
drop_head (struct esp_server *s)
{
  s->head = (s->head + 1) % RING;
  s->count--;
}

/* --- reading -------------------------------------------------------------------- */

static int
add_extent (struct extents *e, uint64_t len, bool zero)
{
  if (e->n > 0 && e->run[e->n - 1].zero == zero) {
    e->run[e->n - 1].len += len;
    return 0;
  }
  if (e->n == e->size) {
    size_t size = e->size ? e->size * 2 : 256;
    void *p = realloc (e->run, size * sizeof *e->run);

    if (p == NULL)
      return -1;
    e->run = p;
    e->size = size;
  }
  e->run[e->n].len = len;
  e->run[e->n++].zero = zero;
  return 0;
}

static int
on_extents (void *user, const char *context, uint64_t offset,
            uint32_t *entries, size_t n, int *error)
{
  (void) offset;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  for (size_t i = 0; i + 1 < n; i += 2)
    if (entries[i] &&
        add_extent (user, entries[i],
                    entries[i + 1] & LIBNBD_STATE_ZERO) == -1) {
      *error = ENOMEM;
      return -1;
    }
  return 0;
}

/* The runs from OFFSET on, at least one; all of it is data where the server
 * cannot tell.
 */
static int
get_extents (struct esp_server *s, uint64_t offset, uint64_t end)
{
  uint64_t len = end - offset < STATUS_BYTES ? end - offset : STATUS_BYTES;
  nbd_extent_callback cb = { .callback = on_extents, .user_data = &s->extents };

  s->extents.n = 0;
  if (nbd_can_meta_context (s->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1) {
    if (nbd_block_status (s->nbd, len, offset, cb, 0) == -1)
      return -1;
    if (s->extents.n > 0)
      return 0;
  }
  return add_extent (&s->extents, len, false);
}

/* Hand on the oldest entry. */
static int
deliver_head (struct esp_server *s, struct esp_walk *w)
{
  struct slot *slot = &s->ring[s->head];

  if (wait_head (s) == -1) {
    server_error (s, "it cannot be read");
    return -1;
  }
  drop_head (s);
  return esp_walk_run (w, slot->offset, slot->len,
                       slot->zero ? NULL : slot->buf);
}

/* Put [OFFSET, OFFSET+LEN) into the ring. */
static int
push_run (struct esp_server *s, struct esp_walk *w, uint64_t offset,
          uint64_t len, bool zero)
{
  uint64_t k;

  for (; len > 0; offset += k, len -= k) {
    struct slot *slot;

    if (s->count == RING && deliver_head (s, w) == -1)
      return -1;
    k = zero || len < ESP_READ_BYTES ? len : ESP_READ_BYTES;
    slot = new_slot (s, offset, k);
    slot->zero = zero;
    if (zero)
      continue;
    slot->cookie = nbd_aio_pread (s->nbd, slot->buf, k, offset,
                                  NBD_NULL_COMPLETION, 0);
    if (slot->cookie == -1) {
      slot->cookie = 0;
      server_error (s, "it cannot be read");
      return -1;
    }
  }
  return 0;
}

/* Runs become whole blocks: a block that is data in part is data. */
static int
push_extents (struct esp_server *s, struct esp_walk *w, uint64_t *offset,
              uint64_t end)
{
  uint64_t at = *offset, mask = ESP_BLOCK_SIZE - 1;

  for (size_t i = 0; i < s->extents.n && at < end; i++) {
    uint64_t stop = at + s->extents.run[i].len;
    bool zero = s->extents.run[i].zero;

    if (stop > end)
      stop = end;
    if (!zero && stop < end)
      stop = (stop + mask) & ~mask;
    if (stop > end)
      stop = end;
    /* *OFFSET is a block's start; data before it may have taken this. */
    if (zero && stop < end)
      stop &= ~mask;
    if (stop > *offset) {
      if (push_run (s, w, *offset, stop - *offset, zero) == -1)
        return -1;
      *offset = stop;
    }
    at += s->extents.run[i].len;
  }
  return 0;
}

int
esp_server_read (struct esp_server *s, struct esp_walk *w)
{
  uint64_t end = w->source->size, offset = 0, before;

  while (offset < end) {
    if (get_extents (s, offset, end) == -1) {
      server_error (s, "it cannot be read");
      return -1;
    }
    before = offset;
    if (push_extents (s, w, &offset, end) == -1)
      return -1;
    if (offset == before) {
      /* Zero runs shorter than a block: read that block. */
      uint64_t len = end - offset < ESP_BLOCK_SIZE ? end - offset
        : ESP_BLOCK_SIZE;

      if (push_run (s, w, offset, len, false) == -1)
        return -1;
      offset += len;
    }
  }
  while (s->count > 0)
    if (deliver_head (s, w) == -1)
      return -1;
  return 0;
}

/* --- writing --------------------------------------------------------------------- */

static int
finish_write (struct esp_server *s)
{
  if (wait_head (s) == -1) {
    server_error (s, "it cannot be written");
    return -1;
  }
  drop_head (s);
  return 0;
}

int
esp_server_write (struct esp_server *s, const void *buf, uint64_t len,
                  uint64_t offset)
{
  struct slot *slot;

  if (s->count == RING && finish_write (s) == -1)
    return -1;
  slot = new_slot (s, offset, len);
  memcpy (slot->buf, buf, len);
  slot->cookie = nbd_aio_pwrite (s->nbd, slot->buf, len, offset,
                                 NBD_NULL_COMPLETION, 0);
  if (slot->cookie != -1)
    return 0;
  slot->cookie = 0;
  server_error (s, "it cannot be written");
  return -1;
}

int
esp_server_flush (struct esp_server *s)
{
  while (s->count > 0)
    if (finish_write (s) == -1)
      return -1;
  if (nbd_flush (s->nbd, 0) == 0)
    return 0;
  server_error (s, "it cannot be written");
  return -1;
}
