/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys of a store: files that are private and whole; derivation and signatures
 * as others compute them; every refusal says what to do.
 */

#include "center-test.h"

#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/file.h"

ESP_DEFINE_CLEANUP (packer, struct esp_packer *, esp_packer_free)
ESP_DEFINE_CLEANUP (key, struct esp_segment_key *, esp_segment_key_free)
ESP_DEFINE_CLEANUP (signer, struct esp_signer *, esp_signer_free)
ESP_DEFINE_CLEANUP (trust, struct esp_trust *, esp_trust_free)
#define CLEANUP_PACKER ESP_CLEANUP (packer)
#define CLEANUP_KEY ESP_CLEANUP (key)
#define CLEANUP_SIGNER ESP_CLEANUP (signer)
#define CLEANUP_TRUST ESP_CLEANUP (trust)

static char *dir;
static struct esp_store *store;

static int
setup (void **state)
{
  char path[400];

  (void) state;
  dir = unit_mkdir ();
  snprintf (path, sizeof path, "%s/s", dir);
  assert_int_equal (esp_store_init (path), 0);
  store = esp_store_open (path);
  assert_non_null (store);
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  esp_store_close (store);
  unit_rmdir (dir);
  return 0;
}

/* A path in the test's directory; one call at a time. */
static const char *
at (const char *name)
{
  static char path[500];

  snprintf (path, sizeof path, "%s/%s", dir, name);
  return path;
}

static void
put (const char *name, const char *text, mode_t mode)
{
  FILE *f = fopen (at (name), "w");

  assert_non_null (f);
  fputs (text, f);
  fclose (f);
  assert_int_equal (chmod (at (name), mode), 0);
}

static char *
get (const char *name)
{
  char *text;
  size_t len;

  assert_int_equal (esp_read_file (AT_FDCWD, at (name), 1 << 20, &text,
                                   &len), 0);
  return text;
}

static mode_t
mode_of (const char *name)
{
  struct stat st;

  assert_int_equal (stat (at (name), &st), 0);
  return st.st_mode & 07777;
}

static void
says (const char *what)
{
  if (!strstr (unit_error, what))
    fail_msg ("\"%s\" does not say \"%s\"", unit_error, what);
}

/* --- variants' keys ----------------------------------------------------- */

/* Computed by programs that share no code with ours. */
#define SECRET "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

static void
fixed_variant (struct esp_variant *v)
{
  static const uint8_t check[] = { 0x0c, 0xe2, 0x8a, 0xa1, 0xeb, 0x32, 0xae,
                                   0x12 };

  *v = (struct esp_variant) { .id = "256K-none-k", .key = "k", .shift = 18 };
  for (unsigned i = 0; i < sizeof v->salt; ++i)
    v->salt[i] = (uint8_t) (0x80 + i);
  memcpy (v->key_check, check, sizeof check);
}

static void
known_answers (void **state)
{
  static const uint8_t stored[] = {
    0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb,
    0x39, 0x6d, 0xf9, 0xa1, 0xca, 0x26, 0xbc, 0xda, 0x89, 0x3d, 0x88, 0x20,
    0x81, 0x1f, 0x93, 0xa4, 0x96, 0xb3, 0x44, 0x75, 0x1b, 0x58, 0xa8, 0xe6,
    0xc0, 0xd5, 0x1b, 0x65, 0x0a, 0xac, 0xf9, 0x37, 0x35,
  };
  struct esp_variant v;
  char raw[16];
  esp_digest d;
  CLEANUP_KEY struct esp_segment_key *key = NULL;
  CLEANUP_PACKER struct esp_packer *p = NULL;
  struct esp_key_info_list list;

  (void) state;
  put ("k", SECRET, 0600);
  fixed_variant (&v);
  assert_int_equal (esp_key_import (store, "k", at ("k")), 0);
  key = esp_segment_key_load (store, &v, NULL);
  assert_non_null (key);
  p = esp_packer_new (ESP_CODEC_NONE, 0, key);
  esp_digest_parse ("0926cbdfe93fcc12328bf1ffc77699bd34999c83f648ce390a04d82f"
                    "7eadedf6", &d);
  assert_int_equal (esp_unpack_segment (p, 5, stored, sizeof stored, raw, 16,
                                        &d, false, "x"), 0);
  assert_memory_equal (raw, "EspalierEspalier", 16);
  assert_int_equal (esp_key_list (store, &list), 0);
  assert_int_equal (list.n, 1);
  assert_string_equal (list.key[0].id, "fe1b93ef453f0086");
  esp_key_info_list_clear (&list);
}

