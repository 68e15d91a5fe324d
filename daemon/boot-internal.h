/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of /boot.ipxe share. */

#ifndef ESPALIERD_BOOT_INTERNAL_H
#define ESPALIERD_BOOT_INTERNAL_H

#include <stdatomic.h>

#include "boot.h"
#include "boot/script.h"
#include "catalog/catalog.h"
#include "neighbour.h"

/* --- what the catalog says, kept in memory (boot-data.c) ------------------- */
/* Never changed; made anew when the catalog changed. */
struct boot_data {
  atomic_uint refs;
  uint64_t version;             /* esp_catalog_version */
  struct esp_venue_list venues; /* by id */
  struct esp_venue_boot_list boots;
  struct esp_client_list clients;
  struct esp_need_list needs;   /* by name */
};
/* With a reference; NULL, reported. */
extern struct boot_data *boot_data_get (void);
extern void boot_data_put (struct boot_data *data);
/* Let go of what is kept. */
extern void boot_data_clear (void);
static inline __attribute__ ((unused)) void
boot_data_put_p (struct boot_data **data)
{
  if (*data)
    boot_data_put (*data);
}
#define CLEANUP_BOOT_DATA __attribute__ ((cleanup (boot_data_put_p)))

/* NULL: there is none. */
extern const struct esp_venue *boot_data_venue (const struct boot_data *data,
                                                const char *id);
/* A venue's settings; the defaults where it has none. */
extern const struct esp_venue_boot *boot_data_settings
  (const struct boot_data *data, const char *id);

/* --- what machines did last (boot-seen.c) ----------------------------------- */
extern int boot_seen_start (const struct config *config);
extern void boot_seen_stop (void);
/* Remember SEEN, which is copied, some time soon; never waits. */
extern void boot_seen_put (const struct esp_client_seen *seen);

/* --- a machine that asks ------------------------------------------------------ */
#define BOOT_NEEDS_MAX 64u
struct visit {
  struct request *r;
  struct boot_data *data;
  const char *mac, *uuid;       /* as it wrote them; NULL: not */
  char address[64];
  char neighbour[NEIGHBOUR_MAC_SIZE];   /* "": not known */
  const struct esp_client *entry;       /* NULL: unknown */
  char name[ESP_NAME_MAX + 1];
  const struct esp_venue *assigned;     /* NULL: it chooses */
  struct esp_script_page page;
  const struct esp_need *wanted[BOOT_NEEDS_MAX];        /* ticked */
  size_t nwanted;
  bool hop;                     /* another server's script asks: what cannot be
                                 * booted here ends, and that one goes on */
};

/* May the machine have VENUE, as far as its address goes? */
extern bool visit_allowed (const struct visit *v, const struct esp_venue *venue);
/* "&need=…" of all that are ticked, but WITHOUT (NULL: all), malloced behind
 * PREFIX; NULL without memory.
 */
extern char *visit_query (const struct visit *v, const char *prefix,
                          const struct esp_need *without);
/* The parameter NAME as a number up to MAX; 0 where it is none. */
extern unsigned visit_number (const struct visit *v, const char *name,
                              unsigned max);
/* Answer with SCRIPT (taken over; NULL: one that says why not: what esp_catch
 * caught).
 */
extern int visit_reply (struct visit *v, char *script);
/* Say LINES, and ask for QUERY after PAUSE seconds. */
extern int visit_say (struct visit *v, const char *const *lines,
                      unsigned pause, const char *query);
/* The same for one that may not: counted and written down with WHY. */
extern int visit_refuse (struct visit *v, const char *venue, const char *why);
/* The audit log's line. */
extern void visit_audit (const struct visit *v, const char *venue,
                         const char *what, const char *why);

/* --- pages (boot-menu.c, boot-needs.c, boot-way.c) ------------------------------ */
extern int page_menu (struct visit *v);
extern int page_needs (struct visit *v);
extern int page_match (struct visit *v);
extern int page_boot (struct visit *v, const struct esp_venue *venue);

#endif /* ESPALIERD_BOOT_INTERNAL_H */
