/* SPDX-License-Identifier: BSD-3-Clause */
/* The bar on a terminal (a pseudo terminal here), and its silence. */

#include "unit.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>

#include "util/progress.h"

static int master, real_stderr;

/* stderr becomes a terminal of COLUMNS columns. */
static void
begin_terminal (unsigned short columns)
{
  const struct winsize w = { .ws_row = 24, .ws_col = columns };

  master = posix_openpt (O_RDWR | O_NOCTTY | O_NONBLOCK);
  assert_true (master >= 0);
  assert_int_equal (grantpt (master), 0);
  assert_int_equal (unlockpt (master), 0);
  int slave = open (ptsname (master), O_RDWR | O_NOCTTY);
  assert_true (slave >= 0);
  assert_int_equal (ioctl (slave, TIOCSWINSZ, &w), 0);
  fflush (stderr);
  real_stderr = dup (STDERR_FILENO);
  dup2 (slave, STDERR_FILENO);
  close (slave);
}

/* What was written meanwhile; stderr is what it was.  The kernel passes it
 * on when it likes: an end mark tells when all is there.
 */
static const char *
end_terminal (void)
{
  static char buf[8192];
  size_t n = 0;

  buf[0] = 0;
  fputs ("<end>", stderr);
  fflush (stderr);
  do {
    struct pollfd p = { .fd = master, .events = POLLIN };
    ssize_t r = poll (&p, 1, 10000) == 1
      ? read (master, buf + n, sizeof buf - 1 - n) : -1;
    if (r <= 0)
      break;
    n += (size_t) r;
    buf[n] = 0;
  } while (!strstr (buf, "<end>"));
  dup2 (real_stderr, STDERR_FILENO);
  close (real_stderr);
  close (master);
  char *end = strstr (buf, "<end>");
  assert_non_null (end);
  *end = 0;
  return buf;
}

static const char *
drawn_at (unsigned short columns, const char *label, uint64_t done,
          uint64_t total)
{
  begin_terminal (columns);
  struct esp_progress *p = esp_progress_new (label, false);
  int r = esp_progress_update (p, done, total);
  esp_progress_free (p);
  const char *s = end_terminal ();
  assert_int_equal (r, 0);
  return s;
}

/* Characters of the one line that was drawn. */
static size_t
line_length (const char *s)
{
  assert_int_equal (*s, '\r');
  return strcspn (s + 1, "\x1b");
}

static void
bar_tells_how_far_and_is_cleared (void **state)
{
  const char *s = drawn_at (100, "importing base", UINT64_C (1) << 29,
                            UINT64_C (1) << 30);
  static const char clear[] = "\r\033[K";

  (void) state;
  assert_non_null (strstr (s, "\rimporting base [#"));
  assert_non_null (strstr (s, " 50%  512M of 1G  "));
  assert_non_null (strstr (s, " left"));
  assert_string_equal (s + strlen (s) - strlen (clear), clear);
}

static void
bar_is_half_full_at_half (void **state)
{
  const char *s = strchr (drawn_at (100, "x", 500, 1000), '[');
  size_t full = strspn (s + 1, "#"), empty = strspn (s + 1 + full, "-");

  (void) state;
  assert_in_range (full + empty, 10, 50);
  assert_in_range (full, empty - 1, empty);
}

static void
line_fits_the_terminal (void **state)
{
  static const unsigned short columns[] = { 1, 2, 10, 40, 60, 80, 120, 5000 };

  (void) state;
  for (size_t i = 0; i < sizeof columns / sizeof columns[0]; ++i) {
    const char *s = drawn_at (columns[i], "a label of some length", 1, 3);
    assert_in_range (line_length (s), 1,
                     columns[i] > 1 ? columns[i] - 1 : 1);
  }
  /* Too narrow for a bar: the numbers come first. */
  const char *s = drawn_at (40, "a label of some length", 2, 3);
  assert_null (strstr (s, "[#"));
  assert_non_null (strstr (s, " 66%"));
}