static void
keys_are_private_files (void **state)
{
  (void) state;
  assert_int_equal (esp_key_create (store, "office"), 0);
  assert_int_equal (mode_of ("s/keys/office.key"), 0600);
  assert_int_equal (mode_of ("s/keys"), 0700);
  CLEANUP_FREE char *text = get ("s/keys/office.key");
  assert_int_equal (strlen (text), 45);
  assert_int_equal (esp_key_create (store, "office"), -1);
  assert_int_equal (errno, EEXIST);
  CLEANUP_FREE char *again = get ("s/keys/office.key");
  assert_string_equal (text, again);
  assert_int_equal (esp_key_create (store, "other"), 0);
  CLEANUP_FREE char *other = get ("s/keys/other.key");
  assert_string_not_equal (text, other);
}

static void
names_of_keys_are_checked (void **state)
{
  static const char *const bad[] = {
    "", "..", "../x", "-k", ".k", "a/b", "a b",
    "a2345678901234567890123456789012345678901234567890123456789012345",
  };

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    assert_int_equal (esp_key_create (store, bad[i]), -1);
    assert_int_equal (errno, EINVAL);
    assert_int_equal (esp_trust_remove (store, bad[i]), -1);
    assert_int_equal (errno, EINVAL);
  }
}

static void
a_key_that_others_may_read_is_refused (void **state)
{
  struct esp_variant v;
  struct esp_key_info_list list;

  (void) state;
  fixed_variant (&v);
  put ("s/keys/k.key", SECRET, 0640);
  assert_null (esp_segment_key_load (store, &v, NULL));
  assert_int_equal (errno, EACCES);
  says ("chmod 600");
  assert_int_equal (esp_key_list (store, &list), -1);
  put ("k", SECRET, 0604);
  assert_null (esp_segment_key_load (store, &v, at ("k")));
  assert_int_equal (errno, EACCES);
  assert_int_equal (esp_key_import (store, "z", at ("k")), -1);
}

static void
what_is_no_key_is_refused (void **state)
{
  static const char *const bad[] = {
    "", "\n", "AAAA\n", (SECRET "\n"), (" " SECRET),
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",  /* not canonical */
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8A\n",
  };

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    put ("k", bad[i], 0600);
    assert_int_equal (esp_key_import (store, "k", at ("k")), -1);
    assert_int_equal (errno, EBADMSG);
  }
  assert_int_equal (esp_key_import (store, "k", at ("nothing")), -1);
  assert_int_equal (errno, ENOENT);
}

static void
a_missing_key_says_what_to_do (void **state)
{
  struct esp_variant v;

  (void) state;
  fixed_variant (&v);
  assert_null (esp_segment_key_load (store, &v, NULL));
  assert_int_equal (errno, ENOKEY);
  says ("espalier key import k FILE");
}

static void
a_wrong_key_is_told (void **state)
{
  struct esp_variant v;

  (void) state;
  fixed_variant (&v);
  assert_int_equal (esp_key_create (store, "k"), 0);
  assert_null (esp_segment_key_load (store, &v, NULL));
  assert_int_equal (errno, EKEYREJECTED);
  says ("espalier key import k FILE");
  assert_null (esp_segment_key_load (store, &v, at ("s/keys/k.key")));
  assert_int_equal (errno, EKEYREJECTED);
}

static void
every_pack_has_its_own_key (void **state)
{
  struct esp_variant v = { .key = "k" }, w = { .key = "k" };
  uint8_t raw[32] = "bytes", a[sizeof raw + ESP_SEGMENT_OVERHEAD];
  size_t n;
  esp_digest d;

  (void) state;
  assert_int_equal (esp_key_create (store, "k"), 0);
  CLEANUP_KEY struct esp_segment_key *kv = esp_segment_key_begin (store, &v,
                                                                  NULL);
  CLEANUP_KEY struct esp_segment_key *kw = esp_segment_key_begin (store, &w,
                                                                  NULL);
  CLEANUP_KEY struct esp_segment_key *again = esp_segment_key_load (store, &v,
                                                                    NULL);
  assert_memory_not_equal (v.salt, w.salt, sizeof v.salt);
  assert_memory_not_equal (v.key_check, w.key_check, sizeof v.key_check);
  CLEANUP_PACKER struct esp_packer *p = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        kv);
  CLEANUP_PACKER struct esp_packer *q = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        kw);
  CLEANUP_PACKER struct esp_packer *r = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        again);
  assert_int_equal (esp_pack_segment (p, 1, raw, sizeof raw, a, &n, &d), 0);
  assert_int_equal (esp_unpack_segment (q, 1, a, n, raw, sizeof raw, &d, true,
                                        "x"), -1);
  assert_int_equal (esp_unpack_segment (r, 1, a, n, raw, sizeof raw, &d, true,
                                        "x"), 0);
}

