/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles within the engine: recorder.c, over an engine that only
 * notes what it is asked for.
 */

#include "rp-test.h"

#include <sys/stat.h>

#include "../../common/delay/recorder.c"

#define UNIT (UINT64_C (1) << ESP_PROFILE_SHIFT)
#define DISK (1024 * UNIT)
#define BOOT_UNITS 100u

/* What stands for the engine: a reader with its image. */
struct test_reader { struct esp_delay_reader base; struct esp_image *image; };

static atomic_uint asked;
static bool delayed;
static uint64_t asked_first;

int
reader_ahead (struct esp_delay_reader *reader, uint64_t offset,
              uint64_t count)
{
  (void) reader;
  if (atomic_fetch_add (&asked, (unsigned) (count / UNIT)) == 0)
    asked_first = offset;
  return 1;
}

uint64_t
delay_ahead_pending (struct esp_delay *delay)
{
  (void) delay;
  return 0;
}

struct esp_image *
reader_image (const struct esp_delay_reader *reader)
{
  return ((const struct test_reader *) reader)->image;
}

bool
reader_is_delayed (struct esp_delay_reader *reader)
{
  (void) reader;
  return delayed;
}

/* --- clients ------------------------------------------------------------ */

/* A tree with a root, its image, boots. */
struct world {
  struct tree *t;
  struct test_reader reader;
  struct boots *boots;
};

static void
world_open (struct world *w, struct tree *t)
{
  int root = tree_add (t, -1, DISK, 4);

  w->t = t;
  w->reader.image = esp_image_open (t->store, &t->m[root].uuid);
  w->boots = boots_new (NULL, t->store);
  assert_non_null (w->boots);
  atomic_store (&asked, 0);
  delayed = false;
}

static void
world_close (struct world *w)
{
  boots_free (w->boots);
  esp_image_close (w->reader.image);
}

static bool
read_unit (struct recorder *rec, uint32_t unit)
{
  return recorder_touch (rec, unit * UNIT, 4096);
}

/* The unit that a boot reads at PLACE: 0, then from the end in runs of 10. */
static uint32_t
boot_unit (uint32_t place)
{
  return place == 0 ? 0 : 1000 - place / 10 * 20 + place % 10;
}

static void
boot (struct recorder *rec)
{
  for (uint32_t i = 0; i < BOOT_UNITS; i++)
    read_unit (rec, boot_unit (i));
}

/* How many boots the profile has; 0: there is none. */
static unsigned
boots_known (struct world *w)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };

  return esp_rp_profile_load (w->t->store, esp_image_uuid (w->reader.image),
                              &p) == 0 ? p.boots : 0;
}

/* --- tests --------------------------------------------------------------- */

static void
test_boot_is_learnt (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct world w;
  struct recorder *rec;

  world_open (&w, *state);
  rec = recorder_open (w.boots, &w.reader.base);
  boot (rec);
  boots_tick (w.boots);
  assert_int_equal (boots_known (&w), 0);       /* it goes on */
  recorder_close (rec);
  boots_tick (w.boots);
  assert_int_equal (esp_rp_profile_load (w.t->store,
                                         esp_image_uuid (w.reader.image),
                                         &p), 0);
  assert_int_equal (p.n, BOOT_UNITS);
  for (uint32_t i = 0; i < BOOT_UNITS; i++)
    assert_int_equal (p.units[i].unit, boot_unit (i));
  world_close (&w);
}

static void
test_copy_is_not_learnt (void **state)
{
  struct world w;
  struct recorder *rec;

  world_open (&w, *state);
  rec = recorder_open (w.boots, &w.reader.base);
  for (uint32_t i = 0; i < 1024; i++)
    read_unit (rec, i);
  recorder_close (rec);
  boots_tick (w.boots);
  assert_null (w.boots->tips);
  assert_int_equal (boots_known (&w), 0);
  world_close (&w);
}

static ino_t
profile_inode (struct world *w)
{
  char text[ESP_UUID_TEXT], name[ESP_UUID_TEXT + 32];
  struct stat st;

  snprintf (name, sizeof name, "%s/" ESP_RP_PROFILE,
            esp_uuid_text (esp_image_uuid (w->reader.image), text));
  assert_int_equal (fstatat (esp_store_rps_fd (w->t->store), name, &st, 0), 0);
  return st.st_ino;
}

