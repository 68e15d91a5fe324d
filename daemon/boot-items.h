/* SPDX-License-Identifier: BSD-3-Clause */
/* The lines of a menu, and the queries that they lead to. */

#ifndef ESPALIERD_BOOT_ITEMS_H
#define ESPALIERD_BOOT_ITEMS_H

#include "boot/script.h"

#define ITEMS_PAGE 50u          /* on one page, with a few more around them */
#define ITEMS_MAX (ITEMS_PAGE + 10u)
#define QUERIES_MAX (3 * ITEMS_MAX)     /* a query is made of up to two others */

struct items {
  struct esp_script_item item[ITEMS_MAX];
  size_t n;
  char *queries[QUERIES_MAX];   /* freed with it */
  size_t nqueries;
  bool failed;                  /* no memory: no menu will come of it */
};
extern void items_clear (struct items *items);
#define CLEANUP_ITEMS __attribute__ ((cleanup (items_clear)))

/* Strings are kept, not copied. */
extern struct esp_script_item *items_add (struct items *items,
                                          const char *name,
                                          const char *description,
                                          const char *query, char key);
extern void items_gap (struct items *items);
/* FORMAT with its '%' replaced by VALUE, encoded: "&venue=%". */
extern const char *items_query (struct items *items, const char *format,
                                const char *value);
/* TEXT, malloced, is theirs from now on; returns it. */
extern const char *items_keep (struct items *items, char *text);
/* "More", where there is more behind this page, and "Back"; of N in all, from
 * FROM; QUERY is what both have.
 */
extern void items_pages (struct items *items, const char *query, unsigned from,
                         size_t n);
/* The script of MENU with these lines. */
extern char *items_menu (struct items *items,
                         const struct esp_script_page *page,
                         struct esp_script_menu *menu);

#endif /* ESPALIERD_BOOT_ITEMS_H */
