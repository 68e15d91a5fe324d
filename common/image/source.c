/* SPDX-License-Identifier: BSD-3-Clause */
/* Images as they come: detecting the format, opening, reading to the end.
 *
 * A raw image is read by pread where SEEK_DATA says that there is data;
 * everything else is left to qemu-nbd (nbd.c).  qemu reads what is behind
 * the end of a truncated qcow2 file as zeroes, silently; so images and
 * their backing files are checked by qemu-img before they are read.
 *
 * An image that somebody writes to while it is read gives a disk that never
 * was.  A file's size and times are compared before and after; a file that
 * qemu has open for writing is refused at once, by the lock that qemu holds.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <jansson.h>

#include "image/image-internal.h"
#include "store/cleanups.h"
#include "util/bits.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"

#define TOLD_BYTES (UINT64_C (8) << 20)       /* between progress calls */

/* --- the format ----------------------------------------------------------- */

struct magic { const char *format; unsigned offset; const char *bytes; };

static const struct magic magics[] = {
  { "qcow2", 0, "QFI\xfb" },
  { "vmdk", 0, "KDMV" },
  { "vmdk", 0, "COWD" },
  { "vmdk", 0, "# Disk DescriptorFile" },
  { "vhdx", 0, "vhdxfile" },
  { "vdi", 0x40, "\x7f\x10\xda\xbe" },
  { "vpc", 0, "conectix" },
  { "qed", 0, "QED" },
};

/* A fixed VHD is a raw image with a footer of 512 bytes. */
static bool
has_vpc_footer (int fd, uint64_t size)
{
  char footer[8];

  return size > ESP_DETECT_TAIL && size % ESP_DETECT_TAIL == 0 &&
    esp_pread_all (fd, footer, sizeof footer, size - ESP_DETECT_TAIL) == 0 &&
    memcmp (footer, "conectix", 8) == 0;
}

const char *
esp_detect_format (int fd, uint64_t size)
{
  char head[ESP_DETECT_HEAD] = "";
  ssize_t n = pread (fd, head, sizeof head, 0);

  /* The first version of qcow2's ancestor. */
  if (n >= 8 && memcmp (head, "QFI\xfb\0\0\0\1", 8) == 0)
    return "qcow";
  for (unsigned i = 0; n > 0 && i < sizeof magics / sizeof magics[0]; i++) {
    const struct magic *m = &magics[i];
    size_t len = strlen (m->bytes);

    if (m->offset + len <= (size_t) n &&
        memcmp (head + m->offset, m->bytes, len) == 0)
      return m->format;
  }
  return has_vpc_footer (fd, size) ? "vpc" : "raw";
}

/* --- opening ----------------------------------------------------------------- */

/* The byte that qemu locks (block/file-posix.c: base 100, permission 1)
 * when it may write to an image.
 */
#define QEMU_LOCK_WRITE 101

static int
check_not_written (int fd, const char *path)
{
  struct flock l = {
    .l_type = F_WRLCK, .l_whence = SEEK_SET,
    .l_start = QEMU_LOCK_WRITE, .l_len = 1,
  };

  /* A file system without locks cannot tell. */
  if (fcntl (fd, F_OFD_GETLK, &l) == -1 || l.l_type == F_UNLCK)
    return 0;
  errno = EBUSY;
  esp_error ("%s: is in use by another program (a virtual machine?) that may "
             "write to it: stop that first", path);
  return -1;
}

static int
device_size (int fd, const char *path, uint64_t *size)
{
  CLEANUP_CLOSE int probe = open (path, O_RDONLY|O_EXCL|O_CLOEXEC);

  if (ioctl (fd, BLKGETSIZE64, size) == -1) {
    esp_error ("ioctl: %s: BLKGETSIZE64: %m", path);
    return -1;
  }
  if (probe == -1 && errno == EBUSY)
    esp_warning ("%s is in use (mounted?): if it is written to meanwhile, "
                 "what is read is not one moment's disk", path);
  return 0;
}

/* Open PATH, whatever it is; O_NONBLOCK so that a FIFO does not wait. */
static int
source_open_file (struct esp_image_source *s)
{
  s->fd = open (s->path, O_RDONLY|O_CLOEXEC|O_NONBLOCK);
  if (s->fd == -1 || fstat (s->fd, &s->st) == -1) {
    esp_error ("open: %s: %m", s->path);
    return -1;
  }
  if (S_ISBLK (s->st.st_mode)) {
    if (device_size (s->fd, s->path, &s->size) == -1)
      return -1;
  }
  else if (S_ISREG (s->st.st_mode))
    s->size = (uint64_t) s->st.st_size;
  else {
    errno = EINVAL;
    esp_error ("%s: is neither a file nor a block device", s->path);
    return -1;
  }
  if (s->size == 0) {
    errno = EINVAL;
    esp_error ("%s: is empty, there is no image in it", s->path);
    return -1;
  }
  return S_ISREG (s->st.st_mode) ? check_not_written (s->fd, s->path) : 0;
}

