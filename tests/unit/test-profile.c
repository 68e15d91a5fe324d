/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles: what merges, what a tip inherits, what is a boot, what is
 * asked for ahead of one.
 */

#include "rp-test.h"

#include "delay/player.h"
#include "delay/recording.h"
#include "store/have.h"

#define UNIT (UINT64_C (1) << ESP_PROFILE_SHIFT)

static const struct esp_profile_unit *
find_unit (const struct esp_profile *p, uint32_t unit)
{
  for (size_t i = 0; i < p->n; i++)
    if (p->units[i].unit == unit)
      return &p->units[i];
  return NULL;
}

static void
merge (struct esp_profile *p, const uint32_t *order, size_t n)
{
  assert_int_equal (esp_profile_merge (p, order, n), 0);
}

#define MERGE(p, ...) \
  merge (p, (const uint32_t[]) { __VA_ARGS__ }, \
         sizeof ((const uint32_t[]) { __VA_ARGS__ }) / sizeof (uint32_t))

/* The units of P in its order are those. */
static void
assert_units (const struct esp_profile *p, const uint32_t *units, size_t n)
{
  assert_int_equal (p->n, n);
  for (size_t i = 0; i < n; i++)
    assert_int_equal (p->units[i].unit, units[i]);
}

#define ASSERT_UNITS(p, ...) \
  assert_units (p, (const uint32_t[]) { __VA_ARGS__ }, \
                sizeof ((const uint32_t[]) { __VA_ARGS__ }) / sizeof (uint32_t))

static void
assert_same (const struct esp_profile *a, const struct esp_profile *b)
{
  assert_int_equal (a->boots, b->boots);
  assert_int_equal (a->n, b->n);
  for (size_t i = 0; i < a->n; i++) {
    assert_int_equal (a->units[i].unit, b->units[i].unit);
    assert_int_equal (a->units[i].boots, b->units[i].boots);
    assert_int_equal (a->units[i].rank, b->units[i].rank);
  }
}

/* --- merging ----------------------------------------------------------- */

static void
test_first_boot (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };

  (void) state;
  MERGE (&p, 9, 0, 4);
  ASSERT_UNITS (&p, 9, 0, 4);
  assert_int_equal (p.boots, 1);
  assert_int_equal (p.units[2].boots, 1);
  assert_int_equal (p.units[2].rank, 2 * 16);
}

static void
test_mean_rank (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };

  (void) state;
  MERGE (&p, 1, 2, 3);
  MERGE (&p, 3, 1, 2);
  MERGE (&p, 3, 2, 1);
  /* 1: (0 + 1 + 2) / 3; 2: (1 + 2 + 1) / 3; 3: (2 + 0 + 0) / 3 */
  ASSERT_UNITS (&p, 3, 1, 2);
  assert_in_range (p.units[0].rank, 10, 11);
  assert_int_equal (p.units[1].rank, 16);
  assert_in_range (p.units[2].rank, 21, 22);
}

static void
test_bits_and_wanted (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };

  (void) state;
  MERGE (&p, 1, 2);
  MERGE (&p, 1);
  assert_int_equal (find_unit (&p, 1)->boots, 3);
  assert_int_equal (find_unit (&p, 2)->boots, 2);
  assert_true (esp_profile_wanted (&p, find_unit (&p, 2)));    /* 1 of 2 */
  MERGE (&p, 1, 5);
  assert_int_equal (find_unit (&p, 2)->boots, 4);
  assert_false (esp_profile_wanted (&p, find_unit (&p, 2)));   /* 1 of 3 */
  assert_false (esp_profile_wanted (&p, find_unit (&p, 5)));
  assert_true (esp_profile_wanted (&p, find_unit (&p, 1)));
}

static void
test_sixteen_boots (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };

  (void) state;
  MERGE (&p, 1, 7);
  for (int i = 1; i < 16; i++)
    MERGE (&p, 1);
  assert_non_null (find_unit (&p, 7));
  MERGE (&p, 1);
  assert_null (find_unit (&p, 7));
  assert_int_equal (find_unit (&p, 1)->boots, 0xffff);
  assert_int_equal (p.boots, 17);
}

