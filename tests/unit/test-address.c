/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses and networks, keys of clients, who a machine is. */

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "boot/address.h"
#include "util/cleanup.h"

/* --- addresses ----------------------------------------------------------- */

static void
text_is (const char *ip, const char *want)
{
  struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons (80) };
  struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_scope_id = 2 };
  char buf[64];

  if (inet_pton (AF_INET, ip, &in.sin_addr) == 1)
    esp_address_text ((struct sockaddr *) &in, buf);
  else {
    assert_int_equal (inet_pton (AF_INET6, ip, &in6.sin6_addr), 1);
    esp_address_text ((struct sockaddr *) &in6, buf);
  }
  assert_string_equal (buf, want);
}

static void
addresses_have_one_text (void **state)
{
  struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "/x" };
  char buf[64] = "x";

  (void) state;
  text_is ("10.0.0.7", "10.0.0.7");
  text_is ("::ffff:10.0.0.7", "10.0.0.7");
  text_is ("FD00:0::7", "fd00::7");
  text_is ("fe80::1", "fe80::1");
  text_is ("::", "::");
  assert_string_equal (esp_address_text ((struct sockaddr *) &un, buf), "");
}

/* --- networks ------------------------------------------------------------ */

static void
network_is (const char *s, const char *want)
{
  struct esp_network n;
  char buf[64];

  if (esp_network_parse (s, &n) == -1)
    fail_msg ("%s: %s", s, unit_error);
  assert_string_equal (esp_network_format (&n, buf), want);
}

static void
networks_have_one_text (void **state)
{
  (void) state;
  network_is ("10.0.0.0/24", "10.0.0.0/24");
  network_is ("10.0.0.5/32", "10.0.0.5");
  network_is ("10.0.0.5", "10.0.0.5");
  network_is ("0.0.0.0/0", "0.0.0.0/0");
  network_is ("FD00::/64", "fd00::/64");
  network_is ("fd00:0::1", "fd00::1");
  network_is ("::/0", "::/0");
  network_is ("::ffff:10.0.0.0/104", "10.0.0.0/8");
  network_is ("10.0.0.192/27", "10.0.0.192/27");
}

static void
bad_networks_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "/", "/24", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/024", "10.0.0.0/-1",
    "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/8/8", "10.0.0.0/8 ", " 10.0.0.0/8",
    "fd00::/129", "fe80::1%eth0", "10.0.0.0/8x", "cafe", "10.0.0.0/0x8",
    "1111111111111111111111111111111111111111111111111111111111111111111111/1",
  };
  struct esp_network n = { .bits = 77 };

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    errno = 0;
    if (esp_network_parse (bad[i], &n) == 0)
      fail_msg ("\"%s\" is taken for a network", bad[i]);
    assert_int_equal (errno, EINVAL);
    assert_non_null (strstr (unit_error, "is no network"));
  }
  assert_int_equal (n.bits, 77);
}

static void
bits_behind_the_prefix_are_told (void **state)
{
  struct esp_network n;

  (void) state;
  assert_int_equal (esp_network_parse ("10.0.0.1/24", &n), -1);
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, "write 10.0.0.0/24"));
  assert_int_equal (esp_network_parse ("fd00::ff/121", &n), -1);
  assert_non_null (strstr (unit_error, "write fd00::80/121"));
}

static bool
in (const char *net, const char *address)
{
  struct esp_network n;

  assert_int_equal (esp_network_parse (net, &n), 0);
  return esp_network_has (&n, address);
}

static void
network_has_its_addresses (void **state)
{
  (void) state;
  assert_true (in ("10.0.0.0/24", "10.0.0.255"));
  assert_false (in ("10.0.0.0/24", "10.0.1.0"));
  assert_true (in ("10.0.0.128/25", "10.0.0.128"));
  assert_false (in ("10.0.0.128/25", "10.0.0.127"));
  assert_true (in ("0.0.0.0/0", "255.255.255.255"));
  assert_true (in ("10.0.0.0/8", "::ffff:10.1.2.3"));
  assert_false (in ("0.0.0.0/0", "::1"));
  assert_false (in ("::/0", "10.0.0.1"));
  assert_true (in ("fd00::/9", "fd7f::1"));
  assert_false (in ("fd00::/9", "fd80::1"));
  assert_true (in ("::1", "::1"));
  assert_false (in ("0.0.0.0/0", ""));
  assert_false (in ("10.0.0.0/8", "10.0.0.0/8"));
  assert_false (in ("10.0.0.0/8", "10.0.0.1 "));
}

