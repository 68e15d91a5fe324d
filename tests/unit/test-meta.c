/* SPDX-License-Identifier: BSD-3-Clause */
/* The document `meta`: what is written is read again, and every field that
 * is missing, of another type or out of range is refused and named.
 */

#include "unit.h"

#include <jansson.h>

#include "store/rp.h"

static struct esp_rp
sample (void)
{
  struct esp_rp rp = {
    .name = "debian-12.update_3", .kind = ESP_RP_STORED,
    .size = UINT64_C (10) << 30, .created = 1700000000, .data_blocks = 70,
    .zero_blocks = 5,
  };

  esp_uuid_new (&rp.uuid);
  esp_uuid_new (&rp.parent);
  rp.note = strdup ("after the \"update\", ünïcode\n");
  rp.nresources = 2;
  rp.resources = calloc (2, sizeof *rp.resources);
  rp.resources[0] = (struct esp_resource) { strdup ("env"), strdup ("dotnet"),
    strdup ("8.0") };
  rp.resources[1] = (struct esp_resource) { strdup ("app"), strdup ("game"),
    strdup ("") };
  return rp;
}

static json_t *
sample_meta (void)
{
  CLEANUP_RP struct esp_rp rp = sample ();
  json_t *meta = esp_rp_to_meta (&rp, UINT64_C (0x00c0ffee12345678));

  assert_non_null (meta);
  return meta;
}

static void
all_fields_are_read_again (void **state)
{
  CLEANUP_RP struct esp_rp rp = sample (), got = { 0 };
  json_t *meta = esp_rp_to_meta (&rp, UINT64_C (0x00c0ffee12345678));
  uint64_t digest;

  (void) state;
  assert_non_null (meta);
  assert_int_equal (esp_rp_from_meta (meta, &got, &digest, "x"), 0);
  json_decref (meta);
  assert_true (digest == UINT64_C (0x00c0ffee12345678));
  assert_true (esp_uuid_eq (&rp.uuid, &got.uuid));
  assert_true (esp_uuid_eq (&rp.parent, &got.parent));
  assert_string_equal (rp.name, got.name);
  assert_int_equal (rp.kind, got.kind);
  assert_true (rp.size == got.size && rp.created == got.created);
  assert_true (rp.data_blocks == got.data_blocks);
  assert_true (rp.zero_blocks == got.zero_blocks);
  assert_string_equal (rp.note, got.note);
  assert_int_equal (got.nresources, 2);
  assert_string_equal (got.resources[0].kind, "env");
  assert_string_equal (got.resources[0].version, "8.0");
  assert_string_equal (got.resources[1].name, "game");
  assert_string_equal (got.resources[1].version, "");
  assert_null (got.path);
}

static void
a_root_has_no_parent (void **state)
{
  CLEANUP_RP struct esp_rp rp = sample (), got = { 0 };
  json_t *meta;

  (void) state;
  memset (&rp.parent, 0, sizeof rp.parent);
  meta = esp_rp_to_meta (&rp, 1);
  assert_true (json_is_null (json_object_get (meta, "parent")));
  assert_int_equal (esp_rp_from_meta (meta, &got, NULL, "x"), 0);
  assert_true (esp_uuid_is_null (&got.parent));
  json_decref (meta);
}

/* Meta with FIELD set to VALUE (JSON; NULL: removed) is refused, and the
 * message names the field.
 */
static void
refused (const char *field, const char *value)
{
  json_t *meta = sample_meta (), *v = NULL;
  struct esp_rp got;

  if (value) {
    v = json_loads (value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null (v);
    assert_int_equal (json_object_set_new (meta, field, v), 0);
  }
  else
    assert_int_equal (json_object_del (meta, field), 0);
  unit_error[0] = 0;
  errno = 0;
  if (esp_rp_from_meta (meta, &got, NULL, "some/meta") != -1)
    fail_msg ("%s = %s was accepted", field, value);
  assert_int_equal (errno, EBADMSG);
  assert_non_null (strstr (unit_error, "some/meta"));
  assert_non_null (strstr (unit_error, field));
  json_decref (meta);
}

static void
missing_fields_are_refused (void **state)
{
  static const char *const fields[] = {
    "uuid", "name", "parent", "kind", "size", "created", "data-blocks",
    "zero-blocks", "note", "resources", "map-digest",
  };

  (void) state;
  for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    refused (fields[i], NULL);
    refused (fields[i], "{}");
    refused (fields[i], "true");
    refused (fields[i], "-1");
    refused (fields[i], "1.5");
    refused (fields[i], "\"a\\u0000b\"");
  }
}

