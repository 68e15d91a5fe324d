/* SPDX-License-Identifier: BSD-3-Clause */
/* The player: has a boot profile fetched ahead of the boots that follow it.
 * One for each tip, for all its clients.  Knows no engine and no clock.
 */

#ifndef ESPALIER_PLAYER_H
#define ESPALIER_PLAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "center/format.h"

#pragma GCC visibility push(default)

#define ESP_PLAYER_UNUSED_MAX 512u      /* units ahead of the boots: 32 MiB */
#define ESP_PLAYER_PENDING_MAX (4u << 20)       /* bytes on their way */

struct esp_player_ops {
  /* Begin to fetch what is missing of [OFFSET, OFFSET+LEN) of the disk; waits
   * for nothing.  How many segments will be fetched; -1: none can be now.
   */
  int (*ahead) (void *arg, uint64_t offset, uint64_t len);
  /* Bytes that are being fetched ahead. */
  uint64_t (*pending) (void *arg);
};

/* For a disk of SIZE bytes; PROFILE stays the caller's.  NULL: there is
 * nothing to play (or no memory; not reported).
 */
struct esp_player;
extern struct esp_player *esp_player_new (const struct esp_profile *profile,
                                          uint64_t size);
extern void esp_player_free (struct esp_player *player);

/* A client reads [OFFSET, OFFSET+COUNT).  True: something is in it that was
 * not touched before, so that esp_player_pump may have something to do.  Many
 * threads at once.
 */
extern bool esp_player_touch (struct esp_player *player, uint64_t offset,
                              uint64_t count);
/* Go on: ask for what may be asked for now.  One thread at a time, now and
 * then (at a touch that was new, some times a second, when something came).
 * False: all was asked for.
 */
extern bool esp_player_pump (struct esp_player *player,
                             const struct esp_player_ops *ops, void *arg);
/* Is the end of [OFFSET, OFFSET+COUNT) in what was played so far?  Then what
 * follows is asked for by the profile, and needs no guess.  Many threads.
 */
extern bool esp_player_knows (const struct esp_player *player,
                              uint64_t offset, uint64_t count);
/* Units that were asked for, and of those touched. */
extern void esp_player_counts (const struct esp_player *player,
                               uint64_t *asked, uint64_t *used);

#pragma GCC visibility pop
#endif /* ESPALIER_PLAYER_H */
