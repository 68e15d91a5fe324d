/* SPDX-License-Identifier: BSD-3-Clause */
/* Names, export names, and names as components of a path.
 *
 * UTF-8 is decoded here and strictly: no overlong forms, no surrogates,
 * nothing beyond U+10FFFF.  What is a letter or a digit is the C library's
 * knowledge (iswalnum in the locale C.UTF-8, whatever locale the process
 * has), so a name that is valid once is valid for every process of the
 * host.  Accents that are code points of their own (U+0301) are no letters:
 * a name has one spelling, the composed one, and two names that look the
 * same are the same bytes.
 */

#include <config.h>

#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>
#include <xxhash.h>

#include "util/cleanup.h"
#include "util/host.h"
#include "util/name.h"

/* How much of a bad name stands in a message. */
#define SHOWN 100

static pthread_once_t locale_once = PTHREAD_ONCE_INIT;
static locale_t utf8_locale;            /* set once; 0: ASCII only */

static void
make_locale (void)
{
  utf8_locale = newlocale (LC_CTYPE_MASK, "C.UTF-8", (locale_t) 0);
}

/* Decode one character at S.  Returns its length, 0 where it is no UTF-8;
 * S ends in a NUL, so that nothing is read beyond.
 */
static size_t
decode (const char *s, uint32_t *c)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  const unsigned char *p = (const unsigned char *) s;
  size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2
    : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;

  if (n <= 1) {
    *c = p[0];
    return n;
  }
  *c = p[0] & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((p[i] & 0xc0) != 0x80)
      return 0;
    *c = *c << 6 | (p[i] & 0x3f);
  }
  if (*c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c <= 0xdfff))
    return 0;
  return n;
}

static bool
is_alnum (uint32_t c)
{
  if (c < 0x80)
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
      || (c >= 'a' && c <= 'z');
  pthread_once (&locale_once, make_locale);
  return utf8_locale && iswalnum_l ((wint_t) c, utf8_locale);
}

/* Fit for a terminal: no control characters, nothing that turns the
 * direction of the text or that nobody sees.
 */
static bool
is_shown (uint32_t c)
{
  if (c < 0x80)
    return c >= 0x20 && c < 0x7f;
  if ((c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e)
      || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || c == 0xad
      || c == 0x61c || c >= 0xe0000)
    return false;
  pthread_once (&locale_once, make_locale);
  return utf8_locale && iswprint_l ((wint_t) c, utf8_locale);
}

enum kind { NAME, CLIENT };

/* What is wrong with the N bytes at S as a name; NULL: nothing. */
static const char *
name_fault (const char *s, size_t n, enum kind kind)
{
  uint32_t c;

  if (n == 0)
    return "is empty";
  if (n > ESP_NAME_MAX)
    return "is longer than 128 bytes";
  for (size_t i = 0, len; i < n; i += len) {
    len = decode (s + i, &c);
    if (len == 0)
      return "is not valid UTF-8";
    if (is_alnum (c) || c == '_' || (kind == CLIENT && c == ':'))
      continue;
    if (c != '.' && c != '-')
      return "has a character that names cannot have";
    if (i == 0)
      return c == '.' ? "begins with a dot" : "begins with a dash";
  }
  return NULL;
}

bool
esp_name_ok (const char *s)
{
  return name_fault (s, strlen (s), NAME) == NULL;
}

bool
esp_client_ok (const char *s)
{
  return name_fault (s, strlen (s), CLIENT) == NULL;
}

static int
check (const char *s, const char *what, enum kind kind)
{
  const char *fault = name_fault (s, strlen (s), kind);
  char text[SHOWN];

  if (!fault)
    return 0;
  esp_error ("%s name \"%s\" %s: use letters, digits, \".\", \"_\"%s, "
             "beginning with a letter, a digit or \"_\", 128 bytes at most",
             what, esp_escape (s, text, sizeof text), fault,
             kind == CLIENT ? ", \"-\" and \":\"" : " and \"-\"");
  errno = EINVAL;
  return -1;
}

int
esp_name_check (const char *s, const char *what)
{
  return check (s, what, NAME);
}

int
esp_client_check (const char *s)
{
  return check (s, "client", CLIENT);
}

/* One character of S as it is shown.  Returns the bytes of S used. */
static size_t
escape_one (const char *s, char out[8])
{
  uint32_t c;
  size_t n = decode (s, &c);

  if (n && is_shown (c)) {
    memcpy (out, s, n);
    out[n] = 0;
    return n;
  }
  snprintf (out, 8, "\\x%02x", (unsigned char) *s);
  return 1;
}

const char *
esp_escape (const char *s, char *buf, size_t size)
{
  char one[8];
  size_t at = 0, cut = 0;       /* CUT: where "..." still fits */

  if (size == 0)
    return buf;
  buf[0] = 0;
  while (*s) {
    s += escape_one (s, one);
    size_t n = strlen (one);
    if (at + n >= size) {
      snprintf (buf + cut, size - cut, "...");
      return buf;
    }
    memcpy (buf + at, one, n + 1);
    at += n;
    if (at + 3 < size)
      cut = at;
  }
  return buf;
}

/* What may be said of S: a ticket opens a disk, so nobody reads it in a log. */
const char *
esp_export_escape (const char *s, char *buf, size_t size)
{
  CLEANUP_FREE char *bare = strndup (s, strcspn (s, "+"));

  if (size == 0)
    return buf;
  esp_escape (bare ? bare : "?", buf, size);
  if (strchr (s, '+') && strlen (buf) + sizeof "+..." <= size)
    strcat (buf, "+...");
  return buf;
}

