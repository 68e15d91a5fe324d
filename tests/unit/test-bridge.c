/* SPDX-License-Identifier: BSD-3-Clause */
/* The iSCSI bridge: names of targets, and what tgtd answers. */

#include "unit.h"

#include "daemon/bridge-internal.h"

#define PREFIX "iqn.2026-11.org.espalier:"

/* What RFC 3722 and tgtd allow, and no more than RFC 7143 has room for. */
static bool
legal (const char *iqn)
{
  return strlen (iqn) <= 223
    && strncmp (iqn, PREFIX, strlen (PREFIX)) == 0
    && strspn (iqn, "abcdefghijklmnopqrstuvwxyz0123456789.:-")
    == strlen (iqn);
}

static void
test_iqn_plain (void **state)
{
  char iqn[224];

  (void) state;
  bridge_iqn ("cafe", "seat-7", 0x0123456789abcdef, iqn);
  assert_string_equal (iqn, PREFIX "cafe:seat-7:0123456789abcdef");
  bridge_iqn ("Cafe_1", "52:54:00:12:34:56", 1, iqn);
  assert_string_equal (iqn, PREFIX "cafe-1:52-54-00-12-34-56:"
                       "0000000000000001");
}

static void
test_iqn_any_script (void **state)
{
  char iqn[224];

  (void) state;
  bridge_iqn ("\xe7\xbd\x91\xe5\x90\xa7", "\xe5\xba\xa7\xe4\xbd\x8d-7", 2, iqn);
  assert_string_equal (iqn, PREFIX "x:7:0000000000000002");
  bridge_iqn ("caf\xc3\xa9", "::1", 3, iqn);
  assert_string_equal (iqn, PREFIX "caf:1:0000000000000003");
}

static void
test_iqn_longest (void **state)
{
  char venue[ESP_NAME_MAX + 1], iqn[224];

  (void) state;
  memset (venue, 'V', ESP_NAME_MAX);
  venue[ESP_NAME_MAX] = '\0';
  bridge_iqn (venue, venue, UINT64_MAX, iqn);
  assert_true (legal (iqn));
  assert_string_equal (iqn + strlen (iqn) - 17, ":ffffffffffffffff");
}

static void
test_iqn_each_byte (void **state)
{
  char venue[3] = "a", iqn[224];

  (void) state;
  for (int c = 1; c < 256; c++) {
    venue[1] = (char) c;
    bridge_iqn (venue, venue + 1, 4, iqn);
    assert_true (legal (iqn));
  }
}

static void
test_conns (void **state)
{
  struct bridge_conn c[2];
  const char *text =
    "Session: 3\n"
    "    Connection: 1\n"
    "        Initiator: iqn.2010-04.org.ipxe:x\n"
    "        IP Address: 10.0.0.7\n"
    "Session: 4294967295\n"
    "    Connection: 4294967295\n"
    "        Initiator: y\n"
    "        IP Address: 10.0.0.7\n";

  (void) state;
  assert_int_equal (bridge_conns_parse (text, c, 2), 2);
  assert_int_equal (c[0].session, 3);
  assert_int_equal (c[0].cid, 1);
  assert_int_equal (c[1].session, UINT32_MAX);
  assert_int_equal (c[1].cid, UINT32_MAX);
  /* All are counted, also where there is room for fewer. */
  assert_int_equal (bridge_conns_parse (text, c, 1), 2);
  assert_int_equal (bridge_conns_parse (text, c, 0), 2);
}

static void
test_conns_none (void **state)
{
  static const char *const texts[] = {
    "", "\n", "Session: 1\n", "Connection: 1\n", "Session: x\nConnection: 1\n",
    "Session: 1\nConnection: 99999999999999999999999\n",
    "Session: 99999999999999999999999\nConnection: 1\n",
    "Session: 1\nConnection: 4294967296\n", "Session: 1\nConnection: -1\n",
    "Session: 1 \nConnection: 1\n", "Session:1\nConnection:1\n",
    "        Initiator: Session: 1\n        Initiator: Connection: 1\n",
  };
  struct bridge_conn c;

  (void) state;
  assert_int_equal (bridge_conns_parse (NULL, &c, 1), 0);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    assert_int_equal (bridge_conns_parse (texts[i], &c, 1), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_iqn_plain),
    cmocka_unit_test (test_iqn_any_script),
    cmocka_unit_test (test_iqn_longest),
    cmocka_unit_test (test_iqn_each_byte),
    cmocka_unit_test (test_conns),
    cmocka_unit_test (test_conns_none),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