static void
keys_are_copied_and_deleted (void **state)
{
  (void) state;
  assert_int_equal (esp_key_create (store, "k"), 0);
  assert_int_equal (esp_key_export (store, "k", at ("copy")), 0);
  assert_int_equal (mode_of ("copy"), 0600);
  assert_int_equal (esp_key_export (store, "k", at ("copy")), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_key_import (store, "k2", at ("copy")), 0);
  CLEANUP_FREE char *a = get ("s/keys/k.key");
  CLEANUP_FREE char *b = get ("s/keys/k2.key");
  assert_string_equal (a, b);
  assert_int_equal (esp_key_delete (store, "k", false), 0);
  assert_int_equal (esp_key_delete (store, "k", false), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_key_export (store, "k", at ("copy2")), -1);
  assert_int_equal (errno, ENOKEY);
  assert_int_equal (access (at ("copy2"), F_OK), -1);
}

static void
all_keys_are_listed (void **state)
{
  struct esp_key_info_list list;

  (void) state;
  assert_int_equal (esp_key_list (store, &list), 0);
  assert_int_equal (list.n, 0);
  assert_int_equal (esp_key_create (store, "b"), 0);
  assert_int_equal (esp_key_create (store, "a"), 0);
  CLEANUP_SIGNER struct esp_signer *s = esp_signer_load (store, true);
  CLEANUP_FREE char *pem = esp_signer_public (s);
  put ("pub", pem, 0664);
  assert_int_equal (esp_trust_add (store, "self", at ("pub")), 0);
  put ("s/keys/.left.new", "x", 0644);   /* of a crash */
  assert_int_equal (esp_key_list (store, &list), 0);
  assert_int_equal (list.n, 4);
  assert_string_equal (list.key[0].kind, "signing");
  assert_string_equal (list.key[1].name, "a");
  assert_string_equal (list.key[2].name, "b");
  assert_string_equal (list.key[2].kind, "variant");
  assert_string_equal (list.key[3].kind, "trusted");
  assert_string_equal (list.key[3].name, "self");
  assert_string_equal (list.key[3].id, list.key[0].id);
  assert_string_not_equal (list.key[1].id, list.key[2].id);
  esp_key_info_list_clear (&list);
}

/* --- signatures --------------------------------------------------------- */

/* The first key of RFC 8032, and what the openssl program signs with it. */
#define PRIVATE \
  "-----BEGIN PRIVATE KEY-----\n" \
  "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n" \
  "-----END PRIVATE KEY-----\n"
#define PUBLIC \
  "-----BEGIN PUBLIC KEY-----\n" \
  "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n" \
  "-----END PUBLIC KEY-----\n"
#define ID "06e3fd8fda29bb60"
#define SIGNED \
  "Hello\ned25519 " ID " " \
  "3DwUUeQMhQjyt0fchUeTfoG0ksT4GdpaNoN8tNdFi8Fi" \
  "1Z5olu3QX3BKkoDeGZYAV/ilnuX9o/xYxJe61vZmBQ==\n"

static void
known_signature (void **state)
{
  size_t n, body;

  (void) state;
  put ("s/keys/signing.pem", PRIVATE, 0600);
  CLEANUP_SIGNER struct esp_signer *s = esp_signer_load (store, false);
  assert_non_null (s);
  CLEANUP_FREE char *text = esp_sign_text (s, "kind", "Hello\n", &n);
  assert_string_equal (text, SIGNED);
  assert_int_equal (n, strlen (text));
  CLEANUP_FREE char *pem = esp_signer_public (s);
  assert_string_equal (pem, PUBLIC);
  CLEANUP_TRUST struct esp_trust *t = esp_trust_load (store);
  assert_int_equal (esp_verify_text (t, "kind", text, n, &body, "x"), 0);
  assert_int_equal (body, 6);
}

static void
a_signing_key_is_made_once (void **state)
{
  (void) state;
  assert_null (esp_signer_load (store, false));
  assert_int_equal (errno, ENOKEY);
  CLEANUP_SIGNER struct esp_signer *a = esp_signer_load (store, true);
  assert_int_equal (mode_of ("s/keys/signing.pem"), 0600);
  CLEANUP_SIGNER struct esp_signer *b = esp_signer_load (store, true);
  CLEANUP_FREE char *pa = esp_signer_public (a);
  CLEANUP_FREE char *pb = esp_signer_public (b);
  assert_string_equal (pa, pb);
  assert_int_equal (chmod (at ("s/keys/signing.pem"), 0644), 0);
  assert_null (esp_signer_load (store, true));
  assert_int_equal (errno, EACCES);
  put ("s/keys/signing.pem", PUBLIC, 0600);
  assert_null (esp_signer_load (store, true));
  assert_int_equal (errno, EBADMSG);
}

