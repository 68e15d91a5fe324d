/* SPDX-License-Identifier: BSD-3-Clause */
/* Names that people and hostile clients write; UUIDs, sizes, times. */

#include "unit.h"

#include <time.h>

#include "util/cleanup.h"
#include "util/name.h"

#define COUNT(a) (sizeof (a) / sizeof *(a))

#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define LONGEST HUNDRED TEN TEN "01234567"      /* 128 bytes */

/* No letter, no UTF-8, or no name for another reason. */
static const char *const bad_names[] = {
  "", ".", "..", ".x", "-x", "--help", "../x", "a/b", "/", "a b", "a\n", "a\t",
  "a@b", "a'b", "a\"b", "'; DROP TABLE venues; --", "a;b", "a%b", "a\\b", "a*",
  "\x7f", "\x01", LONGEST "9",
  "\xff", "\xc3", "a\xc3", "\x80",                      /* cut, stray */
  "\xc0\xaf", "\xc1\xa1", "\xe0\x81\xa1", "\xf0\x80\x81\xa1", /* overlong */
  "\xed\xa0\x80", "\xed\xbf\xbf",                       /* surrogates */
  "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80",
  "e\xcc\x81",                          /* an accent of its own */
  "\xe2\x80\xae" "a", "a\xe2\x80\x8b",  /* right to left, zero width */
  "\xc2\xa0", "\xe3\x80\x80", "\xc2\xad", "\xef\xbb\xbf" "a",
  "\xe2\x82\xac", "\xf0\x9f\x98\x80",   /* a currency, a face */
};

static const char *const good_names[] = {
  "a", "9", "_", "cafe", "Win10-2026.11_a", "a..b", "a.", "a-", LONGEST,
  "caf\xc3\xa9", "\xd0\xbc\xd0\xb0\xd1\x80", "\xe5\xae\xa2\xe6\x88\xb7",
  "\xd9\x85\xd9\x82\xd9\x87\xd9\x89", "\xf0\x90\x8d\x88",
};

static void
names_are_told_from_what_is_none (void **state)
{
  (void) state;
  for (size_t i = 0; i < COUNT (good_names); ++i) {
    if (!esp_name_ok (good_names[i]) || !esp_client_ok (good_names[i]))
      fail_msg ("refused: %s", good_names[i]);
    assert_int_equal (esp_name_check (good_names[i], "venue"), 0);
  }
  for (size_t i = 0; i < COUNT (bad_names); ++i)
    if (esp_name_ok (bad_names[i]) || esp_client_ok (bad_names[i]))
      fail_msg ("accepted: %s", bad_names[i]);
}

static void
clients_may_be_addresses (void **state)
{
  static const char *const clients[] =
    { "::1", "fe80::1", "52:54:00:12:34:56", "10.0.0.7", "seat-7" };

  (void) state;
  for (size_t i = 0; i < COUNT (clients); ++i) {
    assert_true (esp_client_ok (clients[i]));
    assert_int_equal (esp_client_check (clients[i]), 0);
  }
  assert_false (esp_name_ok ("fe80::1"));
}

static void
bad_name_is_reported_with_what_a_good_one_is (void **state)
{
  (void) state;
  assert_int_equal (esp_name_check ("a\x1b[31m", "venue"), -1);
  assert_int_equal (errno, EINVAL);
  assert_string_equal (unit_error, "venue name \"a\\x1b[31m\" has a character "
                       "that names cannot have: use letters, digits, \".\", "
                       "\"_\" and \"-\", beginning with a letter, a digit or "
                       "\"_\", 128 bytes at most");
  assert_int_equal (esp_client_check ("a b"), -1);
  assert_non_null (strstr (unit_error, "client name \"a b\""));
  assert_non_null (strstr (unit_error, "\":\""));
  /* Surrogates and what is beyond Unicode are told from odd characters. */
  assert_int_equal (esp_name_check ("\xed\xa0\x80", "venue"), -1);
  assert_non_null (strstr (unit_error, "\"\\xed\\xa0\\x80\" is not valid"));
  assert_int_equal (esp_name_check ("\xf4\x90\x80\x80", "venue"), -1);
  assert_non_null (strstr (unit_error, "is not valid UTF-8"));
  assert_int_equal (esp_name_check (LONGEST LONGEST, "venue"), -1);
  assert_non_null (strstr (unit_error, "...\" is longer than 128 bytes"));
}

