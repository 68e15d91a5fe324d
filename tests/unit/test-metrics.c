/* SPDX-License-Identifier: BSD-3-Clause */
/* Metrics: their text, and totals that do not shrink. */

#include <config.h>

#include "unit.h"

#include "daemon/api-internal.h"
#include "daemon/metrics-text.h"
#include "daemon/metrics.h"
#include "daemon/pulse.h"

/* --- text ------------------------------------------------------------------ */

static char *text;
static size_t len;

static FILE *
begin (void)
{
  free (text);
  text = NULL;
  return open_memstream (&text, &len);
}

static void
assert_sample (const char *value, const char *expected)
{
  const char *labels[] = { "venue", value, NULL };
  FILE *f = begin ();

  metric_sample (f, "x", labels, 1, METRIC_PLAIN);
  fclose (f);
  assert_string_equal (text, expected);
}

static void
test_escaping (void **state)
{
  (void) state;
  assert_sample ("cafe", "espalier_x{venue=\"cafe\"} 1\n");
  assert_sample ("", "espalier_x{venue=\"\"} 1\n");
  assert_sample ("a\"b\\c\nd", "espalier_x{venue=\"a\\\"b\\\\c\\nd\"} 1\n");
  assert_sample ("} 5\nespalier_y 6",
                 "espalier_x{venue=\"} 5\\nespalier_y 6\"} 1\n");
  assert_sample ("网吧", "espalier_x{venue=\"网吧\"} 1\n");
  /* What is no UTF-8 is made legible, and that is escaped in its turn. */
  assert_sample ("\xff", "espalier_x{venue=\"\\\\xff\"} 1\n");
}

static void
test_numbers (void **state)
{
  const char *two[] = { "a", "1", "b", "2", NULL };
  FILE *f = begin ();

  (void) state;
  metric_sample (f, "n", NULL, UINT64_MAX, METRIC_PLAIN);
  metric_sample (f, "s", NULL, 1500001, METRIC_MICROSECONDS);
  metric_sample (f, "s", NULL, 7, METRIC_MICROSECONDS);
  metric_sample (f, "t", two, 0, METRIC_PLAIN);
  fclose (f);
  assert_string_equal (text, "espalier_n 18446744073709551615\n"
                       "espalier_s 1.500001\nespalier_s 0.000007\n"
                       "espalier_t{a=\"1\",b=\"2\"} 0\n");
}

static void
test_head (void **state)
{
  FILE *f = begin ();

  (void) state;
  metric_head (f, "x_total", METRIC_COUNTER, "Things.");
  metric_head (f, "y", METRIC_GAUGE, "Now.");
  fclose (f);
  assert_string_equal (text, "# HELP espalier_x_total Things.\n"
                       "# TYPE espalier_x_total counter\n"
                       "# HELP espalier_y Now.\n# TYPE espalier_y gauge\n");
}

/* --- totals ------------------------------------------------------------------ */

/* A sample of lines sorted as samples are. */
static struct sample
sample_of (struct line *lines, size_t n)
{
  return (struct sample) { .line = lines, .n = n };
}

static struct line
venue (int pid, uint64_t reads)
{
  return (struct line) { .kind = ESP_STATS_VENUE, .pid = pid, .since = 1,
                         .program = (char *) "nbdkit",
                         .name = (char *) "cafe/0",
                         .c[ESP_DISK_READS] = reads,
                         .c[ESP_DISK_CONNECTIONS] = 3 };
}

static uint64_t
reads_of (const struct pulse *p)
{
  assert_int_equal (p->ntotals, 1);
  assert_int_equal (p->total[0].c[ESP_DISK_CONNECTIONS], 0);
  return p->total[0].c[ESP_DISK_READS];
}

