/* SPDX-License-Identifier: BSD-3-Clause */
/* A push: a pack in parts, which can be cut off anywhere and goes on.
 *
 * Segments are packed in order and gathered into parts of at least 16 MiB
 * that end where a segment ends.  A few parts are on their way at a time;
 * each is written to the journal as soon as the center has it.  So a push
 * that begins again sends only what was on its way, and packs only what it
 * sends: the parts in the journal come with their entries of the index.
 *
 * What is missing of an interrupted upload are *gaps*: entries between two
 * parts that are there, and the numbers between theirs.  A gap is packed into
 * these numbers, with the same rule, so the parts come out as they were.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/push-internal.h"
#include "center/uploads.h"
#include "util/bits.h"
#include "util/host.h"

#define PARTS_MAX 9000u         /* S3 takes 10,000 */

struct parts {
  struct push_rp *p;
  struct journal j;
  size_t part_size;
  struct uploads *uploads;
  /* The part that is being filled. */
  struct upload_buffer *buffer;
  unsigned number;              /* of the next part */
  unsigned last;                /* number of the gap's last part; 0: any */
};

/* --- the journal ------------------------------------------------------------- */

/* Wait for another push of the same from this store; *WAITED says so. */
static int
open_journal (struct parts *t, bool *waited)
{
  struct esp_center *center = t->p->push->center;

  for (;;) {
    t->p->journal = journal_open (center->store, center->config.name,
                               &t->p->rp.uuid, t->p->variant.id, &t->j);
    if (t->p->journal != -1)
      return 0;
    if (errno != EBUSY)
      return -1;
    if (!*waited)
      esp_debug ("another push of %s is at work: waiting for it",
                 t->p->rp.name);
    *waited = true;
    if (!center_pause (100)) {
      errno = ECANCELED;
      esp_error ("interrupted: another push of %s is at work", t->p->rp.name);
      return -1;
    }
  }
}

/* Is the journal of just what we are about to push? */
static bool
journal_fits (const struct parts *t)
{
  const struct journal_begin *b = &t->j.begin;
  const struct push_rp *p = t->p;
  const struct esp_variant *v = &b->variant;

  return t->j.begun && esp_uuid_eq (&b->uuid, &p->rp.uuid) &&
    strcmp (b->url, p->push->center->config.url) == 0 &&
    strcmp (b->object, p->pack) == 0 && b->level == p->push->level &&
    esp_digest_eq (&b->map_digest, &p->map_digest) &&
    strcmp (v->id, p->variant.id) == 0 && v->shift == p->variant.shift &&
    v->codec == p->variant.codec && strcmp (v->key, p->variant.key) == 0 &&
    v->segments == p->n;
}

/* Go on with the salt that was begun with. */
static int
take_key (struct parts *t)
{
  struct push_rp *p = t->p;
  struct esp_variant v = p->variant;
  struct esp_segment_key *key;

  if (!v.key[0])
    return 0;
  memcpy (v.salt, t->j.begin.variant.salt, sizeof v.salt);
  memcpy (v.key_check, t->j.begin.variant.key_check, sizeof v.key_check);
  key = esp_segment_key_load (p->push->center->store, &v,
                              p->push->options->key_file);
  if (!key)
    return -1;
  esp_segment_key_free (p->key);
  p->key = key;
  p->variant = v;
  return 0;
}

static void
take_segments (struct parts *t)
{
  for (size_t i = 0; i < t->j.nparts; i++)
    for (uint64_t e = 0; e < t->j.parts[i].n; e++) {
      size_t at = (size_t) (t->j.parts[i].first + e);
      t->p->segments[at].stored = t->j.segments[at].stored;
      t->p->segments[at].digest = t->j.segments[at].digest;
    }
}

/* What there is of the upload: its parts as the center wants them. */
static struct esp_part *
plain_parts (const struct journal *j)
{
  struct esp_part *parts = calloc (j->nparts + 1, sizeof *parts);

  for (size_t i = 0; parts && i < j->nparts; i++)
    parts[i] = j->parts[i].part;
  if (!parts)
    center_no_memory ();
  return parts;
}

static bool
all_there (const struct parts *t)
{
  uint64_t next = 0;

  for (size_t i = 0; i < t->j.nparts; i++) {
    if (t->j.parts[i].first != next)
      return false;
    next += t->j.parts[i].n;
  }
  return next == t->p->n;
}

