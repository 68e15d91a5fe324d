/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of a host: what it keeps, and what it forgets. */

#include "cdir-test.h"

#include <signal.h>
#include <sys/mman.h>

/* --- keeping ----------------------------------------------------------- */

static void
sizes (const struct esp_sealer *sealer)
{
  static const size_t lens[] = { 8, 4096, 65536, 65544, 258048, 262144,
                                 4 << 20 };

  for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; ++i)
    for (int kind = ESP_CACHE_RP; kind <= ESP_CACHE_EXPORT; ++kind) {
      CLEANUP_CDIR struct esp_cdir *d = esp_cdir_open (cdir_where, MAX,
                                                       sealer);
      struct esp_cache_key key = cdir_key (kind, i, 22);

      assert_non_null (d);
      assert_false (cdir_has (d, &key, 5, lens[i]));
      assert_true (cdir_put (d, &key, 5, lens[i]));
      assert_true (cdir_has (d, &key, 5, lens[i]));
      esp_cdir_forget (d, &key);
      assert_false (cdir_has (d, &key, 5, lens[i]));
    }
}

static void
what_was_put_is_there (void **state)
{
  (void) state;
  sizes (cdir_check);
  sizes (cdir_secret);
}

static void
nothing_else_is_there (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18), k;

  (void) state;
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  k = key, k.segment = 2;
  assert_false (cdir_has (d, &k, 0, SEGMENT));
  k = key, k.id[15] = 1;
  assert_false (cdir_has (d, &k, 0, SEGMENT));
  k = key, k.shift = 19;
  assert_false (cdir_has (d, &k, 0, SEGMENT));
  k = key, k.kind = ESP_CACHE_EXPORT;
  assert_false (cdir_has (d, &k, 0, SEGMENT));
  assert_false (cdir_has (d, &key, 0, SEGMENT - 8));
  assert_false (cdir_has (d, &key, 0, ESP_CDIR_SLOT));
  assert_true (cdir_has (d, &key, 0, SEGMENT));
}

static void
lengths_that_no_segment_has (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  static char buf[SEGMENT + 8];
  uint64_t epoch;

  (void) state;
  for (unsigned shift = 0; shift < 256; shift += 15) {  /* 15, 30 … 255 */
    struct esp_cache_key key = cdir_key (ESP_CACHE_EXPORT, 1, shift);

    assert_false (esp_cdir_get (d, &key, buf, 8, &epoch));
    assert_false (esp_cdir_put (d, &key, buf, 8, epoch));
    esp_cdir_forget (d, &key);
  }
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18);
  assert_false (esp_cdir_put (d, &key, buf, SEGMENT + 8, 0));
  assert_false (esp_cdir_put (d, &key, buf, 0, 0));
}

static void
survives_a_restart (void **state)
{
  struct esp_cache_key rp = cdir_key (ESP_CACHE_RP, 1, 18),
    export = cdir_key (ESP_CACHE_EXPORT, 1, 18);

  (void) state;
  for (unsigned i = 0; i < 3; ++i) {
    CLEANUP_CDIR struct esp_cdir *d = cdir_open ();

    assert_true (cdir_put (d, &rp, 0, SEGMENT));
    assert_true (cdir_put (d, &export, 0, SEGMENT));
  }
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  assert_true (cdir_has (d, &rp, 0, SEGMENT));
  assert_true (cdir_has (d, &export, 0, SEGMENT));
}

static void
processes_share_it (void **state)
{
  CLEANUP_CDIR struct esp_cdir *a = cdir_open (), *b = cdir_open ();
  struct esp_cache_key key = cdir_key (ESP_CACHE_EXPORT, 1, 18);

  (void) state;
  assert_true (cdir_put (a, &key, 1, SEGMENT));
  assert_true (cdir_has (b, &key, 1, SEGMENT));
  esp_cdir_forget (b, &key);
  assert_false (cdir_has (a, &key, 1, SEGMENT));
}

/* --- key files --------------------------------------------------------- */

#define OPENS 3
/* Processes with a key file, another one, and none. */
static void
open_all (struct esp_cdir *d[OPENS])
{
  const struct esp_sealer *sealers[OPENS] = { cdir_check, cdir_secret,
                                              cdir_other };

  for (unsigned i = 0; i < OPENS; ++i) {
    d[i] = esp_cdir_open (cdir_where, MAX, sealers[i]);
    assert_non_null (d[i]);
  }
}