/* --- what qemu-img finds wrong --------------------------------------------------- */

static int
check_one (const char *top, const char *path, const char *format)
{
  CLEANUP_FREE char *qpath = esp_qemu_path (path);
  CLEANUP_FREE char *text = NULL;
  const char *argv[] = { "qemu-img", "check", "-q", "-f", format, "--",
    qpath, NULL };
  int r;

  if (qpath == NULL || (r = esp_run (argv, true, &text)) == -1)
    return -1;
  /* 2 is damage; other failures are told better when it is opened. */
  if (r != 2)
    return 0;
  errno = EBADMSG;
  esp_error ("%s: %s%s%sis damaged or was cut short: %s (see qemu-img check)",
             top, strcmp (top, path) ? "its backing file " : "",
             strcmp (top, path) ? path : "", strcmp (top, path) ? " " : "",
             esp_first_line (text));
  return -1;
}

/* Check PATH and its backing files. */
static int
check_images (const char *path, const char *format)
{
  CLEANUP_FREE char *qpath = esp_qemu_path (path);
  CLEANUP_FREE char *text = NULL;
  CLEANUP_JSON json_t *info = NULL;
  const char *argv[] = { "qemu-img", "info", "--backing-chain",
    "--output=json", "-f", format, "--", qpath, NULL };
  size_t i;
  json_t *one;
  int r;

  if (qpath == NULL || (r = esp_run (argv, false, &text)) == -1)
    return -1;
  info = r == 0 ? json_loads (text, 0, NULL) : NULL;
  if (!json_is_array (info))
    /* No qemu-img, or no such image: opening it tells which. */
    return 0;
  json_array_foreach (info, i, one) {
    const char *file = json_string_value (json_object_get (one, "filename"));
    const char *f = json_string_value (json_object_get (one, "format"));

    if (f && file && strcmp (f, "raw") != 0 &&
        check_one (path, i == 0 ? path : file, f) == -1)
      return -1;
  }
  return 0;
}

static int
source_open_server (struct esp_image_source *s)
{
  if (check_images (s->path, s->format) == -1)
    return -1;
  s->server = esp_server_start (s->path, s->format, false);
  if (s->server == NULL)
    return -1;
  s->size = esp_server_size (s->server);
  if (s->size > 0)
    return 0;
  errno = EINVAL;
  esp_error ("%s: has a disk of 0 bytes", s->path);
  return -1;
}

static int
source_prepare (struct esp_image_source *s, const char *path, const char *format)
{
  s->path = strdup (path);
  if (s->path == NULL) {
    esp_error ("malloc: source: %m");
    return -1;
  }
  if (format && strlen (format) >= sizeof s->format) {
    errno = EINVAL;
    esp_error ("format %s: unknown (raw, qcow2, vmdk, vhdx, vdi, vpc, …)",
               format);
    return -1;
  }
  if (source_open_file (s) == -1)
    return -1;
  strcpy (s->format, format ? format 
          : esp_detect_format (s->fd, s->size));
  if (strcmp (s->format, "raw") == 0)
    return 0;
  return source_open_server (s);
}

struct esp_image_source *
esp_source_open (const char *path, const char *format)
{
  struct esp_image_source *s = calloc (1, sizeof *s);

  if (s == NULL) {
    esp_error ("malloc: source: %m");
    return NULL;
  }
  s->fd = -1;
  if (source_prepare (s, path, format) == 0)
    return s;
  esp_source_close (s);
  return NULL;
}

struct esp_image_source *
esp_source_image (struct esp_image *image)
{
  struct esp_image_source *s = calloc (1, sizeof *s);

  if (s == NULL) {
    esp_error ("malloc: source: %m");
    return NULL;
  }
  s->fd = -1;
  s->image = image;
  s->size = esp_image_size (image);
  strcpy (s->format, "espalier");
  return s;
}

void
esp_source_close (struct esp_image_source *s)
{
  int saved = errno;

  if (s == NULL)
    return;
  esp_server_stop (s->server);
  if (s->fd >= 0)
    close (s->fd);
  free (s->path);
  free (s);
  errno = saved;
}

uint64_t
esp_source_size (const struct esp_image_source *source)
{
  return source->size;
}

const char *
esp_source_format (const struct esp_image_source *source)
{
  return source->format;
}

/* --- reading ------------------------------------------------------------------ */

