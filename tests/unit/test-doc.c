/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents come back as they were saved, or not at all. */

#include "unit.h"

#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/sum.h"

static char *dir;
static int dfd;

static int
setup (void **state)
{
  (void) state;
  unit_error[0] = 0;
  dir = unit_mkdir ();
  dfd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return dfd < 0;
}

static int
teardown (void **state)
{
  (void) state;
  close (dfd);
  unit_rmdir (dir);
  return 0;
}

/* A document with a right checksum around BODY. */
static char *
wrap (const char *head, const char *body)
{
  return esp_asprintf ("%s xxh3:%016llx\n%s", head,
                       (unsigned long long) esp_sum (body, strlen (body)),
                       body);
}

static json_t *
parse (const char *text)
{
  return esp_doc_parse (text, strlen (text), "venue", 2, "cafe");
}

static void
assert_refused (const char *head, const char *body, int err, const char *why)
{
  CLEANUP_FREE char *text = wrap (head, body);

  assert_null (parse (text));
  assert_int_equal (errno, err);
  if (!strstr (unit_error, why))
    fail_msg ("\"%s\" is not in \"%s\"", why, unit_error);
  assert_int_equal (strncmp (unit_error, "cafe: ", 6), 0);
}

static json_t *
example (void)
{
  json_t *o = json_pack ("{s:s, s:I, s:[i,i], s:{s:b}, s:n}", "id", "café \"1\"",
                         "size", (json_int_t) INT64_MAX, "disks", 1, 2,
                         "deep", "yes", 1, "none");

  assert_non_null (o);
  return o;
}

static void
load_gives_what_was_saved (void **state)
{
  json_t *o = example ();
  CLEANUP_FREE char *text = NULL;
  size_t len;

  (void) state;
  assert_int_equal (esp_doc_save (dfd, "cafe", "venue", 2, o, 0644), 0);
  json_t *r = esp_doc_load (dfd, "cafe", "venue", 2);
  assert_true (json_equal (o, r));
  json_decref (r);
  r = esp_doc_load (dfd, "cafe", "venue", 3);
  assert_true (json_equal (o, r));
  json_decref (r);
  json_decref (o);
  assert_int_equal (esp_read_file (dfd, "cafe", 4096, &text, &len), 0);
  assert_int_equal (strncmp (text, "espalier-venue 2 xxh3:", 22), 0);
  assert_string_equal (unit_error, "");
}

static void
absent_document_is_not_reported (void **state)
{
  (void) state;
  assert_null (esp_doc_load (dfd, "cafe", "venue", 2));
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
  assert_null (esp_doc_load (dfd, ".", "venue", 2));
  assert_string_equal (unit_error, "read: .: Is a directory");
}

static void
every_flipped_bit_is_found (void **state)
{
  json_t *o = example ();
  CLEANUP_FREE char *text = NULL;
  size_t len;

  (void) state;
  assert_int_equal (esp_doc_save (dfd, "cafe", "venue", 1, o, 0644), 0);
  json_decref (o);
  assert_int_equal (esp_read_file (dfd, "cafe", 4096, &text, &len), 0);
  for (size_t i = 0; i < len * 8; ++i) {
    text[i / 8] ^= (char) (1 << i % 8);
    unit_error[0] = 0;
    errno = 0;
    assert_null (esp_doc_parse (text, len, "venue", 1, "cafe"));
    assert_true (errno == EBADMSG || errno == ENOTSUP);
    assert_string_not_equal (unit_error, "");
    text[i / 8] ^= (char) (1 << i % 8);
  }
  for (size_t n = 0; n < len; ++n)
    assert_null (esp_doc_parse (text, n, "venue", 1, "cafe"));
  o = esp_doc_parse (text, len, "venue", 1, "cafe");
  assert_non_null (o);
  json_decref (o);
}

static void
newer_version_is_not_damage (void **state)
{
  (void) state;
  assert_refused ("espalier-venue 3", "{}\n", ENOTSUP,
                  "was written by a newer espalier");
  assert_refused ("espalier-venue 99999999999999", "{}\n", ENOTSUP, "newer");
  /* Whatever its checksum is. */
  assert_null (parse ("espalier-venue 3 sha512:00\n{}\n"));
  assert_int_equal (errno, ENOTSUP);
  assert_null (parse ("espalier-venue 3\n"));
  assert_int_equal (errno, ENOTSUP);
}

