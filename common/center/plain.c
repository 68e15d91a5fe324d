/* SPDX-License-Identifier: BSD-3-Clause */
/* Plain images as delayed root stores: a raw image behind HTTP, S3, NBD or
 * in a directory, which nobody has prepared for us (center/origin.h).
 *
 * There is no manifest, so what is promised is less: the bytes of a segment
 * are those of its first fetch, and hold from then on.  What identifies the
 * image is its size and its ETag (or, where the server has none, the time of
 * its last change); over NBD its size alone.
 *
 * The disk is data from beginning to end; an NBD server that knows holes
 * spares the segments that lie wholly within them.  A segment that has any
 * data is data as a whole, so that it is one range on the wire.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <time.h>

#include "center/origin-internal.h"
#include "image/detect.h"
#include "store/cleanups.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

ESP_DEFINE_CLEANUP (remote, struct esp_remote *, esp_remote_close)
ESP_DEFINE_CLEANUP (pool, struct nbd_pool *, nbd_pool_put)

/* --- URLs -------------------------------------------------------------------- */

static int
bad_url (const char *url, const char *why)
{
  char shown[300];

  errno = EINVAL;
  esp_error ("%s: %s", esp_escape (url, shown, sizeof shown), why);
  return -1;
}

static bool
has_scheme (const char *url, const char *scheme)
{
  return strncasecmp (url, scheme, strlen (scheme)) == 0;
}

/* Where its path begins, behind the host; NULL: not one of ours. */
static const char *
path_of (const char *url)
{
  static const char *const schemes[] = {
    "http://", "https://", "s3://", "file://",
  };

  if (*url == '/')
    return url;
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
    if (has_scheme (url, schemes[i]))
      return strchr (url + strlen (schemes[i]), '/');
  return NULL;
}

int
plain_split (const char *url, char **base, char **object)
{
  const char *path = path_of (url), *slash;
  size_t len = strlen (url);

  *base = *object = NULL;
  if (!path)
    return bad_url (url, "not the URL of an image: http://, https://, "
                    "s3://BUCKET/NAME, file:///PATH or an NBD URI is needed");
  if (has_scheme (url, "s3://"))
    len = strcspn (url, "?");   /* endpoint and so on are the base's */
  else if (has_scheme (url, "http") && strpbrk (url, "?#"))
    return bad_url (url, "a URL with ? or # cannot be kept: what stands behind "
                    "it is often a secret, or ends soon; use a URL that stays");
  for (slash = url + len; slash > path && slash[-1] != '/'; slash--)
    ;
  if (slash == path || slash == url + len)
    return bad_url (url, "names no image: its path ends with a slash");
  *object = strndup (slash, (size_t) (url + len - slash));
  /* The slash stays where it is all of the path. */
  *base = esp_asprintf ("%.*s%s", (int) (slash - (slash > path + 1) - url), url,
                        url + len);
  if (*base && *object)
    return 0;
  free (*base);
  free (*object);
  *base = *object = NULL;
  errno = ENOMEM;
  esp_error ("malloc: %s: %m", url);
  return -1;
}

/* --- versions ----------------------------------------------------------------- */

int
plain_changed (struct esp_remote *remote, const char *object, const char *url,
               const struct esp_object *was, char *why, size_t size)
{
  char drop[16];
  struct esp_object now = { .size = 0 };
  struct esp_catch outer = esp_catch_begin (drop, sizeof drop);
  int r = esp_remote_head (remote, object, &now);

  esp_catch_end (outer);
  if (r == -1 || (now.size == was->size && strcmp (now.etag, was->etag) == 0))
    return 0;
  snprintf (why, size, "%s is not what it was: it has %" PRIu64 " bytes and "
            "version %s now, and had %" PRIu64 " bytes and %s: "
            PLAIN_CHANGED_ADVICE, url, now.size, now.etag, was->size,
            was->etag);
  return 1;
}

/* --- looking ------------------------------------------------------------------- */

