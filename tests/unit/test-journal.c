/* SPDX-License-Identifier: BSD-3-Clause */
/* The journal of a push: what was written comes back; what is torn, damaged or
 * makes no sense is left, and all before it believed.
 */

#include "unit.h"

#include "center/journal.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/sum.h"

#define SEGMENTS 10

static struct esp_segment segments[SEGMENTS];

/* Records one after another. */
struct text { uint8_t buf[65536]; size_t len, end[16]; unsigned n; };

static void
append (struct text *t, void *record, size_t len)
{
  assert_non_null (record);
  memcpy (t->buf + t->len, record, len);
  t->len += len;
  t->end[t->n++] = t->len;
  free (record);
}

static struct journal_begin
begin (void)
{
  struct journal_begin b = { .url = (char *) "file:///x", .level = 3 };

  memset (b.uuid.b, 7, 16);
  strcpy (b.center, "near");
  strcpy (b.object, "restore-points/x/256K-zstd.pack");
  strcpy (b.id, "upload-1");
  strcpy (b.variant.id, "256K-zstd");
  b.variant.shift = 18;
  b.variant.codec = ESP_CODEC_ZSTD;
  b.variant.segments = SEGMENTS;
  memset (b.variant.salt, 9, sizeof b.variant.salt);
  return b;
}

static void
add_begin (struct text *t)
{
  const struct journal_begin b = begin ();
  size_t len;
  void *record = journal_format_begin (&b, &len);

  append (t, record, len);
}

static void
add_part (struct text *t, unsigned number, uint64_t first, uint64_t n)
{
  struct journal_part p = { .part.number = number, .first = first, .n = n };
  size_t len;

  snprintf (p.part.etag, sizeof p.part.etag, "etag-%u", number);
  for (uint64_t i = first; i < first + n; i++)
    p.part.size += segments[i].stored;
  void *record = journal_format_part (&p, segments, &len);
  append (t, record, len);
}

static void
add_end (struct text *t)
{
  size_t len;
  void *record = journal_format_end (&len);

  append (t, record, len);
}

/* Parse; the number of bytes that were believed. */
static size_t
parse (const struct text *t, struct journal *j)
{
  size_t valid = SIZE_MAX;

  assert_int_equal (journal_parse (t->buf, t->len, j, &valid), 0);
  return valid;
}

static int
setup (void **state)
{
  (void) state;
  for (unsigned i = 0; i < SEGMENTS; i++) {
    segments[i] = (struct esp_segment) { .number = i, .stored = 100 + i };
    memset (segments[i].digest.b, (int) i, ESP_DIGEST_SIZE);
  }
  return 0;
}

static void
test_round_trip (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  add_begin (&t);
  add_part (&t, 1, 0, 4);
  add_part (&t, 2, 4, 6);
  add_end (&t);
  assert_int_equal (parse (&t, &j), t.len);
  assert_true (j.begun && j.ended);
  assert_string_equal (j.begin.id, "upload-1");
  assert_string_equal (j.begin.url, "file:///x");
  assert_string_equal (j.begin.variant.id, "256K-zstd");
  assert_int_equal (j.begin.variant.salt[31], 9);
  assert_int_equal (j.begin.level, 3);
  assert_int_equal (j.nparts, 2);
  assert_string_equal (j.parts[1].part.etag, "etag-2");
  for (unsigned i = 0; i < SEGMENTS; i++) {
    assert_int_equal (j.segments[i].stored, segments[i].stored);
    assert_true (esp_digest_eq (&j.segments[i].digest, &segments[i].digest));
  }
  journal_clear (&j);
}

static void
test_empty (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  assert_int_equal (parse (&t, &j), 0);
  assert_false (j.begun);
  journal_clear (&j);
}

static void
test_parts_in_any_order (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  add_begin (&t);
  add_part (&t, 3, 6, 2);
  add_part (&t, 1, 0, 3);
  assert_int_equal (parse (&t, &j), t.len);
  assert_int_equal (j.nparts, 2);
  assert_int_equal (j.parts[0].part.number, 1);
  assert_int_equal (j.parts[1].part.number, 3);
  journal_clear (&j);
}

