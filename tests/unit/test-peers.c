/* SPDX-License-Identifier: BSD-3-Clause */
/* What the other servers of a site answer, and who of them is named. */

#include "unit.h"

#include "daemon/peers.h"

#define U "\"00000000-0000-4000-8000-000000000001\""

static int
parse (const char *text, struct peer_answer *out)
{
  return peer_answer_parse (text, strlen (text), out);
}

static void
test_good (void **state)
{
  struct peer_answer a;

  (void) state;
  assert_int_equal (parse ("{\"espalierd\": 1, \"instance\": " U ", \"stack\":"
                           " \"up\", \"connections\": 12, \"more\": [],"
                           " \"venues\": {\"office\": [" U ", " U "],"
                           " \"cafe\": [" U "]}}", &a), 0);
  assert_true (a.up);
  assert_int_equal (a.connections, 12);
  assert_int_equal (a.n, 2);
  assert_string_equal (a.venue[0].id, "cafe");
  assert_string_equal (a.venue[1].id, "office");
  assert_int_equal (a.venue[1].ndisks, 2);
  peer_answer_clear (&a);

  assert_int_equal (parse ("{\"espalierd\": 1, \"instance\": " U ","
                           " \"stack\": \"down\", \"venues\": {}}", &a), 0);
  assert_false (a.up);
  assert_int_equal (a.n, 0);
  peer_answer_clear (&a);
}

static void
test_bad (void **state)
{
  static const char *const bad[] = {
    "", "{}", "[]", "null", "{\"espalierd\": 1}", "<html>",
    "{\"espalierd\": 2, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": {}}",
    "{\"espalierd\": 1, \"instance\": \"x\", \"stack\": \"up\","
    " \"venues\": {}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": 1, \"venues\": {}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"connections\": -1, \"venues\": {}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": []}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": {\"../x\": [" U "]}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": {\"cafe\": []}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": {\"cafe\": [" U ", 1]}}",
    "{\"espalierd\": 1, \"instance\": " U ", \"stack\": \"up\","
    " \"venues\": {\"cafe\": [\"nonsense\"]}}",
    "{\"espalierd\": 1, \"espalierd\": 1, \"instance\": " U ","
    " \"stack\": \"up\", \"venues\": {}}",
  };
  struct peer_answer a;

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    errno = 0;
    if (parse (bad[i], &a) == 0)
      fail_msg ("taken: %s", bad[i]);
    assert_int_equal (errno, EPROTO);
    assert_null (a.venue);
  }
}

/* Nobody is asked, or nobody answers: nobody is named, and the end comes soon. */
static void
test_silent (void **state)
{
  char *urls[] = { (char *) "http://127.0.0.1:1/" };
  struct config config = { .servers = urls, .nservers = 1 };
  esp_uuid disk = { { 1 } };
  struct esp_venue venue = { .id = "cafe", .ndisks = 1, .disks = &disk };
  char **out;
  size_t n;

  (void) state;
  assert_int_equal (peers_for (&venue, &out, &n), 0);
  assert_int_equal (n, 0);
  peers_free (out, n);
  assert_int_equal (peers_set (&config), 0);
  assert_int_equal (peers_for (&venue, &out, &n), 0);
  assert_int_equal (n, 0);
  peers_free (out, n);
  config.nservers = 0;
  assert_int_equal (peers_set (&config), 0);
  peers_stop ();
}

static void
test_bad_url (void **state)
{
  char *urls[] = { (char *) "gopher://x/" };
  struct config config = { .servers = urls, .nservers = 1 };

  (void) state;
  assert_int_equal (peers_set (&config), -1);
  assert_non_null (strstr (unit_error, "gopher"));
}

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_good),
    cmocka_unit_test (test_bad),
    cmocka_unit_test (test_silent),
    cmocka_unit_test (test_bad_url),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