/* What is compressed as a whole cannot be read from the middle. */
static const char *
detect_packing (const unsigned char *head)
{
  static const struct { const char *name, *magic; size_t len; } packings[] = {
    { "compressed (gzip)", "\x1f\x8b\x08", 3 },
    { "compressed (xz)", "\xfd" "7zXZ", 5 },
    { "compressed (zstd)", "\x28\xb5\x2f\xfd", 4 },
    { "compressed (bzip2)", "BZh", 3 },
  };

  for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
    if (memcmp (head, packings[i].magic, packings[i].len) == 0)
      return packings[i].name;
  return NULL;
}

/* The beginning and the end of the image at their places in a file of FD. */
static int
check_format (const char *url, int fd, uint64_t size)
{
  unsigned char head[8] = { 0 };
  const char *format;

  if (pread (fd, head, sizeof head, 0) == -1) {
    esp_error ("pread: %s: %m", url);
    return -1;
  }
  format = detect_packing (head);
  if (!format)
    format = esp_detect_format (fd, size);
  if (strcmp (format, "raw") == 0)
    return 0;
  errno = EINVAL;
  esp_error ("%s is %s: only raw images can be read where they lie; make a "
             "raw one of it (qemu-img convert -O raw), or copy it here and add "
             "the file (espalier root add NAME FILE)", url, format);
  return -1;
}

struct copy { int fd; uint64_t at; };

static int
copy_sink (void *arg, const void *buf, size_t len)
{
  struct copy *c = arg;

  if (esp_pwrite_all (c->fd, buf, len, c->at) == -1) {
    esp_error ("pwrite: memory file: %m");
    return -1;
  }
  c->at += len;
  return 0;
}

/* How the ranges of the image that is looked at are read. */
struct look {
  const char *url, *object;
  struct esp_remote *remote;    /* or NULL: nbd */
  struct nbd_pool *nbd;
  struct esp_object version;
};

static int
look_read (const struct look *l, int fd, uint64_t offset, uint64_t len)
{
  struct copy c = { fd, offset };
  const struct esp_get get = {
    .offset = offset, .len = len, .expect = &l->version, .sink = copy_sink,
    .arg = &c,
  };
  const struct nbd_read read = {
    .offset = offset, .len = len, .sink = copy_sink, .arg = &c,
  };

  if (l->nbd)
    return nbd_pool_read (l->nbd, &read);
  return esp_remote_get (l->remote, l->object, &get);
}

/* Read its beginning and its end; is it raw? */
static int
look_inside (const struct look *l)
{
  uint64_t size = l->version.size;
  uint64_t head = size < ESP_DETECT_HEAD ? size : ESP_DETECT_HEAD;
  CLEANUP_CLOSE int fd = memfd_create ("espalier-look", MFD_CLOEXEC);

  if (size == 0 || size > ESP_DISK_MAX) {
    errno = size ? EFBIG : EINVAL;
    esp_error ("%s: an image of %" PRIu64 " bytes cannot be a disk", l->url,
               size);
    return -1;
  }
  if (fd == -1 || ftruncate (fd, (off_t) size) == -1) {
    esp_error ("memfd_create: %m");
    return -1;
  }
  if (look_read (l, fd, 0, head) == -1)
    return -1;
  if (size > head + ESP_DETECT_TAIL &&
      look_read (l, fd, size - ESP_DETECT_TAIL, ESP_DETECT_TAIL) == -1)
    return -1;
  return check_format (l->url, fd, size);
}

static int
look_nbd (const char *url, struct look *l)
{
  ESP_CLEANUP (pool) struct nbd_pool *pool = nbd_pool_get (url);

  l->nbd = pool;
  return pool && nbd_pool_size (pool, &l->version.size) == 0 ? look_inside (l)
    : -1;
}

static int
look_remote (const char *url, const struct esp_remote_options *options,
             struct look *l)
{
  CLEANUP_FREE char *base = NULL, *object = NULL;
  ESP_CLEANUP (remote) struct esp_remote *remote = NULL;

  if (plain_split (url, &base, &object) == -1 ||
      !(remote = esp_remote_open (base, options)))
    return -1;
  l->remote = remote;
  l->object = object;
  if (esp_remote_head (remote, object, &l->version) == -1) {
    if (errno == ENOENT)
      esp_error ("%s: there is no such image", url);
    return -1;
  }
  return look_inside (l);
}

