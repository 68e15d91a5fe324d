/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the iSCSI bridge share. */

#ifndef ESPALIERD_BRIDGE_INTERNAL_H
#define ESPALIERD_BRIDGE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bridge.h"
#include "listen.h"

#define BRIDGE_PORT 3260

/* --- names and answers: pure (bridge-text.c) ------------------------------ */
/* The name of the target of CLIENT at VENUE, in what RFC 3722 and tgtd
 * allow: small letters, digits, '.', '-', ':'; at most 223 bytes.
 */
extern void bridge_iqn (const char *venue, const char *client, uint64_t nonce,
                        char iqn[224]);
/* The connections in what tgtd shows of one target.  How many there are; the
 * first MAX are in OUT.
 */
struct bridge_conn { uint64_t session; uint32_t cid; };
extern size_t bridge_conns_parse (const char *text, struct bridge_conn *out,
                                  size_t max);

/* --- processes (bridge-proc.c) -------------------------------------------- */
/* One that we started, with NAME.pid in the bridge's directory, so that the
 * next daemon finds it if this one is killed.
 */
struct bridge_proc {
  const char *name;             /* of the files: static */
  const char *package;          /* what has the program, for a message */
  int last_will;                /* the signal it gets when the thread that
                                 * started it ends; 0: none */
  pid_t pid;                    /* 0: none */
  int pidfd;                    /* becomes readable when it ended */
};
/* Start ARGV in the directory DIRFD, with ENV (NULL: none) added to the
 * environment, KEEP (-1: none) as descriptor 3, stdout and stderr in NAME.log.
 */
extern int proc_start (struct bridge_proc *p, int dirfd,
                       const char *const argv[], const char *env, int keep);
/* Has it ended?  Waits at most MS. */
extern bool proc_ended (struct bridge_proc *p, int ms);
/* End it: SIG, SIGKILL after MS.  Nothing where there is none; what even
 * then does not end within some seconds is left alone.
 */
extern void proc_end (struct bridge_proc *p, int dirfd, int sig, int ms);
/* End what an earlier daemon started under NAME, if it is the same process. */
extern int proc_clear (const char *name, int dirfd);
/* Run ARGV to its end, for MS at most; its exit status, -1. */
extern int proc_run (const char *const argv[], int ms);
/* A log that grew beyond reason begins anew. */
extern void proc_log_trim (const char *name, int dirfd);
/* The last line of the log of NAME, without blanks around it; "" where none. */
extern void proc_log_last (const char *name, int dirfd, char *buf,
                           size_t size);

/* --- tgtd (bridge-tgt.c) -------------------------------------------------- */
/* All functions report; one call at a time reaches tgtd, which has one
 * thread for them anyway.
 */
/* Start it, listening at AT; port 0 there becomes one that is free. */
extern int tgt_start (int dirfd, struct listen_at *at);
extern void tgt_kill (void);             /* only begin to */
extern void tgt_stop (int dirfd);
extern struct bridge_proc tgt_proc;

struct tgt_lun {
  char path[96];                /* below the bridge's directory */
  char serial[17];              /* 16 hex digits */
  char id[33];                  /* 32 hex digits */
};
extern int tgt_target_new (int tid, const char *iqn);
extern int tgt_lun_new (int tid, unsigned lun, const struct tgt_lun *l);
extern int tgt_allow (int tid, const char *address);
/* Accounts are tgtd's, not a target's: several targets may share one with the
 * same secret.
 */
extern int tgt_chap (int tid, const char *user, const char *secret);
extern void tgt_chap_forget (const char *user);
/* No more logins. */
extern int tgt_offline (int tid);
/* How many connections TID has; those in OUT at most MAX.  -1. */
extern ssize_t tgt_conns (int tid, struct bridge_conn *out, size_t max);
extern int tgt_conn_delete (int tid, const struct bridge_conn *c);
/* 0; 1: it is still in use, try again; -1. */
extern int tgt_target_delete (int tid);

/* --- disks (bridge-disks.c) ----------------------------------------------- */
extern struct bridge_proc disks_proc;
/* Start espalierd-disks and wait until its files are there. */
extern int disks_start (int dirfd);
extern void disks_stop (int dirfd);
/* Take away a mount that a dead process left. */
extern int disks_unmount (int dirfd);
/* The disk NAME ("TID-N") of the export URI: its file is disks/NAME. */
extern int disks_open (int dirfd, const char *name, const char *uri);
extern int disks_uri (int dirfd, const char *name, const char *uri);
extern void disks_close (int dirfd, const char *name);

/* --- one target (bridge-target.c) ----------------------------------------- */
enum target_state {
  TARGET_MAKING, TARGET_READY, TARGET_USED, TARGET_GOING,
  TARGET_LEFT,                  /* going, but tgtd still holds it: again later */
};
struct target {
  struct target *next;          /* in the table */
  char venue[ESP_NAME_MAX + 1], client[ESP_NAME_MAX + 1], address[64];
  char iqn[224];
  char *chap_user, *chap_secret;        /* malloced, the secret is wiped */
  unsigned ndisks;
  int tid;
  /* Under the table's lock. */
  enum target_state state;
  uint64_t since;               /* of this state: seconds since the epoch */
  uint64_t since_us;            /* the same, monotonic */
  uint64_t fresh_us;            /* when its exports got their tickets */
  bool was_used;
  bool renewing;                /* nobody takes it down meanwhile */
};
extern struct target *target_new (const struct bridge_want *want, int tid);
extern void target_free (struct target *t);
/* Is T what WANT asks for? */
extern bool target_fits (const struct target *t,
                         const struct bridge_want *want);
/* Its disks and the rest; nothing is left where it fails. */
extern int target_make (struct target *t, const struct config *config,
                        int dirfd);
/* Only the part that tgtd has. */
extern int target_publish (struct target *t);
/* Only the disks. */
extern int target_open_disks (struct target *t, const struct config *config,
                              int dirfd);
extern void target_close_disks (struct target *t, int dirfd);
/* How long a disk's ticket connects it. */
extern unsigned bridge_ticket_seconds (const struct config *config);
/* Newer tickets for when a connection has to be made anew. */
extern void target_renew (struct target *t, const struct config *config,
                          int dirfd);
/* Take it down.  false: tgtd still holds it. */
extern bool target_unmake (struct target *t, int dirfd);

/* --- all of it (bridge.c, bridge-watch.c) --------------------------------- */
extern struct bridge {
  pthread_rwlock_t gate;        /* bridge.c says what for */
  bool running;                 /* both processes were started; under gate */
  pthread_mutex_t lock;         /* what follows, up to the blank line */
  pthread_cond_t changed;
  struct target *table;
  bool stopping;
  uint64_t made, died;

  int dir;                      /* run/espalierd/bridge; -1: no bridge */
  struct listen_at listen_at;
  int wake;                     /* eventfd: the watcher is to look now */
} bridge;
extern void bridge_set_state_locked (struct target *t,
                                     enum target_state state);
extern void bridge_remove_locked (struct target *t);
/* Take down T, which is GOING and the caller's. */
extern void bridge_take_down (struct target *t);
extern void bridge_wake (void);
/* Have the watcher start the processes, unless they run. */
extern int bridge_start_if_needed (void);
/* The thread; when bridge.stopping is set and it is woken, it ends the processes
 * and returns.
 */
extern void *bridge_watch (void *arg);

#endif /* ESPALIERD_BRIDGE_INTERNAL_H */
