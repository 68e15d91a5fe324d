/* SPDX-License-Identifier: BSD-3-Clause */
/* tgtd: started with the first target, and asked on its control socket.
 *
 * What tgtadm would send is sent here: a fixed header and a text of
 * "name=value" parts, answered by a length, a code and a text; the same since
 * 2012.  A program for each step would cost a fork, and would show CHAP secrets
 * to whoever reads /proc.  tgtd's answer to the first question shows
 * whether it speaks the same.
 *
 * The socket is named from the bridge's directory, in which tgtd runs, so that
 * the length of the store's path does not matter; that directory is 0700, and
 * tgtd itself answers only to its own user.  A tgtd of the system has other
 * sockets and is not touched.
 *
 * Never asked of tgtd: to delete a target by force while somebody is logged in
 * (it ends itself when a command is still on its way).  Connections are
 * closed first, then the target goes when they are gone.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "bridge-internal.h"
#include "bridge-tgt.h"
#include "util/cleanup.h"
#include "util/host.h"

/* The number of our control socket: "tgt.1". */
#define CONTROL "1"
/* Of tgtd's threads for each logical unit, and of a disk's connections. */
#define IO_THREADS "4"
/* A machine that was switched off is noticed after INTERVAL * COUNT seconds;
 * firmware that waits for a key answers no pings either.
 */
#define NOP_INTERVAL 60
#define NOP_COUNT 10
#define PATIENCE_S 10
#define ANSWER_MAX (16 << 20)

struct bridge_proc tgt_proc = {
  .name = "tgtd", .package = "tgt", .last_will = SIGKILL, .pidfd = -1
};
static int tgt_dir = -1;        /* where its socket is; set by tgt_start */
/* One call at a time. */
static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER;

struct answer {
  uint32_t code, len;
};

/* What tgtd's codes mean, where they are not our own mistakes. */
enum { CODE_NO_TARGET = 4, CODE_USER_EXISTS = 14, CODE_TARGET_ACTIVE = 19,
       CODE_LUN_ACTIVE = 20 };

/* --- one call ------------------------------------------------------------- */

static int
control_connect (void)
{
  const struct timeval patience = { .tv_sec = PATIENCE_S };
  struct sockaddr_un a = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (fd == -1)
    return -1;
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  snprintf (a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/tgt." CONTROL,
            tgt_dir);
  if (connect (fd, (struct sockaddr *) &a, sizeof a) == 0)
    return fd;
  close (fd);
  return -1;
}

static int
recv_all (int fd, void *buf, size_t len)
{
  ssize_t n;

  for (; len; buf = (char *) buf + n, len -= (size_t) n) {
    n = recv (fd, buf, len, 0);
    if (n == -1 && errno == EINTR)
      n = 0;
    else if (n <= 0) {
      errno = n ? errno : EPIPE;
      return -1;
    }
  }
  return 0;
}

static int
send_all (int fd, const void *buf, size_t len)
{
  ssize_t n;

  for (; len; buf = (const char *) buf + n, len -= (size_t) n) {
    n = send (fd, buf, len, MSG_NOSIGNAL);
    if (n == -1 && errno == EINTR)
      n = 0;
    else if (n == -1)
      return -1;
  }
  return 0;
}

/* Read the answer; *TEXT is malloced, or NULL where there is none. */
static int
control_answer (int fd, char **text)
{
  struct answer a;
  size_t len;

  if (recv_all (fd, &a, sizeof a) == -1)
    return -1;
  len = a.len - sizeof a;
  if (a.len < sizeof a || len > ANSWER_MAX) {
    errno = EPROTO;
    return -1;
  }
  *text = len ? malloc (len + 1) : NULL;
  if (len && (!*text || recv_all (fd, *text, len) == -1)) {
    free (ESP_STEAL (*text));
    return -1;
  }
  if (len)
    (*text)[len] = '\0';
  return (int) a.code;
}

/* Send H with TEXT (NULL: none).  0, tgtd's code, or -1 with errno; reports
 * nothing.
 */
