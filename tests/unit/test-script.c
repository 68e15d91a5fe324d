/* SPDX-License-Identifier: BSD-3-Clause */
/* iPXE scripts: what they say, and that no text becomes a command. */

#include "unit.h"

#include "script-hostile.h"
#include "util/cleanup.h"

static const struct esp_script_page page = {
  .url = "http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56",
  .title = "Café",
};

static void
assert_script (char *script, const char *expected)
{
  assert_non_null (script);
  assert_string_equal (script, expected);
  free (script);
}

static void
test_ask (void **state)
{
  (void) state;
  assert_script (esp_script_ask ("http://[fd00::1]:8610/boot.ipxe"),
    "#!ipxe\n"
    "set u http://[fd00::1]:8610/boot.ipxe\n"
    ":ask\n"
    "chain --replace --autofree ${u}?mac=${netX/mac:hexhyp}&uuid=${uuid}"
    "&ip=${netX/ip}&hostname=${hostname:uristring}&platform=${platform}"
    "&arch=${buildarch} ||\n"
    "echo The boot server does not answer: once more in 5 seconds\n"
    "sleep 5 ||\n"
    "goto ask\n");
}

static void
test_menu (void **state)
{
  const struct esp_script_item items[] = {
    { .name = "cafe", .description = "Internet cafe; #1", .query = "&venue=cafe",
      .key = '1' },
    { .name = "网吧", .description = "", .query = "&venue=~E7~BD~91~E5~90~A7",
      .key = '2' },
    { .name = "" },
    { .name = "-n", .mark = "[ ]", .query = "&page=needs" },
  };
  const struct esp_script_menu menu = {
    .heading = "choose && go", .items = items, .n = 4, .chosen = 1,
    .timeout = 10,
  };

  (void) state;
  assert_script (esp_script_menu (&page, &menu),
    "#!ipxe\n"
    "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n"
    ":menu\n"
    "menu Cafe: choose ${nil}&& go\n"
    "item --key 1 i0 (1) cafe - Internet cafe; ${nil}#1\n"
    "item --key 2 i1 (2) WangBa\n"
    "item --gap\n"
    "item i3 [ ] -n\n"
    "choose --default i1 --timeout 10000 x || goto esc\n"
    "goto ${x}\n"
    ":esc\n"
    "goto menu\n"
    ":i0\n"
    "chain --replace --autofree ${u}&venue=cafe || goto lost\n"
    ":i1\n"
    "chain --replace --autofree ${u}&venue=~E7~BD~91~E5~90~A7 || goto lost\n"
    ":i3\n"
    "chain --replace --autofree ${u}&page=needs || goto lost\n"
    ":lost\n"
    "echo The boot server does not answer: the menu again in 5 seconds\n"
    "sleep 5 ||\n"
    "goto menu\n");
}

/* A shell and a way back are there where they are asked for, and only there. */
static void
test_menu_shell (void **state)
{
  const struct esp_script_item item = { .name = "a", .query = "&venue=a" };
  const struct esp_script_menu menu = {
    .items = &item, .n = 1, .back = "&page=menu" };
  struct esp_script_page with = page;

  (void) state;
  with.shell = true;
  assert_script (esp_script_menu (&with, &menu),
    "#!ipxe\n"
    "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n"
    ":menu\n"
    "menu Cafe\n"
    "item i0 a\n"
    "item --key s shell (s) iPXE shell\n"
    "choose --default i0 --timeout 0 x || goto esc\n"
    "goto ${x}\n"
    ":esc\n"
    "chain --replace --autofree ${u}&page=menu || goto lost\n"
    "goto menu\n"
    ":i0\n"
    "chain --replace --autofree ${u}&venue=a || goto lost\n"
    ":lost\n"
    "echo The boot server does not answer: the menu again in 5 seconds\n"
    "sleep 5 ||\n"
    "goto menu\n"
    ":shell\n"
    "shell ||\n"
    "goto menu\n");
}

/* Names that are the same in ASCII, whatever their keys and marks. */
static void
test_alike (void **state)
{
  const struct esp_script_item items[] = {
    { .name = "网吧", .query = "&a", .key = '1', .mark = "[x]" },
    { .name = "王八", .query = "&b", .key = '2', .mark = "[ ]" },
  };
  const struct esp_script_menu menu = { .items = items, .n = 2, .back = "" };
  CLEANUP_FREE char *script = esp_script_menu (&page, &menu);

  (void) state;
  assert_non_null (strstr (script, "\nitem --key 1 i0 (1) [x] WangBa\n"));
  assert_non_null (strstr (script, "\nitem --key 2 i1 (2) [ ] WangBa (2)\n"));
}

static void
test_message (void **state)
{
  const char *lines[] = { "-no ${uuid}", "ends in \\", NULL };
  struct esp_script_page with = page;

  (void) state;
  assert_script (esp_script_message (&page, lines, 30, "&page=menu"),
    "#!ipxe\n"
    "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n"
    "echo Cafe\n"
    "echo -- -no $(uuid}\n"
    "echo ends in \\${nil}\n"
    ":pause\n"
    "sleep 30 ||\n"
    "chain --replace --autofree ${u}&page=menu || goto pause\n");
  with.shell = true;
  lines[0] = NULL;
  assert_script (esp_script_message (&with, lines, 30, ""),
    "#!ipxe\n"
    "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n"
    "echo Cafe\n"
    ":pause\n"
    "prompt --key s --timeout 30000 Press s for iPXE's shell && shell ||\n"
    "chain --replace --autofree ${u} || goto pause\n");
}

