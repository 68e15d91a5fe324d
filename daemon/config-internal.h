/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of names, for config*.c. */

#ifndef ESPALIERD_CONFIG_INTERNAL_H
#define ESPALIERD_CONFIG_INTERNAL_H

#include "config.h"

#define CONFIG_FILE "/etc/espalier/espalierd.conf"

enum config_kind {
  KIND_TEXT, KIND_PATH, KIND_LISTEN, KIND_NBD, KIND_WORDS, KIND_HOST,
  KIND_VENUE, KIND_UNKNOWN, KIND_SECONDS, KIND_ON_OFF, KIND_URLS,
};
struct config_name {
  const char *name;
  enum config_kind kind;
  size_t at;                    /* offset in struct config */
  const char *arg, *help;
  unsigned min, max;            /* KIND_SECONDS; KIND_LISTEN: default port */
  bool restart;                 /* counts from the start on */
};
/* The last one has no name. */
extern const struct config_name config_names[];

/* NULL: there is none of this name.  *NEAR is then the nearest, or NULL. */
extern const struct config_name *config_find (const char *name,
                                              const char **near);

static inline __attribute__ ((unused)) void *
config_at (const struct config *config, const struct config_name *n)
{
  return (char *) config + n->at;
}

/* Empty a list. */
extern void config_clear_list (struct config *config);

#endif /* ESPALIERD_CONFIG_INTERNAL_H */
