/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the cluster: nodes (node.c, pending.c, probe.c), the list of
 * them (cluster-list.c), leases (lease.c), and who uses them (cluster-get.c, cluster-put.c,
 * cluster-write.c);
 * two threads (keeper.c).
 *
 * Locks, all leaves but where said, none held over I/O:
 *   cluster->lock   the current list, the threads' conditions
 *   leases.lock     the leases that this process holds
 *   node->lock      a node's connections, state and pending keys
 */

#ifndef ESPALIER_CACHE_CLUSTER_INTERNAL_H
#define ESPALIER_CACHE_CLUSTER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "cache/cluster.h"
#include "cache/nodes.h"
#include "cache/wire.h"
#include "util/cleanup.h"
#include "util/clock.h"

static inline uint64_t
mono_ms (void)
{
  return esp_now_us () / 1000u;
}

/* Relaxed: counters. */
#define COUNT(counter, by) \
  atomic_fetch_add_explicit (&(counter), (by), memory_order_relaxed)
#define COUNTED(counter) \
  atomic_load_explicit (&(counter), memory_order_relaxed)
#define SET_TO(what, to) \
  atomic_store_explicit (&(what), (to), memory_order_relaxed)

/* --- keys that could not be deleted (pending.c) ---------------------------- */
#define PENDING_MAX 65536u
struct pending {                /* a set, by open addressing */
  struct esp_cache_key *keys;
  bool *used;
  size_t n, room;
};
/* False: there is no room, or no memory. */
extern bool pending_add (struct pending *p, const struct esp_cache_key *key);
extern void pending_clear (struct pending *p);

/* --- nodes (node.c, probe.c) ----------------------------------------------- */
#define NODE_IDLE_MAX 64u
#define NODE_FULL_MS 10000u     /* a full node is not given anything */
#define NODE_NO_WAIT_MS 10000u  /* who waited in vain for its leases: nobody
                                 * waits for another one */
#define NODE_LIES 3u            /* in a row: it is left out */
#define NODE_BACKOFF_MAX_MS 30000u

struct node {
  struct esp_node_name name;
  uint64_t hash;
  uint32_t id;                  /* unique in the process */
  _Atomic unsigned refs;
  struct esp_cluster *cluster;
  _Atomic bool good;            /* set under lock; read without */
  _Atomic bool spoiled;         /* too much pending: no exports any more */
  _Atomic bool cold;            /* it had nothing for the last question */
  _Atomic size_t item_max;      /* bytes of an item; 0: not known */
  _Atomic uint64_t full_until, no_wait_until, exports_from;     /* ms */
  _Atomic unsigned lies_in_row;
  _Atomic uint64_t hits, misses, errors, timeouts, lies, full, answer_us;

  pthread_mutex_t lock;         /* protects what follows */
  struct esp_wire *idle[NODE_IDLE_MAX];
  unsigned nidle;
  struct sockaddr_storage addr; /* of the last probe that went well */
  socklen_t addr_len;
  bool probed;
  uint64_t backoff_ms, probe_at, good_since, warned_at; /* ms */
  enum esp_wire_result warned_why;
  struct pending pending;

  uint64_t limit_at;            /* ms; the prober's own */
};

extern struct node *node_new (struct esp_cluster *cluster,
                              const struct esp_node_name *name);
extern struct node *node_ref (struct node *node);
extern void node_unref (struct node *node);
ESP_DEFINE_CLEANUP (node_unref, struct node *, node_unref)
#define CLEANUP_NODE ESP_CLEANUP (node_unref)

/* A connection to ADDR, which is one of the node's; NULL with *WHY. */
extern struct esp_wire *node_connect (struct node *node,
                                      const struct sockaddr *addr,
                                      socklen_t len,
                                      enum esp_wire_result *why);

/* One question.  A connection that had been closed meanwhile is replaced
 * once; what went wrong is counted and may leave the node out.
 */
extern enum esp_wire_result node_do (struct node *node,
                                     struct esp_wire_op *op);
/* The same, with the connection (NULL where R is not sound): op->value stays
 * until node_done, and more may be asked.
 */
extern enum esp_wire_result node_do_held (struct node *node,
                                          struct esp_wire_op *op,
                                          struct esp_wire **wire);
/* R is the last result on WIRE. */
extern void node_done (struct node *node, struct esp_wire *wire,
                       enum esp_wire_result r);
extern void node_failed (struct node *node, enum esp_wire_result r);
extern void node_say_out (struct node *node, enum esp_wire_result why);
/* A value that was not what it should be, or one that was. */
extern void node_lied (struct node *node);
extern void node_honest (struct node *node);
extern void node_filled (struct node *node);
static inline bool
node_is_full (struct node *node, uint64_t now)
{
  return now < COUNTED (node->full_until);
}
/* Delete what is under KEY, now or before the node is used again. */
extern void node_forget (struct node *node, const struct esp_cache_key *key);

#define NODE_WARN_EVERY_MS 60000u

static inline bool
node_sound (enum esp_wire_result r)
{
  return r < ESP_WIRE_STALE;
}

/* Ask a node that is OUT; it is GOOD again, or its next time is set. */
extern void node_probe (struct node *node);
/* Ask a node that is GOOD for its item limit, where that is not known. */
extern void node_ask_limit (struct node *node);
/* When node_probe is due (ms); UINT64_MAX: it is GOOD. */
extern uint64_t node_probe_at (struct node *node);

