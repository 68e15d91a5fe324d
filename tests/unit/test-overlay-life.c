/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of overlays: what is found again, what is removed and when, who
 * may open, what an operator sees and does.
 */

#include "overlay-test.h"
#include "overlay-hooks.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "util/doc.h"

#define SIZE (UINT64_C (1) << 20)

static const esp_uuid tip_a = { { 1 } }, tip_b = { { 2 } };

static bool
is_there (struct env *e, const char *path)
{
  char full[512];

  snprintf (full, sizeof full, "%s/%s", e->dir, path);
  return access (full, F_OK) == 0;
}

static void
set_time (struct env *e, const char *path, time_t t)
{
  char full[512];
  const struct timespec ts[2] = { { .tv_sec = t }, { .tv_sec = t } };

  snprintf (full, sizeof full, "%s/%s", e->dir, path);
  assert_int_equal (utimensat (AT_FDCWD, full, ts, 0), 0);
}

static void
spoil (struct env *e, const char *path, const char *text)
{
  char full[512];

  snprintf (full, sizeof full, "%s/%s", e->dir, path);
  int fd = open (full, O_WRONLY | O_TRUNC);
  assert_int_equal (write (fd, text, strlen (text)), strlen (text));
  close (fd);
}

static int
overlays_fd (struct env *e)
{
  int fd = esp_open_dir (AT_FDCWD, e->dir);
  assert_true (fd >= 0);
  return fd;
}

/* Wait until PATH is no longer there, at most 20 s. */
static void
wait_until_gone (struct env *e, const char *path)
{
  for (unsigned i = 0; i < 2000; ++i) {
    if (!is_there (e, path))
      return;
    usleep (10000);
  }
  fail_msg ("%s is still there", path);
}

static void
kept_is_found_again (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  OK (WRITE (&e, "kept", 4, 5000));
  env_close (&e);
  env_open (&e);
  assert_bytes (&e, 5000, 1, 'k');
  assert_int_equal (esp_overlay_used (e.o), 4096);
  env_end (&e);
}

static void
nothing_written_leaves_nothing (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  assert_true (is_there (&e, "cafe/0/seat-7/lock"));
  assert_false (is_there (&e, "cafe/0/seat-7/overlay"));
  assert_below (&e, 0, SIZE);
  OK (FLUSH (&e));
  env_close (&e);
  assert_false (is_there (&e, "cafe"));
  env_end (&e);
}

static void
private_ones_leave_nothing_and_share_nothing (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open_id (&e, NULL);
  OK (WRITE (&e, "x", 1, 0));
  OK (FLUSH (&e));
  struct esp_overlay *first = e.o;
  env_open_id (&e, NULL);
  assert_below (&e, 0, SIZE);
  esp_overlay_close (first);
  int fd = overlays_fd (&e);
  struct esp_overlay_info_list list;
  assert_int_equal (esp_overlay_list (fd, NULL, &list), 0);
  assert_int_equal (list.n, 0);
  close (fd);
  env_end (&e);
}

static void
connections_of_a_client_share_and_clients_do_not (void **state)
{
  struct env e;
  const struct esp_overlay_id seat8 = { "cafe", "0", "seat-8" };

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  struct esp_overlay *first = e.o;
  OK (WRITE (&e, "x", 1, 0));
  env_open (&e);
  assert_ptr_equal (e.o, first);
  esp_overlay_close (first);            /* one of two */
  assert_bytes (&e, 0, 1, 'x');
  env_open_id (&e, &seat8);
  assert_below (&e, 0, SIZE);
  esp_overlay_close (first);
  env_end (&e);
}

static void
memory_ends_with_its_last_connection (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_MEMORY, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  struct esp_overlay *first = e.o;
  env_open (&e);
  esp_overlay_close (first);
  assert_bytes (&e, 0, 1, 'x');
  esp_overlay_close (e.o);
  assert_false (is_there (&e, "cafe"));
  env_open (&e);
  assert_below (&e, 0, SIZE);
  env_end (&e);
}

/* --- discard -------------------------------------------------------------- */

static void
discard_goes_on_within_its_grace (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  env_open (&e);
  assert_bytes (&e, 0, 1, 'x');
  env_end (&e);
}

static void
discard_is_fresh_when_its_grace_is_over (void **state)
{
  struct env e;
  struct esp_overlay_base base;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  set_time (&e, "cafe/0/seat-7/lock", time (NULL) - 32);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_int_equal (esp_overlay_peek (e.place, &seat7, &base), 0);
  assert_false (base.exists);
  env_open (&e);
  assert_below (&e, 0, SIZE);
  env_end (&e);
}

