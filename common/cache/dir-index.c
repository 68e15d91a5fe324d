/* SPDX-License-Identifier: BSD-3-Clause */
/* The index of the directory: sets of ways, mapped by all who use the file.
 *
 * A way is one word; who wants it changes the word by compare-and-swap:
 *
 *   FREE ── take ──► PENDING ── publish ──► VALID ── take (evicts) ──► PENDING
 *     ▲                 │                     │
 *     └──── release, drop, forget ────────────┘
 *
 * The word has a generation that rises with each step but publish, and the
 * value in the slot is sealed with it.  So what a process writes late into a
 * way that was taken from it (it was stopped for a minute) never passes for
 * what should be there, not even under its own key.
 *
 * Nothing that is read here is believed further than a miss goes: places come
 * from the key alone, lengths and heads are compared with what they should
 * be, what a head says of others only makes them be dropped.
 *
 * Processes with different secrets have a key's values side by side, in ways
 * of the same sets and with the same tag: so each hits its own, and who forgets
 * the key forgets all of them.
 *
 * A key's parts are in sets side by side, its slots of one way too where that
 * is free (and it is, where a segment of as many parts was put out for it:
 * all of it goes at once): a segment is then one piece of the file.
 *
 * Which way is put out is S3-FIFO in a set: ways that were not used since
 * they came are the small queue, the others main; both by the order in which
 * they came.  Small goes first while it has SMALL ways or more.  In main, who
 * was used again comes back to its end, with one use less.  A key that was put
 * out leaves a ghost in its first set, and begins in main if it comes back
 * while that is there.
 */

#include <config.h>

#include <string.h>
#include <time.h>

#include "cache/dir-internal.h"

#define SMALL 2u                /* ways: an eighth */
#define ABANDONED 5u            /* a put that takes 64 to 80 s: in 16 s */
#define TRIES 4u
#define NO_WAY CDIR_WAYS

/* --- places ---------------------------------------------------------------- */

void
cdir_spot (const struct esp_cdir *dir, const struct esp_cache_key *key,
           struct cdir_spot *spot)
{
  unsigned parts = (1u << key->shift) / CDIR_SLOT;

  if (parts > dir->group)
    parts = dir->group;
  spot->key = key;
  spot->hash = esp_cache_key_hash (key);
  spot->group = (uint64_t) (((unsigned __int128) spot->hash * dir->groups)
                            >> 64);
  spot->base = (unsigned) spot->hash & (dir->group - 1) & ~(parts - 1);
}

/* The set within the group, of a part. */
static unsigned
set_number (const struct esp_cdir *dir, const struct cdir_spot *spot,
            unsigned part)
{
  return (spot->base + part) & (dir->group - 1);
}

struct cdir_set *
cdir_set_of (const struct esp_cdir *dir, const struct cdir_spot *spot,
             unsigned part)
{
  struct cdir_set *sets = (struct cdir_set *) (dir->map + CDIR_HEADER);

  return &sets[spot->group * dir->group + set_number (dir, spot, part)];
}

struct cdir_set *
cdir_home (const struct esp_cdir *dir, const struct cdir_spot *spot)
{
  return cdir_set_of (dir, spot, 0);
}

uint64_t
cdir_slot (const struct esp_cdir *dir, const struct cdir_spot *spot,
           const struct cdir_part *part)
{
  uint64_t row = spot->group * CDIR_WAYS + part->way;

  return dir->slots + (row * dir->group + part->set) * CDIR_SLOT;
}

static uint32_t
tag_of (const struct cdir_spot *spot, unsigned part)
{
  return (uint32_t) ((spot->hash >> 16) + part * 0x9e3779b1u) & CDIR_TAG_MASK;
}

uint64_t
cdir_put_id (const struct esp_cdir *dir, const struct esp_cache_key *key,
             uint64_t word)
{
  uint64_t era = key->kind == ESP_CACHE_EXPORT ? dir->era : 0;

  return era << 24 | cdir_gen (word);
}

/* --- heads ------------------------------------------------------------------ */

static void
read_head (const struct cdir_set *set, unsigned way,
           uint8_t head[ESP_VALUE_HEAD])
{
  for (unsigned i = 0; i < CDIR_HEAD_WORDS; ++i) {
    uint64_t word = atomic_load_explicit (&set->head[way][i],
                                          memory_order_relaxed);
    memcpy (head + 8 * i, &word, 8);
  }
}

