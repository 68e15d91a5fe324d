/* SPDX-License-Identifier: BSD-3-Clause */
/* The store: making, opening, tmp. */

#include "unit.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/check.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/file.h"

static char *dir;               /* a private directory */
static char *path;              /* of the store below it */

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  if (asprintf (&path, "%s/a %%41?#store", dir) < 0)
    abort ();
  unit_error[0] = 0;
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  free (path);
  unit_rmdir (dir);
  return 0;
}

static void
put_file (const char *name, const char *text)
{
  CLEANUP_FREE char *p = NULL;
  FILE *f;

  assert_true (asprintf (&p, "%s/%s", path, name) > 0);
  f = fopen (p, "w");
  assert_non_null (f);
  fputs (text, f);
  assert_int_equal (fclose (f), 0);
}

static struct stat
look (const char *name)
{
  CLEANUP_FREE char *p = NULL;
  struct stat st;

  assert_true (asprintf (&p, "%s/%s", path, name) > 0);
  if (lstat (p, &st) == -1)
    memset (&st, 0, sizeof st);
  return st;
}

static void
init_makes_a_store_that_opens (void **state)
{
  (void) state;
  umask (022);
  assert_int_equal (esp_store_init (path), 0);
  assert_int_equal (look ("keys").st_mode & 07777, 0700);
  assert_int_equal (look ("restore-points").st_mode & 07777, 0750);
  struct esp_store *store = esp_store_open (path);
  assert_non_null (store);
  assert_string_equal (esp_store_path (store), path);
  assert_false (esp_store_readonly (store));
  assert_non_null (esp_store_catalog (store));
  assert_true (esp_store_fd (store) >= 0);
  assert_true (esp_store_rps_fd (store) >= 0);
  assert_true (esp_store_venues_fd (store) >= 0);
  assert_true (esp_store_overlays_fd (store) >= 0);
  esp_store_close (store);
  esp_store_close (NULL);
}

static void
init_makes_parents_and_takes_an_empty_directory (void **state)
{
  CLEANUP_FREE char *deep = NULL;

  (void) state;
  assert_true (asprintf (&deep, "%s/a//b/c/", path) > 0);
  assert_int_equal (esp_store_init (deep), 0);
  assert_int_equal (mkdir (path, 0755), -1);
  free (path);
  assert_true (asprintf (&path, "%s/mounted", dir) > 0);
  assert_int_equal (mkdir (path, 0755), 0);
  CLEANUP_FREE char *lost = NULL;
  assert_true (asprintf (&lost, "%s/lost+found", path) > 0);
  assert_int_equal (mkdir (lost, 0700), 0);
  assert_int_equal (esp_store_init (path), 0);
}

static void
init_refuses_what_is_used (void **state)
{
  (void) state;
  assert_int_equal (mkdir (path, 0755), 0);
  put_file ("file", "mine");
  assert_int_equal (esp_store_init (path), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "is not empty"));
  assert_int_equal (look ("tmp").st_mode, 0);
  CLEANUP_FREE char *file = NULL;
  assert_true (asprintf (&file, "%s/file", path) > 0);
  assert_int_equal (esp_store_init (file), -1);
  assert_int_equal (unlink (file), 0);
  assert_int_equal (esp_store_init (path), 0);
  assert_int_equal (esp_store_init (path), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "is a store already"));
}

static void
init_refuses_while_another_one_works (void **state)
{
  CLEANUP_CLOSE int fd = -1;

  (void) state;
  assert_int_equal (mkdir (path, 0755), 0);
  fd = open (path, O_RDONLY | O_DIRECTORY);
  assert_int_equal (flock (fd, LOCK_EX), 0);
  assert_int_equal (esp_store_init (path), -1);
  assert_non_null (strstr (unit_error, "another process"));
}