static int
bad_export (const char *s, const char *part, const char *why)
{
  char text[SHOWN];

  esp_error ("export name \"%s\": %s %s: write "
             "VENUE[/DISK][@CLIENT][+TICKET], such as cafe, cafe/1 or "
             "cafe/0@seat-7, or rp:NAME",
             esp_export_escape (s, text, sizeof text), part, why);
  errno = EINVAL;
  return -1;
}

/* Check and copy the N bytes at P, a part of the export name S. */
static int
take_part (const char *s, const char *p, size_t n, enum kind kind,
           const char *what, char to[ESP_NAME_MAX + 1])
{
  const char *fault = name_fault (p, n, kind);

  if (fault)
    return bad_export (s, what, fault);
  memcpy (to, p, n);
  to[n] = 0;
  return 0;
}

/* The number of N bytes at P: no sign, no zero in front, 0 to 255. */
static int
take_disk (const char *s, const char *p, size_t n, unsigned *disk)
{
  unsigned v = 0;

  if (n == 0)
    return bad_export (s, "the disk's number", "behind \"/\" is missing");
  for (size_t i = 0; i < n; ++i) {
    if (p[i] < '0' || p[i] > '9')
      return bad_export (s, "the disk", "behind \"/\" is not a number");
    v = v * 10 + (unsigned) (p[i] - '0');
    if (v > ESP_DISK_NUMBER_MAX)
      return bad_export (s, "the disk's number", "is more than 255");
  }
  if (n > 1 && p[0] == '0')
    return bad_export (s, "the disk's number", "begins with a 0");
  *disk = v;
  return 0;
}

/* A ticket is base64url without padding; what it says is for boot/ticket.h. */
static int
take_ticket (const char *s, const char *p, char to[ESP_TICKET_MAX + 1])
{
  size_t n = strlen (p);

  if (n == 0)
    return bad_export (s, "the ticket", "behind \"+\" is missing");
  if (n > ESP_TICKET_MAX)
    return bad_export (s, "the ticket", "is longer than 127 bytes");
  if (strspn (p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
              "0123456789_-") != n)
    return bad_export (s, "the ticket", "is not base64url without padding");
  memcpy (to, p, n + 1);
  return 0;
}

int
esp_export_parse (const char *s, struct esp_export *out)
{
  struct esp_export e = { 0 };
  const char *p = s, *end = s + strcspn (s, "@+");
  const char *plus = s + strcspn (s, "+");
  const char *slash;

  if (*s == 0)
    return bad_export (s, "the name", "is empty");
  e.is_rp = strncmp (s, "rp:", 3) == 0;
  if (e.is_rp)
    p += 3;
  slash = memchr (p, '/', (size_t) (end - p));
  if (take_part (s, p, (size_t) ((slash ? slash : end) - p), NAME,
                 e.is_rp ? "the restore point's name" : "the venue's name",
                 e.name) < 0)
    return -1;
  if (slash && e.is_rp)
    return bad_export (s, "a restore point", "is one disk and has no \"/\"");
  if (slash
      && take_disk (s, slash + 1, (size_t) (end - slash - 1), &e.disk) < 0)
    return -1;
  if (*end == '@' && take_part (s, end + 1, (size_t) (plus - end - 1), CLIENT,
                                "the client's name", e.client) < 0)
    return -1;
  if (*plus && take_ticket (s, plus + 1, e.ticket) < 0)
    return -1;
  *out = e;
  return 0;
}

const char *
esp_export_format (const struct esp_export *e, char *buf, size_t size)
{
  const char *at = e->client[0] ? "@" : "";

  if (e->is_rp)
    snprintf (buf, size, "rp:%s%s%s", e->name, at, e->client);
  else
    snprintf (buf, size, "%s/%u%s%s", e->name, e->disk, at, e->client);
  return buf;
}

/* A component's limits: 255 bytes, the last 34 of them "%%" and 128 bits
 * of XXH3 where the rest was cut.
 */
#define COMPONENT_MAX 255
#define COMPONENT_TAIL (2 + 32)

static size_t
encode_byte (unsigned char c, bool first, char out[4])
{
  if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
      || (c >= 'a' && c <= 'z') || c == '_' || c == '-'
      || (c == '.' && !first)) {
    out[0] = (char) c;
    return 1;
  }
  snprintf (out, 4, "%%%02X", c);
  return 3;
}

char *
esp_path_component (const char *s)
{
  char buf[COMPONENT_MAX + 1], one[4];
  size_t at = 0, cut = 0;       /* CUT: where the tail still fits */

  if (*s == 0)
    return strdup ("%");
  for (size_t i = 0; s[i]; ++i) {
    size_t n = encode_byte ((unsigned char) s[i], i == 0, one);
    if (at + n > COMPONENT_MAX) {
      XXH128_hash_t h = XXH3_128bits (s, strlen (s));
      at = cut + COMPONENT_TAIL;
      snprintf (buf + cut, COMPONENT_TAIL + 1, "%%%%%016llx%016llx",
                (unsigned long long) h.high64, (unsigned long long) h.low64);
      break;
    }
    memcpy (buf + at, one, n);
    at += n;
    if (at <= COMPONENT_MAX - COMPONENT_TAIL)
      cut = at;
  }
  return strndup (buf, at);
}
