/* SPDX-License-Identifier: BSD-3-Clause */
/* The XML of S3's answers: small, flat, and from a server that is not
 * trusted.  expat reads it (it bounds entities itself); here only the text
 * of the innermost elements is kept, and of no more than fits.
 */

#include <config.h>

#include <errno.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"

#define ELEMENT_TEXT_MAX 8192

struct reader {
  XML_Parser parser;
  esp_xml_fn fn;
  void *arg;
  unsigned depth;
  size_t n;
  bool cut, failed;
  char text[ELEMENT_TEXT_MAX];
};

/* Names may have a name space before them, NS:NAME. */
static const char *
local_name (const char *name)
{
  const char *colon = strrchr (name, ':');

  return colon ? colon + 1 : name;
}

static void
on_start (void *arg, const XML_Char *name, const XML_Char **attributes)
{
  struct reader *x = arg;

  (void) name;
  (void) attributes;
  x->depth++;
  x->n = 0;
  x->cut = false;
}

static void
on_text (void *arg, const XML_Char *s, int len)
{
  struct reader *x = arg;

  if ((size_t) len >= sizeof x->text - x->n) {
    x->cut = true;
    return;
  }
  memcpy (x->text + x->n, s, (size_t) len);
  x->n += (size_t) len;
}

static void
on_end (void *arg, const XML_Char *name)
{
  struct reader *x = arg;

  x->text[x->cut ? 0 : x->n] = 0;
  if (!x->failed && x->fn (x->arg, local_name (name), x->text, x->depth) < 0) {
    x->failed = true;
    XML_StopParser (x->parser, XML_FALSE);
  }
  x->depth--;
  x->n = 0;
}

int
esp_xml_copy (struct esp_try *t, char **to, const char *text)
{
  free (*to);
  *to = strdup (text);
  return *to ? 0 : esp_try_fail (t, ENOMEM, "malloc: %m");
}

int
esp_xml_each (const char *text, size_t len, esp_xml_fn fn, void *arg,
              struct esp_try *t)
{
  struct reader x = { .fn = fn, .arg = arg,
                      .parser = XML_ParserCreate (NULL) };

  if (!x.parser)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  XML_SetUserData (x.parser, &x);
  XML_SetElementHandler (x.parser, on_start, on_end);
  XML_SetCharacterDataHandler (x.parser, on_text);
  enum XML_Status s = len <= INT32_MAX
    ? XML_Parse (x.parser, len ? text : "", (int) len, 1) : XML_STATUS_ERROR;
  enum XML_Error e = XML_GetErrorCode (x.parser);
  XML_ParserFree (x.parser);
  if (x.failed)
    return -1;
  if (s != XML_STATUS_OK)
    return esp_try_fail (t, EPROTO, "the server's answer is not XML: %s",
                         XML_ErrorString (e));
  return 0;
}
