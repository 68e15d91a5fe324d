/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of any script in ASCII. */

#include "unit.h"

#include "boot/ascii.h"
#include "util/cleanup.h"

static void
assert_ascii (const char *text, const char *expected)
{
  size_t lost;
  CLEANUP_FREE char *s = esp_ascii (text, ESP_ASCII_CODES, &lost);

  assert_string_equal (s, expected);
  assert_int_equal (lost, 0);
}

static void
test_scripts (void **state)
{
  (void) state;
  assert_ascii ("cafe-1_x.y ~", "cafe-1_x.y ~");
  assert_ascii ("Café Zürich, Łódź, İstanbul, Århus, Straße, Œuvre",
                "Cafe Zurich, Lodz, Istanbul, Arhus, Strasse, OEuvre");
  assert_ascii ("Cafe\xcc\x81", "Cafe");        /* an accent of its own */
  assert_ascii ("Việt Nam, Đà Nẵng, Hồ Chí Minh", "Viet Nam, Da Nang, Ho Chi Minh");
  assert_ascii ("Șoferul țării, ǎ", "Soferul tarii, a");
  assert_ascii ("Москва щука объект Ёж Київ", "Moskva shchuka obekt Yozh Kiyiv");
  assert_ascii ("Αθήνα Ψυχή", "Athina Psychi");
  assert_ascii ("きょうと がっこう しゃしん", "kyouto gakkou shashin");
  assert_ascii ("ラーメン マッチャ ジュース ヴ", "ra-men matcha ju-su vu");
  assert_ascii ("서울 피시방 한국어", "seoul pisibang hangukeo");
  assert_ascii ("网吧-3", "WangBa-3");
  assert_ascii ("電競酒店", "DianJingJiuDian");
  assert_ascii ("ｆｕｌｌ　ｗｉｄｔｈ", "full width");
  assert_ascii ("教室。一号、二号", "JiaoShi.YiHao,ErHao");
  assert_ascii ("«a» – “b” … €5 №7 ½", "<<a>> - \"b\" ... EUR5 No7 1/2");
}

static void
test_blanks (void **state)
{
  (void) state;
  assert_ascii ("", "");
  assert_ascii (" \t\n ", "");
  assert_ascii ("  a \t\r\n  b \x01 c\x7f ", "a b c");
  assert_ascii ("a\xc2\xa0" "b\xe3\x80\x80" "c\xe2\x80\xa8" "d", "a b c d");
}

static void
test_rest (void **state)
{
  static const struct { const char *text, *codes, *mark; size_t lost; } t[] = {
    { "กขค", "U+0E01U+0E02U+0E04", "?", 3 },
    { "a กข ข b", "a U+0E01U+0E02 U+0E02 b", "a ? ? b", 3 },
    { "\xf0\x9f\x98\x80", "U+1F600", "?", 1 },
    { "a\xff" "b", "a%FFb", "a?b", 1 },
    { "\xe7\xbd", "%E7%BD", "?", 2 },           /* cut short */
    { "\xc0\xaf\xed\xa0\x80", "%C0%AF%ED%A0%80", "?", 5 },
    { "\xf4\x90\x80\x80", "%F4%90%80%80", "?", 4 },
  };

  (void) state;
  for (size_t i = 0; i < sizeof t / sizeof t[0]; ++i) {
    size_t lost;
    CLEANUP_FREE char *codes = esp_ascii (t[i].text, ESP_ASCII_CODES, &lost);
    CLEANUP_FREE char *mark = esp_ascii (t[i].text, ESP_ASCII_MARK, NULL);

    assert_string_equal (codes, t[i].codes);
    assert_string_equal (mark, t[i].mark);
    assert_int_equal (lost, t[i].lost);
  }
}

static void
assert_line (const char *name, const char *description, size_t width,
             const char *expected)
{
  CLEANUP_FREE char *s = esp_ascii_line (name, description, width);

  assert_string_equal (s, expected);
}

static void
test_line (void **state)
{
  (void) state;
  assert_line ("cafe", NULL, 40, "cafe");
  assert_line ("cafe", "Internet café", 40, "cafe - Internet cafe");
  assert_line ("网吧", "Net cafe", 40, "WangBa - Net cafe");
  assert_line ("กขค", "Bangkok", 40, "Bangkok (U+0E01U+0E02U+0E04)");
  assert_line ("กขค", "กขค", 40, "U+0E01U+0E02U+0E04");
  assert_line ("cafe", "กขค", 40, "cafe");
  assert_line ("cafe", "Internet cafe", 12, "cafe - In...");
  assert_line ("", "", 12, "?");
}

/* Whatever these names are, no two lines are alike, and none is too long. */
static void
test_distinct (void **state)
{
  enum { N = 40, WIDTH = 12 };
  static const char *const names[] = {
    "a", "á", "à", "a (2)", "a-very-long-name-1", "a-very-long-name-2", "网吧",
    "王八", "กข", "",
  };
  char *lines[N];

  (void) state;
  for (size_t i = 0; i < N; ++i)
    lines[i] = esp_ascii_line (names[i % 10], "", WIDTH);
  assert_int_equal (esp_ascii_distinct (lines, N, WIDTH), 0);
  assert_string_equal (lines[0], "a");
  assert_string_equal (lines[1], "a (2)");
  assert_string_equal (lines[2], "a (3)");
  assert_string_equal (lines[3], "a (2) (2)");
  assert_string_equal (lines[4], "a-very-lo...");
  assert_string_equal (lines[5], "a-very-l (2)");
  for (size_t i = 0; i < N; ++i) {
    assert_true (strlen (lines[i]) <= WIDTH);
    for (size_t j = 0; j < i; ++j)
      assert_string_not_equal (lines[i], lines[j]);
  }
  for (size_t i = 0; i < N; ++i)
    free (lines[i]);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_scripts),
    cmocka_unit_test (test_blanks),
    cmocka_unit_test (test_rest),
    cmocka_unit_test (test_line),
    cmocka_unit_test (test_distinct),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