#define HEAD \
  "#!ipxe\n" \
  "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n" \
  "echo Cafe\n" \
  "echo Venue cafe - Seats\n" \
  "echo as seat-7\n"
#define TAIL \
  ":failed\n" \
  "echo Once more in 10 seconds\n" \
  "sleep 10 ||\n" \
  "chain --replace --autofree ${u}&venue=cafe&try=1 || goto failed\n"

static struct esp_script_boot
boot_of (enum esp_boot way, const struct esp_script_path *paths, size_t n)
{
  return (struct esp_script_boot) {
    .venue = "cafe", .description = "Seats", .client = "seat-7", .way = way,
    .paths = paths, .npaths = n, .pause = 10, .again = "&venue=cafe&try=1",
  };
}

static void
test_iscsi (void **state)
{
  const char *one[] = { "iscsi:10.0.0.1::3260:1:iqn.a" };
  const char *two[] = { "iscsi:10.0.0.2::3260:1:iqn.b",
                        "iscsi:10.0.0.2::3260:2:iqn.b" };
  const struct esp_script_path paths[] = {
    { .server = "first", .disks = one, .ndisks = 1 },
    { .server = "second", .disks = two, .ndisks = 2 },
  };
  struct esp_script_boot boot = boot_of (ESP_BOOT_ISCSI, paths, 2);

  (void) state;
  boot.initiator = "iqn.2026-11.org.espalier:client:seat-7";
  boot.chap_user = "ann";
  boot.chap_secret = "a b${x}";
  assert_script (esp_script_boot (&page, &boot), HEAD
    "echo Server first\n"
    "set initiator-iqn iqn.2026-11.org.espalier:client:seat-7\n"
    "set username:hex 61:6e:6e\n"
    "set password:hex 61:20:62:24:7b:78:7d\n"
    "sanboot iscsi:10.0.0.1::3260:1:iqn.a ||\n"
    ":f0\n"
    "echo first could not boot this machine\n"
    "echo Server second\n"
    "sanhook --drive 0x80 iscsi:10.0.0.2::3260:1:iqn.b || goto u1_0\n"
    "sanhook --drive 0x81 iscsi:10.0.0.2::3260:2:iqn.b || goto u1_1\n"
    "sanboot --keep --drive 0x80 ||\n"
    "sanunhook --drive 0x81 ||\n"
    ":u1_1\n"
    "sanunhook --drive 0x80 ||\n"
    ":u1_0\n"
    ":f1\n"
    "echo second could not boot this machine\n" TAIL);
}

/* Another server's page runs inside; what it set, we set again. */
static void
test_chain (void **state)
{
  static const char *const one[] = { "iscsi:10.0.0.1::3260:1:iqn.a" };
  const struct esp_script_path paths[] = {
    { .server = "other", .chain = "http://10.0.0.2/boot.ipxe?mac=1&hop=1" },
    { .server = "first", .disks = one, .ndisks = 1 },
  };
  struct esp_script_boot boot = boot_of (ESP_BOOT_ISCSI, paths, 2);
  static const char middle[] =
    "echo Server other\n"
    "chain --autofree http://10.0.0.2/boot.ipxe?mac=1&hop=1 ||\n"
    "set u http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56\n"
    ":f0\n"
    "echo other could not boot this machine\n"
    "echo Server first\n"
    "clear username ||\nclear password ||\n"
    "sanboot iscsi:10.0.0.1::3260:1:iqn.a ||\n"
    ":f1\n"
    "echo first could not boot this machine\n";
  CLEANUP_FREE char *all = NULL, *ended = NULL;

  (void) state;
  assert_true (asprintf (&all, "%s%s%s", HEAD, middle, TAIL) > 0);
  assert_script (esp_script_boot (&page, &boot), all);
  boot.again = NULL;            /* asked by another server's script */
  assert_true (asprintf (&ended, "%s%sexit 1\n", HEAD, middle) > 0);
  assert_script (esp_script_boot (&page, &boot), ended);
}

static void
test_nbdroot (void **state)
{
  const struct esp_script_path path = {
    .server = "first", .kernel = "http://10.0.0.1/k",
    .initrd = "http://10.0.0.1/i",
    .cmdline = " root=/dev/nbd0p1  quiet #x || a;b \\",
  };
  struct esp_script_boot boot = boot_of (ESP_BOOT_NBDROOT, &path, 1);

  (void) state;
  assert_script (esp_script_boot (&page, &boot), HEAD
    "echo Server first\n"
    "kernel --name linux http://10.0.0.1/k initrd=initrd root=/dev/nbd0p1 "
    "quiet ${nil}#x ${nil}|| a;b \\${nil} || goto f0\n"
    "initrd --name initrd http://10.0.0.1/i || goto u0\n"
    "boot linux ||\n"
    "imgfree initrd ||\n"
    ":u0\n"
    "imgfree linux ||\n"
    ":f0\n"
    "echo first could not boot this machine\n" TAIL);
}

