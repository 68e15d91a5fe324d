/* SPDX-License-Identifier: BSD-3-Clause */
/* One request of an origin: bytes on the wire become checked segments.
 *
 * The sink cuts the stream at the places of the entries.  An entry that lies
 * whole in what came is unpacked from there; else its parts are collected in
 * a buffer, so that a byte is copied once at most before it is unpacked.
 * Unpacking runs in the thread that fetches: a slow decoder slows its own
 * connection, and nobody else's.
 *
 * Nothing is reported here.  Errors of the layers below are caught and become
 * the request's `why`; a source's lie has the words of tell_lie, since who
 * reads it must know which center gave which bytes.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "center/origin-internal.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/host.h"

/* --- buffers: any origin's, as many as there were requests at once -------- */

#define IDLE_BUFFERS 32u

struct buffers {
  struct buffers *next;
  size_t size;                  /* of each; raw and stored follow */
  unsigned char *raw, *stored;
};

static pthread_mutex_t buffers_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct buffers *idle_buffers;    /* protected by buffers_mutex */
static unsigned nidle_buffers;          /* likewise */

static struct buffers *
buffers_take (size_t size)
{
  {
    ESP_LOCK_SCOPE (&buffers_mutex);
    for (struct buffers **at = &idle_buffers; *at; at = &(*at)->next)
      if ((*at)->size >= size) {
        struct buffers *b = *at;
        *at = b->next;
        nidle_buffers--;
        return b;
      }
  }
  struct buffers *b = malloc (sizeof *b + 2 * size);
  if (!b) {
    esp_error ("malloc: buffers of a request: %m");
    return NULL;
  }
  b->size = size;
  b->raw = (unsigned char *) (b + 1);
  b->stored = b->raw + size;
  return b;
}

static void
buffers_put (struct buffers *b)
{
  if (!b)
    return;
  {
    ESP_LOCK_SCOPE (&buffers_mutex);
    if (nidle_buffers < IDLE_BUFFERS) {
      b->next = idle_buffers;
      idle_buffers = b;
      nidle_buffers++;
      return;
    }
  }
  free (b);
}

/* --- one segment ---------------------------------------------------------- */

struct request {
  struct esp_origin *o;
  struct esp_origin_get *get;
  struct packer_node *packer;   /* NULL: a plain image */
  struct buffers *buf;
  size_t entry, end;            /* the next entry; behind the last one */
  uint64_t at;                  /* place of the next byte from the wire */
  size_t have;                  /* bytes of ENTRY in buf->stored */
  char lie[512];                /* "" or what the source did wrong */
};

static const char *
object_of (const struct esp_origin *o)
{
  return o->object ? o->object : "disk";
}

/* The source gave other bytes than were promised: EBADMSG.  CAUSE is what
 * the decoder said.
 */
static int
tell_lie (struct request *r, const esp_digest *want, const char *cause)
{
  const struct esp_origin *o = r->o;
  uint64_t at = origin_place (o, r->entry);
  char hex[65];

  snprintf (r->lie, sizeof r->lie,
            "center %s gave wrong bytes: %s, segment %" PRIu32 " (bytes %"
            PRIu64 "-%" PRIu64 "), expected SHA-256 %s: %s",
            o->name, object_of (o), esp_have_number (o->have, r->entry), at,
            at + origin_stored (o, r->entry) - 1, esp_digest_hex (want, hex),
            *cause ? cause : "they do not decode");
  errno = EBADMSG;
  return -1;
}

static int
tell_change (struct request *r, const esp_digest *want,
             const esp_digest *got)
{
  const struct esp_origin *o = r->o;
  char a[65], b[65];

  snprintf (r->lie, sizeof r->lie,
            "%s is not what it was: segment %" PRIu32 " has SHA-256 %.16s..., "
            "at its first fetch it had %.16s...: " PLAIN_CHANGED_ADVICE,
            o->name, esp_have_number (o->have, r->entry),
            esp_digest_hex (got, a), esp_digest_hex (want, b));
  errno = ESTALE;
  return -1;
}

/* The entry's bytes at a center become its raw ones; NULL for an error. */
static const void *
unpack (struct request *r, const void *bytes, size_t n, size_t len)
{
  struct esp_origin *o = r->o;
  uint32_t number = esp_have_number (o->have, r->entry);
  char cause[160] = "";
  esp_digest want;

  if (!esp_have_digest (o->have, r->entry, &want)) {
    errno = EINVAL;
    esp_error ("center %s: segment %" PRIu32 " has no digest here", o->name,
               number);
    return NULL;
  }
  struct esp_catch outer = esp_catch_begin (cause, sizeof cause);
  const void *raw = esp_unpack_segment_at (r->packer->packer, number, bytes, n,
                                           r->buf->raw, len, &want, false,
                                           object_of (o));
  int e = errno;
  esp_catch_end (outer);
  if (raw)
    return raw;
  /* The key was checked when the origin was opened: a seal that does not
   * fit is damage.
   */
  if (e == EBADMSG || e == EKEYREJECTED)
    tell_lie (r, &want, cause);
  else {
    errno = e;
    esp_error ("%s", cause);
  }
  return NULL;
}

/* A plain image's bytes are the raw ones, but for the end of the disk, where
 * zeroes complete a block.
 */
static const void *
plain_raw (struct request *r, const void *bytes, size_t n, size_t len)
{
  esp_digest want, got;

  if (n < len) {
    memmove (r->buf->raw, bytes, n);
    memset (r->buf->raw + n, 0, len - n);
    bytes = r->buf->raw;
  }
  if (!esp_have_digest (r->o->have, r->entry, &want))
    return bytes;
  esp_digest_of (bytes, len, &got);
  if (esp_digest_eq (&want, &got))
    return bytes;
  tell_change (r, &want, &got);
  return NULL;
}

