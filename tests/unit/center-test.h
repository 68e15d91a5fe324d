/* SPDX-License-Identifier: BSD-3-Clause */
/* Made-up restore points for the tests of a center's formats: random, from a
 * printed seed; and what is done to every object: it is cut and flipped.
 */

#ifndef ESPALIER_CENTER_TEST_H
#define ESPALIER_CENTER_TEST_H

#include "unit.h"

#include "center/format.h"
#include "center/keys.h"

static unsigned seed;

static inline __attribute__ ((unused)) uint32_t
rnd (uint32_t below)
{
  return (uint32_t) rand_r (&seed) % below;
}

static inline __attribute__ ((unused)) void
fill_random (void *buf, size_t len)
{
  uint8_t *p = buf;

  for (size_t i = 0; i < len; ++i)
    p[i] = (uint8_t) rand_r (&seed);
}

/* Compresses to about a half. */
static inline __attribute__ ((unused)) void
fill_soft (void *buf, size_t len)
{
  uint8_t *p = buf;

  for (size_t i = 0; i < len; ++i)
    p[i] = (uint8_t) ("etaoin shrdlu.\n,x"[rnd (16)]);
}

/* Runs of all states, one of data among them; nothing with RUNS 0. */
static inline __attribute__ ((unused)) struct esp_map *
random_map (uint64_t size, unsigned runs)
{
  struct esp_map *map = esp_map_new (size);
  uint64_t blocks = esp_blocks (size);

  assert_non_null (map);
  for (unsigned i = 0; i < runs; ++i) {
    uint64_t at = rnd ((uint32_t) blocks), n = 1 + rnd (rnd (2) ? 5 : 700);

    if (n > blocks - at)
      n = blocks - at;
    esp_map_set (map, at, n, i + 1 < runs ? (enum esp_state) rnd (3)
                 : ESP_DATA, NULL);
  }
  return map;
}

/* An index of MAP, whose segments take STORED bytes at most. */
static inline __attribute__ ((unused)) void
random_index (const struct esp_map *map, unsigned shift, unsigned extra,
              struct esp_index *x)
{
  uint64_t n = (map->size + (UINT64_C (1) << shift) - 1) >> shift, at = 0;

  *x = (struct esp_index) { .shift = shift };
  x->segments = calloc (n, sizeof *x->segments);
  assert_non_null (x->segments);
  for (uint32_t i = 0; i < n; ++i) {
    unsigned blocks = esp_segment_blocks (map, shift, i);
    struct esp_segment *s = &x->segments[x->n];

    if (!blocks)
      continue;
    s->number = i;
    s->stored = extra + 1 + rnd (blocks * 4096);
    s->offset = at;
    fill_random (&s->digest, sizeof s->digest);
    at += s->stored;
    x->n++;
  }
}

static inline __attribute__ ((unused)) uint64_t
index_pack_size (const struct esp_index *x)
{
  return x->n ? x->segments[x->n - 1].offset + x->segments[x->n - 1].stored
    : 0;
}

/* Call TRY with every truncation of BUF (each in memory of its own, so that
 * ASan sees a read behind it) and with every bit flipped, or STEP bits apart.
 * TRY returns whether it was taken; it must be right then.
 */
static inline __attribute__ ((unused)) void
damage_all (const void *buf, size_t len, unsigned step,
            bool (*try) (void *arg, const void *buf, size_t len), void *arg)
{
  unsigned taken = 0, errors = 0;

  for (size_t n = 0; n < len; n += 1 + (step > 1 ? rnd (step) : 0)) {
    void *copy = malloc (n);

    memcpy (copy, buf, n);
    unit_error[0] = 0;
    if (try (arg, copy, n))
      taken++;
    else
      errors += unit_error[0] != 0;
    free (copy);
  }
  for (size_t bit = 0; bit < len * 8;
       bit += 1 + (step > 1 ? rnd (2 * step) : 0)) {
    uint8_t *copy = malloc (len);

    memcpy (copy, buf, len);
    copy[bit / 8] ^= (uint8_t) (1u << bit % 8);
    unit_error[0] = 0;
    if (try (arg, copy, len))
      taken++;
    else
      errors += unit_error[0] != 0;
    free (copy);
  }
  assert_true (errors > 0);
  printf ("# %u damaged ones were refused, %u gave the same\n", errors,
          taken);
}

#endif /* ESPALIER_CENTER_TEST_H */