static void
test_units_max (void **state)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  CLEANUP_FREE uint32_t *order = calloc (ESP_PROFILE_UNITS_MAX, 4);

  (void) state;
  for (uint32_t i = 0; i < ESP_PROFILE_UNITS_MAX; i++)
    order[i] = i;
  merge (&p, order, ESP_PROFILE_UNITS_MAX);
  for (uint32_t i = 0; i < 1000; i++)
    order[i] = ESP_PROFILE_UNITS_MAX + i;
  order[1000] = 77777;
  merge (&p, order, 1001);
  assert_int_equal (p.n, ESP_PROFILE_UNITS_MAX);
  /* Two boots touched it; of the others the latest go. */
  assert_non_null (find_unit (&p, 77777));
  assert_non_null (find_unit (&p, 5));
  assert_null (find_unit (&p, ESP_PROFILE_UNITS_MAX - 1));
  for (size_t i = 1; i < p.n; i++)
    assert_true (p.units[i - 1].rank <= p.units[i].rank);
}

/* Against plain arrays indexed by unit. */
static void
test_merge_against_naive (void **state)
{
  enum { UNITS = 50 };
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  uint16_t bits[UNITS] = { 0 };

  (void) state;
  srand (unit_seed ());
  for (int boot = 0; boot < 40; boot++) {
    uint32_t order[UNITS];
    size_t n = 0;

    for (uint32_t u = 0; u < UNITS; u++) {
      bits[u] = (uint16_t) (bits[u] << 1);
      if (rand () % 8 == 0) {
        bits[u] |= 1;
        order[n++] = u;
      }
    }
    merge (&p, order, n);
    for (uint32_t u = 0; u < UNITS; u++) {
      const struct esp_profile_unit *found = find_unit (&p, u);

      assert_int_equal (found ? found->boots : 0, bits[u]);
    }
  }
}

static void
test_union (void **state)
{
  CLEANUP_PROFILE struct esp_profile a = { 0 }, b = { 0 }, c = { 0 };

  (void) state;
  MERGE (&a, 1, 2, 3);
  MERGE (&a, 1, 2, 3);
  MERGE (&b, 4, 1);
  MERGE (&c, 4, 1);
  /* With itself it stays. */
  assert_int_equal (esp_profile_union (&c, &b), 0);
  assert_same (&c, &b);
  /* Either way round the same. */
  assert_int_equal (esp_profile_union (&c, &a), 0);
  assert_int_equal (esp_profile_union (&a, &b), 0);
  assert_same (&c, &a);
  assert_int_equal (a.boots, 2);
  assert_int_equal (find_unit (&a, 1)->boots, 3);
  assert_int_equal (find_unit (&a, 4)->boots, 1);
  assert_int_equal (a.n, 4);
}

/* --- files ------------------------------------------------------------- */

#define DISK (64 * UNIT)

static void
save (struct tree *t, int i, const struct esp_profile *p)
{
  if (esp_rp_profile_save (t->store, &t->m[i].uuid, p) == -1)
    fail_msg ("%s", unit_error);
}

/* A child of PARENT that writes the first block of UNIT. */
static int
add_writer (struct tree *t, int parent, uint32_t unit)
{
  struct member *m = &t->m[t->n];
  struct esp_draft *draft;
  char name[32];

  snprintf (name, sizeof name, "rp-%d", t->n);
  draft = tree_begin (t, name, parent, DISK);
  assert_non_null (draft);
  *m = (struct member) { .size = DISK, .parent = parent };
  m->bytes = calloc (1, DISK);
  draft_put (draft, m->bytes, unit * (UNIT / ESP_BLOCK_SIZE), 1);
  assert_int_equal (esp_draft_commit (draft, &m->uuid), 0);
  return t->n++;
}

static void
test_save_load (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 }, q = { 0 };
  int r = tree_add (t, -1, DISK, 10);

  assert_int_equal (esp_rp_profile_load (t->store, &t->m[r].uuid, &q), -1);
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
  MERGE (&p, 3, 1, 63);
  MERGE (&p, 3, 2);
  save (t, r, &p);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[r].uuid, &q), 0);
  assert_same (&p, &q);
}