static int
call (struct tgt_header *h, const char *text, char **answer)
{
  ESP_LOCK_SCOPE (&call_lock);
  size_t len = text ? strlen (text) + 1 : 0;
  int fd CLEANUP_CLOSE = control_connect ();
  char *none CLEANUP_FREE = NULL;

  strcpy (h->driver, "iscsi");
  h->len = (uint32_t) (sizeof *h + len);
  if (fd == -1 || send_all (fd, h, sizeof *h) == -1
      || (len && send_all (fd, text, len) == -1))
    return -1;
  return control_answer (fd, answer ? answer : &none);
}

int
tgt_ask (const char *what, struct tgt_header h, const char *fmt, ...)
{
  char *text CLEANUP_FREE = NULL;
  va_list args;
  int r;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) == -1)
    text = NULL;
  va_end (args);
  r = text ? call (&h, *text ? text : NULL, NULL) : -1;
  if (text)
    explicit_bzero (text, strlen (text));
  if (r == 0)
    return 0;
  if (r == -1)
    esp_error ("tgtd: %s: %m", what);
  else {
    esp_error ("tgtd refused: %s (code %d); what it said is in "
               "run/espalierd/bridge/tgtd.log", what, r);
    errno = EIO;
  }
  return -1;
}

/* --- its life ------------------------------------------------------------- */

/* Can it be listened on?  tgtd itself goes on without.  Port 0 becomes one
 * that is free.
 */
static int
portal_free (struct listen_at *at)
{
  char why[256] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int fd = listen_open (at, "iSCSI", "iscsi-listen"), saved = errno;

  esp_catch_end (before);
  if (fd >= 0) {
    close (fd);
    return 0;
  }
  errno = saved;
  esp_error ("%s%s", why, saved == EADDRINUSE
             ? ": perhaps the system's own tgt has it (systemctl disable "
             "--now tgt); or give another iscsi-listen" : "");
  return -1;
}

/* Wait until tgtd answers as we expect it. */
static int
tgt_wait (void)
{
  for (unsigned i = 0; i < 500 && !proc_ended (&tgt_proc, 10); i++) {
    struct tgt_header h = { .mode = MODE_PORTAL, .op = OP_SHOW, .tid = -1 };
    char *text CLEANUP_FREE = NULL;
    int r = call (&h, NULL, &text);

    if (r == -1 && (errno == ECONNREFUSED || errno == ENOENT))
      continue;
    if (r == 0 && text && strncmp (text, "Portal: ", 8) == 0)
      return 0;
    esp_error (r == 0 && !text ? "tgtd does not listen: see "
               "run/espalierd/bridge/tgtd.log"
               : "tgtd does not answer as expected: is it tgt 1.0.20 or "
               "newer?");
    errno = EPROTO;
    return -1;
  }
  {
    char last[256];

    proc_log_last ("tgtd", tgt_dir, last, sizeof last);
    esp_error ("tgtd did not start: %s", *last ? last : "it says nothing");
  }
  errno = EIO;
  return -1;
}

int
tgt_start (int dirfd, struct listen_at *at)
{
  char portal[128];
  const char *const argv[] = {
    "tgtd", "-f", "-C", CONTROL, "-t", IO_THREADS, "--iscsi", portal, NULL
  };
  bool v6 = strchr (at->host, ':') != NULL;

  if (portal_free (at) == -1)
    return -1;
  snprintf (portal, sizeof portal, "portal=%s%s%s:%u", v6 ? "[" : "", at->host,
            v6 ? "]" : "", at->port);
  tgt_dir = dirfd;
  unlinkat (dirfd, "tgt." CONTROL, 0);
  if (proc_start (&tgt_proc, dirfd, argv, "TGT_IPC_SOCKET=tgt", -1) == -1)
    return -1;
  if (tgt_wait () == 0)
    return 0;
  tgt_stop (dirfd);
  return -1;
}

/* It keeps nothing that would be lost.  While a disk hangs, it may end only
 * when the disks do: disks_stop comes between.
 */
