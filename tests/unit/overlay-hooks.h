/* SPDX-License-Identifier: BSD-3-Clause */
/* System calls of the library under the test's control: a program's own
 * functions come before the C library's, also for shared libraries (so they
 * must be visible).  Each
 * hook may do something before the real call, or answer instead of it.
 */

#ifndef ESPALIER_OVERLAY_HOOKS_H
#define ESPALIER_OVERLAY_HOOKS_H

#include "unit.h"

#include <sys/syscall.h>

/* Return 0 to go on with the real call, -1 with errno to fail instead. */
static int (*hook_pwrite) (int fd, const void *buf, size_t n, off_t at);
static int (*hook_fdatasync) (int fd);

#pragma GCC visibility push(default)

ssize_t
pwrite (int fd, const void *buf, size_t n, off_t at)
{
  if (hook_pwrite && hook_pwrite (fd, buf, n, at) == -1)
    return -1;
  return syscall (SYS_pwrite64, fd, buf, n, at);
}

int
fdatasync (int fd)
{
  if (hook_fdatasync && hook_fdatasync (fd) == -1)
    return -1;
  return (int) syscall (SYS_fdatasync, fd);
}

#pragma GCC visibility pop

/* Does FD's path end in /NAME? */
static inline __attribute__ ((unused)) int
hook_is (int fd, const char *name)
{
  char link[64], path[1024];

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink (link, path, sizeof path - 1);
  if (n < 0)
    return 0;
  path[n] = 0;
  const char *last = strrchr (path, '/');
  return last && strcmp (last + 1, name) == 0;
}

#endif /* ESPALIER_OVERLAY_HOOKS_H */