static void
columns_count_where_the_terminal_tells_nothing (void **state)
{
  (void) state;
  setenv ("COLUMNS", "30", 1);
  assert_in_range (line_length (drawn_at (0, "a long label, a long label",
                                          1, 3)), 20, 29);
  unsetenv ("COLUMNS");
  assert_in_range (line_length (drawn_at (0, "a long label, a long label",
                                          1, 3)), 60, 79);
}

static void
totals_of_nothing_and_beyond_are_harmless (void **state)
{
  (void) state;
  assert_non_null (strstr (drawn_at (80, "x", 0, 0), "100%  0 of 0"));
  assert_non_null (strstr (drawn_at (80, "x", 9, 3), "100%  3 of 3"));
  assert_non_null (strstr (drawn_at (80, "x", UINT64_MAX, UINT64_MAX),
                           "100%  16E of 16E"));
}

/* Ten times a second: what comes sooner is not drawn, the end always is. */
static void
bar_is_not_drawn_too_often (void **state)
{
  struct timespec a, b;
  int lines = 0;

  (void) state;
  begin_terminal (80);
  clock_gettime (CLOCK_MONOTONIC, &a);
  struct esp_progress *p = esp_progress_new ("x", false);
  for (uint64_t i = 0; i <= 1000; ++i)
    esp_progress_update (p, i, 1000);
  clock_gettime (CLOCK_MONOTONIC, &b);
  const char *s = end_terminal ();
  long tenths = (b.tv_sec - a.tv_sec) * 10 + (b.tv_nsec - a.tv_nsec) / 100000000;
  for (const char *q = s; (q = strstr (q, " of ")) != NULL; ++q)
    ++lines;
  assert_non_null (strstr (s, "100%"));
  /* One at the start, one each tenth, the last. */
  assert_in_range (lines, 2, tenths + 3);
  begin_terminal (80);
  esp_progress_free (p);
  end_terminal ();
}

static void
quiet_and_pipes_get_nothing (void **state)
{
  char buf[16];
  int fd[2];

  (void) state;
  begin_terminal (80);
  struct esp_progress *p = esp_progress_new ("x", true);
  int r = esp_progress_update (p, 1, 2);
  esp_progress_free (p);
  assert_string_equal (end_terminal (), "");
  assert_int_equal (r, 0);

  assert_int_equal (pipe2 (fd, O_NONBLOCK | O_CLOEXEC), 0);
  real_stderr = dup (STDERR_FILENO);
  dup2 (fd[1], STDERR_FILENO);
  p = esp_progress_new ("x", false);
  esp_progress_update (p, 1, 2);
  esp_progress_free (p);
  fflush (stderr);
  dup2 (real_stderr, STDERR_FILENO);
  close (real_stderr);
  assert_int_equal (read (fd[0], buf, sizeof buf), -1);
  assert_int_equal (errno, EAGAIN);
  close (fd[0]);
  close (fd[1]);
}

/* Last: nothing takes an interrupt back. */
static void
interrupt_stops_the_work (void **state)
{
  struct esp_progress *p = esp_progress_new ("x", true);

  (void) state;
  assert_false (esp_progress_interrupted ());
  assert_int_equal (esp_progress_update (p, 1, 2), 0);
  esp_progress_interrupt ();
  assert_true (esp_progress_interrupted ());
  assert_int_equal (esp_progress_update (p, 1, 2), -1);
  assert_int_equal (errno, ECANCELED);
  esp_progress_free (p);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (bar_tells_how_far_and_is_cleared),
    cmocka_unit_test (bar_is_half_full_at_half),
    cmocka_unit_test (line_fits_the_terminal),
    cmocka_unit_test (columns_count_where_the_terminal_tells_nothing),
    cmocka_unit_test (totals_of_nothing_and_beyond_are_harmless),
    cmocka_unit_test (bar_is_not_drawn_too_often),
    cmocka_unit_test (quiet_and_pipes_get_nothing),
    cmocka_unit_test (interrupt_stops_the_work),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
