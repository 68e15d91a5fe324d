/* SPDX-License-Identifier: BSD-3-Clause */
/* What the modules of a process share: slots of threads, modules, store=. */

#include "unit.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/stack.h"

static void *
slot_of_another_thread (void *arg)
{
  struct esp_stack_slot *slot = esp_stack_slot ();

  *(bool *) arg = !slot->pinned && !slot->opened && !slot->image;
  slot->opened = true;
  return slot;
}

static void
each_thread_has_its_slot (void **state)
{
  struct esp_stack_slot *slot = esp_stack_slot ();
  bool clean = false;
  pthread_t id;
  void *other;

  (void) state;
  slot->pinned = true;
  assert_int_equal (pthread_create (&id, NULL, slot_of_another_thread, &clean),
                    0);
  pthread_join (id, &other);
  assert_true (clean);
  assert_ptr_not_equal (slot, other);
  assert_ptr_equal (slot, esp_stack_slot ());
  assert_true (slot->pinned);
  assert_false (slot->opened);
}

/* Whichever filter is outermost clears it, and the others do not. */
static void
the_outermost_clears (void **state)
{
  (void) state;
  for (int i = 0; i < 2; i++) {
    struct esp_stack_slot *outer = esp_stack_enter ();
    assert_false (outer->pinned);
    assert_false (outer->opened);
    struct esp_stack_slot *inner = esp_stack_enter ();
    inner->pinned = true;
    esp_stack_slot ()->opened = true;
    esp_stack_leave (&inner);
    assert_true (outer->pinned && outer->opened);
    esp_stack_leave (&outer);
  }
}

static void
modules_are_there_once_added (void **state)
{
  (void) state;
  assert_false (esp_stack_has (ESP_MODULE_VENUE));
  esp_stack_add (ESP_MODULE_VENUE);
  assert_true (esp_stack_has (ESP_MODULE_VENUE));
  assert_false (esp_stack_has (ESP_MODULE_OVERLAY));
}

/* The store is set once in a process: each try is a child, which ends with
 * 0 where PATH becomes WANT.
 */
static int
try_store (const char *cwd, const char *path, const char *want)
{
  int status;
  pid_t pid = fork ();

  assert_true (pid >= 0);
  if (pid == 0) {
    if (chdir (cwd) < 0 || esp_stack_get_store () != NULL
        || esp_stack_set_store (path) < 0)
      _exit (2);
    _exit (strcmp (esp_stack_get_store (), want) != 0);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  return WEXITSTATUS (status);
}

static void
assert_store (const char *cwd, const char *path, const char *want)
{
  int r = try_store (cwd, path, want);

  if (r)
    fail_msg ("%s in %s: %s", path, cwd, r == 2 ? "refused" : "not as it should be");
}

static void
store_is_made_absolute (void **state)
{
  char *made = unit_mkdir ();
  CLEANUP_FREE char *dir = realpath (made, NULL);
  CLEANUP_FREE char *sub = esp_asprintf ("%s/sub", dir);
  CLEANUP_FREE char *link = esp_asprintf ("%s/link", dir);
  CLEANUP_FREE char *none = esp_asprintf ("%s/no/such", dir);
  CLEANUP_FREE char *beside = esp_asprintf ("%s/no", dir);

  (void) state;
  assert_int_equal (mkdir (sub, 0755), 0);
  assert_int_equal (symlink ("sub", link), 0);
  assert_store (dir, ".", dir);
  assert_store (dir, "sub", sub);
  assert_store (dir, "./sub//", sub);
  assert_store (sub, "..", dir);
  assert_store (dir, "link", sub);
  assert_store (dir, "link/../sub", sub);
  assert_store ("/", sub, sub);
  assert_store (dir, "no/such", none);
  assert_store (dir, "no/such/", none);
  assert_store (dir, "no/./such", none);
  assert_store (dir, "no/such/..", beside);
  assert_store (dir, "no/x/../such", none);
  assert_store ("/", "/", "/");
  assert_store ("/", "no-such-directory", "/no-such-directory");
  assert_store ("/", "no-such-directory/../..", "/");
  unit_rmdir (made);
}

static void
second_store_must_be_the_same (void **state)
{
  char long_path[8192];

  (void) state;
  assert_int_equal (esp_stack_set_store (""), -1);
  assert_int_equal (errno, EINVAL);
  memset (long_path, 'x', sizeof long_path - 1);
  long_path[sizeof long_path - 1] = 0;
  assert_int_equal (esp_stack_set_store (long_path), -1);
  assert_null (esp_stack_get_store ());

  assert_int_equal (esp_stack_set_store ("/no-such/store"), 0);
  const char *first = esp_stack_get_store ();
  assert_int_equal (esp_stack_set_store ("//no-such/./store/"), 0);
  assert_int_equal (esp_stack_set_store ("/no-such/other"), -1);
  assert_int_equal (errno, EINVAL);
  assert_string_equal (unit_error, "store=/no-such/other: store=/no-such/store"
                       " was given before: one server has one store");
  assert_ptr_equal (esp_stack_get_store (), first);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (each_thread_has_its_slot),
    cmocka_unit_test (the_outermost_clears),
    cmocka_unit_test (modules_are_there_once_added),
    cmocka_unit_test (store_is_made_absolute),
    cmocka_unit_test (second_store_must_be_the_same),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
