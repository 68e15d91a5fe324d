/* SPDX-License-Identifier: BSD-3-Clause */
/* Which venues serve what somebody needs: docs/boot.md, "Ranking by needs". */

#ifndef ESPALIER_NEEDS_H
#define ESPALIER_NEEDS_H

#include <stdbool.h>
#include <stddef.h>

#include "catalog/catalog.h"

#pragma GCC visibility push(default)

/* One venue's place in a ranking.  Strings belong to the lists that were
 * ranked, but WHY.
 */
struct esp_match {
  const struct esp_venue *venue;
  unsigned served;              /* of the needs asked for */
  bool *serves;                 /* one for each of them, in their order */
  unsigned extra;               /* resources that none of them asks for */
  unsigned weight;
  char *why;                    /* a line for people: "serves Office and CS2;
                                 * 3 other programs" */
};
struct esp_match_list { struct esp_match *match; size_t n; };
extern void esp_match_list_clear (struct esp_match_list *list);
#define CLEANUP_MATCH_LIST __attribute__ ((cleanup (esp_match_list_clear)))

/* The resources that a restore point has, its own and its ancestors', the
 * nearest of the same kind and name (two versions in one restore point are
 * both there); malloced, *N of them, to be freed with
 * esp_resources_free.  RPS are all restore points.
 */
extern int esp_resources_of (const struct esp_rp_list *rps,
                             const esp_uuid *uuid,
                             struct esp_resource **out, size_t *n);
extern void esp_resources_free (struct esp_resource *list, size_t n);
/* Does what HAS (N) serve NEED?  One without resources is served by all. */
extern bool esp_need_served (const struct esp_need *need,
                             const struct esp_resource *has, size_t n);

/* Which of NEEDS do the N restore points UUIDS serve?  OUT has room for N times
 * needs->n; that of UUIDS[i] and need j is OUT[i * needs->n + j].
 */
extern int esp_needs_served_by (const struct esp_rp_list *rps,
                                const struct esp_need_list *needs,
                                const esp_uuid *uuids, size_t n, bool *out);

/* Rank VENUES for the NWANTED needs WANTED, best first; those that serve none
 * are left out.  BOOTS are the venues' settings (their weights), by id, as the
 * catalog lists them.
 */
extern int esp_needs_rank (const struct esp_rp_list *rps,
                           const struct esp_venue_list *venues,
                           const struct esp_venue_boot_list *boots,
                           const struct esp_need *const *wanted,
                           size_t nwanted, struct esp_match_list *out);

#pragma GCC visibility pop
#endif /* ESPALIER_NEEDS_H */