static void
test_inherit (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10);
  int child = add_writer (t, root, 5);
  int grandchild = add_writer (t, child, 7);

  assert_int_equal (esp_rp_profile (t->store, &t->m[child].uuid, &q), 0);
  assert_int_equal (q.n, 0);
  MERGE (&p, 9, 5, 7, 1);
  save (t, root, &p);

  assert_int_equal (esp_rp_profile (t->store, &t->m[root].uuid, &q), 0);
  ASSERT_UNITS (&q, 9, 5, 7, 1);
  esp_profile_clear (&q);
  assert_int_equal (esp_rp_profile (t->store, &t->m[child].uuid, &q), 0);
  ASSERT_UNITS (&q, 9, 7, 1);
  esp_profile_clear (&q);
  assert_int_equal (esp_rp_profile (t->store, &t->m[grandchild].uuid, &q), 0);
  ASSERT_UNITS (&q, 9, 1);
  esp_profile_clear (&q);

  /* The nearest one counts, and its own writes are in it. */
  MERGE (&p, 5);
  save (t, child, &p);
  assert_int_equal (esp_rp_profile (t->store, &t->m[child].uuid, &q), 0);
  assert_int_equal (q.boots, 2);
  assert_int_equal (q.n, 4);
  esp_profile_clear (&q);
}

static void
merge_into_child (struct tree *t, int parent)
{
  if (esp_rp_merge (t->store, &t->m[parent].uuid, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
}

/* What a child went by stays when its parent is merged into it. */
static void
test_merge_keeps_what_was_inherited (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10);
  int parent = add_writer (t, root, 5);
  int child = add_writer (t, parent, 7);
  int grandchild = add_writer (t, child, 9);

  MERGE (&p, 9, 5, 7, 1);
  save (t, parent, &p);
  merge_into_child (t, parent);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[child].uuid, &q), 0);
  ASSERT_UNITS (&q, 9, 5, 1);
  esp_profile_clear (&q);
  assert_int_equal (esp_rp_profile (t->store, &t->m[grandchild].uuid, &q), 0);
  ASSERT_UNITS (&q, 5, 1);
  esp_profile_clear (&q);
}

static void
test_merge_leaves_the_childs_own (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 }, own = { 0 };
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10);
  int child = add_writer (t, root, 5);

  MERGE (&p, 9, 5, 7, 1);
  MERGE (&own, 2, 3);
  save (t, root, &p);
  save (t, child, &own);
  merge_into_child (t, root);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[child].uuid, &q), 0);
  assert_same (&own, &q);
  esp_profile_clear (&q);
}

/* A grandparent's profile is inherited as before, not copied. */
static void
test_merge_of_one_without_makes_none (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10);
  int parent = add_writer (t, root, 5);
  int child = add_writer (t, parent, 7);

  MERGE (&p, 9, 5, 7, 1);
  save (t, root, &p);
  merge_into_child (t, parent);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[child].uuid, &q), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_rp_profile (t->store, &t->m[child].uuid, &q), 0);
  ASSERT_UNITS (&q, 9, 1);
  esp_profile_clear (&q);
}

/* Change a byte of member I's profile. */
static void
damage (struct tree *t, int i)
{
  char text[ESP_UUID_TEXT], *path;
  int fd;
  char byte;

  assert_true (asprintf (&path, "%s/restore-points/%s/" ESP_RP_PROFILE, t->dir,
                         esp_uuid_text (&t->m[i].uuid, text)) > 0);
  fd = open (path, O_RDWR);
  assert_true (fd >= 0);
  assert_int_equal (pread (fd, &byte, 1, 50), 1);
  byte = (char) (byte ^ 4);
  assert_int_equal (pwrite (fd, &byte, 1, 50), 1);
  close (fd);
  free (path);
}

static int
merge_one (void *arg, struct esp_profile *p)
{
  const uint32_t order[] = { 1, 2, 3 };

  (void) arg;
  return esp_profile_merge (p, order, 3);
}