static bool
verified (const char *kind, const char *text)
{
  CLEANUP_TRUST struct esp_trust *t = esp_trust_load (store);
  size_t body;

  assert_non_null (t);
  if (esp_verify_text (t, kind, text, strlen (text), &body, "x") == 0)
    return true;
  assert_int_equal (errno, EKEYREJECTED);
  return false;
}

static void
trust_comes_and_goes (void **state)
{
  (void) state;
  assert_false (verified ("kind", SIGNED));
  says (ID);
  says ("espalier key trust NAME FILE");
  put ("pub", PUBLIC, 0644);
  assert_int_equal (esp_trust_add (store, "rfc", at ("pub")), 0);
  assert_int_equal (mode_of ("s/keys/trusted/rfc.pub"), 0600);
  assert_int_equal (mode_of ("s/keys/trusted"), 0700);
  assert_true (verified ("kind", SIGNED));
  assert_int_equal (esp_trust_add (store, "rfc", at ("pub")), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_trust_remove (store, "rfc"), 0);
  assert_int_equal (esp_trust_remove (store, "rfc"), -1);
  assert_int_equal (errno, ENOENT);
  assert_false (verified ("kind", SIGNED));
}

static void
only_public_keys_are_trusted (void **state)
{
  (void) state;
  put ("pub", PRIVATE, 0600);
  assert_int_equal (esp_trust_add (store, "x", at ("pub")), -1);
  assert_int_equal (errno, EBADMSG);
  put ("pub", "hello\n", 0600);
  assert_int_equal (esp_trust_add (store, "x", at ("pub")), -1);
  assert_int_equal (esp_trust_add (store, "x", at ("nothing")), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (mkdir (at ("s/keys/trusted"), 0700), 0);
  put ("s/keys/trusted/x.pub", PUBLIC, 0666);
  assert_null (esp_trust_load (store));
  assert_int_equal (errno, EACCES);
}

static void
wrong_signatures_are_refused (void **state)
{
  (void) state;
  put ("pub", PUBLIC, 0644);
  assert_int_equal (esp_trust_add (store, "rfc", at ("pub")), 0);
  assert_true (verified ("kind", SIGNED));
  assert_false (verified ("other", SIGNED));
  says ("rfc");
  assert_false (verified ("kind", "Hello\n"));
  says ("center add --unsigned");
  assert_false (verified ("kind", ""));
  assert_false (verified ("kind", "Hello\n" SIGNED));
  assert_false (verified ("kind", SIGNED "\n"));
  assert_false (verified ("kind", SIGNED SIGNED));
}

static bool
try_signed (void *arg, const void *buf, size_t len)
{
  size_t body;

  return esp_verify_text (arg, "kind", buf, len, &body, "x") == 0;
}

static void
damaged_signatures_are_refused (void **state)
{
  (void) state;
  put ("s/keys/signing.pem", PRIVATE, 0600);
  CLEANUP_TRUST struct esp_trust *t = esp_trust_load (store);
  for (size_t n = 0; n < strlen (SIGNED); ++n) {
    CLEANUP_FREE char *copy = malloc (n);
    memcpy (copy, SIGNED, n);
    assert_false (try_signed (t, copy, n));
  }
  for (size_t bit = 0; bit < 8 * strlen (SIGNED); ++bit) {
    char copy[] = SIGNED;
    copy[bit / 8] ^= (char) (1 << bit % 8);
    assert_false (try_signed (t, copy, strlen (SIGNED)));
  }
}

static void
without_trust_a_signature_is_cut_off (void **state)
{
  size_t body;

  (void) state;
  assert_int_equal (esp_verify_text (NULL, "any", SIGNED, strlen (SIGNED),
                                     &body, "x"), 0);
  assert_int_equal (body, 6);
  assert_int_equal (esp_verify_text (NULL, "any", "Hello\n", 6, &body, "x"),
                    0);
  assert_int_equal (body, 6);
  assert_int_equal (esp_verify_text (NULL, "any", "", 0, &body, "x"), 0);
  assert_int_equal (body, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown (f, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (known_answers),
    TEST (keys_are_private_files),
    TEST (names_of_keys_are_checked),
    TEST (a_key_that_others_may_read_is_refused),
    TEST (what_is_no_key_is_refused),
    TEST (a_missing_key_says_what_to_do),
    TEST (a_wrong_key_is_told),
    TEST (every_pack_has_its_own_key),
    TEST (keys_are_copied_and_deleted),
    TEST (all_keys_are_listed),
    TEST (known_signature),
    TEST (a_signing_key_is_made_once),
    TEST (trust_comes_and_goes),
    TEST (only_public_keys_are_trusted),
    TEST (wrong_signatures_are_refused),
    TEST (damaged_signatures_are_refused),
    TEST (without_trust_a_signature_is_cut_off),
  };

  umask (022);
  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
