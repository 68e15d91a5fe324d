/* SPDX-License-Identifier: BSD-3-Clause */
/* The site's other espalierds: which of them could serve a client, too
 * (docs/boot.md, "Several servers").
 */

#ifndef ESPALIERD_PEERS_H
#define ESPALIERD_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog/catalog.h"
#include "config.h"
#include "http.h"

/* Ask the servers of CONFIG from now on, each every five seconds, in a thread
 * of its own; a second call replaces the list.  -1, reported.  _stop ends
 * within the time that a request may take (5 s).
 */
extern int peers_set (const struct config *config);
extern void peers_stop (void);

/* The base URLs ("http://10.0.0.2:8610") of those that answered within the last
 * 15 s, whose stack is up, and that have VENUE at the same tips: the one with the
 * fewest connections first, then by URL.  *URLS is malloced, and each in it:
 * peers_free.
 */
extern int peers_for (const struct esp_venue *venue, char ***urls, size_t *n);
extern void peers_free (char **urls, size_t n);

struct peer_seen {
  const char *url;
  const char *state;            /* "answers", "silent", "self"; static */
  uint64_t answered;            /* seconds since the epoch; 0: never */
  unsigned connections;         /* of its clients */
  const char *why;              /* silent: what went wrong; "" */
};
extern void peers_each (void (*fn) (void *arg, const struct peer_seen *seen),
                        void *arg);

/* A random name of this process: how a server notices that it asks itself. */
extern const char *peers_instance (void);

/* What another server's answer says; for peers.c, tests and fuzzing. */
struct peer_answer {
  char instance[ESP_UUID_TEXT];
  bool up;
  unsigned connections;
  struct peer_venue *venue;     /* by id */
  size_t n;
};
struct peer_venue {
  char id[ESP_NAME_MAX + 1];
  unsigned ndisks;
  esp_uuid *disks;
};
/* EPROTO, not reported, for what is no such answer. */
extern int peer_answer_parse (const char *text, size_t len,
                              struct peer_answer *out);
extern void peer_answer_clear (struct peer_answer *answer);
/* Has that server VENUE, at the same tips? */
extern bool peer_answer_has (const struct peer_answer *answer,
                             const struct esp_venue *venue);

/* GET /peer/venues: what we answer them. */
extern int peers_handler (struct request *r);

#endif /* ESPALIERD_PEERS_H */