/* All N bytes of the next entry are at BYTES. */
static int
complete (struct request *r, const void *bytes, size_t n)
{
  struct esp_origin *o = r->o;
  size_t len = esp_have_raw_size (o->have, r->entry);
  const void *raw;

  if (len == 0 || len > (size_t) 1 << o->shift ||
      (o->plain && len != ((n + ESP_BLOCK_SIZE - 1) & ~(ESP_BLOCK_SIZE - 1)))) {
    errno = EBADMSG;
    esp_error ("%s: segment %" PRIu32 " has %zu bytes here: check the store "
               "(espalier store check)", o->name,
               esp_have_number (o->have, r->entry), len);
    return -1;
  }
  raw = o->plain ? plain_raw (r, bytes, n, len) : unpack (r, bytes, n, len);
  if (!raw || r->get->segment (r->get->arg, r->entry, raw, len) != 0)
    return -1;
  r->entry++;
  r->have = 0;
  return 0;
}

/* --- the stream ------------------------------------------------------------ */

/* Use some of the LEN bytes at P: how many, 0 for an error. */
static size_t
use_some (struct request *r, const unsigned char *p, size_t len)
{
  uint64_t begin;
  size_t n;

  if (r->entry == r->end) {
    errno = EPROTO;
    esp_error ("%s: %s: more bytes than were asked for", r->o->name,
               object_of (r->o));
    return 0;
  }
  begin = origin_place (r->o, r->entry);
  if (r->at < begin)            /* a hole between segments */
    return begin - r->at < len ? begin - r->at : len;
  n = origin_stored (r->o, r->entry);
  if (r->have == 0 && len >= n)
    return complete (r, p, n) == -1 ? 0 : n;
  if (len > n - r->have)
    len = n - r->have;
  memcpy (r->buf->stored + r->have, p, len);
  r->have += len;
  if (r->have == n && complete (r, r->buf->stored, n) == -1)
    return 0;
  return len;
}

static int
on_bytes (void *arg, const void *buf, size_t len)
{
  struct request *r = arg;
  const unsigned char *p = buf;

  if (r->get->arrived)
    r->get->arrived (r->get->arg, len);
  while (len > 0) {
    size_t k = use_some (r, p, len);
    if (k == 0)
      return -1;
    p += k;
    len -= k;
    r->at += k;
  }
  return 0;
}

static int
fetch (struct request *r)
{
  struct esp_origin *o = r->o;
  const struct esp_origin_get *get = r->get;
  uint64_t len = esp_origin_wire (o, get->first, get->n);
  const struct esp_get g = {
    .offset = r->at, .len = len, .expect = &o->expect, .cancel = get->cancel,
    .sink = on_bytes, .arg = r, .gently = get->gently, .once = get->once,
  };
  const struct nbd_read n = {
    .offset = r->at, .len = len, .size = o->size, .cancel = get->cancel,
    .sink = on_bytes, .arg = r, .once = get->once,
  };

  if ((o->nbd ? nbd_pool_read (o->nbd, &n)
       : esp_remote_get (o->shared->remote, o->object, &g)) == -1)
    return -1;
  if (r->entry == r->end)
    return 0;
  errno = EPROTO;
  esp_error ("%s: %s: fewer bytes than were asked for", o->name,
             object_of (o));
  return -1;
}

/* What the caller gets to know of an error.  An answer that breaks the rules
 * may be that of another version of a plain image: ask what is there now.
 */
static void
explain (struct request *r, char *why, size_t size)
{
  struct esp_origin *o = r->o;

  if (r->lie[0])
    snprintf (why, size, "%s", r->lie);
  else if (o->plain && o->shared && errno == EPROTO &&
           plain_changed (o->shared->remote, o->object, o->name, &o->expect,
                          why, size) == 1)
    errno = ESTALE;
  else if (!*why)
    snprintf (why, size, "%s: %s: %s", o->name, object_of (o),
              errno == ENOENT ? "it is no longer there" : strerror (errno));
}

static int
run (struct request *r)
{
  struct esp_origin *o = r->o;
  int result = -1;

  r->buf = buffers_take (((size_t) 1 << o->shift) + ESP_SEGMENT_OVERHEAD);
  if (r->buf && !o->plain)
    r->packer = origin_packer (o);
  if (r->buf && (o->plain || r->packer))
    result = fetch (r);
  int saved = errno;
  origin_packer_put (o, r->packer);
  buffers_put (r->buf);
  errno = saved;
  return result;
}

int
esp_origin_get (struct esp_origin *o, struct esp_origin_get *get)
{
  struct request r = { .o = o, .get = get, .entry = get->first,
                       .end = get->first + get->n };
  struct esp_catch outer;
  int result;

  get->why[0] = 0;
  if (get->n == 0)
    return 0;
  if (get->first >= o->n || get->n > o->n - get->first) {
    snprintf (get->why, sizeof get->why, "%s: entries %zu and %zu more: there "
              "are only %zu", o->name, get->first, get->n, o->n);
    errno = EINVAL;
    return -1;
  }
  r.at = origin_place (o, get->first);
  outer = esp_catch_begin (get->why, sizeof get->why);
  result = run (&r);
  esp_catch_end (outer);
  if (result == -1)
    explain (&r, get->why, sizeof get->why);
  return result;
}
