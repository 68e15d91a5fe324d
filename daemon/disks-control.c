/* SPDX-License-Identifier: BSD-3-Clause */
/* What espalierd asks espalierd-disks.  One message for each connection (a
 * SOCK_SEQPACKET below a directory that only we may enter), one answer:
 *
 *   open NAME URI      ok SIZE, or: error TEXT
 *   uri NAME URI       ok, error
 *   close NAME         ok, error
 *   ping               ok
 *
 * So an export's ticket stands on no command line.
 */

#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "disks.h"
#include "util/cleanup.h"

#define MESSAGE_MAX 8192

static void
answer (char *message, char *reply, size_t size)
{
  char *rest = message, *verb = strsep (&rest, " "),
    *name = strsep (&rest, " ");
  char why[512];
  uint64_t bytes;

  snprintf (reply, size, "error not understood");
  if (strcmp (verb, "ping") == 0)
    snprintf (reply, size, "ok");
  else if (!name || !*name || strlen (name) > DISK_NAME_MAX)
    return;
  else if (strcmp (verb, "open") == 0 && rest) {
    if (disk_open (name, rest, &bytes, why, sizeof why) == -1)
      snprintf (reply, size, "error %s", why);
    else
      snprintf (reply, size, "ok %" PRIu64, bytes);
  }
  else if ((strcmp (verb, "uri") == 0 && rest && disk_uri (name, rest) == 0)
           || (strcmp (verb, "close") == 0 && disk_close (name) == 0))
    snprintf (reply, size, "ok");
  else
    snprintf (reply, size, "error there is no disk %s", name);
}

static void *
serve (void *arg)
{
  int fd CLEANUP_CLOSE = (int) (intptr_t) arg;
  const struct timeval patience = { .tv_sec = 5 };
  char message[MESSAGE_MAX + 1], reply[1024];
  ssize_t n;

  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  n = recv (fd, message, MESSAGE_MAX, 0);
  if (n <= 0)
    return NULL;
  message[n] = '\0';
  answer (message, reply, sizeof reply);
  /* Whoever asked may have gone. */
  (void) !send (fd, reply, strlen (reply), MSG_NOSIGNAL);
  return NULL;
}

static void *
listen_loop (void *arg)
{
  int fd = (int) (intptr_t) arg, peer;
  pthread_attr_t attr;
  pthread_t thread;

  pthread_attr_init (&attr);
  pthread_attr_setdetachstate (&attr, PTHREAD_CREATE_DETACHED);
  for (;;) {
    peer = accept (fd, NULL, NULL);
    if (peer == -1) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
        usleep (10000);
      continue;
    }
    if (pthread_create (&thread, &attr, serve, (void *) (intptr_t) peer))
      close (peer);
  }
  return NULL;
}

int
control_start (int fd)
{
  pthread_t thread;

  return pthread_create (&thread, NULL, listen_loop, (void *) (intptr_t) fd)
    ? -1 : 0;
}
