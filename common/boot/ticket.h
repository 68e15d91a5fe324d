/* SPDX-License-Identifier: BSD-3-Clause */
/* Tickets: an export name that only one client may open, and only for a
 * while.  docs/boot.md, "Tickets", has the bytes and what is checked when.
 */

#ifndef ESPALIER_TICKET_H
#define ESPALIER_TICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"
#include "util/name.h"

#pragma GCC visibility push(default)

struct esp_ticket {
  struct esp_export export;     /* what it opens; .ticket is not looked at */
  char address[64];             /* numeric, as esp_address_text writes it; "":
                                 * of any address */
  bool readonly;
  uint32_t issued, opens_until, valid_until;    /* seconds since 1970 */
  uint8_t nonce[8];
};

/* What the key is called among the store's keys. */
#define ESP_TICKET_KEY "tickets"

/* How long a ticket may wait for its first use, in seconds: so that the state
 * of those used before need not be kept for ever.
 */
#define ESP_TICKET_OPENS_MAX (31u * 86400)

/* The site's key: keys/tickets.key, made when it is not there and CREATE.
 * ENOKEY where it is not there.  Wiped by _free.
 */
struct esp_ticket_key;
extern struct esp_ticket_key *esp_ticket_key_load (struct esp_store *store,
                                                   bool create);
extern void esp_ticket_key_free (struct esp_ticket_key *key);
/* Is the key's file in STORE another one than when KEY was loaded, or gone? */
extern bool esp_ticket_key_changed (struct esp_store *store,
                                    const struct esp_ticket_key *key);
/* For tests and fuzzing. */
extern struct esp_ticket_key *esp_ticket_key_from (const uint8_t secret[32]);

/* Issue a ticket for T's export, address and readonly: fills the rest of T (a
 * nonce, now, now + OPENS, now + VALID seconds) and writes the export name with
 * the ticket into BUF ("cafe/0@seat-7+AQAB…").  An export with a client gets
 * it as it is; one without must be readonly.  EINVAL, reported: that, or OPENS
 * beyond VALID or ESP_TICKET_OPENS_MAX.
 */
extern int esp_ticket_issue (const struct esp_ticket_key *key,
                             struct esp_ticket *t, uint32_t opens,
                             uint32_t valid, char buf[ESP_EXPORT_MAX]);

/* So many seconds may the clocks of those who issue and who check differ. */
#define ESP_TICKET_CLOCK_MAX 60u

/* What is wrong with a ticket: a word for the audit log. */
enum esp_ticket_state {
  ESP_TICKET_OK, ESP_TICKET_NONE, ESP_TICKET_FORGED, ESP_TICKET_EXPIRED,
  ESP_TICKET_REPLAYED, ESP_TICKET_CLOCK,
};
extern const char *esp_ticket_state_name (enum esp_ticket_state state);

/* Does E, which a peer at ADDRESS ("": local) named at NOW, carry a ticket of
 * KEY?  Fills OUT where OK or EXPIRED.  Looks at no state; reports nothing.
 */
extern enum esp_ticket_state esp_ticket_check
  (const struct esp_ticket_key *key, const struct esp_export *e,
   const char *address, uint64_t now, struct esp_ticket *out);

/* The same, with the state in STORE/run/tickets: is it the newest that was
 * used for its export, and if it is newer, it is that now.  -1 where the state
 * cannot be read or written (reported): then nobody is let in.
 */
extern int esp_ticket_use (struct esp_store *store,
                           const struct esp_ticket_key *key,
                           const struct esp_export *e, const char *address,
                           uint64_t now, enum esp_ticket_state *state);

/* The second half of that: T is what esp_ticket_check found.  BEFORE becomes
 * the address of the ticket that T took the place of, where both are bound, to
 * two different ones; else "".
 */
extern int esp_ticket_take (struct esp_store *store,
                            const struct esp_ticket *t, uint64_t now,
                            enum esp_ticket_state *state, char before[64]);

/* Remove, unless DRY_RUN, the state that nothing depends on any more at NOW,
 * and tell FN of each file.
 */
extern int esp_ticket_gc (struct esp_store *store, uint64_t now, bool dry_run,
                          void (*fn) (void *arg, const char *name,
                                      uint64_t bytes), void *arg);

#pragma GCC visibility pop
#endif /* ESPALIER_TICKET_H */