static void
hostile_values_are_refused (void **state)
{
  (void) state;
  refused ("uuid", "\"00000000-0000-0000-0000-000000000000\"");
  refused ("uuid", "\"../../etc\"");
  refused ("uuid", "null");
  refused ("name", "\"../x\"");
  refused ("name", "\"\"");
  refused ("name", "\"-rf\"");
  refused ("parent", "\"\"");
  refused ("kind", "\"linked\"");
  refused ("size", "0");
  refused ("size", "70368744177665");
  refused ("data-blocks", "2621441");
  refused ("zero-blocks", "2621371");
  refused ("map-digest", "\"c0ffee\"");
  refused ("map-digest", "\"00C0FFEE12345678\"");
  refused ("map-digest", "\"0x00c0ffee123456\"");
  refused ("in-place", "{\"path\": \"/etc/passwd\"}");  /* it is stored */
  refused ("map-digest-next", "\"1\"");
  refused ("map-digest-next", "7");
  refused ("map-size", "0");
  refused ("map-size", "10737418241");
  refused ("resources", "[1]");
  refused ("resources", "[{\"kind\":\"env\",\"name\":\"\",\"version\":\"\"}]");
  refused ("resources", "[{\"kind\":\"lib\",\"name\":\"x\",\"version\":\"\"}]");
  refused ("resources", "[{\"kind\":\"env\",\"name\":\"x\"}]");
}

static void
a_child_may_not_be_its_own_parent (void **state)
{
  CLEANUP_RP struct esp_rp rp = sample ();
  struct esp_rp got;
  json_t *meta;

  (void) state;
  rp.parent = rp.uuid;
  meta = esp_rp_to_meta (&rp, 1);
  assert_int_equal (esp_rp_from_meta (meta, &got, NULL, "x"), -1);
  assert_int_equal (errno, EBADMSG);
  json_decref (meta);
}

static void
in_place_needs_an_absolute_path (void **state)
{
  CLEANUP_RP struct esp_rp rp = sample (), got = { 0 };
  struct esp_rp none;
  json_t *meta;

  (void) state;
  memset (&rp.parent, 0, sizeof rp.parent);
  rp.kind = ESP_RP_IN_PLACE;
  meta = esp_rp_to_meta (&rp, 1);
  assert_int_equal (esp_rp_from_meta (meta, &none, NULL, "x"), -1);
  json_object_set_new (meta, "in-place", json_pack ("{s:s}", "path", "/dev/x"));
  assert_int_equal (esp_rp_from_meta (meta, &got, NULL, "x"), 0);
  assert_string_equal (got.path, "/dev/x");
  json_object_set_new (meta, "in-place", json_pack ("{s:s}", "path", "x"));
  assert_int_equal (esp_rp_from_meta (meta, &none, NULL, "x"), -1);
  json_decref (meta);
}

static void
text_that_is_no_utf8_is_refused (void **state)
{
  CLEANUP_RP struct esp_rp rp = sample ();

  (void) state;
  free (rp.note);
  rp.note = strdup ("\xff\xfe");
  assert_null (esp_rp_to_meta (&rp, 1));
  assert_int_equal (errno, EINVAL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (all_fields_are_read_again),
    cmocka_unit_test (a_root_has_no_parent),
    cmocka_unit_test (missing_fields_are_refused),
    cmocka_unit_test (hostile_values_are_refused),
    cmocka_unit_test (a_child_may_not_be_its_own_parent),
    cmocka_unit_test (in_place_needs_an_absolute_path),
    cmocka_unit_test (text_that_is_no_utf8_is_refused),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
