/* SPDX-License-Identifier: BSD-3-Clause */
/* The segment cache as a request asks it: a source that comes before the
 * centers (cache/shared.h; docs/segment-cache.md).
 *
 *   HIT    compared with the digest of the index, kept, the flight ends
 *   BUSY   another server fetches it: the flight is ELSEWHERE, unlocked, and
 *          queued again when it is time to ask again; its ticket goes with it
 *   MISS   the slot's ticket is owed an answer: put, behind the end of the
 *          flight, or given up
 *
 * Only a segment whose digest is known is asked for, and given to others: of
 * a plain image nobody could tell a forged one at its first fetch.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"

/* Background makes way for demands here too: what the cluster gives takes this
 * host's processors and network.  No entry is locked yet.
 */
static void
make_way (struct request *r)
{
  struct esp_delay *delay = r->point->delay;
  uint64_t until = delay_now () + YIELD_MAX;

  ESP_LOCK_SCOPE (&delay->lock);
  while (r->class == CLASS_BACKGROUND &&
         r->point->pool->busy[CLASS_DEMAND] > 0 &&
         !atomic_load (&delay->stop) && delay_now () < until)
    delay_cond_wait (&delay->calm, &delay->lock, until);
}

bool
cached_is_there (void)
{
  struct esp_shared *shared = esp_shared_ref ();

  esp_shared_unref (shared);
  return shared != NULL;
}

void
cached_begin (struct request *r)
{
  struct esp_shared *shared = esp_shared_ref ();

  esp_shared_unref (shared);
  if (!shared)
    return;
  make_way (r);
  r->set = sources_get (r->point, 0);
  r->raw = r->set ? malloc ((size_t) 1 << esp_have_shift (r->point->have))
    : NULL;
  if (r->raw)
    r->shared = shared;
}

/* It is held for a call alone, so that who takes it away does not wait for a
 * center.  What R holds of one that went, that one gave up.
 */
static void
cached_leave (struct esp_shared **shared)
{
  esp_shared_unref (*shared);
}
#define CLEANUP_SHARED __attribute__ ((cleanup (cached_leave)))

static struct esp_shared *
cached_enter (const struct request *r)
{
  CLEANUP_SHARED struct esp_shared *shared = esp_shared_ref ();

  return shared == r->shared ? ESP_STEAL (shared) : NULL;
}

static struct esp_cache_key
key_of (const struct request *r, size_t i)
{
  struct esp_cache_key key = {
    .segment = esp_have_number (r->point->have, r->first + i),
    .shift = (uint8_t) esp_have_shift (r->point->have),
    .kind = ESP_CACHE_RP,
  };

  static_assert (sizeof key.id == sizeof r->point->uuid, "an id is a UUID");
  memcpy (key.id, &r->point->uuid, sizeof key.id);
  return key;
}

static unsigned
flags_of (const struct request *r)
{
  return r->set->secret ? ESP_SHARED_SECRET : 0;
}

/* --- answers ---------------------------------------------------------------- */

/* Segments of one that came from each tier; then its bytes. */
static const enum esp_stats_rp row_of[] = {
  [ESP_FROM_MEMORY] = ESP_RP_MEMORY_SEGMENTS,
  [ESP_FROM_DIR] = ESP_RP_DIR_SEGMENTS,
  [ESP_FROM_CLUSTER] = ESP_RP_CLUSTER_SEGMENTS,
};

static enum need
keep_hit (struct request *r, size_t i, size_t len)
{
  struct esp_delay *delay = r->point->delay;
  const struct slot *s = &r->slots[i];

  if (request_keep (r, r->first + i, r->raw, len) == -1)
    return NEED_STOP;
  ESP_LOCK_SCOPE (&delay->lock);
  struct esp_stats_row *row = point_row_locked (r->point);
  COUNT (delay, from[s->ticket.from], 1);
  ESP_STATS_ADD (row, row_of[s->ticket.from], 1);
  ESP_STATS_ADD (row, row_of[s->ticket.from] + 1, len);
  request_count_locked (delay, s->flight, len);
  request_slot_end_locked (r, i, 0, NULL);
  return NEED_DONE;
}

