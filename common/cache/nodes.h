/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of cache nodes: its text, and which node a key belongs to.  Only
 * for common/cache, tests and fuzzers.
 */

#ifndef ESPALIER_CACHE_NODES_H
#define ESPALIER_CACHE_NODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

#define ESP_NODES_MAX 256u
#define ESP_NODE_PORT 11211u
#define ESP_NODE_NAME 300u              /* with its NUL */

/* A node as it is called everywhere: "host:port", host in lower case, or
 * "unix:/path".  All servers must call it the same.
 */
struct esp_node_name {
  char name[ESP_NODE_NAME];
  char host[256];               /* without brackets; the path of a socket */
  uint16_t port;                /* 0: a Unix socket */
};

struct esp_nodes {
  size_t n;                     /* 1 .. ESP_NODES_MAX */
  struct esp_node_name node[];
};

/* TEXT: nodes between commas, blanks and ends of lines; from '#' to the end
 * of a line is a comment.  Each node stands once.  malloced.  NULL with
 * EINVAL or ENOMEM, reported as "WHERE: …".
 */
extern struct esp_nodes *esp_nodes_parse (const char *text,
                                          const char *where);

/* Is the parameter the name of a file (a slash that is not of "unix:/…")?
 * Reads it: NULL, reported, as above.
 */
extern bool esp_nodes_is_file (const char *nodes);
extern struct esp_nodes *esp_nodes_load (const char *path);

/* Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to
 * increase hit rates", 1998): a key belongs to the node with the highest
 * score.  NODE is esp_node_hash of its name, KEY esp_cache_key_hash.
 */
extern uint64_t esp_node_hash (const char *name);
extern uint64_t esp_node_score (uint64_t node, uint64_t key);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_NODES_H */