static void
lists_of_networks_allow (void **state)
{
  static const char two[] = "10.0.0.0/24, fd00::/64";

  (void) state;
  assert_true (esp_networks_allow ("", "1.2.3.4"));
  assert_true (esp_networks_allow ("", "what?"));
  assert_true (esp_networks_allow (two, ""));
  assert_true (esp_networks_allow (two, "10.0.0.9"));
  assert_true (esp_networks_allow (two, "fd00::9"));
  assert_false (esp_networks_allow (two, "10.0.1.9"));
  assert_false (esp_networks_allow (two, "what?"));
  /* Damage allows nobody, wherever it stands. */
  assert_false (esp_networks_allow ("10.0.0.0/24 x", "10.0.0.9"));
  assert_false (esp_networks_allow ("x 10.0.0.0/24", "10.0.0.9"));
  assert_false (esp_networks_allow ("10.0.0.1/24", "10.0.0.1"));
  assert_false (esp_networks_allow (" , ", "10.0.0.9"));
  assert_true (esp_networks_allow (" 10.0.0.9 ,", "10.0.0.9"));
}

static void
canonical_is (const char *list, const char *want)
{
  CLEANUP_FREE char *s = esp_networks_canonical (list);

  if (!s != !want || (s && strcmp (s, want) != 0))
    fail_msg ("\"%s\" is \"%s\"", list, s ? s : "refused");
}

static void
lists_of_networks_have_one_text (void **state)
{
  (void) state;
  canonical_is ("", "");
  canonical_is ("10.0.0.0/24", "10.0.0.0/24");
  canonical_is (" 10.0.0.5/32,FD00::/64\t10.0.0.5 ", "10.0.0.5 fd00::/64");
  canonical_is ("10.0.0.0/8 10.0.0.0/9 10.0.0.0/8", "10.0.0.0/8 10.0.0.0/9");
  canonical_is ("1:2:3::5:6:7:8,::,::/0", "1:2:3:0:5:6:7:8 :: ::/0");
  canonical_is (" , ", NULL);
  assert_non_null (strstr (unit_error, "leave it empty"));
  canonical_is ("10.0.0.0/8 cafe", NULL);
  assert_non_null (strstr (unit_error, "\"cafe\" is no network"));
  canonical_is ("10.0.0.1/8", NULL);
}

/* A random address in a random network against bit by bit. */
static void
network_of_any_length_agrees_with_bits (void **state)
{
  (void) state;
  srandom (unit_seed ());
  for (unsigned round = 0; round < 20000; ++round) {
    unsigned long a = random () * 2 & 0xffffffff, b = random () * 2 & 0xffffffff;
    unsigned bits = (unsigned) random () % 33;
    unsigned long mask = bits ? 0xffffffffUL << (32 - bits) & 0xffffffffUL : 0;
    struct in_addr x;
    char net[64], address[64];

    if (random () & 1)          /* near each other */
      b = a ^ 1UL << random () % 32;
    x.s_addr = htonl ((uint32_t) (a & mask));
    snprintf (net, sizeof net, "%s/%u", inet_ntoa (x), bits);
    x.s_addr = htonl ((uint32_t) b);
    snprintf (address, sizeof address, "%s", inet_ntoa (x));
    if (in (net, address) != ((a & mask) == (b & mask)))
      fail_msg ("%s in %s", address, net);
  }
}

/* --- keys ---------------------------------------------------------------- */

static void
key_is (const char *s, enum esp_client_kind want_kind, const char *want)
{
  char key[ESP_CLIENT_KEY_MAX + 1];
  enum esp_client_kind kind;

  if (esp_client_key_parse (s, &kind, key) == -1)
    fail_msg ("%s: %s", s, unit_error);
  assert_string_equal (key, want);
  assert_int_equal (kind, want_kind);
}

static void
keys_have_one_text (void **state)
{
  (void) state;
  key_is ("52:54:00:AB:cd:EF", ESP_CLIENT_MAC, "52:54:00:ab:cd:ef");
  key_is ("52-54-00-ab-cd-ef", ESP_CLIENT_MAC, "52:54:00:ab:cd:ef");
  key_is ("525400ABCDEF", ESP_CLIENT_MAC, "52:54:00:ab:cd:ef");
  key_is ("4C4C4544-0043-3510-8052-B4C04F4A4E31", ESP_CLIENT_UUID,
          "4c4c4544-0043-3510-8052-b4c04f4a4e31");
  key_is ("10.0.0.0/24", ESP_CLIENT_NETWORK, "10.0.0.0/24");
  key_is ("10.0.0.5/32", ESP_CLIENT_NETWORK, "10.0.0.5");
  key_is ("FD00::/64", ESP_CLIENT_NETWORK, "fd00::/64");
  key_is ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", ESP_CLIENT_NETWORK,
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120");
}