static void
assert_cmdline_refused (const char *cmdline, const char *why)
{
  const struct esp_script_path path = {
    .server = "a", .kernel = "http://10.0.0.1/k", .cmdline = cmdline };
  struct esp_script_boot boot = boot_of (ESP_BOOT_NBDROOT, &path, 1);

  unit_error[0] = 0;
  assert_null (esp_script_boot (&page, &boot));
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, why));
}

static void
test_refused (void **state)
{
  char words[2 * 200 + 1], many[3000];
  const struct esp_script_page bad = { .url = "http://a/ b", .title = "" };
  const char *lines[] = { NULL };

  (void) state;
  assert_cmdline_refused ("a=${b}", "${");
  assert_cmdline_refused ("a\nshell", "control");
  assert_cmdline_refused ("a\x7f", "control");
  for (unsigned i = 0; i < 200; ++i)
    memcpy (words + 2 * i, "a ", 3);
  assert_cmdline_refused (words, "128 words");
  memset (many, 'a', sizeof many - 1);
  many[sizeof many - 1] = 0;
  assert_cmdline_refused (many, "2,047");
  assert_null (esp_script_message (&bad, lines, 1, ""));
  assert_null (esp_script_message (&page, lines, 1, "&a=b c"));
  assert_null (esp_script_message (&page, lines, 1, "&a=${uuid}"));
  assert_null (esp_script_message (&page, lines, 1, "&a=\n"));
}

/* Texts that were made to break out. */
static void
test_hostile (void **state)
{
  static const char *const texts[] = {
    "", " ", "-", "--", "--key x", "-n", "||", "&& shell", "a || shell",
    "; shell", "#", "a #b", "\\", "a\\", "a \\ ", "\n shell", "a\nshell\n",
    "\r\nshell", "a\tb", "${uuid}", "$${nil}{uuid}", "${${x}}", "$\\{x}",
    "$", "{", "}", "$ {x}", "${", "|| ${u}", "＄｛uuid｝", "a ｜｜ shell",
    "＃ x", "a　；　shell", "\xff\xfe", "\xc3", "\xe2\x80\xa8shell", "\x1b[2J",
    "\x7f", ":menu", ": x", "%s%n", "'\"`$(reboot)", "goto menu",
    "\xc0\xa4{x}", "．．", "\xef\xbc\x84{uuid}", "a\v||\vshell", "a\f||\fshell",
  };

  (void) state;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i)
    for (unsigned which = 0; which < HOSTILE_SCRIPTS; ++which)
      assert_true (hostile_is_harmless (which, texts[i]));
}

/* The judge itself sees what breaks out. */
static void
test_skeleton (void **state)
{
  static const char *const pairs[][2] = {
    { "echo a\n", "echo a || shell\n" }, { "echo a\n", "echo ${uuid}\n" },
    { "echo a\necho b\n", "echo a\\\necho b\n" }, { "echo a\n", "echo #a\n" },
    { "item i0 a\n", "item --gap i0 a\n" }, { "echo a\n", "echo a\nshell\n" },
  };

  (void) state;
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
    CLEANUP_FREE char *a = ipxe_skeleton (pairs[i][0]);
    CLEANUP_FREE char *b = ipxe_skeleton (pairs[i][1]);

    assert_string_not_equal (a, b);
  }
}

static void
test_encode (void **state)
{
  char *text, buf[64];
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  (void) state;
  esp_script_encode (fp, "a-b._~/ ?&=+%${网\x80");
  fclose (fp);
  assert_string_equal (text, "a-b._~7E~2F~20~3F~26~3D~2B~25~24~7B~E7~BD~91~80");
  assert_string_equal (esp_script_decode (text, buf, sizeof buf),
                       "a-b._~/ ?&=+%${网\x80");
  assert_string_equal (esp_script_decode ("a~~4x~00~", buf, sizeof buf),
                       "a~~4x~00~");
  assert_non_null (esp_script_decode ("abc~41", buf, 5));
  assert_null (esp_script_decode ("abcd~41", buf, 5));
  assert_true (esp_script_url_ok (text));
  assert_false (esp_script_url_ok ("a b"));
  assert_false (esp_script_url_ok ("a#b"));
  assert_false (esp_script_url_ok ("$a"));
  assert_false (esp_script_url_ok ("a\\"));
  free (text);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_ask),
    cmocka_unit_test (test_menu),
    cmocka_unit_test (test_menu_shell),
    cmocka_unit_test (test_alike),
    cmocka_unit_test (test_message),
    cmocka_unit_test (test_iscsi),
    cmocka_unit_test (test_chain),
    cmocka_unit_test (test_nbdroot),
    cmocka_unit_test (test_refused),
    cmocka_unit_test (test_hostile),
    cmocka_unit_test (test_skeleton),
    cmocka_unit_test (test_encode),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
