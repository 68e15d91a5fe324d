/* SPDX-License-Identifier: BSD-3-Clause */
/* Letters and signs of other scripts in ASCII.  Each range is a text: either
 * one character for each code, or words separated by blanks.  '?' stands for a
 * code without a reading, the word "~" for one that is not written.
 *
 * Hangul is computed (The Unicode Standard, 3.12), romanised letter by letter
 * as the Revised Romanization writes them, without what neighbours do to each other.
 */

#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "boot/ascii-internal.h"

struct range {
  uint32_t first, last;
  bool words;
  const char *text;
};

static const struct range ranges[] = {
  /* Latin-1: what has more than one letter */
  { 0xa0, 0xbf, true, "~ ! c L ? Y | S ~ (c) a << ~ ~ (R) ~ "
    "o +/- 2 3 ' u P ~ ~ 1 o >> 1/4 1/2 3/4 ?" },
  { 0xc6, 0xc6, true, "AE" }, { 0xde, 0xdf, true, "Th ss" },
  { 0xe6, 0xe6, true, "ae" }, { 0xfe, 0xfe, true, "th" },
  { 0x132, 0x133, true, "IJ ij" }, { 0x14a, 0x14b, true, "Ng ng" },
  { 0x152, 0x153, true, "OE oe" },
  { 0x1c4, 0x1cc, true, "DZ Dz dz LJ Lj lj NJ Nj nj" },
  { 0x1e9e, 0x1e9e, true, "SS" },
  /* Latin, a letter each */
  { 0xc0, 0x17f, false,
    "AAAAAA?CEEEEIIIIDNOOOOOxOUUUUY??aaaaaa?ceeeeiiiidnooooo/ouuuuy?y"
    "AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIi??JjKkkLlLlLlLlLl"
    "NnNnNn???OoOoOo??RrRrRrSsSsSsSsTtTtTtUuUuUuUuUuUuWwYyYZzZzZzs" },
  { 0x1a0, 0x1a1, false, "Oo" }, { 0x1af, 0x1b0, false, "Uu" },
  { 0x1cd, 0x1dc, false, "AaIiOoUuUuUuUuUu" },
  { 0x1e6, 0x1ed, false, "GgKkOoOo" }, { 0x1f8, 0x1fb, false, "NnAa" },
  { 0x200, 0x21b, false, "AaAaEeEeIiIiOoOoRrRrUuUuSsTt" },
  { 0x259, 0x259, false, "e" }, { 0x18f, 0x18f, false, "E" },
  { 0x1e00, 0x1eff, false,
    "AaBbBbBbCcDdDdDdDdDdEeEeEeEeEeFfGgHhHhHhHhHhIiIiKkKkKkLlLlLlLlMmMmMm"
    "NnNnNnNnOoOoOoOoPpPpRrRrRrRrSsSsSsSsSsTtTtTtTtUuUuUuUuUuVvVvWwWwWwWwWw"
    "XxXxYyZzZzZzhtwyas????AaAaAaAaAaAaAaAaAaAaAaAaEeEeEeEeEeEeEeEeIiIi"
    "OoOoOoOoOoOoOoOoOoOoOoOoUuUuUuUuUuUuUuYyYyYyYy??????" },
  /* Greek */
  { 0x386, 0x38f, true, "A ~ E I I ? O ? Y O" },
  { 0x390, 0x3ce, true, "i A V G D E Z I Th I K L M N X O P R ? S T Y F Ch Ps "
    "O I Y a e i i y a v g d e z i th i k l m n x o p r s s t y f ch ps o i y "
    "o y o" },
  /* Cyrillic */
  { 0x400, 0x40f, true, "E Yo Dj Gj Ye Dz I Yi J Lj Nj C Kj I U Dzh" },
  { 0x410, 0x44f, true, "A B V G D E Zh Z I Y K L M N O P R S T U F Kh Ts Ch "
    "Sh Shch ~ Y ~ E Yu Ya a b v g d e zh z i y k l m n o p r s t u f kh ts ch "
    "sh shch ~ y ~ e yu ya" },
  { 0x450, 0x45f, true, "e yo dj gj ye dz i yi j lj nj c kj i u dzh" },
  { 0x490, 0x4a3, true, "G g G g G g Zh zh Z z K k K k K k K k N n" },
  { 0x4ae, 0x4bb, true, "U u U u Kh kh Ts ts Ch ch Ch ch H h" },
  { 0x4d8, 0x4d9, true, "A a" }, { 0x4e8, 0x4e9, true, "O o" },
  /* Kana: Hiragana, and Katakana, which is the same 0x60 further */
  { 0x3041, 0x3096, true, "a a i i u u e e o o ka ga ki gi ku gu ke ge ko go "
    "sa za shi ji su zu se ze so zo ta da chi ji tsu tsu zu te de to do "
    "na ni nu ne no ha ba pa hi bi pi fu bu pu he be pe ho bo po ma mi mu me "
    "mo ya ya yu yu yo yo ra ri ru re ro wa wa wi we wo n vu ka ke" },
  { 0x30fb, 0x30fc, true, "- -" },
  /* Signs */
  { 0x2010, 0x2027, true, "- - - - - - | _ ' ' , ' \" \" \" \" + + * * . .. ... *" },
  { 0x2030, 0x2030, true, "%o" }, { 0x2032, 0x2033, true, "' \"" },
  { 0x2039, 0x203a, true, "< >" }, { 0x20ac, 0x20ac, true, "EUR" },
  { 0x2116, 0x2116, true, "No" }, { 0x2122, 0x2122, true, "(TM)" },
  { 0x2190, 0x2193, true, "<- ^ -> v" }, { 0x2212, 0x2212, true, "-" },
  { 0x3001, 0x3002, true, ", ." },
  { 0x3008, 0x3011, true, "< > << >> \" \" \" \" [ ]" },
  { 0xff61, 0xff65, true, ". \" \" , ." },
};