static void
wrong_heads_are_refused (void **state)
{
  (void) state;
  assert_refused ("espalier-meta 1", "{}\n", EBADMSG, "of kind \"meta\"");
  assert_refused ("espalier-a\x1b 1", "{}\n", EBADMSG, "kind \"a\\x1b\"");
  assert_refused ("nothing-venue 1", "{}\n", EBADMSG, "begin");
  assert_refused ("espalier-venue 0", "{}\n", EBADMSG, "version");
  assert_refused ("espalier-venue 01", "{}\n", EBADMSG, "version");
  assert_refused ("espalier-venue -1", "{}\n", EBADMSG, "version");
  assert_refused ("espalier-venue 1x", "{}\n", EBADMSG, "version");
  assert_refused ("espalier-venue  1", "{}\n", EBADMSG, "version");
  assert_refused ("espalier-venue 1 ", "{}\n", EBADMSG, "checksum");
  assert_null (parse ("espalier-venue 1\n{}\n"));
  assert_null (parse (""));
}

static void
wrong_bodies_are_refused (void **state)
{
  (void) state;
  assert_refused ("espalier-venue 1", "", EBADMSG, "damaged");
  assert_refused ("espalier-venue 1", "[]\n", EBADMSG, "no JSON object");
  assert_refused ("espalier-venue 1", "{} x\n", EBADMSG, "damaged");
  assert_refused ("espalier-venue 1", "{\"a\":1,\"a\":2}\n", EBADMSG,
                  "duplicate");
  assert_refused ("espalier-venue 1", "{\"a\":\"\\u0000\"}\n", EBADMSG,
                  "damaged");
  assert_refused ("espalier-venue 1", "{\"a\":\"\xff\"}\n", EBADMSG,
                  "damaged");
}

static void
nesting_is_bounded (void **state)
{
  CLEANUP_FREE char *body = malloc (1 << 20);

  (void) state;
  memset (body, '[', (1 << 20) - 1);
  body[(1 << 20) - 1] = 0;
  assert_refused ("espalier-venue 1", body, EBADMSG, "depth");
}

static void
too_large_is_refused_both_ways (void **state)
{
  char *big = malloc (ESP_DOC_MAX + 2);

  (void) state;
  memset (big, 'x', ESP_DOC_MAX + 1);
  big[ESP_DOC_MAX + 1] = 0;
  assert_null (parse (big));
  assert_int_equal (errno, EFBIG);
  json_t *o = json_pack ("{s:s}", "a", big);
  assert_int_equal (esp_doc_save (dfd, "cafe", "venue", 1, o, 0644), -1);
  assert_int_equal (errno, EFBIG);
  assert_int_equal (faccessat (dfd, "cafe", F_OK, 0), -1);
  json_decref (o);
  free (big);
}

static void
typed_access_gives_values_and_defaults (void **state)
{
  json_t *o = example ();
  bool bad = false;

  (void) state;
  assert_string_equal (esp_doc_string (o, "id", &bad), "café \"1\"");
  assert_int_equal (esp_doc_u64 (o, "size", 0, &bad), INT64_MAX);
  assert_int_equal (json_array_size (esp_doc_array (o, "disks", &bad)), 2);
  assert_null (esp_doc_string (o, "absent", &bad));
  assert_int_equal (esp_doc_u64 (o, "absent", 7, &bad), 7);
  assert_null (esp_doc_array (o, "absent", &bad));
  assert_false (bad);
  json_decref (o);
}

static void
typed_access_trusts_nothing (void **state)
{
  json_t *o = json_pack ("{s:s%,s:i,s:f,s:n}", "nul", "a\0b", (size_t) 3,
                         "negative", -1, "real", 1.0, "null");
  bool bad;

  (void) state;
  assert_non_null (o);
#define BAD(call) (bad = false, (void) (call), assert_true (bad))
  BAD (esp_doc_string (o, "nul", &bad));
  BAD (esp_doc_string (o, "negative", &bad));
  BAD (esp_doc_string (o, "null", &bad));
  BAD (esp_doc_u64 (o, "negative", 0, &bad));
  BAD (esp_doc_u64 (o, "real", 0, &bad));
  BAD (esp_doc_u64 (o, "nul", 0, &bad));
  BAD (esp_doc_array (o, "real", &bad));
  BAD (esp_doc_string (NULL, "a", &bad));
  BAD (esp_doc_u64 (json_object_get (o, "nul"), "a", 0, &bad));
#undef BAD
  /* Once set it stays, so that one check at the end is enough. */
  bad = true;
  esp_doc_u64 (o, "absent", 0, &bad);
  assert_true (bad);
  json_decref (o);
}

#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (load_gives_what_was_saved),
    T (absent_document_is_not_reported),
    T (every_flipped_bit_is_found),
    T (newer_version_is_not_damage),
    T (wrong_heads_are_refused),
    T (wrong_bodies_are_refused),
    T (nesting_is_bounded),
    T (too_large_is_refused_both_ways),
    T (typed_access_gives_values_and_defaults),
    T (typed_access_trusts_nothing),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
