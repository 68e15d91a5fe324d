/* SPDX-License-Identifier: BSD-3-Clause */
/* The audit log: one line for each event, whatever a peer is called. */

#include "unit.h"

#include <sys/stat.h>

#include "boot/audit.h"
#include "util/cleanup.h"
#include "util/file.h"

static char *dir;
static char file[500];

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  snprintf (file, sizeof file, "%s/audit.log", dir);
  unit_error[0] = 0;
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  unit_rmdir (dir);
  return 0;
}

/* The log behind its first time, malloced. */
static char *
written (void)
{
  char *buf;
  size_t len;

  assert_int_equal (esp_read_file (AT_FDCWD, file, 1 << 20, &buf, &len), 0);
  assert_true (strlen (buf) == len && len > 26);
  assert_int_equal (strncmp (buf, "time=20", 7), 0);
  assert_int_equal (buf[24], 'Z');
  memmove (buf, buf + 26, len - 25);
  return buf;
}

static void
line_has_what_was_given (void **state)
{
  (void) state;
  esp_audit (file, "open", "peer", "10.0.0.7", "export", "cafe/0@::1", "why",
             NULL, "tip", "base", NULL);
  CLEANUP_FREE char *text = written ();
  assert_string_equal (text, "event=open peer=10.0.0.7 export=cafe/0@::1 "
                       "tip=base\n");
}

static void
values_stay_in_their_place (void **state)
{
  (void) state;
  esp_audit (file, "open", "a", "", "b", "two words", "c", "x=y", "d", "\"",
             "e", "a\\b", "f", "x\ntime=0 event=open", "g", "\xff\x1b[0m",
             "h", "caf\xc3\xa9", NULL);
  CLEANUP_FREE char *text = written ();
  assert_string_equal (text, "event=open a=\"\" b=\"two words\" c=\"x=y\" "
                       "d=\"\\\"\" e=\"a\\\\b\" "
                       "f=\"x\\x0atime=0 event=open\" "
                       "g=\"\\xff\\x1b[0m\" h=caf\xc3\xa9\n");
}

static void
long_values_are_cut (void **state)
{
  char big[5000];

  (void) state;
  memset (big, '"', sizeof big - 1);
  big[sizeof big - 1] = 0;
  esp_audit (file, "open", "export", big, "peer", "x", NULL);
  CLEANUP_FREE char *text = written ();
  assert_true (strlen (text) < 1200);
  assert_non_null (strstr (text, "...\" peer=x\n"));
}

static void
file_is_private_and_may_be_rotated (void **state)
{
  char old[520];
  struct stat st;

  (void) state;
  umask (022);
  esp_audit (file, "one", NULL);
  assert_int_equal (stat (file, &st), 0);
  assert_int_equal (st.st_mode & 0777, 0640);
  snprintf (old, sizeof old, "%s.1", file);
  assert_int_equal (rename (file, old), 0);
  esp_audit (file, "two", NULL);
  CLEANUP_FREE char *text = written ();
  assert_string_equal (text, "event=two\n");
}

static void
failure_is_said_once_a_minute (void **state)
{
  char no[520];

  (void) state;
  snprintf (no, sizeof no, "%s/no/log", dir);
  esp_audit (no, "open", NULL);
  assert_non_null (strstr (unit_error, "/no/log: No such file"));
  unit_error[0] = 0;
  esp_audit (no, "open", NULL);
  assert_string_equal (unit_error, "");
}

enum { WRITERS = 8, LINES = 500 };

static void *
write_lines (void *arg)
{
  char value[300];

  memset (value, *(char *) arg, sizeof value - 1);
  value[sizeof value - 1] = 0;
  for (int i = 0; i < LINES; i++)
    esp_audit (file, "open", "v", value, NULL);
  return NULL;
}

static void
lines_of_several_do_not_mix (void **state)
{
  static char letters[] = "abcdefgh";
  pthread_t thread[WRITERS];
  unsigned n = 0;
  size_t len;
  char *buf;

  (void) state;
  for (int i = 0; i < WRITERS; i++)
    pthread_create (&thread[i], NULL, write_lines, &letters[i]);
  for (int i = 0; i < WRITERS; i++)
    pthread_join (thread[i], NULL);
  assert_int_equal (esp_read_file (AT_FDCWD, file, 8 << 20, &buf, &len), 0);
  CLEANUP_FREE char *text = buf;
  for (char *s = strtok (text, "\n"); s; s = strtok (NULL, "\n"), n++) {
    char *v = strstr (s, " event=open v=");
    assert_non_null (v);
    v += 14;
    assert_int_equal (strlen (v), 299);
    assert_int_equal (strspn (v, (char[]) { *v, 0 }), 299);
  }
  assert_int_equal (n, WRITERS * LINES);
}

int
main (void)
{
#define T(fn) cmocka_unit_test_setup_teardown (fn, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (line_has_what_was_given),
    T (values_stay_in_their_place),
    T (long_values_are_cut),
    T (file_is_private_and_may_be_rotated),
    T (failure_is_said_once_a_minute),
    T (lines_of_several_do_not_mix),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