/* 64 clients at once: four are recorded, and saved together. */
static void
test_a_storm_is_saved_once (void **state)
{
  struct recorder *recs[64];
  struct world w;
  ino_t inode;

  world_open (&w, *state);
  for (int i = 0; i < 64; i++)
    recs[i] = recorder_open (w.boots, &w.reader.base);
  for (int i = 0; i < 64; i++)
    boot (recs[i]);
  for (int i = 0; i < 3; i++) {
    recorder_close (recs[i]);
    boots_tick (w.boots);
    assert_int_equal (boots_known (&w), 0);
  }
  recorder_close (recs[3]);
  boots_tick (w.boots);
  assert_int_equal (boots_known (&w), TIP_RECORDINGS);
  inode = profile_inode (&w);
  for (int i = 4; i < 64; i++) {
    recorder_close (recs[i]);
    boots_tick (w.boots);
  }
  assert_true (profile_inode (&w) == inode);
  assert_int_equal (boots_known (&w), TIP_RECORDINGS);
  world_close (&w);
}

/* What was learnt last is saved when the engine ends. */
static void
test_saved_at_the_end (void **state)
{
  struct world w;
  struct recorder *rec;

  world_open (&w, *state);
  rec = recorder_open (w.boots, &w.reader.base);
  boot (rec);
  recorder_close (rec);
  boots_free (w.boots);
  w.boots = NULL;
  assert_int_equal (boots_known (&w), 1);
  world_close (&w);
}

/* The second server has the profile: the first read has all of it fetched. */
static void
test_profile_is_played (void **state)
{
  struct world w;
  struct recorder *rec;

  world_open (&w, *state);
  rec = recorder_open (w.boots, &w.reader.base);
  boot (rec);
  recorder_close (rec);
  boots_tick (w.boots);

  /* Nothing is missing: nothing is asked for, and touches cost nothing. */
  rec = recorder_open (w.boots, &w.reader.base);
  for (uint32_t i = 0; i < 20; i++)
    read_unit (rec, boot_unit (BOOT_UNITS - 1 - i));
  assert_int_equal (asked, 0);
  assert_false (read_unit (rec, boot_unit (99)));
  recorder_close (rec);
  boots_tick (w.boots);

  delayed = true;
  rec = recorder_open (w.boots, &w.reader.base);
  assert_int_equal (asked, 0);                  /* it may only look */
  read_unit (rec, 0);
  assert_int_equal (asked, BOOT_UNITS - 1);
  assert_int_equal (asked_first, 1000 * UNIT + UNIT);
  recorder_close (rec);
  world_close (&w);
}

/* A restore point that is deleted meanwhile is no error. */
static void
test_tip_is_gone (void **state)
{
  struct world w;
  struct recorder *rec;

  world_open (&w, *state);
  rec = recorder_open (w.boots, &w.reader.base);
  boot (rec);
  recorder_close (rec);
  esp_image_close (w.reader.image);
  w.reader.image = NULL;
  assert_int_equal (esp_rp_delete (w.t->store, &w.t->m[0].uuid), 0);
  w.t->m[0].gone = true;
  unit_error[0] = 0;
  boots_tick (w.boots);
  assert_string_equal (unit_error, "");
  assert_null (w.boots->tips);
  world_close (&w);
}

struct client {
  pthread_t thread;
  struct world *w;
};

static void *
client_run (void *arg)
{
  struct client *c = arg;

  for (int i = 0; i < 20; i++) {
    struct recorder *rec = recorder_open (c->w->boots, &c->w->reader.base);

    boot (rec);
    recorder_close (rec);
  }
  return NULL;
}

/* For the thread sanitizer, and that nothing is lost or kept. */
static void
test_many_threads (void **state)
{
  struct client clients[8];
  struct world w;

  world_open (&w, *state);
  delayed = true;
  for (int i = 0; i < 8; i++) {
    clients[i].w = &w;
    assert_int_equal (pthread_create (&clients[i].thread, NULL, client_run,
                                      &clients[i]), 0);
  }
  for (int i = 0; i < 20; i++)
    boots_tick (w.boots);
  for (int i = 0; i < 8; i++)
    pthread_join (clients[i].thread, NULL);
  boots_tick (w.boots);
  assert_null (w.boots->tips);
  assert_int_equal (w.boots->recordings, 0);
  assert_true (boots_known (&w) > 0);
  world_close (&w);
}

int
main (void)
{
#define IN_TREE(test) \
  cmocka_unit_test_setup_teardown (test, tree_setup, tree_teardown)
  const struct CMUnitTest tests[] = {
    IN_TREE (test_boot_is_learnt),
    IN_TREE (test_copy_is_not_learnt),
    IN_TREE (test_a_storm_is_saved_once),
    IN_TREE (test_saved_at_the_end),
    IN_TREE (test_profile_is_played),
    IN_TREE (test_tip_is_gone),
    IN_TREE (test_many_threads),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
