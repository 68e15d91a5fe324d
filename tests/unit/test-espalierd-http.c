/* SPDX-License-Identifier: BSD-3-Clause */
/* What the daemon's HTTP server decodes: targets, patterns, ranges. */

#include "unit.h"

#include "daemon/http.h"
#include "daemon/uri.h"

#define COUNT(a) (sizeof (a) / sizeof *(a))

static void
paths_that_mean_one_thing (void **state)
{
  static const struct { const char *raw, *path; } good[] = {
    { "/", "/" }, { "/a", "/a" }, { "/a/", "/a/" }, { "/a%20b", "/a b" },
    { "/caf%C3%A9", "/caf\xc3\xa9" }, { "/a+b", "/a+b" }, { "/...", "/..." },
    { "/a?b", "/a" }, { "http://h/a?b", "/a" }, { "http://h", "/" },
    { "/%25", "/%" }, { "/a%3fb", "/a?b" },
  };
  struct uri u;
  const char *why;

  (void) state;
  for (size_t i = 0; i < COUNT (good); i++) {
    if (uri_parse (good[i].raw, &u, &why) != 0)
      fail_msg ("refused: %s: %s", good[i].raw, why);
    assert_string_equal (u.path, good[i].path);
    uri_clear (&u);
  }
}

static void
paths_that_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "a", "*", "?a", "//", "/a//b", "/.", "/..", "/a/..", "/a/./b", "/%2e",
    "/%2e%2E/x", "/a%2fb", "/a%2Fb", "/%", "/%1", "/%gg", "/%00", "/a%0ab",
    "/%7f", "/%ff", "/%c0%af", "/%ed%a0%80", "/%f4%90%80%80", "/%c2%80",
    "http://h//", "/?%", "/?a=%x", "ftp://h/",
  };
  char longest[URI_MAX + 3];
  struct uri u;
  const char *why;

  (void) state;
  for (size_t i = 0; i < COUNT (bad); i++) {
    if (uri_parse (bad[i], &u, &why) != 400)
      fail_msg ("accepted: %s", bad[i]);
    assert_non_null (why);
    uri_clear (&u);
  }
  memset (longest, 'x', sizeof longest);
  longest[0] = '/';
  longest[URI_MAX] = 0;
  assert_int_equal (uri_parse (longest, &u, &why), 0);
  uri_clear (&u);
  longest[URI_MAX] = 'x';
  longest[URI_MAX + 1] = 0;
  assert_int_equal (uri_parse (longest, &u, &why), 414);
  uri_clear (&u);
}

static void
queries (void **state)
{
  struct uri u;
  const char *why;

  (void) state;
  assert_int_equal (uri_parse ("/x?a=1&b&a=2+%2b&=n&%61=3&c=%00&d=%ff&e=%0a&&f=x=y", &u, &why), 0);
  assert_string_equal (uri_query (&u, "a", 0), "1");
  assert_string_equal (uri_query (&u, "a", 1), "2 +");
  assert_string_equal (uri_query (&u, "a", 2), "3");
  assert_null (uri_query (&u, "a", 3));
  assert_string_equal (uri_query (&u, "b", 0), "");
  assert_null (uri_query (&u, "c", 0));
  assert_null (uri_query (&u, "d", 0));
  assert_null (uri_query (&u, "e", 0));
  assert_string_equal (uri_query (&u, "f", 0), "x=y");
  assert_null (uri_query (&u, "g", 0));
  uri_clear (&u);
}

static void
values_are_bounded (void **state)
{
  char raw[URI_VALUE_MAX + 16] = "/?a=";
  struct uri u;
  const char *why;

  (void) state;
  memset (raw + 4, 'x', URI_VALUE_MAX);
  assert_int_equal (uri_parse (raw, &u, &why), 0);
  assert_int_equal (strlen (uri_query (&u, "a", 0)), URI_VALUE_MAX);
  uri_clear (&u);
  raw[4 + URI_VALUE_MAX] = 'x';
  assert_int_equal (uri_parse (raw, &u, &why), 0);
  assert_null (uri_query (&u, "a", 0));
  uri_clear (&u);
}