/* --- the list (cluster-list.c) ------------------------------------------------------ */
#define SETTLE_MS 3000u         /* no export uses a node that came so lately */
#define LEFT_MS 10000u          /* writes delete on a node that left */
struct list {
  _Atomic unsigned refs;
  uint64_t left_until;          /* ms */
  size_t n, left;
  struct node *node[];          /* N, then LEFT that are no longer in it: servers
                                 * that did not see the change yet ask them */
};
extern struct list *list_current (struct esp_cluster *cluster);
extern void list_unref (struct list *list);
ESP_DEFINE_CLEANUP (list_unref, struct list *, list_unref)
#define CLEANUP_LIST ESP_CLEANUP (list_unref)

/* Whom to ask for KEY: not referenced; NULL: nobody. */
extern struct node *list_pick (const struct list *list,
                               const struct esp_cache_key *key);
/* Whom KEY belongs to, whatever its state; NULL: there is no node. */
extern struct node *list_owner (const struct list *list,
                                const struct esp_cache_key *key);
extern struct node *list_find (const struct list *list, uint32_t id);
/* Put NODES in the place of the current list.  -1 reported. */
extern int list_set (struct esp_cluster *cluster,
                     const struct esp_nodes *nodes, bool settle);

/* What KEY is called on nodes: a restore point's has the id of our secret in it,
 * where there is one; an export's is the same for all, who write it.
 */
#define NODE_KEY_TEXT (ESP_CACHE_KEY_TEXT + 1 + 16)
extern char *node_key_text (const struct esp_cluster *cluster,
                            const struct esp_cache_key *key,
                            char out[NODE_KEY_TEXT]);

/* --- leases (lease.c) ------------------------------------------------------- */
#define LEASE_SIZE 32u
enum lease_kind { LEASE_FILL = 1, LEASE_WRITER = 2 };
/* What lies on a node: docs/formats.md. */
struct lease_item {
  enum lease_kind kind;
  uint64_t id, sealer;          /* sealer: esp_sealer_id of its holder */
};
extern void lease_encode (uint8_t out[LEASE_SIZE],
                          const struct lease_item *item);
/* False: this is no lease. */
extern bool lease_decode (const void *data, size_t len,
                          struct lease_item *item);
/* A number that nobody else has; 0: no random bytes. */
extern uint64_t random_id (void);

struct lease {
  struct lease *next;
  uint64_t id;
  struct esp_cache_key key;
  struct node *node;            /* a reference */
  uint64_t since, renewed;      /* ms */
};
struct leases {
  pthread_mutex_t lock;
  struct lease *first;
};
/* Take a lease on KEY: ADD, or CAS of what has CAS (0: add).  OK: it is kept
 * and renewed from here on, and in TICKET.
 */
extern enum esp_wire_result lease_take (struct node *node,
                                        const struct esp_cache_key *key,
                                        uint64_t cas,
                                        struct esp_shared_ticket *ticket);
/* TICKET's lease, no longer renewed: the caller's (lease_free); or NULL. */
extern struct lease *lease_end (struct esp_cluster *cluster,
                                struct esp_shared_ticket *ticket);
extern void lease_free (struct lease *lease);
ESP_DEFINE_CLEANUP (lease_free, struct lease *, lease_free)
#define CLEANUP_LEASE ESP_CLEANUP (lease_free)
/* Replace it on the node by OP's value, if it is still there. */
extern enum esp_wire_result lease_replace (const struct lease *lease,
                                           struct esp_wire_op *op);
extern void lease_drop (const struct lease *lease);
extern void leases_renew (struct esp_cluster *cluster);

/* --- the whole --------------------------------------------------------------- */
struct esp_cluster {
  const struct esp_sealer *sealer;
  unsigned timeout_ms, lease_ms, wait_ms;
  struct esp_wire_login login;
  const struct esp_wire_login *use_login;       /* &login or NULL */
  struct esp_tls *tls;          /* or NULL */
  char *nodes_file;             /* NULL: a fixed list */
  struct leases leases;
  _Atomic uint32_t node_ids;

  pthread_mutex_t lock;         /* protects what follows */
  struct list *list;
  pthread_cond_t keeper_cond, prober_cond, probed_cond;
  bool stop, probe_now, probed; /* probed: each node once */
  bool has_keeper, has_prober;
  pthread_t keeper, prober;
  /* keeper's own */
  struct timespec file_mtime;
  uint64_t file_ino;
  off_t file_size;
  bool file_settled;            /* it was as old as that when it was read */

  _Atomic uint64_t hits, misses, bytes_read, bytes_written;
  _Atomic uint64_t leased, waits, waited_us, takeovers, errors, lies, full;
};

static inline uint32_t
lease_seconds (const struct esp_cluster *cluster)
{
  uint32_t s = (cluster->lease_ms + 999) / 1000;

  return s < 2 ? 2 : s;         /* memcached's clock ticks in seconds */
}

/* keeper.c: threads.  -1 reported. */
extern int keeper_start (struct esp_cluster *cluster);
extern void keeper_stop (struct esp_cluster *cluster);
/* A node is OUT: see when it is due. */
extern void keeper_wake (struct esp_cluster *cluster);
/* Read the nodes file if it changed; FIRST: in any case. */
extern void keeper_read_file (struct esp_cluster *cluster, bool first);

#endif /* ESPALIER_CACHE_CLUSTER_INTERNAL_H */