static void
thread_removes_what_nobody_came_back_for (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  e.params.grace = 4;
  env_open (&e);
  assert_int_equal (esp_overlay_place_start (e.place), 0);
  OK (WRITE (&e, "x", 1, 0));
  esp_overlay_close (e.o);
  assert_true (is_there (&e, "cafe/0/seat-7/map"));
  wait_until_gone (&e, "cafe");
  e.o = NULL;
  env_end (&e);
}

static void
grace_of_zero_removes_at_the_close (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  e.params.grace = 0;
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  assert_false (is_there (&e, "cafe"));
  env_end (&e);
}

/* In a child: open, write, flush, and die without a word. */
static void
die_with_an_overlay (struct env *e)
{
  pid_t pid = fork ();

  if (pid == 0) {
    int err;
    e->place = esp_overlay_place_open (e->dir, &e->params);
    e->o = esp_overlay_open (e->place, &seat7, &no_tip, SIZE);
    _exit (!e->o || esp_overlay_pwrite (e->o, &e->below, "x", 1, 0, true,
                                        &err) == -1);
  }
  int status;
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

static void
discard_of_a_dead_process_has_its_grace_from_the_start (void **state)
{
  struct env e;
  struct stat st;
  char lock[512];

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  die_with_an_overlay (&e);
  set_time (&e, "cafe/0/seat-7/lock", time (NULL) - 1000);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_int_equal (esp_overlay_place_start (e.place), 0);
  /* The thread erases the holder when it has found it. */
  snprintf (lock, sizeof lock, "%s/cafe/0/seat-7/lock", e.dir);
  for (unsigned i = 0; i < 2000; ++i) {
    assert_int_equal (stat (lock, &st), 0);
    if (st.st_size == 0)
      break;
    usleep (10000);
  }
  assert_int_equal (st.st_size, 0);
  env_open (&e);
  assert_bytes (&e, 0, 1, 'x');
  env_end (&e);
}

static void
discard_of_another_boot_is_removed (void **state)
{
  struct env e;
  char path[512], *text;
  size_t len;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  /* Another boot's document: without an id, which no boot has. */
  int dir = overlays_fd (&e);
  snprintf (path, sizeof path, "cafe/0/seat-7/overlay");
  assert_int_equal (esp_read_file (dir, path, 4096, &text, &len), 0);
  json_t *doc = json_loads (strchr (text, '\n') + 1, 0, NULL);
  assert_non_null (doc);
  json_object_set_new (doc, "boot-id", json_string ("other"));
  int sub = esp_open_dir (dir, "cafe/0/seat-7");
  assert_int_equal (esp_doc_save (sub, "overlay", "overlay", 1, doc, 0600), 0);
  json_decref (doc);
  free (text);
  close (sub);
  close (dir);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_int_equal (esp_overlay_place_start (e.place), 0);
  wait_until_gone (&e, "cafe");
  env_end (&e);
}

static unsigned synced;         /* bits: data 1, map 2 */

static int
note_sync (int fd)
{
  synced |= hook_is (fd, "data") ? 1 : hook_is (fd, "map") ? 2 : 0;
  return 0;
}

static void
kept_of_a_dead_process_is_synced_before_it_is_used (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  die_with_an_overlay (&e);
  hook_fdatasync = note_sync;
  env_open (&e);
  assert_int_equal (synced, 3);
  assert_bytes (&e, 0, 1, 'x');
  env_close (&e);
  synced = 0;
  env_open (&e);                /* was closed cleanly */
  hook_fdatasync = NULL;
  assert_int_equal (synced, 0);
  env_end (&e);
}

/* --- modes ---------------------------------------------------------------- */

static void
kept_stays_kept_under_discard (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  e.params.mode = ESP_OVERLAY_DISCARD;
  e.params.grace = 0;
  env_open (&e);
  assert_non_null (strstr (unit_error, "warning: "));
  env_close (&e);
  env_open (&e);
  assert_bytes (&e, 0, 1, 'x');
  env_end (&e);
}

static void
discard_becomes_kept_under_keep (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  e.params.mode = ESP_OVERLAY_KEEP;
  env_open (&e);
  env_close (&e);
  set_time (&e, "cafe/0/seat-7/lock", 1000);
  env_open (&e);
  assert_bytes (&e, 0, 1, 'x');
  env_end (&e);
}

/* --- tips and other processes --------------------------------------------- */

static void
overlay_remembers_its_tip (void **state)
{
  struct env e;
  struct esp_overlay_base base;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  e.o = esp_overlay_open (e.place, &seat7, &tip_a, SIZE);
  OK (WRITE (&e, "x", 1, 0));
  assert_null (esp_overlay_open (e.place, &seat7, &tip_b, SIZE));
  assert_int_equal (errno, ESTALE);
  env_close (&e);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_int_equal (esp_overlay_peek (e.place, &seat7, &base), 0);
  assert_true (base.exists && esp_uuid_eq (&base.tip, &tip_a));
  assert_int_equal (base.size, SIZE);
  assert_null (esp_overlay_open (e.place, &seat7, &tip_b, SIZE));
  assert_int_equal (errno, ESTALE);
  assert_null (esp_overlay_open (e.place, &seat7, &tip_a, SIZE + 1));
  assert_int_equal (errno, ESTALE);
  e.o = esp_overlay_open (e.place, &seat7, &tip_a, SIZE);
  assert_non_null (e.o);
  env_end (&e);
}

static void
second_process_is_told_who_has_it (void **state)
{
  struct env e;
  int ready[2], done[2], status;
  char c, pid_text[32];

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  assert_int_equal (pipe (ready) | pipe (done), 0);
  pid_t pid = fork ();
  if (pid == 0) {
    env_open (&e);
    if (write (ready[1], "r", 1) != 1 || read (done[0], &c, 1) != 1)
      _exit (1);
    env_close (&e);
    _exit (0);
  }
  assert_int_equal (read (ready[0], &c, 1), 1);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_null (esp_overlay_open (e.place, &seat7, &no_tip, SIZE));
  assert_int_equal (errno, EBUSY);
  snprintf (pid_text, sizeof pid_text, "%d", (int) pid);
  assert_non_null (strstr (unit_error, pid_text));
  int fd = overlays_fd (&e);
  struct esp_overlay_info info;
  assert_int_equal (esp_overlay_info (fd, &seat7, &info), 0);
  assert_true (info.held);
  assert_int_equal (info.holder.pid, pid);
  esp_overlay_info_clear (&info);
  assert_int_equal (esp_overlay_reset (fd, &seat7), -1);
  assert_int_equal (errno, EBUSY);
  close (fd);
  assert_int_equal (write (done[1], "d", 1), 1);
  waitpid (pid, &status, 0);
  assert_int_equal (status, 0);
  env_open (&e);                        /* nobody has it any more */
  env_end (&e);
}

struct opener { struct env *e; unsigned failed; };

static void *
open_and_close (void *arg)
{
  struct opener *op = arg;
  int err;

  for (unsigned i = 0; i < 100; ++i) {
    struct esp_overlay *o =
      esp_overlay_open (op->e->place, &seat7, &no_tip, SIZE);
    if (!o || esp_overlay_pwrite (o, &op->e->below, "x", 1, i, false, &err))
      op->failed++;
    esp_overlay_close (o);
  }
  return NULL;
}

static void
opening_and_closing_at_once (void **state)
{
  struct env e;
  struct opener op[4];
  pthread_t t[4];

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  e.params.grace = 0;
  e.place = esp_overlay_place_open (e.dir, &e.params);
  for (unsigned i = 0; i < 4; ++i) {
    op[i] = (struct opener) { &e, 0 };
    pthread_create (&t[i], NULL, open_and_close, &op[i]);
  }
  for (unsigned i = 0; i < 4; ++i) {
    pthread_join (t[i], NULL);
    assert_int_equal (op[i].failed, 0);
  }
  assert_false (is_there (&e, "cafe"));
  env_end (&e);
}

/* --- the operator --------------------------------------------------------- */

static void
list_tells_what_is_there (void **state)
{
  struct env e;
  const struct esp_overlay_id mac = { "cafe", "1", "52%3A54%3A00" };
  struct esp_overlay_info_list list;
  uint8_t buf[65536] = { 1 };

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  e.params.quota = SIZE;
  env_open (&e);
  OK (WRITE (&e, buf, 65536, 0));
  OK (FLUSH (&e));
  struct esp_overlay *first = e.o;
  env_open_id (&e, &mac);
  int fd = overlays_fd (&e);
  assert_int_equal (esp_overlay_list (fd, NULL, &list), 0);
  assert_int_equal (list.n, 2);
  assert_string_equal (list.o[0].client, "seat-7");
  assert_true (list.o[0].used >= 65536 && list.o[0].used < 200000);
  assert_int_equal (list.o[0].size, SIZE);
  assert_int_equal (list.o[0].quota, SIZE);
  assert_true (list.o[0].held);
  assert_int_equal (list.o[0].holder.pid, getpid ());
  assert_true (time (NULL) - (time_t) list.o[0].last_seen < 60);
  assert_string_equal (list.o[1].client, "52:54:00");
  assert_string_equal (list.o[1].disk, "1");
  assert_int_equal (list.o[1].used, 0);
  assert_null (list.o[1].damage);
  esp_overlay_info_list_clear (&list);
  assert_int_equal (esp_overlay_list (fd, "school", &list), 0);
  assert_int_equal (list.n, 0);
  close (fd);
  esp_overlay_close (first);
  env_end (&e);
}

static void
reset_begins_anew (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  int fd = overlays_fd (&e);
  assert_int_equal (esp_overlay_reset (fd, &seat7), 0);
  assert_false (is_there (&e, "cafe"));
  assert_int_equal (esp_overlay_reset (fd, &seat7), -1);
  assert_int_equal (errno, ENOENT);
  close (fd);
  env_open (&e);
  assert_below (&e, 0, SIZE);
  env_end (&e);
}

static void
take_gives_the_files_and_the_map (void **state)
{
  struct env e;
  int parent, dir, lock;
  struct esp_map *map;
  esp_uuid tip;
  uint64_t size, run;

  (void) state;
  env_init (&e, ESP_OVERLAY_DISCARD, SIZE);
  e.place = esp_overlay_place_open (e.dir, &e.params);
  e.o = esp_overlay_open (e.place, &seat7, &tip_a, SIZE);
  OK (WRITE (&e, "x", 1, 8192));
  int fd = overlays_fd (&e);
  assert_int_equal (esp_overlay_take (fd, &seat7, &parent, &dir, &lock, &map,
                                      &tip, &size), -1);
  assert_int_equal (errno, EBUSY);
  env_close (&e);
  assert_int_equal (esp_overlay_take (fd, &seat7, &parent, &dir, &lock, &map,
                                      &tip, &size), 0);
  assert_true (esp_uuid_eq (&tip, &tip_a));
  assert_int_equal (size, SIZE);
  assert_int_equal (esp_map_run (map, 2, 254, &run), ESP_DATA);
  assert_int_equal (run, 1);
  /* Renamed away: the next connection has a fresh one. */
  assert_int_equal (renameat (parent, "seat-7", fd, "taken"), 0);
  close (lock);
  close (dir);
  close (parent);
  close (fd);
  esp_map_free (map);
  env_open (&e);
  assert_below (&e, 0, SIZE);
  env_end (&e);
}

static void
damage_is_refused_and_told (void **state)
{
  struct env e;
  struct esp_overlay_info info;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  spoil (&e, "cafe/0/seat-7/overlay", "espalier-overlay 1 xxh3:0\n{}\n");
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_null (esp_overlay_open (e.place, &seat7, &no_tip, SIZE));
  assert_int_equal (errno, EBADMSG);
  int fd = overlays_fd (&e);
  assert_int_equal (esp_overlay_info (fd, &seat7, &info), 0);
  assert_non_null (info.damage);
  esp_overlay_info_clear (&info);
  assert_true (is_there (&e, "cafe/0/seat-7/data"));
  assert_int_equal (esp_overlay_reset (fd, &seat7), 0);
  close (fd);
  env_open (&e);
  assert_below (&e, 0, SIZE);
  OK (WRITE (&e, "x", 1, 0));
  env_close (&e);
  spoil (&e, "cafe/0/seat-7/map", "no map");
  e.place = esp_overlay_place_open (e.dir, &e.params);
  assert_null (esp_overlay_open (e.place, &seat7, &no_tip, SIZE));
  assert_int_equal (errno, EBADMSG);
  env_end (&e);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (kept_is_found_again),
    cmocka_unit_test (nothing_written_leaves_nothing),
    cmocka_unit_test (private_ones_leave_nothing_and_share_nothing),
    cmocka_unit_test (connections_of_a_client_share_and_clients_do_not),
    cmocka_unit_test (memory_ends_with_its_last_connection),
    cmocka_unit_test (discard_goes_on_within_its_grace),
    cmocka_unit_test (discard_is_fresh_when_its_grace_is_over),
    cmocka_unit_test (thread_removes_what_nobody_came_back_for),
    cmocka_unit_test (grace_of_zero_removes_at_the_close),
    cmocka_unit_test (discard_of_a_dead_process_has_its_grace_from_the_start),
    cmocka_unit_test (discard_of_another_boot_is_removed),
    cmocka_unit_test (kept_of_a_dead_process_is_synced_before_it_is_used),
    cmocka_unit_test (kept_stays_kept_under_discard),
    cmocka_unit_test (discard_becomes_kept_under_keep),
    cmocka_unit_test (overlay_remembers_its_tip),
    cmocka_unit_test (second_process_is_told_who_has_it),
    cmocka_unit_test (opening_and_closing_at_once),
    cmocka_unit_test (list_tells_what_is_there),
    cmocka_unit_test (reset_begins_anew),
    cmocka_unit_test (take_gives_the_files_and_the_map),
    cmocka_unit_test (damage_is_refused_and_told),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