static void
escape_shows_what_can_be_shown (void **state)
{
  char buf[64], small[8], one[1] = "x";

  (void) state;
  assert_string_equal (esp_escape ("a\n\xff\x7f z", buf, sizeof buf),
                       "a\\x0a\\xff\\x7f z");
  assert_string_equal (esp_escape ("caf\xc3\xa9", buf, sizeof buf),
                       "caf\xc3\xa9");
  assert_string_equal (esp_escape ("\xe2\x80\xae", buf, sizeof buf),
                       "\\xe2\\x80\\xae");
  assert_string_equal (esp_escape ("1234567", small, sizeof small), "1234567");
  assert_string_equal (esp_escape ("12345678", small, sizeof small),
                       "1234...");
  assert_string_equal (esp_escape ("123\n5", small, sizeof small), "123...");
  assert_string_equal (esp_escape ("\n\n", small, sizeof small), "\\x0a...");
  assert_string_equal (esp_escape ("abc", one, sizeof one), "");
}

/* Whatever is escaped, the result is printable, fits, and is UTF-8. */
static void
escape_of_anything_fits (void **state)
{
  char in[64], out[80];

  (void) state;
  srand (unit_seed ());
  for (int i = 0; i < 20000; ++i) {
    size_t n = (size_t) rand () % sizeof in, size = 1 + (size_t) rand () % 79;
    for (size_t j = 0; j < n; ++j)
      in[j] = (char) (1 + rand () % 255);
    in[n ? n - 1 : 0] = 0;
    memset (out, 'G', sizeof out);
    esp_escape (in, out, size);
    assert_true (strlen (out) < size);
    assert_int_equal (out[size], 'G');
    for (char *p = out; *p; ++p)
      assert_true ((unsigned char) *p >= 0x20 && *p != 0x7f);
  }
}

struct export_case {
  const char *in, *canonical;
};

static void
exports_are_taken_apart (void **state)
{
  static const struct export_case cases[] = {
    { "cafe", "cafe/0" },
    { "cafe/0", "cafe/0" },
    { "cafe/255", "cafe/255" },
    { "cafe@seat-7", "cafe/0@seat-7" },
    { "cafe/1@52:54:00:12:34:56", "cafe/1@52:54:00:12:34:56" },
    { "cafe@::1", "cafe/0@::1" },
    { "rp:base", "rp:base" },
    { "rp:base@me", "rp:base@me" },
    { "rp", "rp/0" },
    { LONGEST "/255@" LONGEST, LONGEST "/255@" LONGEST },
    { "rp:" LONGEST "@" LONGEST, "rp:" LONGEST "@" LONGEST },
  };
  struct esp_export e;
  char buf[ESP_EXPORT_MAX];

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    assert_int_equal (esp_export_parse (cases[i].in, &e), 0);
    assert_string_equal (esp_export_format (&e, buf, sizeof buf),
                         cases[i].canonical);
    assert_int_equal (esp_export_parse (buf, &e), 0);
  }
  assert_int_equal (esp_export_parse ("cafe/7@x", &e), 0);
  assert_false (e.is_rp);
  assert_string_equal (e.name, "cafe");
  assert_int_equal (e.disk, 7);
  assert_string_equal (e.client, "x");
}

