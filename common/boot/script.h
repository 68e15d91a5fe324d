/* SPDX-License-Identifier: BSD-3-Clause */
/* iPXE scripts: text out of structs, and nothing else.  script.c tells what
 * iPXE would make of names and descriptions, and what keeps it from that.
 */

#ifndef ESPALIER_SCRIPT_H
#define ESPALIER_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "catalog/catalog.h"

#pragma GCC visibility push(default)

/* Write S into a URL that iPXE asks for: letters, digits, '-', '.' and '_' as they
 * are, each other byte as "~E7".  Not as "%E7", since iPXE decodes URLs, and
 * encodes them again: bytes of UTF-8 wrongly, and "%26" as '&'.
 */
extern void esp_script_encode (FILE *fp, const char *s);
/* Take that back, into SIZE bytes at BUF: returns BUF, or NULL where it is too long.
 * What has no '~' stays as it is, and so does a '~' without two digits behind it.
 */
extern char *esp_script_decode (const char *s, char *buf, size_t size);
/* May URL stand in a script as it is?  Characters of RFC 3986 without '#' and '$'. */
extern bool esp_script_url_ok (const char *url);

/* What all pages have.  Texts (title, names, lines, …) are any bytes: they are
 * shown as esp_ascii makes them, and never become commands.  URLs and queries
 * must be as esp_script_url_ok says: EINVAL, reported, where they are not.
 */
struct esp_script_page {
  const char *url;              /* of boot.ipxe with who the client is:
                                 * "http://10.0.0.1:8610/boot.ipxe?mac=…" */
  const char *title;
  bool shell;                   /* offer iPXE's shell */
};

/* All of them return a malloced script, or NULL, reported. */

/* Ask URL (without a query) again with all that iPXE knows of itself. */
extern char *esp_script_ask (const char *url);

#define ESP_SCRIPT_ITEMS_MAX 200u
struct esp_script_item {
  const char *name, *description;       /* description: NULL or "": none */
  const char *mark;             /* "[x]" or "[ ]" in front; NULL: none */
  const char *query;            /* behind the page's URL, "&venue=cafe";
                                 * NULL: a line that nobody can choose */
  char key;                     /* chooses it at once; 0: none */
};
struct esp_script_menu {
  const char *heading;          /* behind the title; NULL: none */
  const struct esp_script_item *items;
  size_t n;
  size_t chosen;                /* where the cursor is, and what is taken when */
  unsigned timeout;             /* so many seconds passed; 0: never */
  const char *back;             /* query that Escape leads to; NULL: this menu
                                 * again */
};
extern char *esp_script_menu (const struct esp_script_page *page,
                              const struct esp_script_menu *menu);

/* Say LINES (up to a NULL), and after PAUSE seconds ask for the page's URL with
 * QUERY.  QUERY NULL: end at once, and the script that asked goes on.
 */
extern char *esp_script_message (const struct esp_script_page *page,
                                 const char *const *lines, unsigned pause,
                                 const char *query);

/* One server that can boot the client: tried in turn, best first. */
#define ESP_SCRIPT_DISKS_MAX 16u
struct esp_script_path {
  const char *server;           /* what people call it */
  const char *chain;            /* not NULL: the page of another espalierd that
                                 * is asked to boot it; nothing below is looked
                                 * at */
  const char *const *disks;     /* iscsi, http: "iscsi:…", "http://…", disk 0
                                 * first */
  size_t ndisks;
  const char *kernel, *initrd;  /* nbdroot: URLs; initrd NULL: none */
  const char *cmdline;          /* of the kernel: no control characters, no "${" */
};
struct esp_script_boot {
  const char *venue, *description, *client;
  enum esp_boot way;
  const struct esp_script_path *paths;
  size_t npaths;
  const char *initiator;        /* iSCSI name of the client; NULL: iPXE's own */
  const char *chap_user, *chap_secret;  /* NULL: no CHAP */
  unsigned pause;               /* seconds until */
  const char *again;            /* this query is asked for, when all failed;
                                 * NULL: the script that asked goes on */
};
extern char *esp_script_boot (const struct esp_script_page *page,
                              const struct esp_script_boot *boot);

#pragma GCC visibility pop
#endif /* ESPALIER_SCRIPT_H */