int
esp_plain_look (const char *url, const struct esp_remote_options *options,
                struct esp_source *out)
{
  struct look l = { .url = url };

  memset (out, 0, sizeof *out);
  if ((nbd_pool_is_url (url) ? look_nbd (url, &l)
       : look_remote (url, options, &l)) == -1)
    return -1;
  out->url = strdup (url);
  if (!out->url) {
    esp_error ("malloc: %s: %m", url);
    return -1;
  }
  out->size = l.version.size;
  memcpy (out->etag, l.version.etag, sizeof out->etag);
  return 0;
}

/* --- adding -------------------------------------------------------------------- */

/* Which segments have data. */
struct fill { struct esp_map *map; uint64_t size; unsigned shift; };

/* esp_map_set of the same blocks again changes nothing. */
static void
fill_data (void *arg, uint64_t offset, uint64_t len)
{
  struct fill *f = arg;
  uint64_t blocks = UINT64_C (1) << (f->shift - ESP_BLOCK_SHIFT);
  uint64_t all = esp_blocks (f->size), first, end;

  if (offset >= f->size || len == 0)
    return;
  if (len > f->size - offset)
    len = f->size - offset;
  first = (offset >> f->shift) * blocks;
  end = ((offset + len - 1) >> f->shift) * blocks + blocks;
  if (end > all)
    end = all;
  esp_map_set (f->map, first, end - first, ESP_DATA, NULL);
}

static int
fill_map (struct fill *f, const char *url)
{
  ESP_CLEANUP (pool) struct nbd_pool *pool = NULL;

  if (!nbd_pool_is_url (url)) {
    fill_data (f, 0, f->size);
    return 0;
  }
  pool = nbd_pool_get (url);
  return pool ? nbd_pool_data (pool, f->size, fill_data, f) : -1;
}

static int
check_shift (unsigned shift)
{
  if (shift >= ESP_SEGMENT_SHIFT_MIN && shift <= ESP_SEGMENT_SHIFT_MAX)
    return 0;
  errno = EINVAL;
  esp_error ("segments are a power of two from 64K to 4M");
  return -1;
}

static void
clear_source (struct esp_source *source)
{
  free (source->url);
}

/* The row of the restore point; RESOURCES and NOTE stay the caller's. */
static int
describe (struct esp_rp *rp, const char *name, uint64_t size, const char *note,
          const struct esp_resource *resources, size_t nresources)
{
  memset (rp, 0, sizeof *rp);
  if (esp_name_check (name, "restore point") == -1)
    return -1;
  esp_uuid_new (&rp->uuid);
  strcpy (rp->name, name);
  rp->kind = ESP_RP_DELAYED;
  rp->size = size;
  rp->created = (uint64_t) time (NULL);
  rp->note = (char *) (note ? note : "");
  rp->resources = (struct esp_resource *) resources;
  rp->nresources = nresources;
  return 0;
}

int
esp_plain_add (struct esp_store *store, const char *name, const char *url,
               unsigned shift, const char *note,
               const struct esp_resource *resources, size_t nresources,
               esp_uuid *uuid)
{
  __attribute__ ((cleanup (clear_source))) struct esp_source source = { 0 };
  ESP_CLEANUP (map) struct esp_map *map = NULL;
  struct esp_rp rp;

  if (shift == 0)
    shift = ESP_SEGMENT_SHIFT_DEFAULT;
  if (check_shift (shift) == -1 || esp_name_check (name, "restore point") == -1
      || esp_plain_look (url, NULL, &source) == -1 ||
      describe (&rp, name, source.size, note, resources, nresources) == -1)
    return -1;
  map = esp_map_new (source.size);
  struct fill f = { map, source.size, shift };
  if (!map || fill_map (&f, url) == -1)
    return -1;
  rp.data_blocks = esp_map_count (map, ESP_DATA);
  if (esp_rp_create_delayed (store, &rp, map, shift, NULL, &source, NULL)
      == -1)
    return -1;
  if (uuid)
    *uuid = rp.uuid;
  return 0;
}
