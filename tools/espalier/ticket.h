/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier ticket: what other commands use of it. */

#ifndef ESPALIER_CLI_TICKET_H
#define ESPALIER_CLI_TICKET_H

#include "boot/ticket.h"
#include "espalier.h"

ESP_DEFINE_CLEANUP (ticket_key, struct esp_ticket_key *, esp_ticket_key_free)
#define CLEANUP_TICKET_KEY ESP_CLEANUP (ticket_key)

/* Put the address that --address gives, in its canonical form, into T.  0, or
 * CLI_USAGE.
 */
extern int ticket_address (const struct args *args, struct esp_ticket *t);

#endif /* ESPALIER_CLI_TICKET_H */