void
cdir_write_head (const struct esp_cdir *dir, const struct cdir_spot *spot,
                 const struct cdir_part *part)
{
  struct cdir_set *set = cdir_set_of (dir, spot, part->part);

  for (unsigned i = 0; i < CDIR_HEAD_WORDS; ++i) {
    uint64_t word;

    memcpy (&word, part->head + 8 * i, 8);
    atomic_store_explicit (&set->head[part->way][i], word,
                           memory_order_relaxed);
  }
}

/* The bytes of data in WAY, as far as its head can be believed. */
static int64_t
way_bytes (const struct cdir_set *set, unsigned way)
{
  uint8_t head[ESP_VALUE_HEAD];
  struct esp_value_part part;
  struct esp_cache_key key;
  size_t len;

  read_head (set, way, head);
  return esp_value_whose (head, &key, &len, &part) && len <= CDIR_SLOT
    ? (int64_t) len : 0;
}

/* Under which secret what lies in WAY says it is sealed. */
static uint64_t
way_sealed (const struct cdir_set *set, unsigned way)
{
  uint8_t head[ESP_VALUE_HEAD];

  read_head (set, way, head);
  return esp_value_sealed (head);
}

static void
add_used (struct esp_cdir *dir, int64_t bytes)
{
  atomic_fetch_add_explicit (&cdir_header (dir)->used, bytes,
                             memory_order_relaxed);
}

/* --- finding ---------------------------------------------------------------- */

static bool
head_is (const struct esp_cdir *dir, const struct cdir_spot *spot,
         size_t length, const struct cdir_part *part)
{
  size_t rest = length - part->part * CDIR_SLOT, len;
  struct esp_value_part says;

  return esp_value_peek (dir->sealer, spot->key, part->head, &len, &says)
    == ESP_VALUE_OK &&
    says.length == length && says.part == part->part &&
    says.parts == (length + CDIR_SLOT - 1) / CDIR_SLOT &&
    len == (rest < CDIR_SLOT ? rest : CDIR_SLOT) &&
    says.put == cdir_put_id (dir, spot->key, part->word);
}

bool
cdir_find (const struct esp_cdir *dir, const struct cdir_spot *spot,
           size_t length, struct cdir_part *part)
{
  struct cdir_set *set = cdir_set_of (dir, spot, part->part);
  uint32_t tag = tag_of (spot, part->part);

  part->set = set_number (dir, spot, part->part);
  for (unsigned w = 0; w < CDIR_WAYS; ++w) {
    part->word = atomic_load (&set->way[w]);
    if (cdir_state (part->word) != CDIR_VALID || cdir_tag (part->word) != tag)
      continue;
    part->way = w;
    read_head (set, w, part->head);
    if (head_is (dir, spot, length, part))
      return true;
  }
  return false;
}

/* Two threads that used it at once count once: nothing hangs on it. */
void
cdir_touch (const struct esp_cdir *dir, const struct cdir_spot *spot,
            const struct cdir_part *part)
{
  struct cdir_set *set = cdir_set_of (dir, spot, part->part);
  unsigned uses = cdir_uses (part->word);
  uint64_t word = part->word;

  if (uses < CDIR_USES_MAX)
    atomic_compare_exchange_strong
      (&set->way[part->way], &word,
       cdir_way (CDIR_VALID, uses + 1, cdir_gen (word), cdir_stamp (word),
                 cdir_tag (word)));
}

/* --- clearing --------------------------------------------------------------- */

/* OLD becomes FREE; false: it was not OLD any more. */
static bool
free_way (struct esp_cdir *dir, struct cdir_set *set, unsigned way,
          uint64_t old)
{
  int64_t bytes = cdir_state (old) == CDIR_VALID ? way_bytes (set, way) : 0;

  if (!atomic_compare_exchange_strong (&set->way[way], &old,
                                       cdir_way (CDIR_FREE, 0,
                                                 cdir_gen (old) + 1, 0, 0)))
    return false;
  add_used (dir, -bytes);
  return true;
}

/* What changes while we look is looked at again: uses, or VALID now. */
static void
drop_part (struct esp_cdir *dir, struct cdir_set *set, uint32_t tag,
           const uint8_t *head)
{
  for (unsigned w = 0; w < CDIR_WAYS; ++w)
    for (;;) {
      uint64_t word = atomic_load (&set->way[w]);

      if (cdir_state (word) == CDIR_FREE || cdir_tag (word) != tag ||
          (head && (cdir_state (word) != CDIR_VALID ||
                    way_sealed (set, w) != esp_value_sealed (head))) ||
          free_way (dir, set, w, word))
        break;
    }
}

