/* SPDX-License-Identifier: BSD-3-Clause */
/* The page's files.
 *
 * The browser asks each time whether they are still the same (a daemon that was
 * updated shows its own page at once), and gets 304.  The policy lets the page
 * load what comes from here and nothing else, and run no script that stands
 * in text: names of venues and clients are somebody else's.
 */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "page.h"
#include "util/sum.h"

static const char policy[] =
  "default-src 'self'; object-src 'none'; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'";

static const struct page_file *
find (const char *name)
{
  const struct page_file *f = page_files;

  while (f->name && strcmp (f->name, name) != 0)
    f++;
  return f->name ? f : NULL;
}

static int
reply_page (struct request *r, const char *name)
{
  const struct page_file *f = find (name);
  char tag[24];
  uint64_t from, n;
  int result;
  unsigned status;

  if (!f)
    return reply_error (r, 404, "there is no such file");
  snprintf (tag, sizeof tag, "%016" PRIx64, esp_sum (f->bytes, f->len));
  reply_header (r, "Cache-Control", "no-cache");
  reply_header (r, "Content-Security-Policy", policy);
  reply_header (r, "X-Content-Type-Options", "nosniff");
  reply_header (r, "Referrer-Policy", "no-referrer");
  status = http_range (r, f->len, tag, &from, &n, &result);
  if (status == 0)
    return result;
  return reply (r, status, f->type, f->bytes + from, n);
}

int
page_handle (struct request *r)
{
  return reply_page (r, "index.html");
}

int
page_file_handle (struct request *r)
{
  return reply_page (r, r->part[0]);
}