static void
hostile_exports_are_refused_and_change_nothing (void **state)
{
  static const struct export_case cases[] = {   /* why, not canonical */
    { "", "the name is empty" },
    { "../x", "begins with a dot" },
    { "a/../b", "not a number" },
    { "cafe/0/1", "not a number" },
    { "cafe/-1", "not a number" },
    { "cafe/+1", "behind \"/\" is missing" },
    { "cafe+", "behind \"+\" is missing" },
    { "cafe@x+", "behind \"+\" is missing" },
    { "+AQAB", "venue's name is empty" },
    { "cafe@+AQAB", "client's name is empty" },
    { "cafe+AQ=", "not base64url" },
    { "cafe+AQ/B", "not base64url" },
    { "cafe+AQ+B", "not base64url" },
    { "cafe+AQ@x", "not base64url" },
    { "cafe+AQ B", "not base64url" },
    { "cafe+AQ\xc3\xa9", "not base64url" },
    { "cafe+" LONGEST, "the ticket is longer than 127 bytes" },
    { "cafe/ 1", "not a number" },
    { "cafe/0x1", "not a number" },
    { "cafe/00", "begins with a 0" },
    { "cafe/01", "begins with a 0" },
    { "cafe/256", "more than 255" },
    { "cafe/4294967296", "more than 255" },
    { "cafe/18446744073709551616", "more than 255" },
    { "cafe/", "missing" },
    { "cafe/@x", "missing" },
    { "cafe@", "client's name is empty" },
    { "@x", "venue's name is empty" },
    { "/0", "venue's name is empty" },
    { "a@b@c", "client's name has a character" },
    { "cafe@../../x", "client's name begins with a dot" },
    { "cafe@a/b", "client's name has a character" },
    { "cafe\xff", "not valid UTF-8" },
    { "cafe@\xc0\xaf", "not valid UTF-8" },
    { "'; DROP TABLE venues; --", "venue's name has a character" },
    { "caf:e", "venue's name has a character" },
    { "rp:", "restore point's name is empty" },
    { "rp:x/0", "has no \"/\"" },
    { "rp:../x", "begins with a dot" },
    { "rp:rp:x", "has a character" },
    { LONGEST "x", "longer than 128 bytes" },
    { "a@" LONGEST "x", "longer than 128 bytes" },
  };
  struct esp_export e, before;

  (void) state;
  memset (&e, 'x', sizeof e);
  before = e;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    errno = 0;
    if (esp_export_parse (cases[i].in, &e) != -1 || errno != EINVAL)
      fail_msg ("accepted: %s", cases[i].in);
    if (!strstr (unit_error, cases[i].canonical)
        || !strstr (unit_error, "write VENUE[/DISK][@CLIENT]"))
      fail_msg ("%s: %s", cases[i].in, unit_error);
    assert_memory_equal (&e, &before, sizeof e);
  }
}

/* 127 bytes: the longest ticket. */
#define TICKET HUNDRED TEN TEN "aZ_-xyz"

static void
tickets_are_taken_off (void **state)
{
  static const struct { const char *in, *canonical, *ticket; } cases[] = {
    { "cafe+AQAB", "cafe/0", "AQAB" },
    { "cafe/1+-_-_", "cafe/1", "-_-_" },
    { "cafe/1@seat-7+" TICKET, "cafe/1@seat-7", TICKET },
    { "cafe@::1+x", "cafe/0@::1", "x" },
    { "rp:base+0", "rp:base", "0" },
    { "rp:base@me+0", "rp:base@me", "0" },
    { "rp+0", "rp/0", "0" },
    { "cafe@x", "cafe/0@x", "" },
    { LONGEST "/255@" LONGEST "+" TICKET, LONGEST "/255@" LONGEST, TICKET },
  };
  struct esp_export e;
  char buf[ESP_EXPORT_MAX];

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    assert_true (strlen (cases[i].in) < ESP_EXPORT_MAX);
    assert_int_equal (esp_export_parse (cases[i].in, &e), 0);
    assert_string_equal (e.ticket, cases[i].ticket);
    assert_string_equal (esp_export_format (&e, buf, sizeof buf),
                         cases[i].canonical);
  }
}

/* Whatever is wrong with a name, its ticket is in no message. */
static void
tickets_are_not_shown (void **state)
{
  static const char *const bad[] = {
    "cafe/x+SECRET", "cafe@ +SECRET", "+SECRET", "cafe+SECRET=",
    "cafe+SEC/RET+SECRET", "rp:x/0+SECRET", "cafe\xff+SECRET",
    LONGEST LONGEST "+SECRET",
  };
  struct esp_export e;
  char buf[20];

  (void) state;
  for (size_t i = 0; i < COUNT (bad); ++i) {
    assert_int_equal (esp_export_parse (bad[i], &e), -1);
    if (strstr (unit_error, "SEC") || strstr (unit_error, "RET"))
      fail_msg ("%s", unit_error);
  }
  assert_string_equal (esp_export_escape ("cafe@x+SECRET", buf, sizeof buf),
                       "cafe@x+...");
  assert_string_equal (esp_export_escape ("cafe@x", buf, sizeof buf), "cafe@x");
  assert_string_equal (esp_export_escape ("0123456789012345+S", buf,
                                          sizeof buf), "0123456789012345");
}