/* The Nth word of TEXT into BUF; NULL where it is "?". */
static const char *
nth_word (const char *text, uint32_t n, char buf[8])
{
  for (; n > 0; --n)
    text = strchr (text, ' ') + 1;
  size_t len = strcspn (text, " ");
  memcpy (buf, text, len);
  buf[len] = 0;
  if (strcmp (buf, "~") == 0)
    buf[0] = 0;
  return strcmp (buf, "?") == 0 ? NULL : buf;
}

static const char *
from_ranges (uint32_t c, char buf[8])
{
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; ++i) {
    const struct range *r = &ranges[i];

    if (c < r->first || c > r->last)
      continue;
    if (r->words)
      return nth_word (r->text, c - r->first, buf);
    buf[0] = r->text[c - r->first];
    buf[1] = 0;
    return buf[0] == '?' ? NULL : buf;
  }
  return NULL;
}

static const char *
hangul (uint32_t c, char buf[16])
{
  static const char initial[] =
    "g kk n d tt r m b pp s ss ~ j jj ch k t p h";
  static const char vowel[] = "a ae ya yae eo e yeo ye o wa wae oe yo u wo we "
    "wi yu eu ui i";
  static const char final[] = "~ k k k n n n t l k m l l l p l m p p t t ng t t "
    "k t p t";
  char i[8], v[8], f[8];

  c -= 0xac00;
  snprintf (buf, 16, "%s%s%s", nth_word (initial, c / 588, i),
            nth_word (vowel, c / 28 % 21, v), nth_word (final, c % 28, f));
  return buf;
}

const char *
ascii_letter (uint32_t c, char buf[16])
{
  if (c >= 0x300 && c <= 0x36f) /* combining accents */
    return "";
  if (c == 0x200b || c == 0x200c || c == 0x200d || c == 0xfeff)
    return "";
  if (c >= 0xac00 && c <= 0xd7a3)
    return hangul (c, buf);
  if (c >= 0xff01 && c <= 0xff5e)       /* fullwidth forms of ASCII */
    c -= 0xff01 - '!';
  else if (c >= 0x30a1 && c <= 0x30f6)
    c -= 0x60;
  else if (c == 0x3000)
    c = ' ';
  if (c >= ' ' && c <= '~') {
    buf[0] = (char) c;
    buf[1] = 0;
    return buf;
  }
  return from_ranges (c, buf);
}
