/* SPDX-License-Identifier: BSD-3-Clause */
/* Root stores in place: what identifies them, and whether it still does.
 *
 * A file is the same while its inode, size, time of modification and time
 * of change are.  The last one also changes by a rename, a chmod or a new
 * hard link: a false alarm there is a message, a change that nobody notices
 * would be wrong bytes.  The device number is recorded, not compared:
 * kernels number disks as they find them.
 *
 * A device has no such times.  Its size and a checksum of samples are
 * compared: its first block, the one at 1 MiB (where a first partition
 * usually begins, and a file system's super block changes with each mount),
 * its last one, and others spread evenly.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/inplace.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

#define SAMPLES 64u
#define SAMPLE 4096u

void
esp_inplace_clear (struct esp_inplace *id)
{
  free (id->path);
  memset (id, 0, sizeof *id);
}

/* --- looking ---------------------------------------------------------- */

/* Numbers of documents end at INT64_MAX. */
static uint64_t
clip (uint64_t n)
{
  return n & INT64_MAX;
}

static uint64_t
sample_offset (uint64_t size, unsigned i)
{
  uint64_t last = size > SAMPLE ? size - SAMPLE : 0;

  if (i == 1)
    return last < ESP_TILE_SIZE ? last : ESP_TILE_SIZE;
  /* Of i = 0, 2 … 63 the first and the last are the ends.  64 TiB / 63 * 63
   * overflows nothing.
   */
  return last / (SAMPLES - 1) * i + (i == SAMPLES - 1
                                     ? last % (SAMPLES - 1) : 0);
}

/* The checksum of all samples, each seeded with that of those before. */
static int
hash_samples (int fd, uint64_t size, uint64_t *sum)
{
  uint8_t buf[SAMPLE];
  size_t len = size < SAMPLE ? size : SAMPLE;

  *sum = 0;
  for (unsigned i = 0; i < SAMPLES; ++i) {
    if (esp_pread_all (fd, buf, len, sample_offset (size, i)) == -1)
      return -1;
    *sum = XXH3_64bits_withSeed (buf, len, *sum);
  }
  return 0;
}

/* Fill in all but the path.  Reports nothing. */
static int
look (int fd, struct esp_inplace *id)
{
  struct stat st;
  off_t size;

  if (fstat (fd, &st) == -1)
    return -1;
  id->device = S_ISBLK (st.st_mode);
  if (id->device) {
    if ((size = lseek (fd, 0, SEEK_END)) == -1)
      return -1;
    id->size = size;
    id->dev = clip (st.st_rdev);
    return 0;
  }
  id->size = st.st_size;
  id->dev = clip (st.st_dev);
  id->ino = clip (st.st_ino);
  id->mtime = clip (st.st_mtim.tv_sec);
  id->mtime_ns = st.st_mtim.tv_nsec;
  id->ctime = clip (st.st_ctim.tv_sec);
  id->ctime_ns = st.st_ctim.tv_nsec;
  return 0;
}

static int
open_path (const char *path)
{
  struct stat st;
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

  if (fd == -1 || fstat (fd, &st) == -1) {
    esp_error ("open: root store in place %s: %m%s", path,
               errno == ENOENT ? ": put it back where it was" : "");
    return -1;
  }
  if (!S_ISREG (st.st_mode) && !S_ISBLK (st.st_mode)) {
    errno = EINVAL;
    esp_error ("%s is neither a file nor a block device", path);
    return -1;
  }
  return esp_steal_fd (&fd);
}

int
esp_inplace_capture (const char *path, struct esp_inplace *id)
{
  memset (id, 0, sizeof *id);
  CLEANUP_CLOSE int fd = open_path (path);
  if (fd == -1)
    return -1;
  if (!(id->path = strdup (path)) || look (fd, id) == -1 ||
      (id->device && hash_samples (fd, id->size, &id->samples) == -1)) {
    esp_error ("%s: %m", path);
    return -1;
  }
  if (path[0] != '/' || id->size == 0 || id->size > ESP_DISK_MAX) {
    errno = EINVAL;
    esp_error (path[0] != '/' ? "%s: a root store in place needs an absolute"
               " path" : id->size == 0 ? "%s is empty: there is no disk in it"
               : "%s is too large: a disk has at most 64 TiB", path);
    return -1;
  }
  return 0;
}

/* --- comparing -------------------------------------------------------- */