/* 1: the upload goes on.  2: the pack is complete.  0: begin anew. */
static int
look_at_upload (struct parts *t)
{
  CLEANUP_FREE struct esp_part *parts = plain_parts (&t->j);
  int r;

  if (!parts)
    return -1;
  if (!t->j.ended) {
    r = esp_remote_parts_check (t->p->push->center->remote,
                                t->j.begin.object, t->j.begin.id, parts,
                                (unsigned) t->j.nparts);
    if (r != 0)
      return r;
    if (!all_there (t))
      return 0;
  }
  /* Cut off between the end of the upload and the note of it. */
  if (push_settle (t->p) == -1)
    return -1;
  r = push_pack_is_ours (t->p);
  return r == 1 ? 2 : r;
}

static int
begin_upload (struct parts *t)
{
  struct push_rp *p = t->p;
  struct journal_begin b = {
    .uuid = p->rp.uuid, .url = p->push->center->config.url,
    .variant = p->variant, .level = p->push->level,
    .map_digest = p->map_digest,
  };
  size_t len;
  void *record;

  journal_clear (&t->j);
  strcpy (b.center, p->push->center->config.name);
  strcpy (b.object, p->pack);
  b.variant.segments = p->n;
  if (journal_truncate (t->p->journal) == -1 ||
      esp_remote_parts_begin (p->push->center->remote, p->pack, b.id) == -1)
    return -1;
  strcpy (t->j.begin.id, b.id);
  record = journal_format_begin (&b, &len);
  return journal_append (t->p->journal, record, len);
}

static void
abort_old (struct parts *t)
{
  char why[256];
  struct esp_catch outer;

  if (!t->j.begun || t->j.ended)
    return;
  outer = esp_catch_begin (why, sizeof why);
  /* What cannot be removed is removed by the center's own rules. */
  (void) esp_remote_parts_abort (t->p->push->center->remote,
                                 t->j.begin.object, t->j.begin.id);
  esp_catch_end (outer);
}

static uint64_t
raw_of (const struct push_rp *p, uint64_t first, uint64_t n)
{
  uint64_t blocks = 0;

  for (uint64_t i = first; i < first + n; i++)
    blocks += esp_segment_blocks (p->map, p->variant.shift,
                                  p->segments[i].number);
  return blocks << ESP_BLOCK_SHIFT;
}

/* Count what an earlier attempt moved. */
static int
count_resumed (struct parts *t)
{
  uint64_t raw = 0;

  for (size_t i = 0; i < t->j.nparts; i++) {
    push_count (t->p->push, 0, t->j.parts[i].part.size);
    raw += raw_of (t->p, t->j.parts[i].first, t->j.parts[i].n);
  }
  return push_tell (t->p->push, raw);
}

/* 1: there are parts to be put, or to be ended.  2: the pack is complete. */
static int
resume_or_begin (struct parts *t)
{
  int r = 0;

  if (journal_fits (t)) {
    if (take_key (t) == -1)
      return -1;
    take_segments (t);
    r = look_at_upload (t);
    if (r > 0)
      return count_resumed (t) == -1 ? -1 : r;
  }
  if (r == -1)
    return -1;
  abort_old (t);
  return begin_upload (t) == -1 ? -1 : 1;
}

/* --- packing ------------------------------------------------------------------- */

static int
make_room (struct upload_buffer *b, size_t more, size_t usual)
{
  size_t room = b->len + more > usual ? b->len + more : usual;
  uint8_t *data;

  if (b->len + more <= b->room)
    return 0;
  data = realloc (b->data, room);
  if (!data)
    return center_no_memory ();
  b->data = data;
  b->room = room;
  return 0;
}

static void
put_buffer (struct parts *t)
{
  if (!t->buffer)
    return;
  t->buffer->part.part.size = t->buffer->len;
  push_count (t->p->push, t->buffer->len, 0);
  uploads_put (t->uploads, t->buffer);
  t->buffer = NULL;
}

static int
begin_buffer (struct parts *t, size_t entry)
{
  t->buffer = uploads_buffer (t->uploads);
  if (!t->buffer)
    return -1;
  t->buffer->part = (struct journal_part) {
    .part.number = t->number++, .first = entry
  };
  return 0;
}

static int
add_segment (void *arg, size_t entry, const void *stored, size_t len,
             size_t raw)
{
  struct parts *t = arg;
  struct upload_buffer *b;

  if (!t->buffer && begin_buffer (t, entry) == -1)
    return -1;
  b = t->buffer;
  if (make_room (b, len, t->part_size + len) == -1)
    return -1;
  memcpy (b->data + b->len, stored, len);
  b->len += len;
  b->part.n++;
  /* The last number of a gap takes all that is left of it. */
  if (b->len >= t->part_size && b->part.part.number != t->last)
    put_buffer (t);
  return push_tell (t->p->push, raw);
}