static void
close_all (struct esp_cdir *d[OPENS])
{
  for (unsigned i = 0; i < OPENS; ++i) {
    struct esp_cdir_counters c;

    esp_cdir_counters (d[i], &c);
    assert_int_equal (c.lies, 0);
    esp_cdir_close (d[i]);
  }
}

/* What others sealed is a miss; each finds its own beside it, also behind a
 * restart.
 */
static void
key_files_side_by_side (void **state)
{
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18);
  struct esp_cdir_counters c;
  struct esp_cdir *d[OPENS];

  (void) state;
  open_all (d);
  for (unsigned i = 0; i < OPENS; ++i) {
    assert_false (cdir_has (d[i], &key, i, SEGMENT));
    assert_true (cdir_put (d[i], &key, i, SEGMENT));
  }
  close_all (d);
  open_all (d);
  for (unsigned i = 0; i < OPENS; ++i)
    assert_true (cdir_has (d[i], &key, i, SEGMENT));
  esp_cdir_counters (d[0], &c);
  assert_int_equal (c.used, OPENS * SEGMENT);
  /* In its own place. */
  assert_true (cdir_put (d[1], &key, 1, SEGMENT - 8));
  assert_true (cdir_has (d[0], &key, 0, SEGMENT));
  assert_false (cdir_has (d[1], &key, 1, SEGMENT));
  esp_cdir_counters (d[0], &c);
  assert_int_equal (c.used, OPENS * SEGMENT - 8);
  close_all (d);
}

/* Who writes forgets what the others have, and what they are putting. */
static void
a_forget_is_for_all_key_files (void **state)
{
  struct esp_cache_key key = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  static uint8_t buf[SEGMENT];
  struct esp_cdir *d[OPENS];
  uint64_t epoch;

  (void) state;
  open_all (d);
  for (unsigned i = 0; i < OPENS; ++i) {
    for (unsigned k = 0; k < OPENS; ++k)
      assert_true (cdir_put (d[k], &key, i, SEGMENT));
    esp_cdir_forget (d[i], &key);
    for (unsigned k = 0; k < OPENS; ++k)
      assert_false (cdir_has (d[k], &key, i, SEGMENT));
    assert_false (esp_cdir_get (d[(i + 1) % OPENS], &key, buf, SEGMENT,
                                &epoch));
    esp_cdir_forget (d[i], &key);
    assert_false (esp_cdir_put (d[(i + 1) % OPENS], &key, buf, SEGMENT,
                                epoch));
  }
  close_all (d);
}

/* Where one segment takes all the room of its group each puts out the other's
 * alone, and has the whole.
 */
static void
key_files_in_a_small_room (void **state)
{
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 22);
  struct esp_cdir *d[OPENS];

  (void) state;
  open_all (d);
  for (unsigned i = 0; i < 4 * OPENS; ++i) {
    assert_false (cdir_has (d[i % OPENS], &key, i, 4 << 20));
    assert_true (cdir_put (d[i % OPENS], &key, i, 4 << 20));
    assert_true (cdir_has (d[i % OPENS], &key, i, 4 << 20));
  }
  close_all (d);
}

/* Old values go as their room is needed, and take no new ones along. */
static void
key_files_change (void **state)
{
  struct esp_cdir *d[OPENS];
  unsigned hits = 0;

  (void) state;
  open_all (d);
  for (unsigned i = 0; i < OPENS; ++i)
    for (uint32_t n = 0; n < 32; ++n) {         /* half of the room */
      struct esp_cache_key key = cdir_key (ESP_CACHE_RP, n, 18);

      assert_true (cdir_put (d[i], &key, i, SEGMENT));
    }
  for (uint32_t n = 0; n < 32; ++n) {
    struct esp_cache_key key = cdir_key (ESP_CACHE_RP, n, 18);

    hits += cdir_has (d[OPENS - 1], &key, OPENS - 1, SEGMENT);
  }
  assert_true (hits >= 16);
  close_all (d);
}

/* --- forgetting -------------------------------------------------------- */

