/* SPDX-License-Identifier: BSD-3-Clause */
/* Files with keys.  They are made under a random name and moved to their
 * place only if nothing is there, so that no crash leaves half a key and no
 * race replaces one; buffers that held a secret are wiped by who owns them.
 */

#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "center/format-internal.h"
#include "center/keyfile.h"
#include "store/internal.h"
#include "util/file.h"

/* --- reading ----------------------------------------------------------- */

static int
check_file (const struct stat *st, enum keyfile_mode mode, const char *shown)
{
  mode_t bad = mode == KEYFILE_SECRET ? 077 : mode == KEYFILE_PUBLIC ? 022 : 0;

  if (!S_ISREG (st->st_mode)) {
    errno = EINVAL;
    esp_error ("%s: is not a file", shown);
    return -1;
  }
  if ((st->st_mode & bad) == 0)
    return 0;
  errno = EACCES;
  esp_error ("%s: others may %s it: make it your own with 'chmod 600 %s'",
             shown, mode == KEYFILE_SECRET ? "read" : "write", shown);
  return -1;
}

ssize_t
keyfile_read (int dirfd, const char *name, enum keyfile_mode mode,
              const char *shown, char buf[KEYFILE_MAX])
{
  CLEANUP_CLOSE int fd = openat (dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY
                                 | O_NONBLOCK);
  struct stat st;

  if (fd == -1 && errno == ENOENT)
    return -1;
  if (fd == -1 || fstat (fd, &st) == -1) {
    esp_error ("open: %s: %m", shown);
    return -1;
  }
  if (check_file (&st, mode, shown) == -1)
    return -1;
  if (st.st_size >= KEYFILE_MAX) {
    errno = EFBIG;
    esp_error ("%s: is too large for a key", shown);
    return -1;
  }
  if (esp_pread_all (fd, buf, (size_t) st.st_size, 0) == -1) {
    esp_error ("read: %s: %m", shown);
    return -1;
  }
  buf[st.st_size] = 0;
  return st.st_size;
}

/* --- writing ----------------------------------------------------------- */

static int
place (int dirfd, const char *temp, const char *name, int fd, const void *buf,
       size_t len)
{
  if (esp_pwrite_all (fd, buf, len, 0) == -1 || fsync (fd) == -1)
    return -1;
  if (renameat2 (dirfd, temp, dirfd, name, RENAME_NOREPLACE) == 0)
    return 0;
  if (errno != EINVAL && errno != ENOSYS)
    return -1;
  /* A file system that cannot do that can link. */
  if (linkat (dirfd, temp, dirfd, name, 0) == -1)
    return -1;
  unlinkat (dirfd, temp, 0);    /* a leftover is a file that nobody reads */
  return 0;
}

int
keyfile_create (int dirfd, const char *name, const char *shown,
                const void *buf, size_t len)
{
  char temp[40];
  uint64_t r;
  CLEANUP_CLOSE int fd = -1;

  if (RAND_bytes ((uint8_t *) &r, sizeof r) != 1) {
    errno = EIO;
    esp_error ("%s: OpenSSL has no random bytes", shown);
    return -1;
  }
  snprintf (temp, sizeof temp, ".%016llx.new", (unsigned long long) r);
  fd = openat (dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd == -1) {
    esp_error ("write: %s: %m", shown);
    return -1;
  }
  if (place (dirfd, temp, name, fd, buf, len) == -1) {
    int saved = errno;

    unlinkat (dirfd, temp, 0);  /* the first error is the one that counts */
    errno = saved;
    if (errno != EEXIST)
      esp_error ("write: %s: %m", shown);
    return -1;
  }
  if (esp_sync_dir (dirfd) == -1) {
    esp_error ("fsync: %s: %m", shown);
    return -1;
  }
  return 0;
}

/* --- base64 ------------------------------------------------------------ */

bool
base64_decode (const char *text, size_t len, uint8_t *out, size_t n)
{
  uint8_t bytes[192], again[257];
  size_t padded = (n + 2) / 3 * 3;
  bool ok;

  if (padded > sizeof bytes || len != padded / 3 * 4)
    return false;
  /* EVP_DecodeBlock is lenient; what it gives must be written as it was. */
  ok = EVP_DecodeBlock (bytes, (const uint8_t *) text, (int) len)
    == (int) padded;
  if (ok) {
    EVP_EncodeBlock (again, bytes, (int) n);
    ok = memcmp (again, text, len) == 0;
  }
  if (ok)
    memcpy (out, bytes, n);
  OPENSSL_cleanse (bytes, sizeof bytes);
  OPENSSL_cleanse (again, sizeof again);
  return ok;
}

/* --- the store's directories ------------------------------------------- */

int
keys_fd (struct esp_store *store)
{
  if (store->dirs[STORE_KEYS] == -1) {
    errno = EACCES;
    esp_error ("open: %s/keys: %m: run this as the user who owns the store",
               store->path);
  }
  return store->dirs[STORE_KEYS];
}

int
trusted_fd (struct esp_store *store, bool create)
{
  int keys = keys_fd (store), fd;

  if (keys == -1)
    return -1;
  fd = create ? esp_make_dir (keys, TRUSTED_DIR, 0700)
    : esp_open_dir (keys, TRUSTED_DIR);
  if (fd == -1 && (create || errno != ENOENT))
    esp_error ("open: %s/keys/" TRUSTED_DIR ": %m", store->path);
  return fd;
}

int
key_check_name (const char *name)
{
  if (esp_name_check (name, "key") == -1)
    return -1;
  if (strlen (name) <= ESP_KEY_NAME_MAX)
    return 0;
  errno = EINVAL;
  esp_error ("key name \"%s\" is longer than %u bytes", name,
             ESP_KEY_NAME_MAX);
  return -1;
}
