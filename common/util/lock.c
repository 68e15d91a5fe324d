/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks between processes, and who holds them.
 *
 * A holder is a few lines "key=value", ended by a line "end", so that a
 * reader that comes in the middle of a write, or after a crash, sees that
 * it is not whole.  Unknown keys are skipped.  The lock is flock's; the
 * text only tells people about it and is never trusted for exclusion.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/lock.h"
#include "util/name.h"

#define HOLDER_MAX 511                  /* bytes of text, without the NUL */

int
esp_lock (int fd, bool exclusive)
{
  int r;

  do
    r = flock (fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
  while (r < 0 && errno == EINTR);
  return r;
}

/* Only what is printable: a program may be called anything. */
static void
copy_printable (char *to, size_t size, const char *from)
{
  size_t i;

  for (i = 0; i + 1 < size && from[i]; ++i)
    to[i] = from[i] > ' ' && from[i] < 0x7f ? from[i] : '?';
  to[i] = 0;
}

int
esp_holder_write (int fd, const struct esp_holder *holder)
{
  struct esp_holder h = *holder;
  char text[HOLDER_MAX + 1];

  copy_printable (h.program, sizeof h.program, holder->program);
  copy_printable (h.boot_id, sizeof h.boot_id, holder->boot_id);
  int n = snprintf (text, sizeof text,
                    "pid=%ld\nprogram=%s\nboot-id=%s\nsince=%" PRIu64
                    "\nquota=%" PRIu64 "\nend\n",
                    (long) h.pid, h.program, h.boot_id, h.since, h.quota);
  if (esp_pwrite_all (fd, text, (size_t) n, 0) < 0)
    return -1;
  return ftruncate (fd, n);
}

/* A whole decimal number; false for anything else. */
static bool
number (const char *s, uint64_t max, uint64_t *out)
{
  char *end;

  if (*s < '0' || *s > '9')
    return false;
  errno = 0;
  unsigned long long v = strtoull (s, &end, 10);
  if (errno || *end || v > max)
    return false;
  *out = v;
  return true;
}

static bool
copy_value (char *to, size_t size, const char *value)
{
  size_t n = strlen (value);

  if (n >= size)
    return false;
  copy_printable (to, size, value);
  return strcmp (to, value) == 0;
}

/* One line "key=value" into H; false where it is damaged. */
static bool
parse_line (char *line, struct esp_holder *h)
{
  char *value = strchr (line, '=');
  uint64_t pid;

  if (!value)
    return false;
  *value++ = 0;
  if (strcmp (line, "pid") == 0) {
    if (!number (value, INT32_MAX, &pid))
      return false;
    h->pid = (pid_t) pid;
    return true;
  }
  if (strcmp (line, "program") == 0)
    return copy_value (h->program, sizeof h->program, value);
  if (strcmp (line, "boot-id") == 0)
    return copy_value (h->boot_id, sizeof h->boot_id, value);
  if (strcmp (line, "since") == 0)
    return number (value, UINT64_MAX, &h->since);
  if (strcmp (line, "quota") == 0)
    return number (value, UINT64_MAX, &h->quota);
  return true;
}

static bool
parse_holder (char *text, struct esp_holder *h)
{
  char *rest = text, *line;

  while ((line = strsep (&rest, "\n")) != NULL) {
    if (strcmp (line, "end") == 0)
      return h->pid > 0;
    if (!parse_line (line, h))
      return false;
  }
  return false;
}

int
esp_holder_read (int fd, struct esp_holder *holder)
{
  char text[HOLDER_MAX + 1];
  ssize_t n;

  memset (holder, 0, sizeof *holder);
  do
    n = pread (fd, text, HOLDER_MAX, 0);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -1;
  text[n] = 0;
  if (strlen (text) != (size_t) n || !parse_holder (text, holder))
    memset (holder, 0, sizeof *holder);
  return 0;
}

int
esp_holder_erase (int fd)
{
  return ftruncate (fd, 0);
}

static void
read_boot_id (char *buf, size_t size)
{
  CLEANUP_CLOSE int fd =
    open ("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read (fd, buf, size - 1);

  /* Without /proc there is none: the process number has to do. */
  buf[n > 0 ? n : 0] = 0;
  buf[strcspn (buf, "\n")] = 0;
}

void
esp_holder_self (struct esp_holder *holder)
{
  memset (holder, 0, sizeof *holder);
  holder->pid = getpid ();
  copy_printable (holder->program, sizeof holder->program,
                  program_invocation_short_name);
  read_boot_id (holder->boot_id, sizeof holder->boot_id);
  holder->since = (uint64_t) time (NULL);
}

static esp_uuid boot_id;

static void
parse_boot_id (void)
{
  char text[40];

  read_boot_id (text, sizeof text);
  if (esp_uuid_parse (text, &boot_id) == -1)
    esp_uuid_new (&boot_id);
}

const uint8_t *
esp_boot_id (void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once (&once, parse_boot_id);
  return boot_id.b;
}

const char *
esp_holder_describe (const struct esp_holder *holder, char *buf, size_t size)
{
  time_t since = (time_t) holder->since;
  char when[32] = "?";
  struct tm tm;

  if (holder->pid == 0) {
    snprintf (buf, size, "nobody");
    return buf;
  }
  if (localtime_r (&since, &tm))
    strftime (when, sizeof when, "%Y-%m-%d %H:%M", &tm);
  snprintf (buf, size, "%s (process %ld, since %s)",
            holder->program[0] ? holder->program : "a program",
            (long) holder->pid, when);
  return buf;
}