static void
open_twice_is_one_store (void **state)
{
  CLEANUP_FREE char *other = NULL;
  struct esp_store *a, *b;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  assert_true (asprintf (&other, "%s/link", dir) > 0);
  assert_int_equal (symlink (path, other), 0);
  a = esp_store_open (path);
  b = esp_store_open (other);
  assert_non_null (a);
  assert_ptr_equal (a, b);
  esp_store_close (a);
  assert_string_equal (esp_store_path (b), path);
  struct esp_store *damaged = esp_store_open_damaged (path);
  assert_non_null (damaged);
  assert_ptr_not_equal (damaged, b);
  assert_null (esp_store_catalog (damaged));
  esp_store_close (damaged);
  esp_store_close (b);
}

static void
open_says_what_to_do (void **state)
{
  (void) state;
  assert_null (esp_store_open (path));
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "init"));
  assert_int_equal (mkdir (path, 0755), 0);
  assert_null (esp_store_open (path));
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "is not a store"));
  assert_int_equal (esp_store_init (path), 0);
  put_file ("espalier", "espalier-store 9 xxh3:0000000000000000\n{}\n");
  assert_null (esp_store_open (path));
  assert_int_equal (errno, ENOTSUP);
  put_file ("espalier", "garbage");
  assert_null (esp_store_open (path));
  assert_int_equal (errno, EBADMSG);
}

static void
open_without_catalog_names_rebuild (void **state)
{
  CLEANUP_FREE char *db = NULL;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  assert_true (asprintf (&db, "%s/catalog.db", path) > 0);
  assert_int_equal (unlink (db), 0);
  assert_null (esp_store_open (path));
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "store rebuild"));
  struct esp_store *store = esp_store_open_damaged (path);
  assert_non_null (store);
  esp_store_close (store);
}

static void
open_makes_lost_directories_again (void **state)
{
  CLEANUP_FREE char *tmp = NULL;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  assert_true (asprintf (&tmp, "%s/tmp", path) > 0);
  assert_int_equal (rmdir (tmp), 0);
  struct esp_store *store = esp_store_open (path);
  assert_non_null (store);
  esp_store_close (store);
  assert_true (S_ISDIR (look ("tmp").st_mode));
}

static void
tmp_dir_is_unique_and_locked (void **state)
{
  char a[64], b[64];

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  struct esp_store *store = esp_store_open (path);
  CLEANUP_CLOSE int fda = esp_store_tmp_dir (store, a);
  CLEANUP_CLOSE int fdb = esp_store_tmp_dir (store, b);
  assert_true (fda >= 0 && fdb >= 0);
  assert_string_not_equal (a, b);
  CLEANUP_CLOSE int again = esp_open_dir (esp_store_tmp_fd (store), a);
  assert_int_equal (flock (again, LOCK_EX | LOCK_NB), -1);
  close (fda);
  fda = -1;
  assert_int_equal (flock (again, LOCK_EX | LOCK_NB), 0);
  esp_store_close (store);
}

