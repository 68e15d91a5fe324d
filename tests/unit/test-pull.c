/* SPDX-License-Identifier: BSD-3-Clause */
/* Pulling from a center that means harm: chains that lead into themselves,
 * disks that shrink, names and parents that lie.  Nothing is made.
 */

#include "unit.h"

#include <sys/stat.h>

#include "center/center.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/file.h"

static char *dir;
static struct esp_store *store;
static struct esp_center *center;
static struct esp_signer *signer;

static int
setup (void **state)
{
  CLEANUP_FREE char *path = NULL, *there = NULL;
  struct esp_center_config c = { .name = "c" };

  (void) state;
  unit_error[0] = 0;
  dir = unit_mkdir ();
  path = esp_asprintf ("%s/store", dir);
  there = esp_asprintf ("%s/center", dir);
  assert_int_equal (mkdir (there, 0755), 0);
  assert_int_equal (esp_store_init (path), 0);
  assert_non_null (store = esp_store_open (path));
  c.url = there;
  assert_int_equal (esp_center_add (store, &c), 0);
  assert_non_null (signer = esp_signer_load (store, true));
  assert_non_null (center = esp_center_open (store, "c"));
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  esp_center_close (center);
  esp_signer_free (signer);
  esp_store_close (store);
  unit_rmdir (dir);
  return 0;
}

static esp_uuid
uuid_of (unsigned n)
{
  esp_uuid u = { .b = { 1 } };

  u.b[15] = (uint8_t) n;
  u.b[14] = (uint8_t) (n >> 8);
  return u;
}

/* The manifest of an empty restore point N over PARENT (0: a root). */
static struct esp_manifest
manifest (unsigned n, unsigned parent, uint64_t size)
{
  struct esp_manifest m = { .pushed_by = (char *) "test", .map_size = 48 };

  m.rp.uuid = uuid_of (n);
  if (parent)
    m.rp.parent = uuid_of (parent);
  m.rp.size = size;
  m.rp.note = (char *) "";
  snprintf (m.rp.name, sizeof m.rp.name, "rp%u", n);
  return m;
}

/* Put M as the manifest of restore point AT. */
static void
put (const struct esp_manifest *m, unsigned at)
{
  CLEANUP_FREE char *text = NULL;
  char object[ESP_OBJECT_MAX];
  esp_uuid uuid = uuid_of (at);
  size_t len;

  assert_non_null (text = esp_manifest_format (m, signer, &len));
  assert_int_equal (esp_remote_put (esp_center_remote (center),
                                    esp_center_rp_object (&uuid, "manifest",
                                                          object),
                                    text, len, NULL), 0);
}

static void
put_rp (unsigned n, unsigned parent, uint64_t size)
{
  struct esp_manifest m = manifest (n, parent, size);

  put (&m, n);
}

/* Pull N: fails with ERR and WORDS, and the store stays empty. */
static void
refused (unsigned n, int err, const char *words)
{
  const struct esp_pull_options options = { .force = false };
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  struct esp_transfer done = { 0 };
  esp_uuid uuid = uuid_of (n);
  int r, e;

  unit_error[0] = 0;
  r = esp_pull_rp (center, &uuid, &options, &done);
  e = errno;
  assert_int_equal (r, -1);
  assert_non_null (strstr (unit_error, words));
  assert_int_equal (e, err);
  assert_int_equal (esp_catalog_rp_list (esp_store_catalog (store), NULL,
                                         &list), 0);
  assert_int_equal (list.n, 0);
}

static void
test_two_that_are_each_others_parents (void **state)
{
  (void) state;
  put_rp (1, 2, 1 << 20);
  put_rp (2, 1, 1 << 20);
  refused (1, EBADMSG, "its own ancestor");
}

static void
test_a_long_circle (void **state)
{
  (void) state;
  for (unsigned i = 1; i <= 300; i++)
    put_rp (i, i % 300 + 1, 1 << 20);
  refused (7, EBADMSG, "its own ancestor");
}

static void
test_a_disk_that_shrinks (void **state)
{
  (void) state;
  put_rp (1, 2, 1 << 20);
  put_rp (2, 0, 2 << 20);
  refused (1, EBADMSG, "smaller");
}

static void
test_a_parent_that_is_missing (void **state)
{
  (void) state;
  put_rp (1, 2, 1 << 20);
  refused (1, ENOENT, "which another one there stands on");
}

static void
test_nothing_there (void **state)
{
  (void) state;
  refused (1, ENOENT, "has no restore point");
}

/* Signed, but of another restore point. */
static void
test_anothers_manifest (void **state)
{
  struct esp_manifest m = manifest (2, 0, 1 << 20);

  (void) state;
  put (&m, 1);
  refused (1, EBADMSG, "manifest");
}

/* Nothing to fetch it from. */
static void
test_no_variant (void **state)
{
  (void) state;
  put_rp (1, 0, 1 << 20);
  refused (1, EBADMSG, "has no variant");
}

static void
test_a_signature_of_a_stranger (void **state)
{
  CLEANUP_FREE char *path = esp_asprintf ("%s/other", dir);
  struct esp_signer *mine = signer;
  struct esp_store *other;

  (void) state;
  assert_int_equal (esp_store_init (path), 0);
  assert_non_null (other = esp_store_open (path));
  assert_non_null (signer = esp_signer_load (other, true));
  put_rp (1, 0, 1 << 20);
  esp_signer_free (signer);
  esp_store_close (other);
  signer = mine;
  refused (1, EKEYREJECTED, "key trust");
}

int
main (void)
{
#define TEST(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST (test_two_that_are_each_others_parents),
    TEST (test_a_long_circle),
    TEST (test_a_disk_that_shrinks),
    TEST (test_a_parent_that_is_missing),
    TEST (test_nothing_there),
    TEST (test_anothers_manifest),
    TEST (test_no_variant),
    TEST (test_a_signature_of_a_stranger),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
