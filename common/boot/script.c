/* SPDX-License-Identifier: BSD-3-Clause */
/* iPXE scripts.
 *
 * How iPXE reads a line (src/core/exec.c, src/image/script.c of its release
 * 1.0.0+git-20190125, which Debian 12 has; later ones do the same): a backslash at the end
 * joins the next line; words are separated by white space; a word that begins with
 * '#' ends the line; the words "||", "&&" and ";" separate commands; then in
 * each word every ${setting} is replaced, again and again until there is none;
 * then a command takes its options, which end at the first word without '-'
 * in front or at "--".  There are no quotes and there is no escape character.
 *
 * So what is shown is first made ASCII without control characters
 * (esp_ascii), and then
 *  - "${" becomes "$(": no way to write it exists;
 *  - a word that would be a separator or a comment, and a last word that ends in a
 *    backslash, gets a ${nil} (a setting that does not exist: nothing), which
 *    is replaced after separators were looked for;
 *  - a text that begins with '-' stands behind "--".
 * URLs have only characters that none of this touches, names in them none that
 * iPXE decodes and encodes again (esp_script_encode), and secrets are written in
 * hexadecimal.  A kernel's command line cannot be changed without changing its meaning: one
 * with "${" is refused.
 *
 * iPXE keeps pointers to a line's words on its small stack: lines are short.
 *
 * Each script ends in a loop that pauses, and asks the daemon anew: a script that
 * ends would give the machine back to its firmware.  `chain --replace` puts the
 * new script in the place of the old: nothing grows.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "boot/ascii.h"
#include "boot/script-internal.h"
#include "util/host.h"

#define LINE_COLUMNS 76u
/* Of 80 columns a menu takes six for its margins, its countdown six, a key and a
 * mark four each.
 */
#define ITEM_COLUMNS 60u

/* --- what may stand in a script ------------------------------------------- */

void
esp_script_encode (FILE *fp, const char *s)
{
  for (; *s; ++s) {
    unsigned char c = (unsigned char) *s;

    if (c < 0x80 && (isalnum (c) || strchr ("-._", c)))
      putc (c, fp);
    else
      fprintf (fp, "~%02X", c);
  }
}

char *
esp_script_decode (const char *s, char *buf, size_t size)
{
  size_t n = 0;

  for (; *s; ++s) {
    char hex[3] = { 0 };

    if (n + 1 >= size)
      return NULL;
    if (*s == '~' && isxdigit ((unsigned char) s[1]) &&
        isxdigit ((unsigned char) s[2]) && memcmp (s + 1, "00", 2) != 0) {
      memcpy (hex, s + 1, 2);
      buf[n++] = (char) strtoul (hex, NULL, 16);
      s += 2;
    }
    else
      buf[n++] = *s;
  }
  buf[n] = 0;
  return buf;
}

bool
esp_script_url_ok (const char *url)
{
  for (; *url; ++url) {
    unsigned char c = (unsigned char) *url;

    if (c >= 0x80 || !(isalnum (c) || strchr ("-._~:/?[]@!&'()*+,;=%", c)))
      return false;
  }
  return true;
}

int
script_check_url (const char *url, const char *what)
{
  char buf[128];

  if (url && *url && esp_script_url_ok (url))
    return 0;
  errno = EINVAL;
  esp_error ("%s cannot stand in an iPXE script: %s", what,
             url ? esp_escape (url, buf, sizeof buf) : "(none)");
  return -1;
}

/* A query may be empty. */
int
script_check_query (const char *query)
{
  return *query == 0 ? 0 : script_check_url (query, "a query");
}

/* --- words ---------------------------------------------------------------- */

/* Would the word at S (LEN) end a command or a line? */
static bool
is_special (const char *s, size_t len)
{
  return s[0] == '#' || (len == 1 && s[0] == ';') ||
    (len == 2 && (memcmp (s, "||", 2) == 0 || memcmp (s, "&&", 2) == 0));
}

void
script_word (FILE *fp, const char *s, size_t len)
{
  if (is_special (s, len))
    fputs ("${nil}", fp);
  fwrite (s, 1, len, fp);
  if (len > 0 && s[len - 1] == '\\')
    fputs ("${nil}", fp);
}

/* " TEXT" as the last arguments of a command; TEXT is from esp_ascii.  FIRST: the
 * command could still take it for an option.
 */