/* In a child, with the store mounted read-only. */
static void
use_readonly (void)
{
  struct esp_store *store;
  char name[64];
  unsigned n;

  if (unshare (CLONE_NEWNS) == -1 ||
      mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
      mount (path, path, NULL, MS_BIND, NULL) == -1 ||
      mount (NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == -1)
    _exit (77);
  if (!(store = esp_store_open (path)) || !esp_store_readonly (store))
    _exit (1);
  if (esp_store_check (store, false, NULL, NULL, &n) == -1 || n != 0)
    _exit (2);
  if (esp_store_check (store, true, NULL, NULL, &n) == 0 || errno != EROFS)
    _exit (3);
  if (esp_store_tmp_dir (store, name) != -1 || errno != EROFS)
    _exit (4);
  if (esp_store_gc (store, false, NULL, NULL, NULL, NULL) == 0 ||
      errno != EROFS)
    _exit (5);
  esp_store_close (store);
  _exit (0);
}

static void
read_only_file_system_is_fine (void **state)
{
  int status;
  pid_t pid;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  if ((pid = fork ()) == 0)
    use_readonly ();
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  if (WEXITSTATUS (status) == 77) {
    print_message ("# skipped: this machine allows no mount namespace\n");
    skip ();
  }
  assert_int_equal (WEXITSTATUS (status), 0);
}

static int
count (void *arg, int dirfd, const char *name)
{
  (void) dirfd;
  (void) name;
  ++*(int *) arg;
  return 0;
}

static void
discard_removes_a_tree (void **state)
{
  int n = 0;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  struct esp_store *store = esp_store_open (path);
  int rps = esp_store_rps_fd (store);
  assert_int_equal (mkdirat (rps, "x", 0755), 0);
  assert_int_equal (mkdirat (rps, "x/deep", 0755), 0);
  assert_int_equal (symlinkat ("/etc/passwd", rps, "x/deep/link"), 0);
  assert_int_equal (esp_store_discard (store, rps, "x"), 0);
  assert_int_equal (esp_each_entry (rps, count, &n), 0);
  assert_int_equal (esp_each_entry (esp_store_tmp_fd (store), count, &n), 0);
  assert_int_equal (n, 0);
  assert_int_equal (esp_store_discard (store, rps, "x"), -1);
  assert_int_equal (errno, ENOENT);
  esp_store_close (store);
}

static void
rp_dir_opens_by_uuid (void **state)
{
  char text[ESP_UUID_TEXT];
  esp_uuid u;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  struct esp_store *store = esp_store_open (path);
  esp_uuid_new (&u);
  assert_int_equal (esp_store_rp_dir (store, &u), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (mkdirat (esp_store_rps_fd (store),
                             esp_uuid_text (&u, text), 0755), 0);
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, &u);
  assert_true (fd >= 0);
  esp_store_close (store);
}

static void
default_is (const char *option, const char *want)
{
  CLEANUP_FREE char *p = esp_store_default_path (option);

  assert_non_null (p);
  assert_string_equal (p, want);
}

static void
default_path_comes_from_option_variable_or_user (void **state)
{
  CLEANUP_FREE char *cwd = getcwd (NULL, 0), *want = NULL;

  (void) state;
  setenv ("ESPALIER_STORE", "/env/store", 1);
  default_is ("/opt/store", "/opt/store");
  default_is (NULL, "/env/store");
  assert_true (asprintf (&want, "%s/rel", cwd) > 0);
  default_is ("rel", want);
  assert_null (esp_store_default_path (""));
  assert_int_equal (errno, EINVAL);
  unsetenv ("ESPALIER_STORE");
  if (geteuid () == 0)
    default_is (NULL, "/var/lib/espalier");
  assert_int_equal (seteuid (geteuid () == 0 ? 65534 : geteuid ()), 0);
  setenv ("XDG_DATA_HOME", "/x", 1);
  default_is (NULL, "/x/espalier");
  setenv ("XDG_DATA_HOME", "relative", 1);
  setenv ("HOME", "/home/me", 1);
  default_is (NULL, "/home/me/.local/share/espalier");
  unsetenv ("HOME");
  assert_null (esp_store_default_path (NULL));
  assert_non_null (strstr (unit_error, "--store"));
  assert_int_equal (seteuid (getuid ()), 0);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (init_makes_a_store_that_opens),
    T (init_makes_parents_and_takes_an_empty_directory),
    T (init_refuses_what_is_used),
    T (init_refuses_while_another_one_works),
    T (open_twice_is_one_store),
    T (open_says_what_to_do),
    T (open_without_catalog_names_rebuild),
    T (open_makes_lost_directories_again),
    T (tmp_dir_is_unique_and_locked),
    T (discard_removes_a_tree),
    T (read_only_file_system_is_fine),
    T (rp_dir_opens_by_uuid),
    T (default_path_comes_from_option_variable_or_user),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
