/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks over HTTP, read-only.
 *
 * A request is answered from one restore point, found when it begins: a remap
 * never mixes two disks in an answer, and the ETag, which is the restore
 * point, tells a client that goes on with a later request (If-Range, If-Match).
 * There is no Last-Modified: a venue can be mapped back to an older restore
 * point, and then a date would say that nothing changed.
 *
 * A stream reads ahead of its client: up to AHEAD chunks are under way or
 * waiting, so that the stack works while libmicrohttpd sends.  What all streams
 * hold is bounded: beyond AHEAD_BYTES each has one chunk, a small one.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/host.h"

#include "san.h"
#include "san-pool.h"
#include "tip.h"

#define TYPE "application/octet-stream"
#define CHUNK (256u << 10)
#define SMALL_CHUNK (64u << 10)
#define AHEAD 4u
#define AHEAD_BYTES (64ull << 20)

struct stream {
  esp_uuid tip;
  uint64_t pos;                 /* of the next byte for the client */
  uint64_t next, end;           /* what was not asked for yet */
  struct part {
    struct pool_read *read;
    uint64_t pos;
    size_t len;
  } part[AHEAD];                /* a ring */
  unsigned first, n;
};

static void
drop_first (struct stream *s)
{
  pool_read_free (s->part[s->first].read);
  s->first = (s->first + 1) % AHEAD;
  s->n--;
}

static void
stream_free (void *arg)
{
  struct stream *s = arg;

  while (s->n > 0)
    drop_first (s);
  free (s);
}

/* Chunks end where those of the disk do. */
static size_t
next_len (const struct stream *s, size_t chunk)
{
  uint64_t len = chunk - s->next % chunk;
  return (size_t) (len < s->end - s->next ? len : s->end - s->next);
}

/* Ask for what comes, as far as it may be. */
static int
read_ahead (struct stream *s)
{
  while (s->next < s->end && s->n < AHEAD) {
    bool much = pool_bytes () >= AHEAD_BYTES;
    struct part *p = &s->part[(s->first + s->n) % AHEAD];

    if (much && s->n > 0)
      return 0;
    p->pos = s->next;
    p->len = next_len (s, much ? SMALL_CHUNK : CHUNK);
    p->read = pool_read_start (&s->tip, p->pos, p->len);
    if (!p->read)
      return s->n > 0 ? 0 : -1; /* what is there already is sent first */
    s->n++;
    s->next += p->len;
  }
  return 0;
}

static ssize_t
stream_read (void *arg, uint64_t pos __attribute__ ((unused)), char *buf,
             size_t max)
{
  struct stream *s = arg;
  struct part *p = &s->part[s->first];
  const char *bytes;
  size_t from, n;

  if (read_ahead (s) == -1)
    return -1;
  bytes = pool_read_wait (p->read);
  if (!bytes)
    return -1;
  from = (size_t) (s->pos - p->pos);
  n = p->len - from < max ? p->len - from : max;
  memcpy (buf, bytes + from, n);
  s->pos += n;
  if (from + n == p->len)
    drop_first (s);
  /* A failure shows again when its bytes are wanted. */
  read_ahead (s);
  return (ssize_t) n;
}

/* A few sectors, as firmware asks for them: the bytes go with the headers, in
 * one message.  Where they cannot be read that can still be said.
 */
static int
send_small (struct request *r, unsigned status, const esp_uuid *tip,
            uint64_t from, size_t len)
{
  struct pool_read *read = pool_read_start (tip, from, len);
  const char *bytes = read ? pool_read_wait (read) : NULL;
  int result = bytes ? reply (r, status, TYPE, bytes, len)
    : reply_error (r, 503, "the disk cannot be read");

  pool_read_free (read);
  return result;
}

static int
send_part (struct request *r, unsigned status, const esp_uuid *tip,
           uint64_t from, uint64_t len)
{
  struct reply_stream stream = {
    .size = len, .read = stream_read, .free = stream_free };
  struct stream *s;

  if (len > 0 && len <= SMALL_CHUNK && strcmp (r->method, "HEAD") != 0)
    return send_small (r, status, tip, from, (size_t) len);
  s = calloc (1, sizeof *s);
  if (!s)
    return reply_error (r, 500, "out of memory");
  s->tip = *tip;
  s->pos = s->next = from;
  s->end = from + len;
  stream.arg = s;
  return reply_stream (r, status, TYPE, &stream);
}

/* "0" to "255", as one would write it. */
static int
parse_disk (const char *s, unsigned *disk)
{
  char *end;
  unsigned long n = strtoul (s, &end, 10);

  if (*s < '0' || *s > '9' || *end || n > ESP_DISK_NUMBER_MAX ||
      (*s == '0' && s[1]))
    return -1;
  *disk = (unsigned) n;
  return 0;
}

int
san_disk (struct request *r)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  char etag[ESP_UUID_TEXT], why[256] = "";
  uint64_t size, from, len;
  struct esp_catch before;
  unsigned disk, status;
  esp_uuid tip;
  int result;

  if (parse_disk (r->part[1], &disk) == -1)
    return reply_error (r, 404, "disks are numbered from 0 to %u",
                        ESP_DISK_NUMBER_MAX);
  if (!tip_of_request (r, r->part[0], disk, &boot, &tip, &result))
    return result;
  before = esp_catch_begin (why, sizeof why);
  result = pool_size (&tip, &size);
  esp_catch_end (before);
  if (result == -1) {
    esp_error ("venue %s, disk %u: %s", r->part[0], disk, why);
    reply_header (r, "Retry-After", "5");
    return reply_error (r, 503, "the disk cannot be read now: %s", why);
  }
  reply_header (r, "Cache-Control", "no-cache");
  status = http_range (r, size, esp_uuid_text (&tip, etag), &from, &len,
                       &result);
  return status == 0 ? result : send_part (r, status, &tip, from, len);
}

void
san_stop (void)
{
  pool_stop ();
}
