/* SPDX-License-Identifier: BSD-3-Clause */
/* Read-ahead: what a sequential reader will want is asked for before it does.
 *
 * A reader has up to four streams.  A read that begins at a stream's end, or
 * a little before or behind it, moves it; any other begins one, in place of
 * the one that was used longest ago.  A stream asks for twice what was read
 * in it, so that what was fetched for nothing is bounded by what was read,
 * and at most for the reader's cap, in two halves, so that the next half is
 * on its way while one is read.
 *
 * A stream that ends with much of what it asked for unread halves the cap
 * of its reader; one whose window was read doubles it again.
 *
 * Reads that miss outside of a reader (the command line's) have one stream
 * for each restore point, counted in entries.
 */

#include <config.h>

#include "delay/internal.h"
#include "util/cleanup.h"

#define NSTREAMS 4
#define SLACK_BEHIND (UINT64_C (256) << 10)
#define SLACK_BEFORE (UINT64_C (256) << 10)
#define CAP_MIN (UINT64_C (512) << 10)

static bool
continues (const struct stream *s, uint64_t offset, uint64_t count)
{
  return s->end > 0 && offset + count > s->end &&
    offset + SLACK_BEHIND >= s->end && offset <= s->end + SLACK_BEFORE;
}

/* Within what was read just now: again, or out of order. */
static bool
repeats (const struct stream *s, uint64_t offset, uint64_t count)
{
  return s->end > 0 && offset + count <= s->end &&
    offset + SLACK_BEHIND >= s->end && offset >= s->begin;
}

/* The stream ends: was its window worth it? */
static void
stream_end (struct esp_delay_reader *r, const struct stream *s)
{
  uint64_t asked = s->ahead > s->begin ? s->ahead - s->begin : 0;
  uint64_t unread = s->ahead > s->end ? s->ahead - s->end : 0;

  if (unread > asked / 2 && r->cap > CAP_MIN)
    r->cap /= 2;
}

static struct stream *
stream_begin (struct esp_delay_reader *r, uint64_t offset)
{
  struct stream *oldest = &r->streams[0];

  for (int i = 1; i < NSTREAMS; ++i)
    if (r->streams[i].used < oldest->used)
      oldest = &r->streams[i];
  if (oldest->end > 0)
    stream_end (r, oldest);
  *oldest = (struct stream) { .begin = offset, .end = offset };
  return oldest;
}

/* Ask for more when half of the window is used up. */
static void
extend (struct esp_delay_reader *r, struct stream *s)
{
  uint64_t window = s->read * 2, from;

  if (window >= r->cap) {
    window = r->cap;
    if (r->cap < r->delay->params.readahead && s->read > 2 * r->cap)
      r->cap *= 2;
  }
  if (s->ahead >= s->end + window / 2)
    return;
  from = s->ahead > s->end ? s->ahead : s->end;
  s->ahead = s->end + window;
  /* Nobody asked for it: that it fails is said by the read that needs it. */
  (void) reader_ahead (r, from, s->ahead - from);
}

void
reader_moved (struct esp_delay_reader *r, uint64_t offset, uint64_t count)
{
  struct stream *s = NULL;

  if (r->delay->params.readahead == ESP_READAHEAD_OFF ||
      recorder_knows (r->recorder, offset, count))
    return;
  if (pthread_mutex_trylock (&r->ahead_lock) != 0)
    return;                     /* another thread of the connection moves */
  r->clock++;
  for (int i = 0; i < NSTREAMS && !s; ++i) {
    if (repeats (&r->streams[i], offset, count))
      goto out;
    if (continues (&r->streams[i], offset, count))
      s = &r->streams[i];
  }
  if (!s) {
    s = stream_begin (r, offset);
    s->end = offset + count;
    s->read = count;
  }
  else {
    s->read += offset + count - (offset > s->end ? offset : s->end);
    s->end = offset + count;
    extend (r, s);
  }
  s->used = r->clock;
 out:
  pthread_mutex_unlock (&r->ahead_lock);
}

/* --- outside of readers -------------------------------------------------------- */

void
point_missed_locked (struct point *p, size_t first, size_t last)
{
  size_t n = esp_have_entries (p->have);
  size_t most = (size_t) (p->delay->params.readahead >>
                          esp_have_shift (p->have));

  if (first >= p->run_next && first <= p->run_ahead)
    p->run += last + 1 - p->run_next;
  else
    p->run = 0;
  p->run_next = p->run_ahead = last + 1;
  for (size_t i = 0; i < 2 * p->run && i < most && p->run_ahead < n; ++i) {
    if (esp_have_state (p->have, p->run_ahead) != ESP_HAVE_CHECKED &&
        flight_want_locked (p, p->run_ahead, CLASS_AHEAD, NULL) == -1)
      break;
    p->run_ahead++;
  }
}