/* With HEAD: only what is VALID under the same secret. */
static void
drop_parts (struct esp_cdir *dir, const struct cdir_spot *spot,
            const uint8_t *head)
{
  unsigned parts = (1u << spot->key->shift) / CDIR_SLOT;

  for (unsigned p = 0; p < parts; ++p)
    drop_part (dir, cdir_set_of (dir, spot, p), tag_of (spot, p), head);
}

void
cdir_drop (struct esp_cdir *dir, const struct cdir_spot *spot)
{
  drop_parts (dir, spot, NULL);
}

bool
cdir_release (struct esp_cdir *dir, const struct cdir_spot *spot,
              const struct cdir_part *part)
{
  return free_way (dir, cdir_set_of (dir, spot, part->part), part->way, part->word);
}

/* --- ghosts ----------------------------------------------------------------- */

static uint32_t
ghost_of (const struct cdir_spot *spot)
{
  return (uint32_t) (spot->hash >> 8) | 1;
}

bool
cdir_ghost (const struct esp_cdir *dir, const struct cdir_spot *spot)
{
  struct cdir_set *home = cdir_home (dir, spot);
  uint32_t ghost = ghost_of (spot);

  for (unsigned i = 0; i < CDIR_WAYS; ++i)
    if (atomic_load_explicit (&home->ghost[i], memory_order_relaxed) == ghost)
      return true;
  return false;
}

static void
leave_ghost (const struct esp_cdir *dir, const struct cdir_spot *spot)
{
  struct cdir_set *home = cdir_home (dir, spot);
  uint64_t at = atomic_load_explicit (&home->clock, memory_order_relaxed);

  atomic_store_explicit (&home->ghost[at % CDIR_WAYS], ghost_of (spot),
                         memory_order_relaxed);
}

/* --- taking ----------------------------------------------------------------- */

static unsigned
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);  /* cannot fail */
  return (unsigned) (t.tv_sec >> 4) & CDIR_STAMP_MASK;
}

static bool
is_free (uint64_t word, unsigned when)
{
  return cdir_state (word) != CDIR_VALID &&
    (cdir_state (word) != CDIR_PENDING ||
     ((when - cdir_stamp (word)) & CDIR_STAMP_MASK) >= ABANDONED);
}

/* The one of small (or of main) that came first, and how many there are. */
static unsigned
oldest (const uint64_t *words, bool small, uint64_t clock, unsigned *n)
{
  unsigned best = NO_WAY, best_age = 0;

  *n = 0;
  for (unsigned w = 0; w < CDIR_WAYS; ++w) {
    unsigned age = ((unsigned) clock - cdir_stamp (words[w]))
      & CDIR_STAMP_MASK;

    if (cdir_state (words[w]) != CDIR_VALID ||
        (cdir_uses (words[w]) == 0) != small)
      continue;
    ++*n;
    if (best == NO_WAY || age > best_age) {
      best = w;
      best_age = age;
    }
  }
  return best;
}

/* WAY was used again: it goes to main's end with one use less. */
static void
put_back (struct cdir_set *set, uint64_t *words, unsigned way)
{
  uint64_t clock = atomic_fetch_add (&set->clock, 1) + 1;
  uint64_t old = words[way],
    new = cdir_way (CDIR_VALID, cdir_uses (old) - 1, cdir_gen (old),
                    (unsigned) clock & CDIR_STAMP_MASK, cdir_tag (old));

  words[way] = atomic_compare_exchange_strong (&set->way[way], &old, new)
    ? new : old;
}

/* No way is free: which one to put out. */
static unsigned
victim (struct cdir_set *set, uint64_t *words)
{
  for (unsigned i = 0; i < CDIR_WAYS * CDIR_USES_MAX; ++i) {
    uint64_t clock = atomic_load (&set->clock);
    unsigned n_small, n_main;
    unsigned small = oldest (words, true, clock, &n_small);
    unsigned main = oldest (words, false, clock, &n_main);

    if (n_small >= SMALL || n_main == 0)
      return small;
    if (cdir_uses (words[main]) <= 1)
      return main;
    put_back (set, words, main);
  }
  return NO_WAY;
}

