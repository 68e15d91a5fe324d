/* SPDX-License-Identifier: BSD-3-Clause */
/* The journal of a push: its records.  See journal.h; the file itself is in
 * journal-file.c.
 *
 *   magic "EPSJ" | type (4) | length (4) | zero (4) | payload | XXH3 (8)
 *
 * The checksum is of all that stands before it in the record.  The parser
 * trusts nothing: it is given whatever a crash or a bad disk left.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "center/journal.h"
#include "util/endian.h"
#include "util/host.h"
#include "util/sum.h"

#define MAGIC 0x4a535045u       /* "EPSJ" */
#define JOURNAL_VERSION 1u
#define HEAD 16u
#define TAIL 8u
#define PAYLOAD_MAX (64u << 20)
#define ENTRY 36u               /* stored (4), digest (32) */

enum { TYPE_BEGIN = 1, TYPE_PART = 2, TYPE_END = 3 };

void
journal_clear (struct journal *j)
{
  free (j->begin.url);
  free (j->parts);
  free (j->segments);
  memset (j, 0, sizeof *j);
}

/* --- writing ---------------------------------------------------------------- */

/* A record in the making; P is where the next field goes. */
struct record { uint8_t *buf, *p; };

static bool
record_begin (struct record *r, uint32_t type, size_t payload)
{
  r->buf = calloc (1, HEAD + payload + TAIL);
  if (!r->buf)
    return false;
  esp_put32 (r->buf, MAGIC);
  esp_put32 (r->buf + 4, type);
  esp_put32 (r->buf + 8, (uint32_t) payload);
  r->p = r->buf + HEAD;
  return true;
}

static void *
record_end (struct record *r, size_t *len)
{
  size_t n = (size_t) (r->p - r->buf);

  esp_put64 (r->p, esp_sum (r->buf, n));
  *len = n + TAIL;
  return r->buf;
}

static void
put32 (struct record *r, uint32_t v)
{
  esp_put32 (r->p, v);
  r->p += 4;
}

static void
put64 (struct record *r, uint64_t v)
{
  esp_put64 (r->p, v);
  r->p += 8;
}

static void
put_bytes (struct record *r, const void *buf, size_t n)
{
  memcpy (r->p, buf, n);
  r->p += n;
}

static void
put_text (struct record *r, const char *s)
{
  put32 (r, (uint32_t) strlen (s));
  put_bytes (r, s, strlen (s));
}

void *
journal_format_begin (const struct journal_begin *b, size_t *len)
{
  const struct esp_variant *v = &b->variant;
  struct record r;
  size_t n = 4 + 16 + 32 + 4 + 4 + 4 + 8 + 8 + ESP_SALT_SIZE + 6 * 4 +
    strlen (b->center) + strlen (b->url) + strlen (b->object) +
    strlen (b->id) + strlen (v->id) + strlen (v->key);

  if (!record_begin (&r, TYPE_BEGIN, n))
    return NULL;
  put32 (&r, JOURNAL_VERSION);
  put_bytes (&r, b->uuid.b, 16);
  put_bytes (&r, b->map_digest.b, 32);
  put32 (&r, v->shift);
  put32 (&r, v->codec);
  put32 (&r, (uint32_t) b->level);
  put64 (&r, v->segments);
  put_bytes (&r, v->key_check, 8);
  put_bytes (&r, v->salt, ESP_SALT_SIZE);
  put_text (&r, b->center);
  put_text (&r, b->url);
  put_text (&r, b->object);
  put_text (&r, b->id);
  put_text (&r, v->id);
  put_text (&r, v->key);
  return record_end (&r, len);
}

