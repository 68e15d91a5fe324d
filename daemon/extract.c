/* SPDX-License-Identifier: BSD-3-Clause */
/* Take a file out of a disk image, by GRUB's own file systems.
 *
 * The image is its users' data, and so is every byte of its file systems.  What
 * reads them is grub-fstest, a process of its own with bounds of time, memory
 * and size, that may write only into one directory (child.h); it sees the disk
 * as a file that nbdfuse shows.  All it tells is text, of which nothing is
 * believed: names are compared, versions sorted, and what is named is tried.
 *
 * Where no device is given, each is looked into in the order in which GRUB lists
 * them.  A path below /boot is then also looked for without it: it may be the
 * root of a partition of its own.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"

#include "child.h"
#include "daemon.h"
#include "extract.h"
#include "image-path.h"
#include "mount.h"
#include "tip.h"

#define TOTAL_S 60u
#define CPU_S 30u
#define MEMORY (512ull << 20)
#define FILE_SIZE (512ull << 20)
#define LIST_SIZE (1ull << 20)          /* what `ls' may print, of which we read less */
#define TEXT_SIZE (64u << 10)   /* of what it prints */
#define DEVICES 32u

struct work {
  const esp_uuid *tip;
  const char *want, *dir;
  char *out;                    /* the file to write */
  struct mount mount;
  uint64_t until;               /* esp_now_us */
  unsigned ndevices;
  char device[DEVICES][IMAGE_DEVICE_MAX];
  bool unreadable;              /* the disk itself failed */
  bool too_big;                 /* a file is larger than FILE_SIZE */
  bool alone;                   /* a kernel without an initrd will do */
};

static void
work_clear (struct work *w)
{
  mount_close (&w->mount);
  free (w->out);
}

/* --- grub-fstest ------------------------------------------------------------ */

static unsigned
ms_left (const struct work *w)
{
  uint64_t now = esp_now_us ();
  return now < w->until ? (unsigned) ((w->until - now) / 1000) : 0;
}

static int
out_of_time (const struct work *w)
{
  char uuid[ESP_UUID_TEXT];

  esp_error ("rp:%s: its file systems could not be read within %u s",
             esp_uuid_text (w->tip, uuid), TOTAL_S);
  errno = ETIMEDOUT;
  return -1;
}

/* Did it say that a sector could not be read?  Then what it does not find may
 * be there.
 */
static bool
says_unreadable (int err)
{
  char text[4096];
  ssize_t n = pread (err, text, sizeof text - 1, 0);

  text[n > 0 ? n : 0] = 0;
  return strstr (text, "failure reading sector") || strstr (text, "cannot read");
}

/* Run it; what it prints goes to OUT.  0 it ended well; 1 it did not, -1 it
 * could not be run or there is no time left, reported.
 */
static int
run_fstest (struct work *w, const char *command, const char *a, const char *b,
            int out)
{
  const char *const argv[] =
    { "grub-fstest", w->mount.file, command, a, b, NULL };
  CLEANUP_CLOSE int err = memfd_create ("messages", MFD_CLOEXEC);
  struct child_how how = {
    .argv = argv, .out = out, .err = err, .keep = -1, .cpu = CPU_S,
    .memory = MEMORY, .file_size = b ? FILE_SIZE : LIST_SIZE,
    .with_thread = true, .writes_to = w->dir };
  int status;
  pid_t pid;

  if (ms_left (w) == 0)
    return out_of_time (w);
  pid = child_start (&how);
  if (pid == -1)
    return -1;
  if (child_wait (pid, ms_left (w), &status) == -1) {
    child_end (pid, 0);
    return out_of_time (w);
  }
  if (says_unreadable (err))
    w->unreadable = true;
  if (WIFSIGNALED (status) && WTERMSIG (status) == SIGXFSZ && b)
    w->too_big = true;
  return WIFEXITED (status) && WEXITSTATUS (status) == 0 ? 0 : 1;
}

/* `ls WHAT' (NULL: the devices): what it prints, malloced, also where it was
 * cut off.  NULL, reported.
 */
static char *
list (struct work *w, const char *what)
{
  CLEANUP_CLOSE int fd = memfd_create ("list", MFD_CLOEXEC);
  CLEANUP_FREE char *text = calloc (1, TEXT_SIZE);

  if (fd == -1 || !text) {
    esp_error ("memfd_create: %m");
    return NULL;
  }
  if (run_fstest (w, "ls", what, NULL, fd) == -1)
    return NULL;
  if (pread (fd, text, TEXT_SIZE - 1, 0) == -1) {
    esp_error ("pread: %m");
    return NULL;
  }
  return ESP_STEAL (text);
}