static void
no_put_that_began_before_a_forget (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  struct esp_cache_key key = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  static uint8_t buf[SEGMENT];
  uint64_t before, behind;

  (void) state;
  assert_false (esp_cdir_get (d, &key, buf, SEGMENT, &before));
  esp_cdir_forget (d, &key);
  cdir_fill (&key, 1, buf, SEGMENT);
  assert_false (esp_cdir_put (d, &key, buf, SEGMENT, before));
  assert_false (esp_cdir_get (d, &key, buf, SEGMENT, &behind));
  cdir_fill (&key, 2, buf, SEGMENT);
  assert_true (esp_cdir_put (d, &key, buf, SEGMENT, behind));
  assert_true (cdir_has (d, &key, 2, SEGMENT));
}

/* --- in the middle of a put --------------------------------------------- */

/* A put reads what it keeps when its ways are taken and nothing is written
 * yet: there the last page of its buffer faults.
 */
static struct {
  struct esp_cdir *other;
  struct esp_cache_key key;
  uint8_t *buf;
  void (*meanwhile) (void);
  unsigned n;
} middle;

static void
on_fault (int sig)
{
  (void) sig;
  mprotect (middle.buf, SEGMENT, PROT_READ | PROT_WRITE);
  ++middle.n;
  middle.meanwhile ();
}