static void
four_kib_of_anything_are_refused (void **state)
{
  char big[4097];
  struct esp_export e;

  (void) state;
  for (int c = 1; c < 256; ++c) {
    memset (big, c, sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_int_equal (esp_export_parse (big, &e), -1);
    assert_true (strlen (unit_error) < 400);
  }
}

/* The other way round, where the component was not cut. */
static void
decode_component (const char *s, char *out)
{
  unsigned c;

  for (; *s && strcmp (s, "%") != 0; s += *s == '%' ? 3 : 1) {
    c = (unsigned char) *s;
    if (*s == '%')
      assert_int_equal (sscanf (s + 1, "%2X", &c), 1);
    *out++ = (char) c;
  }
  *out = 0;
}

static void
component_is_harmless_and_reversible (void **state)
{
  char in[80], out[300];

  (void) state;
  srand (unit_seed ());
  for (int i = 0; i < 20000; ++i) {
    size_t n = (size_t) rand () % sizeof in;
    for (size_t j = 0; j < n; ++j)
      in[j] = rand () % 2 ? "./-_%@a0"[rand () % 8] : (char) (1 + rand () % 255);
    in[n ? n - 1 : 0] = 0;
    CLEANUP_FREE char *c = esp_path_component (in);
    assert_true (strlen (c) <= 255 && c[0] && c[0] != '.');
    assert_int_equal (strspn (c, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq"
                              "rstuvwxyz0123456789_-.%"), strlen (c));
    if (strlen (in) <= 255 / 3) {
      decode_component (c, out);
      assert_string_equal (in, out);
    }
  }
}

static void
components_of_examples (void **state)
{
  static const char *const cases[][2] = {
    { "", "%" }, { "%", "%25" }, { ".", "%2E" }, { "..", "%2E." },
    { "a.b", "a.b" }, { "a/b", "a%2Fb" }, { "::1", "%3A%3A1" },
    { "caf\xc3\xa9", "caf%C3%A9" }, { LONGEST, LONGEST },
  };

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    CLEANUP_FREE char *c = esp_path_component (cases[i][0]);
    assert_string_equal (c, cases[i][1]);
  }
}

static void
long_components_differ_where_their_names_do (void **state)
{
  char a[600], b[600];

  (void) state;
  for (size_t n = 240; n < 599; ++n) {
    memset (a, 'x', n);
    a[n] = 0;
    strcpy (b, a);
    b[n - 1] = 'y';
    CLEANUP_FREE char *ca = esp_path_component (a);
    CLEANUP_FREE char *cb = esp_path_component (b);
    assert_string_not_equal (ca, cb);
    assert_true (strlen (ca) <= 255);
    assert_int_equal (strstr (ca, "%%") != NULL, n > 255);
    /* What looks like a cut one is no name of a cut one. */
    CLEANUP_FREE char *twice = esp_path_component (ca);
    assert_int_equal (strcmp (twice, ca) == 0, n <= 255);
  }
}

static void
uuids_are_text_and_back (void **state)
{
  esp_uuid a, b, null = { { 0 } };
  char text[ESP_UUID_TEXT];

  (void) state;
  esp_uuid_new (&a);
  esp_uuid_new (&b);
  assert_false (esp_uuid_eq (&a, &b));
  assert_false (esp_uuid_is_null (&a));
  assert_true (esp_uuid_is_null (&null));
  assert_int_equal (esp_uuid_parse (esp_uuid_text (&a, text), &b), 0);
  assert_true (esp_uuid_eq (&a, &b));
  assert_int_equal (esp_uuid_parse ("0123ABCD-0000-1111-2222-0123456789EF",
                                    &b), 0);
  assert_string_equal (esp_uuid_text (&b, text),
                       "0123abcd-0000-1111-2222-0123456789ef");
}

static void
uuids_that_are_none_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "0123abcd", "0123abcd-0000-1111-2222-0123456789e",
    "0123abcd-0000-1111-2222-0123456789eff", "0123abcd00001111222-0123456789ef12",
    "0123abcd-0000-1111-2222-0123456789eg", "../3abcd-0000-1111-2222-0123456789ef",
  };
  esp_uuid u, before;

  (void) state;
  memset (&u, 7, sizeof u);
  before = u;
  for (size_t i = 0; i < COUNT (bad); ++i) {
    assert_int_equal (esp_uuid_parse (bad[i], &u), -1);
    assert_int_equal (errno, EINVAL);
    assert_true (esp_uuid_eq (&u, &before));
  }
}

