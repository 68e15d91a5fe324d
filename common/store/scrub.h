/* SPDX-License-Identifier: BSD-3-Clause */
/* store scrub: is what is local still what it was? */

#ifndef ESPALIER_SCRUB_H
#define ESPALIER_SCRUB_H

#include "store/have.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

/* What became of a segment that is wrong, or of a restore point. */
enum esp_scrub_what {
  ESP_SCRUB_MENDED,             /* fetched again, and right now */
  ESP_SCRUB_DROPPED,            /* of a delayed one: not fetched, or in vain
                                 * (then WHY says so): it is fetched again
                                 * when it is read */
  ESP_SCRUB_LOST,               /* wrong, and nobody had it */
  ESP_SCRUB_FIRST,              /* a restore point without digests: this is
                                 * what it is compared with from now on */
  ESP_SCRUB_UNCHECKED,          /* a restore point that cannot be read */
};

struct esp_scrub {
  /* May be NULL each.  TELL: [OFFSET, OFFSET+LEN) of the disk of RP (LEN 0:
   * all of it), WHY may be NULL.  PROGRESS: bytes; -1 ends the scrub
   * (ECANCELED).  MEND: put the LEN bytes of raw of segment NUMBER (of size
   * 1 << SHIFT), which have DIGEST, into RAW: 0; or -1 with errno, reported,
   * when nobody has it.  They are checked before they are written.  NO_FETCH:
   * only find what is wrong; neither centers are asked nor MEND.
   */
  bool no_fetch;
  void (*tell) (void *arg, const struct esp_rp *rp, uint64_t offset,
                uint64_t len, enum esp_scrub_what what, const char *why);
  esp_progress_fn progress;
  void *progress_arg;
  int (*mend) (void *arg, struct esp_store *store, const struct esp_rp *rp,
               unsigned shift, uint32_t number, const esp_digest *digest,
               void *raw, size_t len);
  void *arg;

  /* Filled in. */
  unsigned rps, first;          /* restore points checked; digested first */
  uint64_t segments, bytes;     /* that were read */
  uint64_t mended, dropped, lost;       /* segments */
  unsigned unchecked;           /* restore points */
};

/* Check all local data of restore point ONE, or of all (NULL), against their
 * digests.  Those without digests get them now (not on a store that cannot
 * be written, nor while another one is at it).  -1 only when the scrub itself
 * failed.
 */
extern int esp_store_scrub (struct esp_store *store, const esp_uuid *one,
                            struct esp_scrub *scrub);

#pragma GCC visibility pop
#endif /* ESPALIER_SCRUB_H */