/* Does a put of version 1 keep it, when that happens? */
static bool
put_while (struct esp_cdir *d, void (*meanwhile) (void))
{
  struct sigaction sa = { .sa_handler = on_fault }, before;
  uint64_t epoch;
  bool kept;

  middle.meanwhile = meanwhile;
  middle.n = 0;
  middle.key = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  middle.buf = mmap (NULL, SEGMENT, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true (middle.buf != MAP_FAILED);
  assert_false (esp_cdir_get (d, &middle.key, middle.buf, SEGMENT, &epoch));
  cdir_fill (&middle.key, 1, middle.buf, SEGMENT);
  assert_int_equal (sigaction (SIGSEGV, &sa, &before), 0);
  mprotect (middle.buf + SEGMENT - 4096, 4096, PROT_NONE);
  kept = esp_cdir_put (d, &middle.key, middle.buf, SEGMENT, epoch);
  sigaction (SIGSEGV, &before, NULL);
  munmap (middle.buf, SEGMENT);
  assert_int_equal (middle.n, 1);
  return kept;
}

static void
forget_it (void)
{
  esp_cdir_forget (middle.other, &middle.key);
}

static void
forget_and_put_it (void)
{
  esp_cdir_forget (middle.other, &middle.key);
  assert_true (cdir_put (middle.other, &middle.key, 2, SEGMENT));
}

static void
do_nothing (void)
{
}

static void
put_the_same (void)
{
  assert_false (cdir_has (middle.other, &middle.key, 1, SEGMENT));
  assert_false (cdir_put (middle.other, &middle.key, 1, SEGMENT));
}

static void
a_forget_in_the_middle_of_a_put (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open (), *other = cdir_open ();

  (void) state;
  middle.other = other;
  assert_false (put_while (d, forget_it));
  assert_false (cdir_has (d, &middle.key, 1, SEGMENT));
  assert_true (put_while (d, do_nothing));
  assert_true (cdir_has (d, &middle.key, 1, SEGMENT));
}

/* It writes its old bytes over the newer ones, since the ways are the same. */
static void
a_newer_put_in_the_middle_of_a_put (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open (), *other = cdir_open ();
  struct esp_cdir_counters c;

  (void) state;
  middle.other = other;
  assert_false (put_while (d, forget_and_put_it));
  cdir_has (other, &middle.key, 2, SEGMENT);    /* version 2, or a miss */
  assert_true (cdir_put (other, &middle.key, 2, SEGMENT));
  assert_true (cdir_has (d, &middle.key, 2, SEGMENT));
  esp_cdir_counters (d, &c);
  assert_int_equal (c.used, SEGMENT);
}

static void
the_same_put_in_the_middle_of_a_put (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open (), *other = cdir_open ();

  (void) state;
  middle.other = other;
  assert_true (put_while (d, put_the_same));
  assert_true (cdir_has (other, &middle.key, 1, SEGMENT));
}

/* A writer that was stopped in its put goes on when its way is another's: all
 * that it wrote, head and data, stands where something newer should be.
 */
static void
what_comes_late_never_passes (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();
  struct esp_cache_key key = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  static uint8_t file[MAX];
  static struct cdir_set sets[12];
  struct stat st;

  (void) state;
  assert_true (cdir_put (d, &key, 1, SEGMENT));
  assert_int_equal (fstat (fd, &st), 0);
  assert_int_equal (esp_pread_all (fd, file, (size_t) st.st_size, 0), 0);
  esp_cdir_forget (d, &key);
  assert_true (cdir_put (d, &key, 2, SEGMENT));
  /* All but the ways themselves is as it was. */
  assert_int_equal (esp_pread_all (fd, sets, sizeof sets, CDIR_HEADER), 0);
  for (unsigned i = 0; i < 12; ++i)
    memcpy (file + CDIR_HEADER + i * sizeof sets[0], &sets[i],
            offsetof (struct cdir_set, head));
  assert_int_equal (esp_pwrite_all (fd, file, (size_t) st.st_size, 0), 0);
  assert_false (cdir_has (d, &key, 1, SEGMENT));
  assert_false (cdir_has (d, &key, 2, SEGMENT));
}

/* --- after a loss of power ------------------------------------------------ */

static void
an_unwritten_export_survives_a_reboot (void **state)
{
  struct esp_cache_key rp = cdir_key (ESP_CACHE_RP, 1, 18),
    export = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  struct esp_cdir *d = cdir_open ();
  struct esp_cdir_counters c;

  (void) state;
  assert_true (cdir_put (d, &rp, 0, SEGMENT));
  assert_true (cdir_put (d, &export, 0, SEGMENT));
  /* Of a restore point's lie the exports know nothing. */
  esp_cdir_forget (d, &(struct esp_cache_key) { .shift = 18 });
  esp_cdir_close (d);
  cdir_reboot ();
  d = cdir_open ();
  assert_true (cdir_has (d, &rp, 0, SEGMENT));
  assert_true (cdir_has (d, &export, 0, SEGMENT));
  esp_cdir_counters (d, &c);
  assert_int_equal (c.used, 2 * SEGMENT);
  esp_cdir_close (d);
}

static void
a_written_export_does_not (void **state)
{
  struct esp_cache_key rp = cdir_key (ESP_CACHE_RP, 1, 18),
    export = cdir_key (ESP_CACHE_EXPORT, 1, 18),
    other = cdir_key (ESP_CACHE_EXPORT, 2, 18);
  struct esp_cdir *d = cdir_open ();

  (void) state;
  assert_true (cdir_put (d, &rp, 0, SEGMENT));
  assert_true (cdir_put (d, &export, 0, SEGMENT));
  esp_cdir_forget (d, &other);
  esp_cdir_close (d);
  /* Of the same boot, the page cache is right. */
  d = cdir_open ();
  assert_true (cdir_has (d, &export, 0, SEGMENT));
  esp_cdir_close (d);
  for (unsigned i = 0; i < 2; ++i) {    /* also when nothing was written */
    cdir_reboot ();
    d = cdir_open ();
    assert_true (cdir_has (d, &rp, 0, SEGMENT));
    assert_false (cdir_has (d, &export, 0, SEGMENT));
    esp_cdir_close (d);
  }
  d = cdir_open ();
  assert_true (cdir_put (d, &export, 1, SEGMENT));
  assert_true (cdir_has (d, &export, 1, SEGMENT));
  esp_cdir_close (d);
}

static void
another_machine_uses_it (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();

  (void) state;
  cdir_reboot ();               /* while it is open */
  assert_null (esp_cdir_open (cdir_where, MAX, cdir_check));
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "another machine"));
  /* Who has it goes on. */
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18);
  assert_true (cdir_put (d, &key, 0, SEGMENT));
}

#define TEST(name) \
  cmocka_unit_test_setup_teardown (name, cdir_setup, cdir_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (what_was_put_is_there),
    TEST (nothing_else_is_there),
    TEST (lengths_that_no_segment_has),
    TEST (survives_a_restart),
    TEST (processes_share_it),
    TEST (key_files_side_by_side),
    TEST (a_forget_is_for_all_key_files),
    TEST (key_files_in_a_small_room),
    TEST (key_files_change),
    TEST (no_put_that_began_before_a_forget),
    TEST (a_forget_in_the_middle_of_a_put),
    TEST (a_newer_put_in_the_middle_of_a_put),
    TEST (the_same_put_in_the_middle_of_a_put),
    TEST (what_comes_late_never_passes),
    TEST (an_unwritten_export_survives_a_reboot),
    TEST (a_written_export_does_not),
    TEST (another_machine_uses_it),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
