/* SPDX-License-Identifier: BSD-3-Clause */
/* How the modules of one nbdkit process tell each other what export names
 * cannot say.  nbdkit opens a connection through all modules in one thread,
 * from the outermost filter to the plugin; this slot of the thread goes
 * along: the overlay filter pins the tip that a kept overlay needs, the
 * venue plugin takes the pin and leaves what it opened, and where the
 * connection counts.
 */

#ifndef ESPALIER_STACK_H
#define ESPALIER_STACK_H

#include <stdbool.h>

#include "util/name.h"

#pragma GCC visibility push(default)

struct esp_image;
struct esp_stats_row;

struct esp_stack_slot {
  unsigned depth;               /* modules of ours that are opening below */
  bool pinned;                  /* filter -> plugin: open PIN, whatever the
                                 * venue maps now */
  esp_uuid pin;
  bool opened;                  /* plugin -> filters: a venue (or rp:) was
                                 * opened; TIP is what */
  esp_uuid tip;
  struct esp_image *image;      /* plugin's; valid while the connection is */
  const char *asked;            /* filter -> plugin: what counters call this
                                 * connection; NULL: as its export */
  bool passed;                  /* the outermost of our modules that asked was
                                 * told that the client may (boot/gate.h) */
  struct esp_stats_row *row;    /* plugin -> filters: what the connection
                                 * counts (stats/stats.h), or NULL.  Who keeps
                                 * it takes a reference.  What the client asks
                                 * is counted by the outermost of our modules:
                                 * the filter with depth 1, or the plugin with
                                 * depth 0 */
};

/* This thread's slot, for the plugin. */
extern struct esp_stack_slot *esp_stack_slot (void);
/* A filter enters before it opens what is below, and leaves when it has read
 * what that left (also when it failed).  The outermost one that enters finds
 * it cleared, whichever of our filters that is; the way to the plugin is
 * over when that one leaves.
 */
extern struct esp_stack_slot *esp_stack_enter (void);
extern void esp_stack_leave (struct esp_stack_slot **slot);
#define ESP_STACK_SCOPE __attribute__ ((cleanup (esp_stack_leave)))

/* Which modules of ours the process has; set in .load, read after. */
enum esp_module {
  ESP_MODULE_VENUE, ESP_MODULE_OVERLAY, ESP_MODULE_DELAYLOAD,
  ESP_MODULE_SEGCACHE, ESP_MODULE_MAX
};
extern void esp_stack_add (enum esp_module module);
extern bool esp_stack_has (enum esp_module module);

/* store=: the first module that sees it, sets it; the others check that it
 * is the same.  The path is made absolute when it is set.  NULL from _get
 * when none was given.  Reported: EINVAL for a second, different one.
 */
extern int esp_stack_set_store (const char *path);
extern const char *esp_stack_get_store (void);

#pragma GCC visibility pop
#endif /* ESPALIER_STACK_H */
