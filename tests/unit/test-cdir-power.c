/* SPDX-License-Identifier: BSD-3-Clause */
/* A loss of power: each sector of the file is what it was at some time since
 * the machine started, but for what was synced.  Over many starts no hit is
 * ever wrong, or older than what was written last.
 */

#include "cdir-test.h"

#include <sys/mman.h>

#define SHIFT 17u
#define LEN (1u << SHIFT)
#define KEYS 30u
#define SNAPSHOTS 5u
#define BOOTS 24u
#define SECTOR 512u
#define PAGE 4096u
#define SYNCED CDIR_HEADER      /* bytes at the front that a sync is for */

static uint8_t *snapshot[SNAPSHOTS];
static size_t size;             /* of the file */
static unsigned taken;          /* snapshots of this boot */
static unsigned synced;         /* the front is not older than this one */
static uint32_t below[KEYS];    /* versions: what is on the plugin's disk */
static unsigned rp_hits, export_hits, old_sectors, syncs;
static uint64_t seed, counter;

/* In the place of libc's: what is synced is in the next snapshot, and from
 * then on.
 */
__attribute__ ((visibility ("default"))) int
msync (void *addr, size_t len, int flags)
{
  assert_memory_equal (addr, CDIR_MAGIC, 8);
  assert_int_equal (len, SYNCED);
  assert_int_equal (flags, MS_SYNC);
  synced = taken;
  ++syncs;
  return 0;
}

static uint64_t
next_random (void)
{
  ++counter;
  return XXH3_64bits_withSeed (&counter, sizeof counter, seed);
}

static struct esp_cache_key
numbered (unsigned k)
{
  return cdir_key (k % 2 ? ESP_CACHE_EXPORT : ESP_CACHE_RP, k, SHIFT);
}

static void
take_snapshot (void)
{
  CLEANUP_CLOSE int fd = cdir_file ();

  assert_true (taken < SNAPSHOTS);
  assert_int_equal (esp_pread_all (fd, snapshot[taken++], size, 0), 0);
}

static void
read_one (struct esp_cdir *d, unsigned k)
{
  struct esp_cache_key key = numbered (k);

  if (cdir_has (d, &key, below[k], LEN))
    ++*(key.kind == ESP_CACHE_RP ? &rp_hits : &export_hits);
  else
    assert_true (cdir_put (d, &key, below[k], LEN));
}

/* What is below is durable at once: the worst case. */
static void
write_one (struct esp_cdir *d, unsigned k)
{
  struct esp_cache_key key = numbered (k);

  esp_cdir_forget (d, &key);
  below[k] = (uint32_t) counter;
  esp_cdir_forget (d, &key);
}

static void
run (bool writes)
{
  struct esp_cdir *d = cdir_open ();

  for (unsigned k = 0; k < KEYS; ++k)
    read_one (d, k);            /* what is there from before */
  while (taken < SNAPSHOTS) {
    for (unsigned i = 0; i < 20; ++i) {
      unsigned k = (unsigned) (next_random () % KEYS);

      if (writes && k % 2 && i % 3 == 0)
        write_one (d, k);
      else
        read_one (d, k);
    }
    take_snapshot ();
  }
  esp_cdir_close (d);
}

/* The file as the disk has it then, in the last snapshot's place. */
static void
lose_power (void)
{
  CLEANUP_CLOSE int fd = cdir_file ();
  uint8_t *file = snapshot[SNAPSHOTS - 1];

  for (size_t at = 0; at < size; ) {
    size_t unit = at < ESP_CDIR_SLOT ? SECTOR : PAGE;
    unsigned oldest = at < SYNCED ? synced : 0;
    unsigned from = oldest + (unsigned) (next_random ()
                                         % (SNAPSHOTS - oldest));

    if (memcmp (file + at, snapshot[from] + at, unit) != 0) {
      memcpy (file + at, snapshot[from] + at, unit);
      ++old_sectors;
    }
    at += unit;
  }
  assert_int_equal (esp_pwrite_all (fd, file, size, 0), 0);
}

static void
no_hit_is_old (void **state)
{
  struct stat st;

  (void) state;
  seed = unit_seed ();
  counter = 1;
  esp_cdir_close (cdir_open ());
  CLEANUP_CLOSE int fd = cdir_file ();
  assert_int_equal (fstat (fd, &st), 0);
  size = (size_t) st.st_size;
  for (unsigned i = 0; i < SNAPSHOTS; ++i)
    snapshot[i] = malloc (size);
  for (unsigned boot = 0; boot < BOOTS; ++boot) {
    taken = synced = 0;
    take_snapshot ();
    run (boot % 4 == 1);
    lose_power ();
    cdir_reboot ();
  }
  for (unsigned i = 0; i < SNAPSHOTS; ++i)
    free (snapshot[i]);
  printf ("# %u sectors were older; hits: %u of restore points, %u of"
          " exports\n", old_sectors, rp_hits, export_hits);
  assert_int_equal (syncs, BOOTS / 4);          /* those with writes */
  assert_true (old_sectors > 300);
  assert_true (rp_hits > 300);
  assert_true (export_hits > 300);
}

#define TEST(name) \
  cmocka_unit_test_setup_teardown (name, cdir_setup, cdir_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (no_hit_is_old),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
