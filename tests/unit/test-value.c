/* SPDX-License-Identifier: BSD-3-Clause */
/* Sealed values: what was sealed opens; nothing else does. */

#include "unit.h"

#include <sys/stat.h>

#include "cache/value.h"
#include "util/cleanup.h"
#include "util/endian.h"

ESP_DEFINE_CLEANUP (sealer, struct esp_sealer *, esp_sealer_free)
#define CLEANUP_SEALER ESP_CLEANUP (sealer)

#define LEN 1000u

static const struct esp_cache_key key = {
  .id = { 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca,
          0xcb, 0xcc, 0xcd, 0xce, 0xcf },
  .segment = 5, .shift = 16, .kind = ESP_CACHE_RP,
};
static const struct esp_value_part whole = {
  .length = LEN, .parts = 1, .put = UINT64_C (0x0807060504030201),
};
static uint8_t secret[32], data[LEN], value[LEN + ESP_VALUE_OVERHEAD],
  out[LEN];

static struct esp_sealer *
some_sealer (bool encrypts)
{
  struct esp_sealer *s;

  for (unsigned i = 0; i < sizeof secret; ++i)
    secret[i] = (uint8_t) i;
  for (unsigned i = 0; i < LEN; ++i)
    data[i] = (uint8_t) (i * i % 251);
  s = esp_sealer_new (encrypts ? secret : NULL);
  assert_non_null (s);
  assert_int_equal (esp_sealer_secret (s), encrypts);
  return s;
}

static enum esp_value_result
open_as (const struct esp_sealer *s, const struct esp_cache_key *k, size_t n)
{
  /* Of the exact size, for the address sanitizer. */
  CLEANUP_FREE uint8_t *exact = malloc (n ? n : 1);
  struct esp_value_part part;
  size_t len;

  memcpy (exact, value, n);
  return esp_value_open (s, k, exact, n, out, sizeof out, &len, &part);
}

static size_t
sealed (const struct esp_sealer *s)
{
  size_t n = esp_value_seal (s, &key, &whole, data, LEN, value);

  assert_int_equal (n, LEN + ESP_VALUE_HEAD);
  assert_int_equal (open_as (s, &key, n), ESP_VALUE_OK);
  return n;
}

static void
round_trip (bool encrypts)
{
  CLEANUP_SEALER struct esp_sealer *s = some_sealer (encrypts);
  struct esp_value_part part;
  size_t n = sealed (s), len;

  memset (out, 0, sizeof out);
  assert_int_equal (esp_value_open (s, &key, value, n, out, sizeof out, &len,
                                    &part), ESP_VALUE_OK);
  assert_int_equal (len, LEN);
  assert_memory_equal (out, data, LEN);
  assert_int_equal (part.length, LEN);
  assert_int_equal (part.part, 0);
  assert_int_equal (part.parts, 1);
  assert_int_equal (part.put, whole.put);
  /* What may be read by others is encrypted. */
  assert_int_equal (memmem (value, n, data, 16) == NULL, encrypts);
}

static void
what_was_sealed_opens (void **state)
{
  (void) state;
  round_trip (false);
  round_trip (true);
}

/* Computed by programs that share no code with ours; docs/formats.md has
 * them.
 */
