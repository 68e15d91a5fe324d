/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors reach the host, keep errno, and can be caught by a thread. */

#include "unit.h"

static void
error_reaches_the_host_and_keeps_errno (void **state)
{
  (void) state;
  errno = ENOSPC;
  esp_error ("open: %s: %m", "x");
  assert_int_equal (errno, ENOSPC);
  assert_string_equal (unit_error, "open: x: No space left on device");
}

static void
first_caught_error_wins_and_the_host_sees_none (void **state)
{
  char buf[16];

  (void) state;
  strcpy (unit_error, "untouched");
  assert_null (esp_catch_errors (buf, sizeof buf));
  esp_error ("first %s", "is longer than the buffer");
  esp_error ("second");
  assert_ptr_equal (esp_catch_errors (NULL, 0), buf);
  assert_string_equal (buf, "first is longer");
  assert_string_equal (unit_error, "untouched");
}

/* Once, also where it was caught and is told again. */
static void
too_many_open_files_says_what_to_do (void **state)
{
  char buf[300];

  (void) state;
  errno = EMFILE;
  esp_catch_errors (buf, sizeof buf);
  esp_error ("open: x: %m");
  esp_catch_errors (NULL, 0);
  assert_int_equal (errno, EMFILE);
  assert_ptr_equal (strstr (buf, "open: x: Too many open files: "), buf);
  assert_non_null (strstr (buf, "LimitNOFILE="));
  esp_error ("%s", buf);
  assert_string_equal (unit_error, buf);
}

static void
warning_is_not_caught (void **state)
{
  char buf[64];

  (void) state;
  esp_catch_errors (buf, sizeof buf);
  esp_warning ("take %d", 1);
  esp_catch_errors (NULL, 0);
  assert_string_equal (buf, "");
  assert_string_equal (unit_error, "warning: take 1");
}

static unsigned delivered;

static void
count_error (const char *fmt, va_list args)
{
  delivered++;
  vsnprintf (unit_error, sizeof unit_error, fmt, args);
}

/* A server whose center is away says so once, and not for each read. */
static void
same_error_is_told_seldom (void **state)
{
  static const struct esp_host host = { .error = count_error, .seldom = true };

  (void) state;
  esp_set_host (&host);
  for (int i = 0; i < 1000; i++)
    esp_error ("the center is away");
  assert_int_equal (delivered, 1);
  esp_error ("another %s", "one");
  assert_int_equal (delivered, 2);
  assert_string_equal (unit_error, "another one");
  unit_init ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (error_reaches_the_host_and_keeps_errno),
    cmocka_unit_test (first_caught_error_wins_and_the_host_sees_none),
    cmocka_unit_test (too_many_open_files_says_what_to_do),
    cmocka_unit_test (warning_is_not_caught),
    cmocka_unit_test (same_error_is_told_seldom),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