/* Of a restore point that was made here as well. */
static void
test_check_finds_damage (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 }, q = { 0 };
  int root = tree_add (t, -1, DISK, 10);
  unsigned left;

  MERGE (&p, 9, 8);
  save (t, root, &p);
  assert_int_equal (esp_store_check (t->store, false, NULL, NULL, &left), 0);
  assert_int_equal (left, 0);
  damage (t, root);
  assert_int_equal (esp_store_check (t->store, false, NULL, NULL, &left), 0);
  assert_int_equal (left, 1);
  assert_int_equal (esp_store_check (t->store, true, NULL, NULL, &left), 0);
  assert_int_equal (left, 0);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[root].uuid, &q), -1);
  assert_int_equal (errno, ENOENT);
}

static void
test_damage_counts_as_none (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10);
  int child = add_writer (t, root, 5);

  MERGE (&p, 9, 8);
  save (t, root, &p);
  save (t, child, &p);
  damage (t, child);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[child].uuid, &q), -1);
  assert_int_equal (errno, EBADMSG);

  /* The ancestor's is used instead, and it is said. */
  unit_error[0] = 0;
  assert_int_equal (esp_rp_profile (t->store, &t->m[child].uuid, &q), 0);
  assert_non_null (strstr (unit_error, "boot profile is not used"));
  ASSERT_UNITS (&q, 9, 8);
  esp_profile_clear (&q);

  /* The next boot begins a new one. */
  assert_int_equal (esp_rp_profile_change (t->store, &t->m[child].uuid,
                                           merge_one, NULL), 0);
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[child].uuid, &q), 0);
  ASSERT_UNITS (&q, 1, 2, 3);
  esp_profile_clear (&q);
}

static int
change_often (const char *dir, const esp_uuid *uuid, int times)
{
  struct esp_store *store = esp_store_open (dir);

  while (store && times > 0) {
    if (esp_rp_profile_change (store, uuid, merge_one, NULL) == 0)
      times--;
    else if (errno != EAGAIN)
      break;
  }
  return times;
}

static void
test_processes_lose_no_change (void **state)
{
  struct tree *t = *state;
  struct esp_profile q;
  int root = tree_add (t, -1, DISK, 10), status;

  for (int i = 0; i < 4; i++)
    if (fork () == 0)
      _exit (change_often (t->dir, &t->m[root].uuid, 5));
  for (int i = 0; i < 4; i++) {
    assert_true (wait (&status) > 0);
    assert_int_equal (status, 0);
  }
  assert_int_equal (esp_rp_profile_load (t->store, &t->m[root].uuid, &q), 0);
  assert_int_equal (q.boots, 20);
  esp_profile_clear (&q);
}

static void
test_save_without_restore_point (void **state)
{
  struct tree *t = *state;
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  esp_uuid uuid = { { 1 } };

  assert_int_equal (esp_rp_profile_save (t->store, &uuid, &p), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_rp_profile_change (t->store, &uuid, merge_one, NULL),
                    -1);
  assert_int_equal (errno, ENOENT);
}

/* --- recordings ---------------------------------------------------------- */

static void
touch (struct esp_recording *rec, uint32_t unit, uint64_t now)
{
  assert_true (esp_recording_touch (rec, unit * UNIT, 4096, now));
}

static void
test_recording_order (void **state)
{
  struct esp_recording *rec = esp_recording_new ();
  const uint32_t *order;
  size_t n;

  (void) state;
  touch (rec, 0, 0);
  touch (rec, 70000, 1);
  touch (rec, 0, 2);
  /* Across two units, and one byte of a third. */
  assert_true (esp_recording_touch (rec, 9 * UNIT + 5, 2 * UNIT - 4, 3));
  assert_true (esp_recording_touch (rec, 3 * UNIT, 0, 3));
  order = esp_recording_order (rec, &n);
  assert_int_equal (n, 5);
  assert_int_equal (order[0], 0);
  assert_int_equal (order[1], 70000);
  assert_int_equal (order[2], 9);
  assert_int_equal (order[3], 10);
  assert_int_equal (order[4], 11);
  esp_recording_free (rec);
}

