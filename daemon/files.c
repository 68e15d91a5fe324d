/* SPDX-License-Identifier: BSD-3-Clause */
/* Kernels and initrds over HTTP: files of this server as they are, or out of
 * disk 0 (boot-cache.h).
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/host.h"

#include "boot-cache.h"
#include "extract.h"
#include "files.h"
#include "image-path.h"
#include "mount.h"
#include "san.h"
#include "tip.h"

#define TAG_MAX 80

/* A file of the server: it must be one, and not a pipe that waits for ever. */
static int
open_host (const char *path, char tag[TAG_MAX])
{
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY |
                               O_NONBLOCK);
  struct stat st;

  if (fd == -1 || fstat (fd, &st) == -1) {
    esp_error ("open: %s: %m", path);
    return -1;
  }
  if (!S_ISREG (st.st_mode)) {
    errno = EINVAL;
    esp_error ("%s: it is not a file", path);
    return -1;
  }
  snprintf (tag, TAG_MAX, "%jx-%jx-%jx.%lx", (uintmax_t) st.st_ino,
            (uintmax_t) st.st_size, (uintmax_t) st.st_mtim.tv_sec,
            (unsigned long) st.st_mtim.tv_nsec);
  return esp_steal_fd (&fd);
}

static int
open_image (const esp_uuid *tip, const char *want, char tag[TAG_MAX])
{
  char buf[BOOT_TAG_MAX];
  int fd = boot_cache_get (tip, want, buf);

  snprintf (tag, TAG_MAX, "%s", buf);
  return fd;
}

/* SPEC as `espalier venue set' took it, or what extract.h calls a want. */
static int
open_file (const char *spec, const esp_uuid *tip, char tag[TAG_MAX])
{
  return *spec == '/' ? open_host (spec, tag) : open_image (tip, spec, tag);
}

static unsigned
status_of (int err)
{
  return err == ENOENT ? 404 : err == EINVAL || err == EFBIG ? 500 : 503;
}

static int
send_file (struct request *r, const char *what, const char *spec,
           const esp_uuid *tip)
{
  char tag[TAG_MAX] = "", why[1024] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  CLEANUP_CLOSE int fd = open_file (spec, tip, tag);
  int err = errno, result;
  uint64_t from, len;
  unsigned status;
  struct stat st;

  esp_catch_end (before);
  if (fd == -1 || fstat (fd, &st) == -1) {
    esp_error ("venue %s: %s: %s", r->part[0], what, why);
    return reply_error (r, status_of (err), "%s of venue %s: %s", what,
                        r->part[0], why);
  }
  reply_header (r, "Cache-Control", "no-cache");
  status = http_range (r, (uint64_t) st.st_size, tag, &from, &len, &result);
  if (status == 0)
    return result;
  return reply_fd (r, status, "application/octet-stream", esp_steal_fd (&fd),
                   from, len);
}

static bool
both_unset (const struct esp_venue_boot *boot)
{
  return !boot->kernel[0] && !boot->initrd[0];
}

bool
files_has_initrd (const struct esp_venue_boot *boot)
{
  return boot->initrd[0] || both_unset (boot);
}

int
files_kernel (struct request *r)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  esp_uuid tip;
  int result;

  if (!tip_of_request (r, r->part[0], 0, &boot, &tip, &result))
    return result;
  return send_file (r, "kernel", boot.kernel[0] ? boot.kernel : EXTRACT_KERNEL,
                    &tip);
}

int
files_initrd (struct request *r)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  esp_uuid tip;
  int result;

  if (!tip_of_request (r, r->part[0], 0, &boot, &tip, &result))
    return result;
  if (!files_has_initrd (&boot))
    return reply_error (r, 404, "venue %s has a kernel and no initrd: "
                        "espalier venue set %s --initrd FILE", r->part[0],
                        r->part[0]);
  return send_file (r, "initrd", boot.initrd[0] ? boot.initrd : EXTRACT_INITRD,
                    &tip);
}

int
files_start (const struct config *config)
{
  (void) config;
  return mount_clear () == -1 ? -1 : boot_cache_start ();
}

void
files_stop (void)
{
  san_stop ();
}