static void
sizes_are_read_as_nbdkit_reads_them (void **state)
{
  static const struct { const char *s; uint64_t n; } cases[] = {
    { "0", 0 }, { "512", 512 }, { "1b", 1 }, { "7B", 7 }, { "2s", 1024 },
    { "64k", 65536 }, { "64K", 65536 }, { "1KiB", 1024 }, { "1kiB", 1024 },
    { "256M", UINT64_C (256) << 20 }, { "10GiB", UINT64_C (10) << 30 },
    { "1T", UINT64_C (1) << 40 }, { "1P", UINT64_C (1) << 50 },
    { "7E", UINT64_C (7) << 60 }, { "9223372036854775807", INT64_MAX },
    { "007", 7 },
  };
  uint64_t n;

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    assert_int_equal (esp_size_parse (cases[i].s, "size", &n), 0);
    assert_true (n == cases[i].n);
  }
}

static void
sizes_that_are_none_are_refused (void **state)
{
  static const struct { const char *s; int err; } cases[] = {
    { "", EINVAL }, { "K", EINVAL }, { "-1", EINVAL }, { "+1", EINVAL },
    { " 1", EINVAL }, { "1 ", EINVAL }, { "1.5G", EINVAL }, { "1KB", EINVAL },
    { "1BiB", EINVAL }, { "1siB", EINVAL }, { "1Ki", EINVAL },
    { "1KiBx", EINVAL }, { "1x", EINVAL }, { "0x10", EINVAL },
    { "8E", ERANGE }, { "9223372036854775808", ERANGE },
    { "18446744073709551616", ERANGE }, { "36893488147419103232", ERANGE },
    { "99999999999999999999999999", ERANGE }, { "16777216T", ERANGE },
  };
  uint64_t n = 42;

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i) {
    if (esp_size_parse (cases[i].s, "quota", &n) != -1)
      fail_msg ("accepted: %s", cases[i].s);
    assert_int_equal (errno, cases[i].err);
    assert_int_equal (strncmp (unit_error, "quota: \"", 8), 0);
    assert_int_equal (n, 42);
  }
}

static void
sizes_are_written_for_people (void **state)
{
  static const struct { uint64_t n; const char *s; } cases[] = {
    { 0, "0" }, { 1, "1" }, { 999, "999" }, { 1000, "0.98K" }, { 1024, "1K" },
    { 1536, "1.5K" }, { 4096, "4K" }, { 10 << 10, "10K" },
    { 10547, "10.3K" }, { 102400, "100K" }, { 1023 << 10, "1M" },
    { UINT64_C (3) << 29, "1.5G" }, { UINT64_C (1) << 46, "64T" },
    { UINT64_MAX, "16E" },
  };
  char buf[16];

  (void) state;
  for (size_t i = 0; i < COUNT (cases); ++i)
    assert_string_equal (esp_size_format (cases[i].n, buf), cases[i].s);
}

static void
times_are_local (void **state)
{
  char buf[32];

  (void) state;
  setenv ("TZ", "UTC-2", 1);
  tzset ();
  assert_string_equal (esp_time_format (1763892000, buf),
                       "2025-11-23 12:00:00");
  assert_string_equal (esp_time_format (UINT64_MAX, buf), "?");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (names_are_told_from_what_is_none),
    cmocka_unit_test (clients_may_be_addresses),
    cmocka_unit_test (bad_name_is_reported_with_what_a_good_one_is),
    cmocka_unit_test (escape_shows_what_can_be_shown),
    cmocka_unit_test (escape_of_anything_fits),
    cmocka_unit_test (exports_are_taken_apart),
    cmocka_unit_test (hostile_exports_are_refused_and_change_nothing),
    cmocka_unit_test (tickets_are_taken_off),
    cmocka_unit_test (tickets_are_not_shown),
    cmocka_unit_test (four_kib_of_anything_are_refused),
    cmocka_unit_test (component_is_harmless_and_reversible),
    cmocka_unit_test (components_of_examples),
    cmocka_unit_test (long_components_differ_where_their_names_do),
    cmocka_unit_test (uuids_are_text_and_back),
    cmocka_unit_test (uuids_that_are_none_are_refused),
    cmocka_unit_test (sizes_are_read_as_nbdkit_reads_them),
    cmocka_unit_test (sizes_that_are_none_are_refused),
    cmocka_unit_test (sizes_are_written_for_people),
    cmocka_unit_test (times_are_local),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