static void
test_recording_ends (void **state)
{
  struct esp_recording *rec = esp_recording_new ();

  (void) state;
  /* A new unit now and then keeps it going, an old one does not. */
  touch (rec, 0, 1000);
  touch (rec, 1, 1000 + ESP_RECORDING_MS_IDLE - 1);
  touch (rec, 0, 1000 + 2 * ESP_RECORDING_MS_IDLE - 2);
  assert_false (esp_recording_touch (rec, 2 * UNIT, 1,
                                     1000 + 2 * ESP_RECORDING_MS_IDLE - 1));
  esp_recording_free (rec);

  rec = esp_recording_new ();
  for (uint32_t i = 0; i < ESP_RECORDING_MS_MAX / 1000; i++)
    touch (rec, i, i * 1000);
  assert_false (esp_recording_touch (rec, 5000 * UNIT, 1,
                                     ESP_RECORDING_MS_MAX));
  esp_recording_free (rec);
}

static void
test_recording_is_bounded (void **state)
{
  struct esp_recording *rec = esp_recording_new ();
  size_t n;

  (void) state;
  for (uint64_t i = 0; i < ESP_RECORDING_UNITS_MAX; i++)
    touch (rec, (uint32_t) (i * 7919), 0);
  esp_recording_touch (rec, 12345677 * UNIT, 1, 0);
  assert_true (esp_recording_over (rec, 0));
  esp_recording_order (rec, &n);
  assert_int_equal (n, ESP_RECORDING_UNITS_MAX);
  esp_recording_free (rec);
}

/* A client that goes on somewhere in the disk is given up at once. */
static void
test_recording_without_a_beginning (void **state)
{
  struct esp_recording *rec = esp_recording_new ();
  uint32_t i = 0;

  (void) state;
  while (i < 100 && esp_recording_touch (rec, (50 + i) * UNIT, 1, 0))
    i++;
  assert_in_range (i, 16, 18);
  esp_recording_free (rec);
}

/* As a guest reads: files one after another, but anywhere. */
static size_t
boot_like (uint32_t *order)
{
  size_t n = 0;

  order[n++] = 0;
  for (uint32_t file = 0; file < 20; file++)
    for (uint32_t i = 0; i < 10; i++)
      order[n++] = 1000 + (file * 7 % 20) * 100 + i;
  return n;
}

static void
test_is_boot (void **state)
{
  uint32_t order[4096];
  size_t n = boot_like (order);

  (void) state;
  assert_true (esp_recording_is_boot (order, n));
  assert_false (esp_recording_is_boot (order, 31));
  order[0] = 5;
  assert_false (esp_recording_is_boot (order, n));
}

/* As nbdcopy or qemu-img convert: in order but for what is in flight, with
 * holes left out.
 */
static void
test_copy_is_no_boot (void **state)
{
  uint32_t order[4096];

  (void) state;
  srand (unit_seed ());
  for (uint32_t i = 0; i < 4096; i++)
    order[i] = i * 3;
  assert_false (esp_recording_is_boot (order, 4096));
  for (uint32_t i = 256; i + 256 <= 4096; i += 256)
    for (uint32_t k = 0; k < 256; k++) {
      uint32_t a = i + (uint32_t) rand () % 256, b = i + k, tmp = order[a];

      order[a] = order[b];
      order[b] = tmp;
    }
  assert_false (esp_recording_is_boot (order, 4096));
}

/* --- playing ------------------------------------------------------------- */

/* An engine that notes what it is asked for. */
struct engine {
  uint64_t offset[4096], len[4096];
  unsigned n;
  uint64_t pending;
  uint64_t local_from;          /* disk that is local: from here on */
  bool busy;
};

static int
engine_ahead (void *arg, uint64_t offset, uint64_t len)
{
  struct engine *e = arg;

  if (e->busy)
    return -1;
  if (offset >= e->local_from)
    return 0;
  e->offset[e->n] = offset;
  e->len[e->n++] = len;
  e->pending += len;
  return 1;
}

static uint64_t
engine_pending (void *arg)
{
  struct engine *e = arg;

  return e->pending;
}

static const struct esp_player_ops engine_ops = {
  .ahead = engine_ahead, .pending = engine_pending
};