static unsigned
choose (const struct esp_cdir *dir, struct cdir_set *set, uint32_t tag,
        unsigned rather, uint64_t *words)
{
  unsigned when = now (), some = NO_WAY;

  for (unsigned w = 0; w < CDIR_WAYS; ++w) {
    words[w] = atomic_load (&set->way[w]);
    if (is_free (words[w], when)) {
      if (some == NO_WAY || w == rather)
        some = w;
    }
    else if (cdir_tag (words[w]) != tag)
      continue;
    else if (cdir_state (words[w]) != CDIR_VALID)
      return NO_WAY;            /* it is just being put */
    else if (way_sealed (set, w) == esp_sealer_id (dir->sealer))
      return w;                 /* not what we have: in its place */
  }
  return some != NO_WAY ? some : victim (set, words);
}

/* WAY was taken while it was OLD; what else belongs to that one goes, too, but
 * nothing that is PENDING: what WAY was taken for may be the same key's.
 */
static void
evict (struct esp_cdir *dir, struct cdir_set *set, unsigned way, uint64_t old)
{
  uint8_t head[ESP_VALUE_HEAD];
  struct esp_value_part part;
  struct esp_cache_key key;
  struct cdir_spot spot;
  size_t len;

  atomic_fetch_add_explicit (&dir->evictions, 1, memory_order_relaxed);
  read_head (set, way, head);
  if (!esp_value_whose (head, &key, &len, &part) || part.part >= CDIR_PARTS)
    return;
  cdir_spot (dir, &key, &spot);
  if (cdir_set_of (dir, &spot, part.part) != set ||
      tag_of (&spot, part.part) != cdir_tag (old))
    return;
  leave_ghost (dir, &spot);
  if (part.parts > 1)
    drop_parts (dir, &spot, head);
}

bool
cdir_take (struct esp_cdir *dir, const struct cdir_spot *spot, unsigned way,
           unsigned uses, struct cdir_part *part)
{
  struct cdir_set *set = cdir_set_of (dir, spot, part->part);
  uint32_t tag = tag_of (spot, part->part);
  uint64_t words[CDIR_WAYS];

  for (unsigned i = 0; i < TRIES; ++i) {
    unsigned w = choose (dir, set, tag, way, words);
    if (w == NO_WAY)
      return false;
    uint64_t old = words[w],
      new = cdir_way (CDIR_PENDING, uses, cdir_gen (old) + 1, now (), tag);
    if (!atomic_compare_exchange_strong (&set->way[w], &old, new))
      continue;
    part->set = set_number (dir, spot, part->part);
    part->way = w;
    part->word = new;
    part->mine = true;
    atomic_fetch_add (&set->clock, 1);
    if (cdir_state (old) == CDIR_VALID) {
      add_used (dir, -way_bytes (set, w));
      if (cdir_tag (old) != tag ||
          way_sealed (set, w) != esp_sealer_id (dir->sealer))
        evict (dir, set, w, old);
    }
    return true;
  }
  return false;
}

bool
cdir_publish (struct esp_cdir *dir, const struct cdir_spot *spot,
              const struct cdir_part *part, size_t len)
{
  struct cdir_set *set = cdir_set_of (dir, spot, part->part);
  uint64_t old = part->word, clock = atomic_load (&set->clock);
  uint64_t new = cdir_way (CDIR_VALID, cdir_uses (old), cdir_gen (old),
                           (unsigned) clock & CDIR_STAMP_MASK,
                           cdir_tag (old));

  if (!atomic_compare_exchange_strong (&set->way[part->way], &old, new))
    return false;
  add_used (dir, (int64_t) len);
  return true;
}

void
cdir_recount (struct esp_cdir *dir)
{
  struct cdir_set *sets = (struct cdir_set *) (dir->map + CDIR_HEADER);
  int64_t used = 0;

  for (uint64_t s = 0; s < dir->groups * dir->group; ++s)
    for (unsigned w = 0; w < CDIR_WAYS; ++w) {
      uint64_t word = atomic_load (&sets[s].way[w]);

      if (cdir_state (word) == CDIR_VALID)
        used += way_bytes (&sets[s], w);
      else if (cdir_state (word) != CDIR_FREE)
        free_way (dir, &sets[s], w, word);
    }
  atomic_store (&cdir_header (dir)->used, used);
}