static char *
list_dir (struct work *w, const char *device, const char *dir)
{
  CLEANUP_FREE char *what = esp_asprintf ("%s%s", device, dir);

  if (what)
    return list (w, what);
  esp_error ("malloc: %m");
  return NULL;
}

/* Copy DEVICE PATH to the output: 0, 1 it is not there, -1 reported. */
static int
copy (struct work *w, const char *device, const char *path)
{
  CLEANUP_FREE char *from = esp_asprintf ("%s%s", device, path);

  if (!from) {
    esp_error ("malloc: %m");
    return -1;
  }
  return run_fstest (w, "cp", from, w->out, -1);
}

/* --- one path ------------------------------------------------------------------ */

static int
add_device (void *arg, const char *device)
{
  struct work *w = arg;

  if (w->ndevices == DEVICES)
    return 1;
  strcpy (w->device[w->ndevices++], device);
  return 0;
}

static int
find_devices (struct work *w)
{
  CLEANUP_FREE char *text = list (w, NULL);

  if (!text)
    return -1;
  image_each_device (text, add_device, w);
  return 0;
}

static int
copy_path (struct work *w, const char *path)
{
  int r = 1;

  for (unsigned i = 0; i < w->ndevices && r == 1; i++)
    r = copy (w, w->device[i], path);
  return r;
}

static int
want_path (struct work *w)
{
  struct image_path p;
  int r;

  if (image_path_parse (w->want, &p) == -1)
    return -1;
  if (p.device[0]) {
    strcpy (w->device[0], p.device);
    w->ndevices = 1;
  }
  else if (find_devices (w) == -1)
    return -1;
  r = copy_path (w, p.path);
  if (r == 1 && strncmp (p.path, "/boot/", 6) == 0 && p.path[6])
    r = copy_path (w, p.path + 5);
  return r;
}

/* --- what one would boot --------------------------------------------------------- */

/* The initrd that goes with the kernel DIR NAME, one of the usual. */
static int
copy_initrd (struct work *w, const char *device, const char *dir,
             const char *version)
{
  static const char *const with[] = {
    "initrd.img-%s", "initramfs-%s.img", "initrd-%s", "initramfs-%s",
    "initrd-%s.img", NULL };
  static const char *const without[] =
    { "initrd.img", "initramfs.img", "initrd", NULL };
  const char *const *names = *version ? with : without;
  int r = 1;

  for (; *names && r == 1; names++) {
    CLEANUP_FREE char *format = esp_asprintf ("%s%s", dir, *names);
    char path[IMAGE_PATH_MAX];
    const char *percent = format ? strstr (format, "%s") : NULL;

    if (!format) {
      esp_error ("malloc: %m");
      return -1;
    }
    if (percent)
      snprintf (path, sizeof path, "%.*s%s%s", (int) (percent - format),
                format, version, percent + 2);
    else
      snprintf (path, sizeof path, "%s", format);
    r = copy (w, device, path);
  }
  return r;
}

/* The kernel DIR "vmlinuz" or "vmlinuz-VERSION", or its initrd.  One that has
 * none, or cannot be read (a link to nowhere), is not what one would boot: the
 * answer is the same whichever of the two is asked for.
 */
static int
copy_kernel (struct work *w, const char *device, const char *dir,
             const char *version)
{
  char path[IMAGE_PATH_MAX];
  int r;

  snprintf (path, sizeof path, "%svmlinuz%s%s", dir, *version ? "-" : "",
            version);
  r = copy (w, device, path);
  if (r == 0 && !w->alone) {
    r = copy_initrd (w, device, dir, version);
    if (r == 0 && strcmp (w->want, EXTRACT_KERNEL) == 0)
      r = copy (w, device, path);
  }
  return r;
}

/* Links to the newest kernel first, as their makers want it; then by version. */
static int
kernels_in (struct work *w, const char *device, const char *dir, bool links)
{
  CLEANUP_FREE char *names = list_dir (w, device, dir);
  char version[256], below[256] = "";
  int r = 1;

  if (!names)
    return -1;
  if (links)
    return image_list_has (names, "vmlinuz")
      ? copy_kernel (w, device, dir, "") : 1;
  for (unsigned tries = 0; tries < 4 && r == 1; tries++) {
    image_newest_kernel (names, below[0] ? below : NULL, version);
    if (!version[0])
      break;
    r = copy_kernel (w, device, dir, version);
    strcpy (below, version);
  }
  return r;
}