void *
journal_format_part (const struct journal_part *p,
                     const struct esp_segment *segments, size_t *len)
{
  struct record r;

  if (!record_begin (&r, TYPE_PART, 4 + 8 + 8 + 8 + 4 + strlen (p->part.etag) +
                     p->n * ENTRY))
    return NULL;
  put32 (&r, p->part.number);
  put64 (&r, p->part.size);
  put64 (&r, p->first);
  put64 (&r, p->n);
  put_text (&r, p->part.etag);
  for (uint64_t i = 0; i < p->n; i++) {
    put32 (&r, segments[p->first + i].stored);
    put_bytes (&r, segments[p->first + i].digest.b, ESP_DIGEST_SIZE);
  }
  return record_end (&r, len);
}

void *
journal_format_end (size_t *len)
{
  struct record r;

  return record_begin (&r, TYPE_END, 0) ? record_end (&r, len) : NULL;
}

/* --- reading ---------------------------------------------------------------- */

/* What is left of a payload; BAD when more was asked for. */
struct reader { const uint8_t *p, *end; bool bad; };

static const void *
take (struct reader *r, size_t n)
{
  static const uint8_t zeroes[64];
  const uint8_t *p = r->p;

  if (r->bad || (size_t) (r->end - p) < n) {
    r->bad = true;
    return zeroes;              /* at most 64 bytes are asked for blindly */
  }
  r->p += n;
  return p;
}

static uint32_t
take32 (struct reader *r)
{
  return esp_get32 (take (r, 4));
}

static uint64_t
take64 (struct reader *r)
{
  return esp_get64 (take (r, 8));
}

/* A text of less than SIZE bytes without a NUL. */
static void
take_text (struct reader *r, char *out, size_t size)
{
  size_t n = take32 (r);
  const char *s;

  out[0] = 0;
  if (r->bad || n >= size || n > (size_t) (r->end - r->p)) {
    r->bad = true;
    return;
  }
  s = take (r, n);
  r->bad |= memchr (s, 0, n) != NULL;
  memcpy (out, s, n);
  out[n] = 0;
}

static bool
begin_ok (const struct journal_begin *b)
{
  const struct esp_variant *v = &b->variant;

  return v->shift >= ESP_SEGMENT_SHIFT_MIN &&
    v->shift <= ESP_SEGMENT_SHIFT_MAX &&
    (v->codec == ESP_CODEC_NONE || v->codec == ESP_CODEC_ZSTD) &&
    v->segments > 0 && v->segments <= ESP_DISK_MAX >> v->shift &&
    esp_name_ok (b->center) && v->id[0];
}

/* -1: no memory; 1: makes no sense. */
static int
read_begin (struct reader *r, struct journal *j)
{
  struct journal_begin b = { 0 };
  struct esp_variant *v = &b.variant;
  char url[4096];

  if (j->begun || take32 (r) != JOURNAL_VERSION)
    return 1;
  memcpy (b.uuid.b, take (r, 16), 16);
  memcpy (b.map_digest.b, take (r, 32), 32);
  v->shift = take32 (r);
  v->codec = (enum esp_codec) take32 (r);
  b.level = (int) take32 (r);
  v->segments = take64 (r);
  memcpy (v->key_check, take (r, 8), 8);
  memcpy (v->salt, take (r, ESP_SALT_SIZE), ESP_SALT_SIZE);
  take_text (r, b.center, sizeof b.center);
  take_text (r, url, sizeof url);
  take_text (r, b.object, sizeof b.object);
  take_text (r, b.id, sizeof b.id);
  take_text (r, v->id, sizeof v->id);
  take_text (r, v->key, sizeof v->key);
  if (r->bad || r->p != r->end || !begin_ok (&b))
    return 1;
  j->segments = calloc (v->segments, sizeof *j->segments);
  b.url = strdup (url);
  if (!j->segments || !b.url) {
    free (b.url);
    return -1;
  }
  j->begin = b;
  j->begun = true;
  return 0;
}

/* Where a part with NUMBER and FIRST belongs among PARTS: behind all that
 * come before it in both.  False where it would overlap one.
 */