static void
patterns (void **state)
{
  char buf[100];
  const char *part[2];

  (void) state;
  assert_true (uri_match ("/", "/", buf, part, 2));
  assert_true (uri_match ("/a", "/a", buf, part, 2));
  assert_false (uri_match ("/a", "/a/", buf, part, 2));
  assert_false (uri_match ("/a", "/ab", buf, part, 2));
  assert_false (uri_match ("/ab", "/a", buf, part, 2));
  assert_true (uri_match ("/v/*/disk/*", "/v/caf\xc3\xa9/disk/0", buf, part, 2));
  assert_string_equal (part[0], "caf\xc3\xa9");
  assert_string_equal (part[1], "0");
  assert_false (uri_match ("/v/*/disk/*", "/v//disk/0", buf, part, 2));
  assert_false (uri_match ("/v/*/disk/*", "/v/x/disk/", buf, part, 2));
  assert_false (uri_match ("/v/*/disk/*", "/v/x/disk", buf, part, 2));
  assert_false (uri_match ("/v/*/disk/*", "/v/x/disk/0/1", buf, part, 2));
  assert_false (uri_match ("/*/*/*", "/a/b/c", buf, part, 2));
  assert_true (uri_match ("/*", "/*", buf, part, 2));
}

static void
ranges (void **state)
{
  static const struct { const char *header; unsigned status; uint64_t from, len; } t[] = {
    { NULL, 200, 0, 100 }, { "", 200, 0, 100 }, { "bytes=0-9", 206, 0, 10 },
    { "bytes=0-", 206, 0, 100 }, { "bytes=99-", 206, 99, 1 },
    { "bytes=90-200", 206, 90, 10 }, { "bytes=-1", 206, 99, 1 },
    { "bytes=-200", 206, 0, 100 }, { "BYTES=1-1", 206, 1, 1 },
    { "bytes= 1-2 ", 206, 1, 2 }, { "bytes=100-", 416, 0, 0 },
    { "bytes=100-200", 416, 0, 0 }, { "bytes=-0", 416, 0, 0 },
    { "bytes=5-4", 200, 0, 100 }, { "bytes=0-1,3-4", 200, 0, 100 },
    { "bytes=", 200, 0, 100 }, { "bytes=-", 200, 0, 100 },
    { "bytes=a-b", 200, 0, 100 }, { "lines=0-9", 200, 0, 100 },
    { "bytes=0-9x", 200, 0, 100 }, { "bytes 0-9", 200, 0, 100 },
    { "bytes=0-99999999999999999999999", 206, 0, 100 },
    { "bytes=99999999999999999999999-", 416, 0, 0 },
    { "bytes=-99999999999999999999999", 206, 0, 100 },
    { "bytes=18446744073709551615-", 416, 0, 0 },
    { "bytes=0x1-2", 200, 0, 100 }, { "bytes=+1-2", 200, 0, 100 },
  };
  uint64_t from, len;

  (void) state;
  for (size_t i = 0; i < COUNT (t); i++) {
    unsigned status = range_parse (t[i].header, 100, &from, &len);
    if (status != t[i].status ||
        (status != 416 && (from != t[i].from || len != t[i].len)))
      fail_msg ("%s: %u", t[i].header, status);
  }
  assert_int_equal (range_parse ("bytes=0-", 0, &from, &len), 416);
  assert_int_equal (range_parse ("bytes=-5", 0, &from, &len), 416);
  assert_int_equal (range_parse ("bytes=0-0", INT64_MAX, &from, &len), 206);
  assert_int_equal (range_parse ("bytes=-1", INT64_MAX, &from, &len), 206);
  assert_int_equal (from, INT64_MAX - 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (paths_that_mean_one_thing),
    cmocka_unit_test (paths_that_are_refused),
    cmocka_unit_test (queries),
    cmocka_unit_test (values_are_bounded),
    cmocka_unit_test (patterns),
    cmocka_unit_test (ranges),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