static int
look_in_places (struct work *w)
{
  static const struct { const char *dir; bool links; } places[] = {
    { "/", true }, { "/boot/", true }, { "/boot/", false }, { "/", false } };
  int r = 1;

  for (unsigned p = 0; p < sizeof places / sizeof places[0] && r == 1; p++)
    for (unsigned i = 0; i < w->ndevices && r == 1; i++)
      r = kernels_in (w, w->device[i], places[p].dir, places[p].links);
  return r;
}

static int
want_default (struct work *w)
{
  int r = find_devices (w) == -1 ? -1 : look_in_places (w);

  if (r == 1 && strcmp (w->want, EXTRACT_KERNEL) == 0) {
    w->alone = true;
    r = look_in_places (w);
  }
  return r;
}

/* --- what is said where it is not there -------------------------------------------- */

/* Names of LIST, at most a line of them, with commas, printable. */
static void
some_names (const char *names, char *buf, size_t size)
{
  char text[300];
  size_t n = strcspn (names, "\n"), used;
  CLEANUP_FREE char *copy = strndup (names, n);

  while (n > 0 && copy && copy[n - 1] == ' ')
    copy[--n] = 0;
  esp_escape (copy ? copy : "", text, sizeof text);
  for (used = 0, n = 0; text[n] && used + 3 < size; n++) {
    if (text[n] == ' ')
      buf[used++] = ',';
    buf[used++] = text[n];
  }
  buf[used] = 0;
}

/* " it has /boot: vmlinuz-6.1, initrd.img-6.1" of the first file system that
 * has such a directory.
 */
static bool
look_for (struct work *w, const char *dir, char *buf, size_t size)
{
  for (unsigned i = 0; i < w->ndevices; i++) {
    CLEANUP_FREE char *names = list_dir (w, w->device[i], dir);
    char text[320];

    if (!names)
      return false;
    some_names (names, text, sizeof text);
    if (!text[0])
      continue;
    snprintf (buf, size, "%s has %s: %s", w->device[i], dir, text);
    return true;
  }
  return false;
}

/* What DEVICE was to be, where one was given: say what there is. */
static void
look_everywhere (struct work *w, char *has, size_t size)
{
  w->ndevices = 0;
  if (find_devices (w) == -1 ||
      (!look_for (w, "/boot/", has, size) && !look_for (w, "/", has, size)))
    snprintf (has, size, "there is no file system that GRUB can read");
}

/* It failed for another reason than that nothing is there; -1, reported. */
static int
failed (const struct work *w, const char *name)
{
  if (w->unreadable) {
    esp_error ("disk 0 (restore point %s) cannot be read", name);
    errno = EIO;
    return -1;
  }
  if (w->too_big) {
    esp_error ("%s of disk 0 (restore point %s) is larger than %llu MiB",
               w->want, name, FILE_SIZE >> 20);
    errno = EFBIG;
    return -1;
  }
  return 0;
}

static int
not_there (struct work *w)
{
  char name[ESP_NAME_MAX + 1] = "?", has[512], want[200];
  struct image_path p = { 0 };
  bool path = image_path_is (w->want);
  uint64_t created;

  esp_catalog_rp_name (esp_store_catalog (daemon_store ()), w->tip, name,
                       &created);
  if (failed (w, name) == -1)
    return -1;
  look_everywhere (w, has, sizeof has);
  if (path && image_path_parse (w->want, &p) == 0)
    esp_escape (p.path, want, sizeof want);
  else
    snprintf (want, sizeof want, "%s", w->want);
  esp_error ("no %s%s in %s of disk 0 (restore point %s): %s: choose one by "
             "espalier venue set --kernel image:PATH --initrd image:PATH",
             path ? "file " : "", want,
             p.device[0] ? p.device : "any file system", name, has);
  errno = ENOENT;
  return -1;
}

static int
begin (struct work *w, const char *out)
{
  CLEANUP_FREE char *uri = tip_uri (w->tip);

  w->until = esp_now_us () + TOTAL_S * 1000000ull;
  w->out = esp_asprintf ("%s/%s", w->dir, out);
  if (!w->out) {
    esp_error ("malloc: %m");
    return -1;
  }
  return uri ? mount_open (uri, true, true, &w->mount) : -1;
}

int
extract (const esp_uuid *tip, const char *want, const char *dir,
         const char *out)
{
  __attribute__ ((cleanup (work_clear)))
    struct work w = { .tip = tip, .want = want, .dir = dir };
  int r;

  if (begin (&w, out) == -1)
    return -1;
  r = image_path_is (want) ? want_path (&w) : want_default (&w);
  return r == 1 ? not_there (&w) : r;
}
