/* SPDX-License-Identifier: BSD-3-Clause */
/* A segment cache that has, lacks, or waits for what a test says, in the place
 * of cache/shared.h: for the tests of delayed load.  It counts what is asked
 * of it, and calls that break the rules: of keys, of bytes, of leases.
 */

#ifndef ESPALIER_CACHE_FAKE_H
#define ESPALIER_CACHE_FAKE_H

#include "delay-test.h"

#include "cache/shared.h"

#define DISK (UINT64_C (4) << 20)
#define ENTRIES (DISK / SEGMENT)

enum item { ITEM_NONE, ITEM_VALUE, ITEM_OTHERS, ITEM_OURS };

static struct cache {
  pthread_mutex_t lock;
  bool on;
  struct delayed *d;
  enum item item[ENTRIES];
  unsigned asked[ENTRIES], looked[ENTRIES], puts[ENTRIES];
  uint64_t lease[ENTRIES], leases;
  unsigned patience;            /* questions until another's lease is over */
  unsigned open, given_up, lied, wrong, busy;   /* wrong: calls that are */
  bool lies, slow_put;
  unsigned refs, flags_seen, flags_not;
  enum esp_shared_from from;
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct esp_shared *
esp_shared_ref (void)
{
  ESP_LOCK_SCOPE (&cache.lock);
  cache.refs += cache.on;
  return cache.on ? (struct esp_shared *) &cache : NULL;
}

void
esp_shared_unref (struct esp_shared *shared)
{
  ESP_LOCK_SCOPE (&cache.lock);
  cache.refs -= shared != NULL;
}

static void
check_key (const struct esp_cache_key *key, unsigned flags)
{
  cache.wrong += key->kind != ESP_CACHE_RP || key->shift != SHIFT ||
    key->segment >= ENTRIES ||
    memcmp (key->id, &cache.d->t->m[cache.d->member].uuid, 16) != 0;
  cache.flags_seen |= flags;
  cache.flags_not |= ~flags;
}

static enum esp_shared_answer
lease_locked (uint32_t n, struct esp_shared_ticket *ticket)
{
  cache.item[n] = ITEM_OURS;
  cache.lease[n] = ticket->lease = ++cache.leases;
  cache.open++;
  return ESP_SHARED_MISS;
}

enum esp_shared_answer
esp_shared_get (struct esp_shared *shared, const struct esp_cache_key *key,
                void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  uint32_t n = key->segment;

  (void) shared;
  ESP_LOCK_SCOPE (&cache.lock);
  check_key (key, flags);
  (flags & ESP_SHARED_LOOK ? cache.looked : cache.asked)[n]++;
  switch (cache.item[n]) {
  case ITEM_VALUE:
    cache.wrong += len != delayed_raw (cache.d, n, buf);
    if (cache.lies)
      ((unsigned char *) buf)[len / 2] ^= 1;
    ticket->from = cache.from;
    return ESP_SHARED_HIT;
  case ITEM_NONE:
    return flags & ESP_SHARED_LOOK ? ESP_SHARED_MISS
      : lease_locked (n, ticket);
  default:
    break;
  }
  if (flags & ESP_SHARED_LOOK)
    return ESP_SHARED_MISS;
  if (cache.patience && ++ticket->tries > cache.patience)
    return lease_locked (n, ticket);
  cache.busy++;
  ticket->again_ms = 3;
  return ESP_SHARED_BUSY;
}

static void
end_lease_locked (uint32_t n, const struct esp_shared_ticket *ticket,
                  enum item item)
{
  cache.wrong += cache.item[n] != ITEM_OURS || cache.lease[n] != ticket->lease;
  cache.item[n] = item;
  cache.open--;
}

void
esp_shared_put (struct esp_shared *shared, const struct esp_cache_key *key,
                const void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  unsigned char raw[SEGMENT];

  (void) shared;
  if (cache.slow_put)
    usleep (400000);
  ESP_LOCK_SCOPE (&cache.lock);
  check_key (key, flags);
  cache.wrong += len != delayed_raw (cache.d, key->segment, raw) ||
    memcmp (raw, buf, len) != 0;
  cache.puts[key->segment]++;
  end_lease_locked (key->segment, ticket, ITEM_VALUE);
}

void
esp_shared_give_up (struct esp_shared *shared,
                    const struct esp_cache_key *key,
                    struct esp_shared_ticket *ticket)
{
  (void) shared;
  ESP_LOCK_SCOPE (&cache.lock);
  check_key (key, cache.flags_seen);
  if (ticket->lease == 0)
    return;
  cache.given_up++;
  end_lease_locked (key->segment, ticket, ITEM_NONE);
}

void
esp_shared_lied (struct esp_shared *shared, const struct esp_cache_key *key,
                 struct esp_shared_ticket *ticket)
{
  (void) shared;
  ESP_LOCK_SCOPE (&cache.lock);
  check_key (key, cache.flags_seen);
  cache.lied++;
  lease_locked (key->segment, ticket);
}

/* --- scenes -------------------------------------------------------------------- */

struct scene {
  struct delayed d;
  struct tree *t;
  struct esp_delay *delay;
  struct disk disk;
};

static inline __attribute__ ((unused)) int
setup (void **state)
{
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

  fake_init (1);
  cache = (struct cache) { .on = true, .lock = lock,
                           .from = ESP_FROM_CLUSTER };
  return tree_setup (state);
}

/* A disk all of whose segments have data, and each in the state ITEM. */
static inline __attribute__ ((unused)) void
scene_make (void **state, struct scene *s, enum item item)
{
  s->t = *state;
  delay_one (state, &s->d, DISK, 20000);
  assert_int_equal (s->d.index.n, ENTRIES);
  cache.d = &s->d;
  for (size_t i = 0; i < ENTRIES; i++)
    cache.item[i] = item;
}

static inline __attribute__ ((unused)) void
scene_start (struct scene *s, unsigned threads)
{
  s->delay = delay_start (s->t, threads);
  s->disk = disk_open (s->delay, s->t, 0);
}

static inline __attribute__ ((unused)) void
scene_begin (void **state, struct scene *s, enum item item)
{
  scene_make (state, s, item);
  scene_start (s, 4);
}

/* Nothing is held any more, and every call was right. */
static inline __attribute__ ((unused)) void
scene_end (struct scene *s)
{
  disk_close (&s->disk);
  esp_delay_stop (s->delay);
  assert_int_equal (cache.open, 0);
  assert_int_equal (cache.refs, 0);
  assert_int_equal (cache.wrong, 0);
  delayed_clear (&s->d);
}

static inline __attribute__ ((unused)) struct esp_delay_counters
counters (struct scene *s)
{
  struct esp_delay_counters c;

  esp_delay_counters (s->delay, &c);
  return c;
}

/* Of what the engine's threads may be changing. */
static inline __attribute__ ((unused)) unsigned
look (const unsigned *n)
{
  ESP_LOCK_SCOPE (&cache.lock);
  return *n;
}

static inline __attribute__ ((unused)) unsigned
total (const unsigned *n)
{
  ESP_LOCK_SCOPE (&cache.lock);
  unsigned sum = 0;

  for (size_t i = 0; i < ENTRIES; i++)
    sum += n[i];
  return sum;
}

/* Read a byte that segment N has. */
static inline __attribute__ ((unused)) int
read_of (struct scene *s, uint32_t number)
{
  uint64_t n, block = (uint64_t) number * (SEGMENT / ESP_BLOCK_SIZE);

  while (esp_map_run (s->d.map, block, 1, &n) != ESP_DATA)
    block++;
  return disk_read (&s->disk, block * ESP_BLOCK_SIZE, 1);
}

static inline __attribute__ ((unused)) void
set_items (size_t first, size_t n, enum item item)
{
  ESP_LOCK_SCOPE (&cache.lock);
  for (size_t i = first; i < first + n; i++)
    cache.item[i] = item;
}

static inline __attribute__ ((unused)) void *
read_all (void *arg)
{
  struct scene *s = arg;

  return (void *) (intptr_t) disk_read (&s->disk, 0, DISK);
}

#endif /* ESPALIER_CACHE_FAKE_H */
