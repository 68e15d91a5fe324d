/* SPDX-License-Identifier: BSD-3-Clause */
/* Who holds a lock on an open file: what /proc/locks tells (proc(5)).
 *
 *   12: FLOCK  ADVISORY  READ  4711 fe:01:131077 0 EOF
 *
 * It is for people: a process of another user, container or kernel
 * name space may be missing there, and the list may be old when it is read.
 */

#include <config.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "espalier.h"

/* The name of process PID, "?" where it cannot be read. */
static void
program_of (long pid, char *buf, size_t size)
{
  CLEANUP_FREE char *path = xasprintf ("/proc/%ld/comm", pid);
  CLEANUP_FCLOSE FILE *f = fopen (path, "re");

  snprintf (buf, size, "?");
  if (f && fgets (buf, (int) size, f))
    buf[strcspn (buf, "\n")] = 0;
}

/* Is LINE a lock by flock on ST?  Then *PID is its holder. */
static bool
parse_line (const char *line, const struct stat *st, long *pid)
{
  unsigned major_, minor_;
  unsigned long long inode;
  char kind[16];

  return sscanf (line, "%*d: %15s %*s %*s %ld %x:%x:%llu", kind, pid, &major_,
                 &minor_, &inode) == 5 &&
    strcmp (kind, "FLOCK") == 0 && inode == st->st_ino &&
    major_ == major (st->st_dev) && minor_ == minor (st->st_dev);
}

static bool
known (const struct lock_pid *list, size_t n, long pid)
{
  for (size_t i = 0; i < n; i++)
    if (list[i].pid == pid)
      return true;
  return false;
}

struct lock_pid *
lock_pids (int fd, size_t *n)
{
  CLEANUP_FCLOSE FILE *f = fopen ("/proc/locks", "re");
  struct lock_pid *list = NULL;
  struct stat st;
  char line[256];
  long pid;

  *n = 0;
  if (!f || fstat (fd, &st) == -1)
    return NULL;
  while (fgets (line, sizeof line, f)) {
    if (!parse_line (line, &st, &pid) || known (list, *n, pid))
      continue;
    struct lock_pid *more = realloc (list, (*n + 1) * sizeof *list);
    if (!more)
      break;
    list = more;
    list[*n].pid = pid;
    program_of (pid, list[*n].program, sizeof list[*n].program);
    ++*n;
  }
  return list;
}