int
esp_walk_run (struct esp_walk *w, uint64_t offset, uint64_t len,
              const void *buf)
{
  uint64_t done = offset + len;

  if (w->fn (w->arg, offset, len, buf) == -1)
    return -1;
  if (w->progress == NULL ||
      (done - w->told < TOLD_BYTES && done < w->source->size))
    return 0;
  w->told = done;
  if (w->progress (w->parg, done, w->source->size) == 0)
    return 0;
  errno = ECANCELED;
  esp_error ("the work was interrupted; nothing has changed");
  return -1;
}

/* The data at or behind OFFSET: [*START, *END), whole blocks. */
static void
next_data (struct esp_image_source *s, uint64_t offset, uint64_t *start,
           uint64_t *end)
{
  uint64_t mask = ESP_BLOCK_SIZE - 1;
  off_t data = lseek (s->fd, (off_t) offset, SEEK_DATA), hole;

  if (data == -1) {
    /* ENXIO: only a hole is left.  Else it cannot tell: all is data. */
    *start = errno == ENXIO ? s->size : offset;
    *end = s->size;
    return;
  }
  hole = lseek (s->fd, data, SEEK_HOLE);
  *start = (uint64_t) data & ~mask;
  *end = hole == -1 ? s->size : ((uint64_t) hole + mask) & ~mask;
  if (*end > s->size)
    *end = s->size;
  if (*start < offset)
    *start = offset;
}

static int
read_data (struct esp_walk *w, char *buf, uint64_t offset, uint64_t end)
{
  struct esp_image_source *s = w->source;
  uint64_t k;

  for (; offset < end; offset += k) {
    k = end - offset < ESP_READ_BYTES ? end - offset : ESP_READ_BYTES;
    if (esp_pread_all (s->fd, buf, k, offset) == -1) {
      esp_error ("pread: %s: at %" PRIu64 ": %m", s->path, offset);
      return -1;
    }
    if (esp_walk_run (w, offset, k, buf) == -1)
      return -1;
  }
  return 0;
}

static int
read_raw (struct esp_walk *w)
{
  CLEANUP_FREE char *buf = malloc (ESP_READ_BYTES);
  uint64_t offset, start, end;

  if (buf == NULL) {
    esp_error ("malloc: buffer: %m");
    return -1;
  }
  (void) posix_fadvise (w->source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  for (offset = 0; offset < w->source->size; offset = end) {
    next_data (w->source, offset, &start, &end);
    if ((start > offset &&
         esp_walk_run (w, offset, start - offset, NULL) == -1) ||
        read_data (w, buf, start, end) == -1)
      return -1;
  }
  return 0;
}

/* A restore point: its extents are whole blocks already. */
static int
image_extent (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  struct esp_walk *w = arg;
  CLEANUP_FREE char *buf = NULL;
  uint64_t k;

  if (state != ESP_DATA)
    return esp_walk_run (w, offset, len, NULL);
  buf = malloc (ESP_READ_BYTES);
  if (buf == NULL) {
    esp_error ("malloc: buffer: %m");
    return -1;
  }
  for (; len > 0; offset += k, len -= k) {
    k = len < ESP_READ_BYTES ? len : ESP_READ_BYTES;
    if (esp_image_pread (w->source->image, buf, k, offset) == -1 ||
        esp_walk_run (w, offset, k, buf) == -1)
      return -1;
  }
  return 0;
}

/* Is the file what it was when it was opened? */
static int
check_unchanged (struct esp_image_source *s)
{
  struct stat now;

  if (s->fd == -1 || !S_ISREG (s->st.st_mode))
    return 0;
  if (fstat (s->fd, &now) == -1) {
    esp_error ("stat: %s: %m", s->path);
    return -1;
  }
  if (now.st_size == s->st.st_size &&
      now.st_mtim.tv_sec == s->st.st_mtim.tv_sec &&
      now.st_mtim.tv_nsec == s->st.st_mtim.tv_nsec)
    return 0;
  errno = ESTALE;
  esp_error ("%s: was changed while it was read: stop what writes to it and "
             "try again", s->path);
  return -1;
}

int
esp_source_read (struct esp_image_source *source, esp_source_fn fn, void *arg,
                 esp_progress_fn progress, void *parg)
{
  struct esp_walk w = {
    .source = source, .fn = fn, .arg = arg, .progress = progress, .parg = parg,
  };
  int r;

  if (source->image)
    r = esp_image_extents (source->image, 0, source->size, image_extent, &w);
  else if (source->server)
    r = esp_server_read (source->server, &w);
  else
    r = read_raw (&w);
  return r == 0 ? check_unchanged (source) : -1;
}