static const uint8_t answers[2][ESP_VALUE_HEAD + 16] = {
  { 0x45, 0x53, 0x50, 0x56, 0x41, 0x4c, 0x55, 0x45, 0x01, 0x00, 0x00, 0x00,
    0x10, 0x00, 0x00, 0x00, 0x00, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6,
    0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0x05, 0x00, 0x00,
    0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04,
    0x05, 0x06, 0x07, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3e, 0x8f, 0xae, 0x07,
    0x36, 0xf3, 0x0e, 0x6a, 0x6e, 0xd7, 0x76, 0x0b, 0x73, 0x26, 0xe2, 0x9d,
    0x45, 0x73, 0x70, 0x61, 0x6c, 0x69, 0x65, 0x72, 0x45, 0x73, 0x70, 0x61,
    0x6c, 0x69, 0x65, 0x72 },
  { 0x45, 0x53, 0x50, 0x56, 0x41, 0x4c, 0x55, 0x45, 0x01, 0x00, 0x00, 0x00,
    0x10, 0x00, 0x00, 0x00, 0x00, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6,
    0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0x05, 0x00, 0x00,
    0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00,
    0x76, 0xc7, 0xc8, 0xfd, 0xec, 0x30, 0xdf, 0x47, 0x01, 0x02, 0x03, 0x04,
    0x05, 0x06, 0x07, 0x08, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x07, 0xdd, 0x05, 0xdd,
    0x45, 0x08, 0xc7, 0x59, 0x06, 0xf6, 0xb2, 0x4b, 0x46, 0xc7, 0xfb, 0xd4,
    0x62, 0x27, 0x57, 0x9b, 0x05, 0xe3, 0x3c, 0x0f, 0x54, 0x18, 0x15, 0xf1,
    0x2c, 0x89, 0xbe, 0x6c },
};

static void
known_answers (void **state)
{
  struct esp_value_part part = whole;
  uint8_t text[16], made[sizeof answers[0]];
  size_t len;

  (void) state;
  part.length = 16;
  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_SEALER struct esp_sealer *s = some_sealer (i == 1);

    assert_int_equal (esp_value_open (s, &key, answers[i], sizeof answers[i],
                                      text, sizeof text, &len, &part),
                      ESP_VALUE_OK);
    assert_int_equal (len, 16);
    assert_memory_equal (text, "EspalierEspalier", 16);
    assert_int_equal (esp_value_seal (s, &key, &part, text, 16, made),
                      sizeof made);
    assert_memory_equal (made, answers[i], i == 0 ? sizeof made : 64);
  }
}

/* The fields that are looked at before the check say OTHER; all else is BAD. */
static void
every_byte (bool encrypts)
{
  CLEANUP_SEALER struct esp_sealer *s = some_sealer (encrypts);
  size_t n = sealed (s);

  for (size_t i = 0; i < n; ++i)
    for (unsigned bit = 0; bit < 8; ++bit) {
      value[i] ^= (uint8_t) (1u << bit);
      assert_int_equal (open_as (s, &key, n),
                        (i >= 8 && i < 12) || (i >= 48 && i < 56)
                        ? ESP_VALUE_OTHER : ESP_VALUE_BAD);
      value[i] ^= (uint8_t) (1u << bit);
    }
  assert_int_equal (open_as (s, &key, n), ESP_VALUE_OK);
}

static void
no_bit_may_change (void **state)
{
  (void) state;
  every_byte (false);
  every_byte (true);
}

static void
no_length_but_its_own (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_SEALER struct esp_sealer *s = some_sealer (i == 1);
    CLEANUP_FREE uint8_t *longer = NULL;
    struct esp_value_part part;
    size_t n = sealed (s), len;

    for (size_t k = 0; k < n; ++k)
      assert_int_equal (open_as (s, &key, k), ESP_VALUE_BAD);
    longer = calloc (1, n + 1);
    memcpy (longer, value, n);
    assert_int_equal (esp_value_open (s, &key, longer, n + 1, out, sizeof out,
                                      &len, &part), ESP_VALUE_BAD);
    /* It does not fit. */
    assert_int_equal (esp_value_open (s, &key, value, n, out, LEN - 1, &len,
                                      &part), ESP_VALUE_BAD);
  }
}