static void
put_ascii (FILE *fp, char *text, bool first)
{
  char *p;

  for (p = text; (p = strstr (p, "${"));)
    p[1] = '(';
  if (first && text[0] == '-')
    fputs (" --", fp);          /* ends options, and is not shown */
  while (*text) {
    size_t len = strcspn (text, " ");

    putc (' ', fp);
    script_word (fp, text, len);
    text += len;
    text += *text == ' ';
  }
}

int
script_line (FILE *fp, const char *command, const char *text)
{
  CLEANUP_FREE char *line = esp_ascii (text, ESP_ASCII_MARK, NULL);

  if (!line)
    return -1;
  if (strlen (line) > LINE_COLUMNS)
    memcpy (line + LINE_COLUMNS - 3, "...", 4);
  fputs (command, fp);
  put_ascii (fp, line, !strchr (command, ' '));
  putc ('\n', fp);
  return 0;
}

/* --- the script as it grows ----------------------------------------------- */

int
script_begin (struct script *s, const struct esp_script_page *page)
{
  if (script_check_url (page->url, "the address of boot.ipxe") == -1)
    return -1;
  s->fp = open_memstream (&s->text, &s->size);
  if (!s->fp) {
    esp_error ("open_memstream: %m");
    return -1;
  }
  fprintf (s->fp, "#!ipxe\nset u %s\n", page->url);
  return 0;
}

char *
script_end (struct script *s, int r)
{
  bool failed = ferror (s->fp) || r == -1;

  if (fclose (ESP_STEAL (s->fp)) == EOF || failed) {
    errno = ENOMEM;
    esp_error ("an iPXE script: %m");
    return NULL;
  }
  return ESP_STEAL (s->text);
}

void
script_cleanup (struct script *s)
{
  if (s->fp)
    fclose (s->fp);
  free (s->text);
}

void
script_chain (FILE *fp, const char *query)
{
  fprintf (fp, "chain --replace --autofree ${u}%s", query);
}

void
script_pause (FILE *fp, const struct esp_script_page *page, unsigned seconds)
{
  if (page->shell)
    fprintf (fp, "prompt --key s --timeout %u Press s for iPXE's shell && "
             "shell ||\n", seconds * 1000);
  else
    fprintf (fp, "sleep %u ||\n", seconds);
}

/* --- first contact -------------------------------------------------------- */

char *
esp_script_ask (const char *url)
{
  const struct esp_script_page page = { .url = url };
  CLEANUP_SCRIPT struct script s = { 0 };

  if (script_begin (&s, &page) == -1)
    return NULL;
  fputs (":ask\n"
         "chain --replace --autofree ${u}?mac=${netX/mac:hexhyp}"
         "&uuid=${uuid}&ip=${netX/ip}&hostname=${hostname:uristring}"
         "&platform=${platform}&arch=${buildarch} ||\n"
         "echo The boot server does not answer: once more in 5 seconds\n"
         "sleep 5 ||\n"
         "goto ask\n", s.fp);
  return script_end (&s, 0);
}

/* --- menus ---------------------------------------------------------------- */

/* The lines of MENU that can differ; the caller frees each. */
static int
menu_lines (const struct esp_script_menu *menu, char **lines)
{
  for (size_t i = 0; i < menu->n; ++i) {
    const struct esp_script_item *item = &menu->items[i];

    lines[i] = item->query || *item->name
      ? esp_ascii_line (item->name, item->description, ITEM_COLUMNS)
      : strdup ("");            /* an empty line between others */
    if (!lines[i])
      return -1;
  }
  return esp_ascii_distinct (lines, menu->n, ITEM_COLUMNS);
}

/* The key that chooses it stands in front of each: iPXE does not show it. */
static void
put_item (FILE *fp, const struct esp_script_item *item, size_t i, char *line)
{
  if (!item->query)
    fputs ("item --gap", fp);
  else if (item->key)
    fprintf (fp, "item --key %c i%zu (%c)", item->key, i, item->key);
  else
    fprintf (fp, "item i%zu", i);
  if (item->mark)
    fprintf (fp, " %s", item->mark);
  put_ascii (fp, line, !item->query);
  putc ('\n', fp);
}