static struct esp_player *
player_of (const uint32_t *order, size_t n, uint64_t size)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  struct esp_player *player;

  merge (&p, order, n);
  player = esp_player_new (&p, size);
  assert_non_null (player);
  return player;
}

static void
test_player_joins_neighbours (void **state)
{
  const uint32_t order[] = { 9, 20, 10, 21, 11, 5 };
  struct esp_player *p = player_of (order, 6, 100 * UNIT);
  struct engine e = { .local_from = UINT64_MAX };

  (void) state;
  assert_false (esp_player_pump (p, &engine_ops, &e));
  assert_int_equal (e.n, 3);
  assert_int_equal (e.offset[0], 9 * UNIT);
  assert_int_equal (e.len[0], 3 * UNIT);
  assert_int_equal (e.offset[1], 20 * UNIT);
  assert_int_equal (e.len[1], 2 * UNIT);
  assert_int_equal (e.offset[2], 5 * UNIT);
  esp_player_free (p);
}

static void
test_player_leaves_out (void **state)
{
  const uint32_t order[] = { 9, 30, 4, 80, 99, 200 };
  struct esp_player *p = player_of (order, 6, 99 * UNIT + 4096);
  struct engine e = { .local_from = 80 * UNIT };
  uint64_t asked, used;

  (void) state;
  /* 30 is touched already, 80 is local, 200 behind the disk's end. */
  assert_true (esp_player_touch (p, 30 * UNIT + 5, 100));
  assert_false (esp_player_touch (p, 30 * UNIT, UNIT));
  assert_false (esp_player_pump (p, &engine_ops, &e));
  assert_int_equal (e.n, 2);
  assert_int_equal (e.offset[0], 9 * UNIT);
  assert_int_equal (e.offset[1], 4 * UNIT);
  assert_true (esp_player_touch (p, 9 * UNIT, UNIT));
  assert_true (esp_player_touch (p, 80 * UNIT, UNIT));
  esp_player_counts (p, &asked, &used);
  assert_int_equal (asked, 2);
  assert_int_equal (used, 1);
  esp_player_free (p);
}

static size_t
long_order (uint32_t *order)
{
  for (uint32_t i = 0; i < 4000; i++)
    order[i] = i * 2;
  return 4000;
}

static void
test_player_knows (void **state)
{
  uint32_t order[4000];
  struct esp_player *p = player_of (order, long_order (order), 8000 * UNIT);
  struct engine e = { .local_from = UINT64_MAX };

  (void) state;
  assert_false (esp_player_knows (p, 0, UNIT));
  assert_true (esp_player_pump (p, &engine_ops, &e));
  assert_true (esp_player_knows (p, 0, UNIT));
  assert_true (esp_player_knows (p, 7 * UNIT, UNIT + 1));       /* into 8 */
  assert_false (esp_player_knows (p, 8 * UNIT, UNIT + 1));      /* into 9 */
  assert_false (esp_player_knows (p, 7000 * UNIT, 1));          /* later */
  esp_player_free (p);
}

static void
test_player_clips_to_the_disk (void **state)
{
  const uint32_t order[] = { 98, 99 };
  struct esp_player *p = player_of (order, 2, 99 * UNIT + 4096);
  struct engine e = { .local_from = UINT64_MAX };

  (void) state;
  assert_false (esp_player_pump (p, &engine_ops, &e));
  assert_int_equal (e.n, 1);
  assert_int_equal (e.len[0], UNIT + 4096);
  esp_player_free (p);
}

/* Pump until nothing more is asked for, as if all came at once. */
static bool
pump_all (struct esp_player *p, struct engine *e)
{
  unsigned before;
  bool more;

  do {
    before = e->n;
    e->pending = 0;
    more = esp_player_pump (p, &engine_ops, e);
  } while (more && e->n != before);
  return more;
}