static void
another_key (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_SEALER struct esp_sealer *s = some_sealer (i == 1);
    size_t n = sealed (s);
    struct esp_cache_key k;

    k = key, k.id[15] ^= 1;
    assert_int_equal (open_as (s, &k, n), ESP_VALUE_BAD);
    k = key, k.segment = 6;
    assert_int_equal (open_as (s, &k, n), ESP_VALUE_BAD);
    k = key, k.shift = 18;
    assert_int_equal (open_as (s, &k, n), ESP_VALUE_BAD);
    k = key, k.kind = ESP_CACHE_EXPORT;
    assert_int_equal (open_as (s, &k, n), ESP_VALUE_BAD);
  }
}

/* A part cannot pass for another one. */
static void
another_part (void **state)
{
  struct esp_value_part part = whole, got;
  size_t n, len;

  (void) state;
  part.length = 3 * LEN;
  part.parts = 3;
  part.part = 1;
  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_SEALER struct esp_sealer *s = some_sealer (i == 1);

    n = esp_value_seal (s, &key, &part, data, LEN, value);
    assert_int_equal (n, LEN + ESP_VALUE_HEAD);
    assert_int_equal (esp_value_open (s, &key, value, n, out, sizeof out,
                                      &len, &got), ESP_VALUE_OK);
    assert_int_equal (got.part, 1);
    assert_int_equal (got.parts, 3);
    assert_int_equal (got.length, 3 * LEN);
    esp_put16 (value + 38, 2);
    assert_int_equal (open_as (s, &key, n), ESP_VALUE_BAD);
  }
}

/* What no segment has is refused before it is sealed. */
static void
parts_that_are_none (void **state)
{
  CLEANUP_SEALER struct esp_sealer *s = some_sealer (false);
  struct esp_cache_key k = key;
  struct esp_value_part part;

  (void) state;
  assert_int_equal (esp_value_seal (s, &key, &whole, data, 0, value), 0);
  assert_int_equal (esp_value_seal (s, &key, &whole, data, 999, value), 0);
  part = whole, part.parts = 0;
  assert_int_equal (esp_value_seal (s, &key, &part, data, LEN, value), 0);
  part = whole, part.part = 1;
  assert_int_equal (esp_value_seal (s, &key, &part, data, LEN, value), 0);
  part = whole, part.parts = 2, part.length = LEN - 1;
  assert_int_equal (esp_value_seal (s, &key, &part, data, LEN, value), 0);
  part = whole, part.parts = 2, part.length = 65537;
  assert_int_equal (esp_value_seal (s, &key, &part, data, LEN, value), 0);
  k.shift = 23;
  assert_int_equal (esp_value_seal (s, &k, &whole, data, LEN, value), 0);
}

/* What another one sealed is not for us, and no lie; what says that it is ours,
 * and is not, is one.
 */
static void
another_secret (void **state)
{
  CLEANUP_SEALER struct esp_sealer *check = some_sealer (false),
    *right = some_sealer (true), *wrong = NULL;
  const struct esp_sealer *all[3] = { check, right, NULL };

  (void) state;
  secret[31] ^= 1;
  all[2] = wrong = esp_sealer_new (secret);
  assert_non_null (wrong);
  for (unsigned i = 0; i < 3; ++i)
    for (unsigned k = 0; k < 3; ++k) {
      size_t n = sealed (all[i]);

      assert_int_equal (esp_value_sealed (value), esp_sealer_id (all[i]));
      if (k == i)
        continue;
      assert_int_equal (open_as (all[k], &key, n), ESP_VALUE_OTHER);
      esp_put64 (value + 48, esp_sealer_id (all[k]));
      assert_int_equal (open_as (all[k], &key, n), ESP_VALUE_BAD);
    }
}

/* The id: known, 0 without a secret, and the same for the same secret. */
static void
ids_of_secrets (void **state)
{
  CLEANUP_SEALER struct esp_sealer *check = some_sealer (false),
    *one = some_sealer (true), *same = some_sealer (true);

  (void) state;
  assert_int_equal (esp_sealer_id (check), 0);
  assert_true (esp_sealer_id (one) == UINT64_C (0x47df30ecfdc8c776));
  assert_true (esp_sealer_id (same) == esp_sealer_id (one));
}