static int
changed (const struct esp_inplace *id, const char *what)
{
  errno = ESTALE;
  esp_error ("root store in place %s: %s since it was added: put it back as "
             "it was, or add it again under a new name ('espalier root add')",
             id->path, what);
  return -1;
}

int
esp_inplace_same (int fd, const struct esp_inplace *id)
{
  struct esp_inplace now = { 0 };

  if (look (fd, &now) == -1 ||
      (id->device && hash_samples (fd, id->size, &now.samples) == -1)) {
    esp_error ("root store in place %s: %m", id->path);
    return -1;
  }
  if (now.device != id->device)
    return changed (id, "it became another kind of file");
  if (now.size != id->size)
    return changed (id, "its size changed");
  if (id->device)
    return now.samples == id->samples ? 0 : changed (id, "it was written to");
  if (now.ino != id->ino)
    return changed (id, "it was replaced");
  if (now.mtime != id->mtime || now.mtime_ns != id->mtime_ns)
    return changed (id, "it was written to");
  if (now.ctime != id->ctime || now.ctime_ns != id->ctime_ns)
    return changed (id, "it was changed (its time of change differs)");
  return 0;
}

int
esp_inplace_open (const struct esp_inplace *id)
{
  CLEANUP_CLOSE int fd = open_path (id->path);

  if (fd == -1 || esp_inplace_same (fd, id) == -1)
    return -1;
  return esp_steal_fd (&fd);
}

/* --- documents -------------------------------------------------------- */

static int
set_u64 (json_t *o, const char *key, uint64_t v)
{
  return json_object_set_new (o, key, json_integer (v));
}

json_t *
esp_inplace_to_json (const struct esp_inplace *id)
{
  json_t *o = json_object ();
  char samples[17];
  int r;

  r = json_object_set_new (o, "path", json_string (id->path));
  r |= set_u64 (o, "size", id->size);
  r |= set_u64 (o, "dev", id->dev);
  if (id->device) {
    snprintf (samples, sizeof samples, "%016" PRIx64, id->samples);
    r |= json_object_set_new (o, "samples", json_string (samples));
  }
  else {
    r |= set_u64 (o, "ino", id->ino);
    r |= set_u64 (o, "mtime", id->mtime);
    r |= set_u64 (o, "mtime-ns", id->mtime_ns);
    r |= set_u64 (o, "ctime", id->ctime);
    r |= set_u64 (o, "ctime-ns", id->ctime_ns);
  }
  if (r != 0) {
    json_decref (o);
    errno = EINVAL;
    esp_error ("%s: this path is no valid UTF-8: rename it", id->path);
    return NULL;
  }
  return o;
}

static bool
parse_samples (const char *s, uint64_t *sum)
{
  char *end;

  if (strlen (s) != 16 || strspn (s, "0123456789abcdef") != 16)
    return false;
  *sum = strtoull (s, &end, 16);
  return *end == 0;
}

int
esp_inplace_from_json (json_t *o, struct esp_inplace *id, const char *where)
{
  bool bad = !json_is_object (o);

  memset (id, 0, sizeof *id);
  if (!bad) {
    const char *path = esp_doc_string (o, "path", &bad);
    const char *samples = esp_doc_string (o, "samples", &bad);

    id->size = esp_doc_u64 (o, "size", 0, &bad);
    id->dev = esp_doc_u64 (o, "dev", 0, &bad);
    id->ino = esp_doc_u64 (o, "ino", 0, &bad);
    id->mtime = esp_doc_u64 (o, "mtime", 0, &bad);
    id->mtime_ns = esp_doc_u64 (o, "mtime-ns", 0, &bad);
    id->ctime = esp_doc_u64 (o, "ctime", 0, &bad);
    id->ctime_ns = esp_doc_u64 (o, "ctime-ns", 0, &bad);
    id->device = samples != NULL;
    if (bad || !path || path[0] != '/' || id->size == 0 ||
        id->size > ESP_DISK_MAX ||
        (samples && !parse_samples (samples, &id->samples)))
      bad = true;
    else if (!(id->path = strdup (path))) {
      esp_error ("%s: out of memory: %m", where);
      return -1;
    }
  }
  if (bad) {
    errno = EBADMSG;
    esp_error ("%s: \"in-place\" makes no sense", where);
    return -1;
  }
  return 0;
}