/* Cut at each byte: exactly the whole records before it count. */
static void
test_torn_anywhere (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;
  size_t valid;

  (void) state;
  add_begin (&t);
  add_part (&t, 1, 0, 4);
  add_part (&t, 2, 4, 6);
  add_end (&t);
  for (size_t cut = 0; cut < t.len; cut++) {
    unsigned whole = 0;
    while (whole < t.n && t.end[whole] <= cut)
      whole++;
    assert_int_equal (journal_parse (t.buf, cut, &j, &valid), 0);
    assert_int_equal (valid, whole ? t.end[whole - 1] : 0);
    assert_int_equal (j.begun, whole > 0);
    assert_int_equal (j.nparts, whole > 2 ? 2 : whole > 0 ? whole - 1 : 0);
    assert_false (j.ended);
    journal_clear (&j);
  }
}

/* Each bit flipped: the record with it, and what follows, is not believed. */
static void
test_flipped_anywhere (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  add_begin (&t);
  add_part (&t, 1, 0, 4);
  add_part (&t, 2, 4, 6);
  for (size_t at = 0; at < t.len; at++) {
    unsigned record = 0;
    t.buf[at] ^= 0x10;
    while (t.end[record] <= at)
      record++;
    assert_int_equal (parse (&t, &j), record ? t.end[record - 1] : 0);
    journal_clear (&j);
    t.buf[at] ^= 0x10;
  }
}

/* The second part makes no sense, though its checksum is right. */
static void
nonsense (unsigned number, uint64_t first, uint64_t n)
{
  struct text t = { .len = 0 };
  struct journal j;

  add_begin (&t);
  add_part (&t, 2, 2, 4);
  add_part (&t, number, first, n);
  assert_int_equal (parse (&t, &j), t.end[1]);
  assert_int_equal (j.nparts, 1);
  journal_clear (&j);
}

static void
test_parts_that_overlap (void **state)
{
  (void) state;
  nonsense (2, 6, 2);           /* the same number */
  nonsense (3, 5, 2);           /* begins within the other */
  nonsense (1, 0, 3);           /* ends within the other */
  nonsense (3, 0, 1);           /* a higher number before it */
  nonsense (1, 7, 1);           /* a lower one behind it */
}

static void
test_end_before_all_is_there (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  add_begin (&t);
  add_part (&t, 1, 0, 9);
  add_end (&t);
  assert_int_equal (parse (&t, &j), t.end[1]);
  assert_false (j.ended);
  journal_clear (&j);
}

static void
test_part_before_begin (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;

  (void) state;
  add_part (&t, 1, 0, 2);
  add_begin (&t);
  assert_int_equal (parse (&t, &j), 0);
  journal_clear (&j);
}

/* A length field that lies, with the checksum made right again. */
static void
test_lengths_that_lie (void **state)
{
  struct text t = { .len = 0 };
  struct journal j;
  size_t head;

  (void) state;
  add_begin (&t);
  add_part (&t, 1, 0, 2);
  head = t.end[0];
  esp_put64 (t.buf + head + 16 + 20, UINT64_C (1) << 62);     /* p.n */
  esp_put64 (t.buf + t.len - 8, esp_sum (t.buf + head, t.len - 8 - head));
  assert_int_equal (parse (&t, &j), head);
  journal_clear (&j);
  esp_put64 (t.buf + head + 16 + 12, UINT64_MAX);             /* p.first */
  esp_put64 (t.buf + t.len - 8, esp_sum (t.buf + head, t.len - 8 - head));
  assert_int_equal (parse (&t, &j), head);
  journal_clear (&j);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup (test_round_trip, setup),
    cmocka_unit_test_setup (test_empty, setup),
    cmocka_unit_test_setup (test_parts_in_any_order, setup),
    cmocka_unit_test_setup (test_torn_anywhere, setup),
    cmocka_unit_test_setup (test_flipped_anywhere, setup),
    cmocka_unit_test_setup (test_parts_that_overlap, setup),
    cmocka_unit_test_setup (test_end_before_all_is_there, setup),
    cmocka_unit_test_setup (test_part_before_begin, setup),
    cmocka_unit_test_setup (test_lengths_that_lie, setup),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