static enum need
leave_busy (struct request *r, size_t i)
{
  struct esp_delay *delay = r->point->delay;
  struct esp_shared_ticket ticket = r->slots[i].ticket;

  esp_have_unlock (r->point->have, r->first + i);
  ESP_LOCK_SCOPE (&delay->lock);
  struct flight *f = request_slot_leave_locked (r, i);
  if (!f->due) {
    COUNT (delay, cluster_waits, 1);
    ESP_STATS_ADD (point_row_locked (r->point), ESP_RP_WAITS, 1);
  }
  f->ticket = ticket;
  flight_busy_locked (f, delay_now () + ticket.again_ms * 1000);
  return NEED_DONE;
}

static void
count_lie (struct point *p)
{
  ESP_LOCK_SCOPE (&p->delay->lock);
  COUNT (p->delay, lies, 1);
  ESP_STATS_ADD (point_row_locked (p), ESP_RP_LIES, 1);
}

static enum need
take_hit (struct request *r, size_t i, struct esp_shared *shared,
          const struct esp_cache_key *key, size_t len, const esp_digest *want)
{
  struct slot *s = &r->slots[i];
  esp_digest digest;

  esp_digest_of (r->raw, len, &digest);
  if (esp_digest_eq (&digest, want))
    return keep_hit (r, i, len);
  count_lie (r->point);
  esp_shared_lied (shared, key, &s->ticket);
  s->asked = true;
  return NEED_FETCH;
}

static enum need
ask (struct request *r, size_t i, unsigned flags)
{
  struct esp_have *have = r->point->have;
  struct slot *s = &r->slots[i];
  CLEANUP_SHARED struct esp_shared *shared = cached_enter (r);
  esp_digest want;

  if (!shared || !esp_have_digest (have, r->first + i, &want) ||
      atomic_load (&r->point->delay->stop))
    return NEED_FETCH;
  struct esp_cache_key key = key_of (r, i);
  size_t len = esp_have_raw_size (have, r->first + i);
  switch (esp_shared_get (shared, &key, r->raw, len, flags_of (r) | flags,
                          &s->ticket)) {
  case ESP_SHARED_HIT: return take_hit (r, i, shared, &key, len, &want);
  case ESP_SHARED_BUSY: return leave_busy (r, i);
  case ESP_SHARED_MISS: break;
  }
  s->asked = true;
  return NEED_FETCH;
}

enum need
cached_ask (struct request *r, size_t i)
{
  r->slots[i].ticket = r->slots[i].flight->ticket;
  return ask (r, i, 0);
}

/* With a ticket of its own: the flight's has waited for a lease. */
enum need
cached_look (struct request *r, size_t i)
{
  enum need need = ask (r, i, ESP_SHARED_LOOK);

  cached_give_up (r, i);        /* after a lie there is a lease */
  return need;
}

/* --- what becomes of a miss --------------------------------------------------- */

void
cached_put (struct request *r, size_t i, const void *raw, size_t len)
{
  struct slot *s = &r->slots[i];

  if (!s->asked)
    return;
  struct esp_cache_key key = key_of (r, i);
  CLEANUP_SHARED struct esp_shared *shared = cached_enter (r);
  s->asked = false;
  if (shared)
    esp_shared_put (shared, &key, raw, len, flags_of (r), &s->ticket);
}

void
cached_give_up (struct request *r, size_t i)
{
  struct slot *s = &r->slots[i];

  if (!s->asked)
    return;
  struct esp_cache_key key = key_of (r, i);
  CLEANUP_SHARED struct esp_shared *shared = cached_enter (r);
  s->asked = false;
  if (shared)
    esp_shared_give_up (shared, &key, &s->ticket);
}

void
cached_end (struct request *r)
{
  for (size_t i = 0; i < r->n; ++i)
    cached_give_up (r, i);
}
