/* SPDX-License-Identifier: BSD-3-Clause */
/* The lines of a menu. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot-items.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

void
items_clear (struct items *items)
{
  for (size_t i = 0; i < items->nqueries; ++i)
    free (items->queries[i]);
}

struct esp_script_item *
items_add (struct items *items, const char *name, const char *description,
           const char *query, char key)
{
  struct esp_script_item *item;

  if (items->n == ITEMS_MAX)
    items->failed = true;       /* and so nobody uses the last one again */
  else
    items->n++;
  item = &items->item[items->n - 1];
  *item = (struct esp_script_item) {
    .name = name, .description = description, .query = query, .key = key };
  return item;
}

void
items_gap (struct items *items)
{
  items_add (items, "", "", NULL, 0);
}

const char *
items_keep (struct items *items, char *text)
{
  if (!text || items->nqueries == QUERIES_MAX) {
    free (text);
    items->failed = true;
    return "";
  }
  return items->queries[items->nqueries++] = text;
}

const char *
items_query (struct items *items, const char *format, const char *value)
{
  size_t head = strcspn (format, "%");
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (!fp)
    return items_keep (items, NULL);
  fwrite (format, 1, head, fp);
  esp_script_encode (fp, value);
  fputs (format + head + (format[head] == '%'), fp);
  if (fclose (fp) == EOF) {
    free (text);
    text = NULL;
  }
  return items_keep (items, text);
}

static const char *
page_query (struct items *items, const char *query, unsigned from)
{
  return items_keep (items, esp_asprintf ("%s&from=%u", query, from));
}

void
items_pages (struct items *items, const char *query, unsigned from, size_t n)
{
  if (n > from + ITEMS_PAGE)
    items_add (items, "More", "", page_query (items, query,
                                              from + ITEMS_PAGE), 'm');
  if (from > 0)
    items_add (items, "Back", "",
               page_query (items, query,
                           from > ITEMS_PAGE ? from - ITEMS_PAGE : 0), 'b');
}

char *
items_menu (struct items *items, const struct esp_script_page *page,
            struct esp_script_menu *menu)
{
  if (items->failed) {
    esp_error ("no memory for a menu");
    return NULL;
  }
  menu->items = items->item;
  menu->n = items->n;
  return esp_script_menu (page, menu);
}