/* The same bytes twice: nothing of one shows in the other. */
static void
no_two_alike (void **state)
{
  CLEANUP_SEALER struct esp_sealer *s = some_sealer (true);
  uint8_t first[sizeof value];

  (void) state;
  sealed (s);
  memcpy (first, value, sizeof first);
  sealed (s);
  assert_memory_not_equal (first + 64, value + 64, 16);
  for (unsigned i = ESP_VALUE_HEAD; i + 16 <= sizeof first; i += 16)
    assert_memory_not_equal (first + i, value + i, 16);
}

static void
head_and_data_apart (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_SEALER struct esp_sealer *s = some_sealer (i == 1);
    uint8_t head[ESP_VALUE_HEAD], room[LEN];
    struct esp_value_part part;
    size_t len;

    const void *text = esp_value_seal_apart (s, &key, &whole, data, LEN, room,
                                             head);
    assert_ptr_equal (text, i == 1 ? (const void *) room : data);
    memcpy (out, text, LEN);
    assert_int_equal (esp_value_peek (s, &key, head, &len, &part),
                      ESP_VALUE_OK);
    assert_int_equal (len, LEN);
    assert_int_equal (part.put, whole.put);
    assert_int_equal (esp_value_open_apart (s, &key, head, out, LEN - 1),
                      ESP_VALUE_BAD);
    memcpy (out, text, LEN);
    assert_int_equal (esp_value_open_apart (s, &key, head, out, LEN),
                      ESP_VALUE_OK);
    assert_memory_equal (out, data, LEN);
    out[7] ^= 1;
    assert_int_equal (esp_value_open_apart (s, &key, head, out, LEN),
                      ESP_VALUE_BAD);
  }
}

/* --- key files --------------------------------------------------------- */

#define TEXT "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

static struct esp_sealer *
from_text (const char *text, mode_t mode)
{
  char *dir = unit_mkdir (), path[400];
  struct esp_sealer *s;
  FILE *f;

  snprintf (path, sizeof path, "%s/key", dir);
  f = fopen (path, "w");
  assert_non_null (f);
  fputs (text, f);
  fclose (f);
  assert_int_equal (chmod (path, mode), 0);
  unit_error[0] = 0;
  s = esp_sealer_from_file (path);
  unit_rmdir (dir);
  return s;
}

static void
secret_from_a_file (void **state)
{
  CLEANUP_SEALER struct esp_sealer *s = some_sealer (true),
    *same = from_text (TEXT, 0600);
  size_t n = sealed (s);

  (void) state;
  assert_non_null (same);
  assert_int_equal (open_as (same, &key, n), ESP_VALUE_OK);
}

static void
files_that_are_no_secret (void **state)
{
  (void) state;
  assert_null (from_text ("AAECAwQF\n", 0600));
  assert_non_null (strstr (unit_error, "32 bytes in base64"));
  assert_null (from_text ("", 0600));
  assert_null (from_text (TEXT TEXT, 0600));
  assert_null (from_text (TEXT, 0640));
  assert_non_null (strstr (unit_error, "chmod 600"));
  assert_null (esp_sealer_from_file ("/nonexistent/key"));
  assert_non_null (strstr (unit_error, "open: /nonexistent/key"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (what_was_sealed_opens),
    cmocka_unit_test (known_answers),
    cmocka_unit_test (no_bit_may_change),
    cmocka_unit_test (no_length_but_its_own),
    cmocka_unit_test (another_key),
    cmocka_unit_test (another_part),
    cmocka_unit_test (parts_that_are_none),
    cmocka_unit_test (another_secret),
    cmocka_unit_test (ids_of_secrets),
    cmocka_unit_test (no_two_alike),
    cmocka_unit_test (head_and_data_apart),
    cmocka_unit_test (secret_from_a_file),
    cmocka_unit_test (files_that_are_no_secret),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