void
tgt_kill (void)
{
  if (!proc_ended (&tgt_proc, 0))
    kill (tgt_proc.pid, SIGKILL);
}

void
tgt_stop (int dirfd)
{
  proc_end (&tgt_proc, dirfd, SIGKILL, 2000);
  tgt_chap_forget_all ();
}

/* --- targets -------------------------------------------------------------- */

static int
target_set (int tid, const char *name, unsigned value)
{
  return tgt_ask (name, (struct tgt_header) { .mode = MODE_TARGET, .op = OP_UPDATE,
                                      .tid = tid }, "%s=%u", name, value);
}

int
tgt_target_new (int tid, const char *iqn)
{
  const struct tgt_header h = { .mode = MODE_TARGET, .op = OP_NEW, .tid = tid };
  /* The rest as tgtd has it; 8 KiB a segment would be slow. */
  static const struct { const char *name; unsigned value; } settings[] = {
    { "nop_interval", NOP_INTERVAL }, { "nop_count", NOP_COUNT },
    { "MaxRecvDataSegmentLength", 262144 }, { "FirstBurstLength", 262144 },
    { "MaxBurstLength", 1048576 },
  };

  if (tgt_ask ("new target", h, "targetname=%s", iqn) == -1)
    return -1;
  for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
    if (target_set (tid, settings[i].name, settings[i].value) == -1) {
      tgt_target_delete (tid);
      return -1;
    }
  return 0;
}

int
tgt_lun_new (int tid, unsigned lun, const struct tgt_lun *l)
{
  struct tgt_header h = { .mode = MODE_DEVICE, .op = OP_NEW, .tid = tid,
                      .lun = lun };

  if (tgt_ask ("new logical unit", h, "path=%s,bstype=rdwr,bsoflags=direct,"
           "blocksize=512", l->path) == -1)
    return -1;
  h.op = OP_UPDATE;
  return tgt_ask ("names of a logical unit", h, "vendor_id=ESPALIER,"
              "product_id=Espalier disk,product_rev=1,scsi_id=%s,scsi_sn=%s,"
              "lbppbe=3,thin_provisioning=1", l->id, l->serial);
}

int
tgt_allow (int tid, const char *address)
{
  bool v6 = strchr (address, ':') != NULL;

  return tgt_ask ("allow an address", (struct tgt_header) {
      .mode = MODE_TARGET, .op = OP_BIND, .tid = tid },
    "initiator-address=%s%s%s", v6 ? "[" : "", address, v6 ? "]" : "");
}

int
tgt_offline (int tid)
{
  return tgt_ask ("take a target offline", (struct tgt_header) {
      .mode = MODE_TARGET, .op = OP_UPDATE, .tid = tid }, "state=offline");
}

ssize_t
tgt_conns (int tid, struct bridge_conn *out, size_t max)
{
  struct tgt_header h = { .mode = MODE_CONNECTION, .op = OP_SHOW, .tid = tid };
  char *text CLEANUP_FREE = NULL;
  int r = call (&h, NULL, &text);

  if (r == 0)
    return (ssize_t) bridge_conns_parse (text, out, max);
  errno = r == -1 ? errno : r == CODE_NO_TARGET ? ENOENT : EIO;
  return -1;
}

int
tgt_conn_delete (int tid, const struct bridge_conn *c)
{
  struct tgt_header h = { .mode = MODE_CONNECTION, .op = OP_DELETE, .tid = tid,
                      .session = c->session, .cid = c->cid };

  return call (&h, NULL, NULL) == 0 ? 0 : -1;
}

int
tgt_target_delete (int tid)
{
  struct tgt_header h = { .mode = MODE_TARGET, .op = OP_DELETE, .tid = tid };
  int r = call (&h, NULL, NULL);

  switch (r) {
  case 0: case CODE_NO_TARGET: return 0;
  case CODE_TARGET_ACTIVE: case CODE_LUN_ACTIVE: return 1;
  default: return -1;
  }
}