static void
put_choices (FILE *fp, const struct esp_script_menu *menu)
{
  for (size_t i = 0; i < menu->n; ++i)
    if (menu->items[i].query) {
      fprintf (fp, ":i%zu\n", i);
      script_chain (fp, menu->items[i].query);
      fputs (" || goto lost\n", fp);
    }
}

static int
put_menu (struct script *s, const struct esp_script_page *page,
          const struct esp_script_menu *menu, char **lines)
{
  CLEANUP_FREE char *title = NULL;

  if (asprintf (&title, "%s%s%s", page->title, menu->heading ? ": " : "",
                menu->heading ? menu->heading : "") == -1) {
    title = NULL;
    return -1;
  }
  fputs (":menu\n", s->fp);
  if (script_line (s->fp, "menu", title) == -1)
    return -1;
  for (size_t i = 0; i < menu->n; ++i)
    put_item (s->fp, &menu->items[i], i, lines[i]);
  if (page->shell)
    fputs ("item --key s shell (s) iPXE shell\n", s->fp);
  fprintf (s->fp, "choose --default i%zu --timeout %u x || goto esc\n"
           "goto ${x}\n:esc\n", menu->chosen, menu->timeout * 1000);
  if (menu->back) {
    script_chain (s->fp, menu->back);
    fputs (" || goto lost\n", s->fp);
  }
  fputs ("goto menu\n", s->fp);
  put_choices (s->fp, menu);
  fputs (":lost\n"
         "echo The boot server does not answer: the menu again in 5 seconds\n"
         "sleep 5 ||\n"
         "goto menu\n", s->fp);
  if (page->shell)
    fputs (":shell\nshell ||\ngoto menu\n", s->fp);
  return 0;
}

/* Is MENU one that iPXE can show, and every key what it seems? */
static int
check_menu (const struct esp_script_menu *menu)
{
  if (menu->n > ESP_SCRIPT_ITEMS_MAX || menu->chosen >= menu->n ||
      !menu->items[menu->chosen].query || menu->timeout > 24 * 3600) {
    errno = EINVAL;
    esp_error ("a boot menu of %zu lines with line %zu chosen cannot be shown",
               menu->n, menu->chosen);
    return -1;
  }
  for (size_t i = 0; i < menu->n; ++i) {
    const struct esp_script_item *item = &menu->items[i];

    if (item->query && script_check_query (item->query) == -1)
      return -1;
    if (item->mark && strcmp (item->mark, "[x]") != 0 &&
        strcmp (item->mark, "[ ]") != 0) {
      errno = EINVAL;
      esp_error ("a mark of a boot menu is \"[x]\" or \"[ ]\"");
      return -1;
    }
    if (item->key && !isalnum ((unsigned char) item->key)) {
      errno = EINVAL;
      esp_error ("a key of a boot menu is no letter or digit");
      return -1;
    }
  }
  return menu->back ? script_check_query (menu->back) : 0;
}

char *
esp_script_menu (const struct esp_script_page *page,
                 const struct esp_script_menu *menu)
{
  CLEANUP_SCRIPT struct script s = { 0 };
  char *lines[ESP_SCRIPT_ITEMS_MAX] = { 0 };
  int r;

  if (check_menu (menu) == -1 || script_begin (&s, page) == -1)
    return NULL;
  r = menu_lines (menu, lines);
  if (r == 0)
    r = put_menu (&s, page, menu, lines);
  for (size_t i = 0; i < menu->n; ++i)
    free (lines[i]);
  return script_end (&s, r);
}

/* --- messages ------------------------------------------------------------- */

char *
esp_script_message (const struct esp_script_page *page,
                    const char *const *lines, unsigned pause,
                    const char *query)
{
  CLEANUP_SCRIPT struct script s = { 0 };
  int r;

  if ((query && script_check_query (query) == -1) ||
      script_begin (&s, page) == -1)
    return NULL;
  r = script_line (s.fp, "echo", page->title);
  for (; *lines && r == 0; ++lines)
    r = script_line (s.fp, "echo", *lines);
  if (!query) {
    fputs ("exit 1\n", s.fp);
    return script_end (&s, r);
  }
  fputs (":pause\n", s.fp);
  script_pause (s.fp, page, pause);
  script_chain (s.fp, query);
  fputs (" || goto pause\n", s.fp);
  return script_end (&s, r);
}