static void
test_player_waits_for_the_line (void **state)
{
  uint32_t order[4000];
  struct esp_player *p = player_of (order, long_order (order), 8000 * UNIT);
  struct engine e = { .local_from = UINT64_MAX };

  (void) state;
  assert_true (esp_player_pump (p, &engine_ops, &e));
  assert_int_equal (e.n, ESP_PLAYER_PENDING_MAX / UNIT);
  assert_true (esp_player_pump (p, &engine_ops, &e));
  assert_int_equal (e.n, ESP_PLAYER_PENDING_MAX / UNIT);
  e.pending = 0;
  e.busy = true;
  assert_true (esp_player_pump (p, &engine_ops, &e));
  e.busy = false;
  assert_true (esp_player_pump (p, &engine_ops, &e));
  /* Nothing was left out meanwhile. */
  for (unsigned i = 0; i < e.n; i++)
    assert_int_equal (e.offset[i], order[i] * UNIT);
  esp_player_free (p);
}

static void
test_player_stops_where_a_boot_leaves_it (void **state)
{
  uint32_t order[4000];
  struct esp_player *p = player_of (order, long_order (order), 8000 * UNIT);
  struct engine e = { .local_from = UINT64_MAX };

  (void) state;
  assert_true (pump_all (p, &e));
  assert_in_range (e.n, ESP_PLAYER_UNUSED_MAX,
                   ESP_PLAYER_UNUSED_MAX * 3 / 2);
  /* One that comes late moves it a little. */
  unsigned before = e.n;
  for (uint32_t i = 0; i < 30; i++)
    assert_true (esp_player_touch (p, order[i] * UNIT, 1));
  assert_true (pump_all (p, &e));
  assert_in_range (e.n - before, 30, 60);
  esp_player_free (p);
}

/* Four of five units are used: it goes on to the end. */
static void
test_player_follows_a_boot (void **state)
{
  uint32_t order[4000];
  size_t n = long_order (order), i = 0;
  struct esp_player *p = player_of (order, n, 8000 * UNIT);
  struct engine e = { .local_from = UINT64_MAX };
  uint64_t asked, used;

  (void) state;
  while (pump_all (p, &e)) {
    assert_true (i < n);
    for (size_t end = i + 100; i < end && i < n; i++)
      if (i % 5)
        esp_player_touch (p, order[i] * UNIT, 1);
  }
  assert_int_equal (e.n, n);
  for (; i < n; i++)
    if (i % 5)
      esp_player_touch (p, order[i] * UNIT, 1);
  esp_player_counts (p, &asked, &used);
  assert_int_equal (asked, 4000);
  assert_int_equal (used, 3200);
  esp_player_free (p);
}

int
main (void)
{
#define IN_TREE(test) \
  cmocka_unit_test_setup_teardown (test, tree_setup, tree_teardown)
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_first_boot),
    cmocka_unit_test (test_mean_rank),
    cmocka_unit_test (test_bits_and_wanted),
    cmocka_unit_test (test_sixteen_boots),
    cmocka_unit_test (test_units_max),
    cmocka_unit_test (test_merge_against_naive),
    cmocka_unit_test (test_union),
    IN_TREE (test_save_load),
    IN_TREE (test_inherit),
    IN_TREE (test_merge_keeps_what_was_inherited),
    IN_TREE (test_merge_leaves_the_childs_own),
    IN_TREE (test_merge_of_one_without_makes_none),
    IN_TREE (test_check_finds_damage),
    IN_TREE (test_damage_counts_as_none),
    IN_TREE (test_processes_lose_no_change),
    IN_TREE (test_save_without_restore_point),
    cmocka_unit_test (test_recording_order),
    cmocka_unit_test (test_recording_ends),
    cmocka_unit_test (test_recording_is_bounded),
    cmocka_unit_test (test_recording_without_a_beginning),
    cmocka_unit_test (test_is_boot),
    cmocka_unit_test (test_copy_is_no_boot),
    cmocka_unit_test (test_player_joins_neighbours),
    cmocka_unit_test (test_player_leaves_out),
    cmocka_unit_test (test_player_knows),
    cmocka_unit_test (test_player_clips_to_the_disk),
    cmocka_unit_test (test_player_waits_for_the_line),
    cmocka_unit_test (test_player_stops_where_a_boot_leaves_it),
    cmocka_unit_test (test_player_follows_a_boot),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