static bool
place (const struct journal *j, const struct journal_part *p, size_t *at)
{
  size_t i = 0;

  while (i < j->nparts && j->parts[i].part.number < p->part.number)
    i++;
  *at = i;
  if (i > 0 && j->parts[i - 1].first + j->parts[i - 1].n > p->first)
    return false;
  return i == j->nparts || (j->parts[i].part.number > p->part.number &&
                            p->first + p->n <= j->parts[i].first);
}

static int
insert (struct journal *j, const struct journal_part *p, size_t at)
{
  struct journal_part *more =
    reallocarray (j->parts, j->nparts + 1, sizeof *more);

  if (!more)
    return -1;
  j->parts = more;
  memmove (more + at + 1, more + at, (j->nparts - at) * sizeof *more);
  more[at] = *p;
  j->nparts++;
  return 0;
}

/* The entries of P, whose sizes must add up to the part's. */
static bool
read_entries (struct reader *r, struct journal *j,
              const struct journal_part *p)
{
  uint32_t most = (1u << j->begin.variant.shift) + ESP_SEGMENT_OVERHEAD;
  uint64_t sum = 0;

  for (uint64_t i = 0; i < p->n; i++) {
    struct esp_segment *s = &j->segments[p->first + i];
    s->stored = take32 (r);
    memcpy (s->digest.b, take (r, ESP_DIGEST_SIZE), ESP_DIGEST_SIZE);
    if (s->stored == 0 || s->stored > most)
      return false;
    sum += s->stored;
  }
  return sum == p->part.size;
}

static int
read_part (struct reader *r, struct journal *j)
{
  struct journal_part p = { 0 };
  uint64_t all = j->begin.variant.segments;
  size_t at;

  p.part.number = take32 (r);
  p.part.size = take64 (r);
  p.first = take64 (r);
  p.n = take64 (r);
  take_text (r, p.part.etag, sizeof p.part.etag);
  if (r->bad || !j->begun || j->ended || p.part.number == 0 || p.n == 0 ||
      p.first >= all || p.n > all - p.first ||
      (uint64_t) (r->end - r->p) != p.n * ENTRY || !place (j, &p, &at))
    return 1;
  if (!read_entries (r, j, &p))
    return 1;
  return insert (j, &p, at);
}

/* Do the parts cover everything? */
static bool
covered (const struct journal *j)
{
  uint64_t next = 0;

  for (size_t i = 0; i < j->nparts; i++) {
    if (j->parts[i].first != next)
      return false;
    next += j->parts[i].n;
  }
  return j->begun && next == j->begin.variant.segments;
}

static int
read_end (struct reader *r, struct journal *j)
{
  if (r->p != r->end || j->ended || !covered (j))
    return 1;
  j->ended = true;
  return 0;
}

static int
read_record (uint32_t type, struct reader *r, struct journal *j)
{
  switch (type) {
  case TYPE_BEGIN: return read_begin (r, j);
  case TYPE_PART: return read_part (r, j);
  case TYPE_END: return read_end (r, j);
  default: return 1;
  }
}

/* The length of the record at P, or 0 where there is no sound one. */
static size_t
record_length (const uint8_t *p, size_t left)
{
  uint32_t payload;

  if (left < HEAD + TAIL || esp_get32 (p) != MAGIC)
    return 0;
  payload = esp_get32 (p + 8);
  if (payload > PAYLOAD_MAX || payload > left - HEAD - TAIL ||
      esp_get64 (p + HEAD + payload) != esp_sum (p, HEAD + payload))
    return 0;
  return HEAD + payload + TAIL;
}

int
journal_parse (const void *buf, size_t len, struct journal *out,
               size_t *valid)
{
  const uint8_t *p = buf;
  size_t at = 0, n;

  memset (out, 0, sizeof *out);
  while ((n = record_length (p + at, len - at)) > 0) {
    struct reader r = { p + at + HEAD, p + at + n - TAIL, false };
    int e = read_record (esp_get32 (p + at + 4), &r, out);
    if (e == -1)
      return center_no_memory ();
    if (e == 1)
      break;
    at += n;
  }
  *valid = at;
  return 0;
}