static void
bad_keys_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "seat-7", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:00", "52:54-00:ab-cd:ef",
    "52:54:00:ab:cd:eg", "525400abcde", "525400abcdef0", "52:5:400:ab:cd:ef",
    "4c4c4544-0043-3510-8052-b4c04f4a4e3", "4c4c4544004335108052b4c04f4a4e31",
    "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff", "10.0.0.1/24", "52.54.00.ab.cd.ef",
    "\x1b[31m", "52:54:00:ab:cd:ef\n",
  };
  char key[ESP_CLIENT_KEY_MAX + 1] = "";
  enum esp_client_kind kind;

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    errno = 0;
    unit_error[0] = 0;
    if (esp_client_key_parse (bad[i], &kind, key) == 0)
      fail_msg ("\"%s\" is taken for %s", bad[i], key);
    assert_int_equal (errno, EINVAL);
    assert_string_not_equal (unit_error, "");
    assert_null (strchr (unit_error, '\x1b'));
  }
}

/* --- who a machine is ------------------------------------------------------ */

static struct esp_client entries[] = {
  { .key = "52:54:00:00:00:01", .kind = ESP_CLIENT_MAC, .name = "seat-1" },
  { .key = "52:54:00:00:00:02", .kind = ESP_CLIENT_MAC },
  { .key = "4c4c4544-0043-3510-8052-b4c04f4a4e31", .kind = ESP_CLIENT_UUID,
    .name = "board" },
  { .key = "10.0.0.0/8", .kind = ESP_CLIENT_NETWORK },
  { .key = "10.0.0.0/24", .kind = ESP_CLIENT_NETWORK },
  { .key = "10.0.0.0/16", .kind = ESP_CLIENT_NETWORK },
  { .key = "fd00::/64", .kind = ESP_CLIENT_NETWORK },
};
static const struct esp_client_list list = {
  entries, sizeof entries / sizeof entries[0]
};
#define UUID "4C4C4544-0043-3510-8052-B4C04F4A4E31"

static void
match_is (const char *mac, const char *uuid, const char *address,
          const char *want)
{
  const struct esp_client *x = esp_client_match (&list, mac, uuid, address);

  assert_string_equal (x ? x->key : "", want);
}

static void
first_that_fits_is_the_entry (void **state)
{
  (void) state;
  match_is ("52-54-00-00-00-01", UUID, "10.0.0.1", "52:54:00:00:00:01");
  match_is ("52-54-00-00-00-09", UUID, "10.0.0.1", entries[2].key);
  match_is (NULL, "?", "10.0.0.1", "10.0.0.0/24");
  match_is ("", "", "10.0.1.1", "10.0.0.0/16");
  match_is (NULL, NULL, "10.1.1.1", "10.0.0.0/8");
  match_is (NULL, NULL, "fd00::1", "fd00::/64");
  match_is (NULL, NULL, "192.168.1.1", "");
  match_is (NULL, NULL, "", "");
  match_is (NULL, NULL, NULL, "");
  /* A key of one kind is none of another. */
  match_is (UUID, "52:54:00:00:00:01", "", "");
}

static void
name_is (size_t entry, const char *mac, const char *uuid, const char *address,
         const char *want)
{
  char buf[ESP_NAME_MAX + 1];

  assert_string_equal (esp_client_name (entry == SIZE_MAX ? NULL
                                        : &entries[entry], mac, uuid, address,
                                        buf), want);
  assert_true (!*want || esp_client_ok (want));
}

static void
machines_have_names (void **state)
{
  (void) state;
  name_is (0, "52-54-00-00-00-01", UUID, "10.0.0.1", "seat-1");
  name_is (1, "52-54-00-00-00-02", UUID, "10.0.0.1", "52:54:00:00:00:02");
  name_is (3, NULL, UUID, "10.0.0.1", entries[2].key);
  name_is (SIZE_MAX, "../../x", "\n", "10.0.0.1", "10.0.0.1");
  name_is (SIZE_MAX, NULL, NULL, "::1", "::1");
  name_is (SIZE_MAX, NULL, NULL, "../x", "");
  name_is (SIZE_MAX, NULL, NULL, "", "");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (addresses_have_one_text),
    cmocka_unit_test (networks_have_one_text),
    cmocka_unit_test (bad_networks_are_refused),
    cmocka_unit_test (bits_behind_the_prefix_are_told),
    cmocka_unit_test (network_has_its_addresses),
    cmocka_unit_test (lists_of_networks_allow),
    cmocka_unit_test (lists_of_networks_have_one_text),
    cmocka_unit_test (network_of_any_length_agrees_with_bits),
    cmocka_unit_test (keys_have_one_text),
    cmocka_unit_test (bad_keys_are_refused),
    cmocka_unit_test (first_that_fits_is_the_entry),
    cmocka_unit_test (machines_have_names),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