/* Pack entries [FIRST, END) into the part numbers NUMBER to LAST (0: on). */
static int
fill_gap (struct parts *t, size_t first, size_t end, unsigned number,
          unsigned last)
{
  struct push_rp *p = t->p;
  struct packing packing = {
    .layer = p->layer, .map = p->map, .shift = p->variant.shift,
    .codec = p->variant.codec, .level = p->push->level, .key = p->key,
    .threads = p->threads,
    .segments = p->segments, .n = p->n,
  };

  if (first == end)
    return 0;
  t->number = number;
  t->last = last;
  if (packing_run (&packing, first, end - first, add_segment, t) == -1)
    return -1;
  put_buffer (t);
  return 0;
}

static int
fill_gaps (struct parts *t)
{
  size_t next = 0;
  unsigned number = 1;

  for (size_t i = 0; i < t->j.nparts; i++) {
    const struct journal_part *part = &t->j.parts[i];
    if (fill_gap (t, next, (size_t) part->first, number,
                  part->part.number - 1) == -1)
      return -1;
    next = (size_t) (part->first + part->n);
    number = part->part.number + 1;
  }
  return fill_gap (t, next, t->p->n, number, 0);
}

static int
compare_parts (const void *a, const void *b)
{
  const struct esp_part *x = a, *y = b;
  return (x->number > y->number) - (x->number < y->number);
}

/* All parts, those that were there and NEW, by number. */
static struct esp_part *
join_parts (const struct parts *t, const struct journal_part *new, size_t n)
{
  struct esp_part *all = calloc (t->j.nparts + n + 1, sizeof *all);

  if (!all) {
    center_no_memory ();
    return NULL;
  }
  for (size_t i = 0; i < t->j.nparts; i++)
    all[i] = t->j.parts[i].part;
  for (size_t i = 0; i < n; i++)
    all[t->j.nparts + i] = new[i].part;
  qsort (all, t->j.nparts + n, sizeof *all, compare_parts);
  return all;
}

/* --- the end ----------------------------------------------------------------------- */

static int
end_upload (struct parts *t, const struct esp_part *parts, unsigned n)
{
  struct push_rp *p = t->p;
  struct esp_remote *remote = p->push->center->remote;
  void *record;
  size_t len;
  int r;

  while (esp_remote_parts_end (remote, p->pack, t->j.begin.id, parts, n,
                               NULL) == -1) {
    if (errno != EEXIST)
      return -1;
    if ((r = push_pack_is_ours (p)) == -1)
      return -1;
    if (r == 1 || (r = push_wait_for_other (p)) == PUSH_TAKEN) {
      /* Its bytes are there: ours need not be. */
      (void) esp_remote_parts_abort (remote, p->pack, t->j.begin.id);
      if (r == PUSH_TAKEN && push_pack_is_ours (p) != 1)
        return PUSH_TAKEN;
      break;
    }
    if (r == -1 || esp_remote_delete (remote, p->pack) == -1)
      return -1;
  }
  record = journal_format_end (&len);
  return journal_append (t->p->journal, record, len);
}

static int
put_parts (struct parts *t)
{
  CLEANUP_FREE struct journal_part *new = NULL;
  CLEANUP_FREE struct esp_part *all = NULL;
  size_t n = 0;
  int r, saved;

  t->uploads = uploads_new (t->p->push->center->remote, t->p->pack,
                            t->j.begin.id, t->p->journal, t->p->segments);
  if (!t->uploads)
    return -1;
  r = fill_gaps (t);
  saved = errno;
  if (uploads_end (t->uploads, r == -1, &new, &n) == -1)
    return -1;
  errno = saved;
  if (r == -1 || push_settle (t->p) == -1 ||
      !(all = join_parts (t, new, n)))
    return -1;
  return end_upload (t, all, (unsigned) (t->j.nparts + n));
}

int
push_parts (struct push_rp *p)
{
  struct parts t = { .p = p };
  uint64_t raw = p->rp.data_blocks << ESP_BLOCK_SHIFT;
  bool waited = false;
  int r;

  t.part_size = (size_t) (raw / PARTS_MAX > PUSH_PART ? raw / PARTS_MAX
                          : PUSH_PART);
  if (open_journal (&t, &waited) == -1)
    return -1;
  /* Another push of this store has just ended. */
  if (waited && push_is_listed (p) == 1)
    r = PUSH_TAKEN;
  else if ((r = resume_or_begin (&t)) == 1)
    r = put_parts (&t);
  else if (r == 2)
    r = 0;
  journal_clear (&t.j);
  return r;
}