static void
test_totals_never_shrink (void **state)
{
  struct line one[] = { venue (10, 100) }, both[] = { venue (10, 130),
                                                      venue (11, 5) };
  struct line other[] = { venue (11, 25) }, again[] = { venue (10, 7) };
  struct sample none = { .n = 0 }, a = sample_of (one, 1);
  struct sample b = sample_of (both, 2), c = sample_of (other, 1);
  struct sample d = sample_of (again, 1);
  struct pulse p = { .beats = 0 };

  (void) state;
  pulse_take (&p, &none, &a);   /* what was before us is not ours */
  assert_int_equal (reads_of (&p), 0);
  pulse_take (&p, &a, &b);      /* a new server counts from 0 */
  assert_int_equal (reads_of (&p), 35);
  pulse_take (&p, &b, &c);      /* one ended */
  assert_int_equal (reads_of (&p), 55);
  pulse_take (&p, &c, &none);   /* all ended */
  assert_int_equal (reads_of (&p), 55);
  pulse_take (&p, &none, &d);   /* the number of a process is used again */
  assert_int_equal (reads_of (&p), 62);
  d.line[0].since = 2;
  d.line[0].c[ESP_DISK_READS] = 3;
  pulse_take (&p, &a, &d);      /* in one beat */
  assert_int_equal (reads_of (&p), 65);
  pulse_clear (&p);
}

static void
test_labels_have_bounds (void **state)
{
  struct line lines[] = {
    { .kind = ESP_STATS_VENUE, .pid = 1, .name = (char *) "rp:a",
      .c[ESP_DISK_READS] = 1, .c[ESP_DISK_CONNECTIONS] = 1 },
    { .kind = ESP_STATS_VENUE, .pid = 1, .name = (char *) "rp:b",
      .c[ESP_DISK_READS] = 2, .c[ESP_DISK_CONNECTIONS] = 1 },
    { .kind = ESP_STATS_CLIENT, .pid = 1, .name = (char *) "cafe/0@seat",
      .c[ESP_DISK_READS] = 2 },
    { .kind = ESP_STATS_RP, .pid = 1, .name = (char *) "uuid-1",
      .c[ESP_RP_CENTER_BYTES] = 10 },
    { .kind = ESP_STATS_RP, .pid = 1, .name = (char *) "uuid-2",
      .c[ESP_RP_CENTER_BYTES] = 5 },
  };
  struct sample none = { .n = 0 }, now = sample_of (lines, 5);
  struct pulse p = { .beats = 1 };
  FILE *f = begin ();

  (void) state;
  pulse_take (&p, &none, &now);
  p.now = now;
  metrics_pulse (f, &p);
  fclose (f);
  assert_non_null (strstr (text, "\nespalier_venue_reads_total{venue=\"rp:\"} "
                           "3\n"));
  assert_non_null (strstr (text, "\nespalier_venue_connections{venue=\"rp:\"} "
                           "2\n"));
  assert_non_null (strstr (text, "\nespalier_fetched_bytes_total{source="
                           "\"center\"} 15\n"));
  assert_non_null (strstr (text, "\nespalier_client_connections 1\n"));
  assert_null (strstr (text, "seat"));
  assert_null (strstr (text, "uuid"));
  assert_null (strstr (text, "rp:a"));
  p.now = none;
  pulse_clear (&p);
}

/* --- URLs --------------------------------------------------------------------- */

static void
assert_public (const char *url, const char *expected)
{
  CLEANUP_FREE char *out = api_public_url (url);
  assert_string_equal (out, expected);
}

static void
test_urls_have_no_secrets (void **state)
{
  (void) state;
  assert_public ("/srv/center", "/srv/center");
  assert_public ("https://center.example/a/b", "https://center.example/a/b");
  assert_public ("https://user:pass@center.example:8443/a?token=x#y",
                 "https://center.example:8443/a");
  assert_public ("https://user:p@ss@center.example/", "https://center.example/");
  assert_public ("s3://bucket/p?endpoint=http://s3:9000&key=K&region=eu",
                 "s3://bucket/p?endpoint=http://s3:9000&region=eu");
  assert_public ("s3://bucket?endpoint=http://u:p@s3:9000&region=eu",
                 "s3://bucket?region=eu");
  assert_public ("file:///srv/c?x", "file:///srv/c");
  assert_public ("https://", "https://");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_escaping),
    cmocka_unit_test (test_numbers),
    cmocka_unit_test (test_head),
    cmocka_unit_test (test_totals_never_shrink),
    cmocka_unit_test (test_labels_have_bounds),
    cmocka_unit_test (test_urls_have_no_secrets),
  };
  int r = cmocka_run_group_tests (tests, NULL, NULL);

  free (text);
  return r;
}
