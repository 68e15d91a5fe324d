/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys of variants: the secret in keys/NAME.key, and what is derived of it.
 *
 * HKDF with SHA-256 (RFC 5869), the secret being its input, a pack's random
 * salt its salt: so each pack has a key of its own, and no segment of one
 * pack can stand in another.  key_check is derived likewise; it tells a wrong
 * key before anything is fetched, and tells who has it nothing of the key.
 */

#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "boot/ticket.h"
#include "center/center-internal.h"
#include "center/cleanups.h"
#include "center/format-internal.h"
#include "center/keyfile.h"
#include "util/file.h"

#define SECRET AEAD_KEY
#define SECRET_TEXT 44          /* in base64, and then a newline */

#define INFO_SEGMENTS "espalier segments 1"
#define INFO_CHECK "espalier key-check 1"
#define INFO_ID "espalier key-id 1"

static int
hkdf (const uint8_t secret[SECRET], const uint8_t *salt, size_t salt_len,
      const char *info, uint8_t *out, size_t n)
{
  if (aead_hkdf (secret, salt, salt_len, info, out, n) == 0)
    return 0;
  esp_error ("HKDF: %m");
  return -1;
}

void
secret_id (const uint8_t secret[SECRET], char id[17])
{
  static const uint8_t no_salt[ESP_SALT_SIZE];
  uint8_t b[8];

  strcpy (id, "?");             /* for people: an error is reported */
  if (hkdf (secret, no_salt, sizeof no_salt, INFO_ID, b, sizeof b) == 0)
    for (size_t i = 0; i < sizeof b; ++i)
      sprintf (id + 2 * i, "%02x", b[i]);
}

/* --- files ------------------------------------------------------------- */

static int
parse_secret (const char *text, size_t len, const char *shown,
              uint8_t secret[SECRET])
{
  if (len > 0 && text[len - 1] == '\n')
    len--;
  if (base64_decode (text, len, secret, SECRET))
    return 0;
  errno = EBADMSG;
  esp_error ("%s: is no key: a key's file has 32 bytes in base64, and nothing"
             " else", shown);
  return -1;
}

static int
read_secret (int dirfd, const char *name, const char *shown,
             uint8_t secret[SECRET])
{
  char text[KEYFILE_MAX];
  ssize_t n = keyfile_read (dirfd, name, KEYFILE_SECRET, shown, text);
  int r = n == -1 ? -1 : parse_secret (text, (size_t) n, shown, secret);
  int saved = errno;

  OPENSSL_cleanse (text, sizeof text);
  errno = saved;
  return r;
}

static int
load_file (const char *file, uint8_t secret[SECRET])
{
  int r = read_secret (AT_FDCWD, file, file, secret);

  if (r == -1 && errno == ENOENT)
    esp_error ("open: %s: %m", file);
  return r;
}

int
secret_load (struct esp_store *store, const char *name, const char *file,
             uint8_t secret[SECRET])
{
  char entry[ESP_KEY_NAME_MAX + sizeof KEY_SUFFIX];
  CLEANUP_FREE char *shown = NULL;
  int fd;

  if (file)
    return load_file (file, secret);
  if (key_check_name (name) == -1 || (fd = keys_fd (store)) == -1)
    return -1;
  snprintf (entry, sizeof entry, "%s" KEY_SUFFIX, name);
  shown = esp_asprintf ("%s/keys/%s", esp_store_path (store), entry);
  if (!shown)
    return format_no_memory ("key");
  if (read_secret (fd, entry, shown, secret) == 0)
    return 0;
  if (errno == ENOENT) {
    errno = ENOKEY;
    esp_error ("there is no key %s in this store: get its file, and give it"
               " to this store with 'espalier key import %s FILE'", name,
               name);
  }
  return -1;
}

static int
create_secret (struct esp_store *store, const char *name,
               const uint8_t secret[SECRET])
{
  char entry[ESP_KEY_NAME_MAX + sizeof KEY_SUFFIX], text[SECRET_TEXT + 2];
  int fd = keys_fd (store), r;

  if (fd == -1)
    return -1;
  snprintf (entry, sizeof entry, "%s" KEY_SUFFIX, name);
  EVP_EncodeBlock ((uint8_t *) text, secret, SECRET);
  strcpy (text + SECRET_TEXT, "\n");
  r = keyfile_create (fd, entry, entry, text, SECRET_TEXT + 1);
  OPENSSL_cleanse (text, sizeof text);
  if (r == -1 && errno == EEXIST)
    esp_error ("there is a key %s already: choose another name", name);
  return r;
}

int
esp_key_create (struct esp_store *store, const char *name)
{
  uint8_t secret[SECRET];
  int r;

  if (key_check_name (name) == -1)
    return -1;
  if (RAND_priv_bytes (secret, sizeof secret) != 1) {
    errno = EIO;
    esp_error ("key %s: OpenSSL has no random bytes", name);
    return -1;
  }
  r = create_secret (store, name, secret);
  OPENSSL_cleanse (secret, sizeof secret);
  return r;
}

int
esp_key_import (struct esp_store *store, const char *name, const char *file)
{
  uint8_t secret[SECRET];
  int r = -1;

  if (key_check_name (name) == 0 && load_file (file, secret) == 0)
    r = create_secret (store, name, secret);
  OPENSSL_cleanse (secret, sizeof secret);
  return r;
}

/* The new file FILE, with its directory synced by nobody: it is a copy. */
static int
write_copy (const char *file, const char *text, size_t len)
{
  CLEANUP_CLOSE int fd = open (file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                               0600);

  if (fd == -1 && errno == EEXIST) {
    esp_error ("%s: is there already: give the name of a new file", file);
    return -1;
  }
  if (fd == -1) {
    esp_error ("open: %s: %m", file);
    return -1;
  }
  if (esp_pwrite_all (fd, text, len, 0) == 0 && fsync (fd) == 0)
    return 0;
  esp_error ("write: %s: %m", file);
  int saved = errno;
  unlink (file);                /* the first error is the one that counts */
  errno = saved;
  return -1;
}

int
esp_key_export (struct esp_store *store, const char *name, const char *file)
{
  uint8_t secret[SECRET];
  char text[SECRET_TEXT + 2];
  int r;

  if (secret_load (store, name, NULL, secret) == -1)
    return -1;
  EVP_EncodeBlock ((uint8_t *) text, secret, SECRET);
  strcpy (text + SECRET_TEXT, "\n");
  r = write_copy (file, text, SECRET_TEXT + 1);
  OPENSSL_cleanse (secret, sizeof secret);
  OPENSSL_cleanse (text, sizeof text);
  return r;
}

int
esp_key_delete (struct esp_store *store, const char *name, bool force)
{
  char entry[ESP_KEY_NAME_MAX + sizeof KEY_SUFFIX];
  int fd;

  if (key_check_name (name) == -1 || (fd = keys_fd (store)) == -1 ||
      (!force && center_key_check_unneeded (store, name) == -1))
    return -1;
  snprintf (entry, sizeof entry, "%s" KEY_SUFFIX, name);
  if (unlinkat (fd, entry, 0) == 0 && esp_sync_dir (fd) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("there is no key %s in this store: 'espalier key list' shows"
               " them", name);
  else
    esp_error ("remove: keys/%s: %m", entry);
  return -1;
}

/* --- a variant's key --------------------------------------------------- */

void
esp_segment_key_free (struct esp_segment_key *key)
{
  if (!key)
    return;
  OPENSSL_cleanse (key, sizeof *key);
  free (key);
}

struct esp_segment_key *
esp_segment_key_from (const uint8_t secret[SECRET],
                      const uint8_t salt[ESP_SALT_SIZE])
{
  ESP_CLEANUP (segment_key) struct esp_segment_key *key =
    malloc (sizeof *key);

  if (!key) {
    format_no_memory ("key");
    return NULL;
  }
  if (hkdf (secret, salt, ESP_SALT_SIZE, INFO_SEGMENTS, key->aes,
            sizeof key->aes) == -1)
    return NULL;
  return ESP_STEAL (key);
}

static int
get_check (const uint8_t secret[SECRET], const struct esp_variant *v,
           uint8_t check[sizeof v->key_check])
{
  return hkdf (secret, v->salt, sizeof v->salt, INFO_CHECK, check,
               sizeof v->key_check);
}

static struct esp_segment_key *
wrong_key (const struct esp_variant *v, const char *file)
{
  errno = EKEYREJECTED;
  if (file)
    esp_error ("%s: is not the key that variant %s was encrypted with", file,
               v->id);
  else
    esp_error ("the key %s of this store is not the one that variant %s was"
               " encrypted with: get the right file; 'espalier key delete %s'"
               " and 'espalier key import %s FILE' replace it", v->key, v->id,
               v->key, v->key);
  return NULL;
}

struct esp_segment_key *
esp_segment_key_load (struct esp_store *store,
                      const struct esp_variant *variant, const char *file)
{
  ESP_CLEANUP (segment_key) struct esp_segment_key *key = NULL;
  uint8_t secret[SECRET], check[sizeof variant->key_check];

  if (secret_load (store, variant->key, file, secret) == -1)
    return NULL;
  if (get_check (secret, variant, check) == 0) {
    if (CRYPTO_memcmp (check, variant->key_check, sizeof check) == 0)
      key = esp_segment_key_from (secret, variant->salt);
    else
      wrong_key (variant, file);
  }
  OPENSSL_cleanse (secret, sizeof secret);
  return ESP_STEAL (key);
}

struct esp_segment_key *
esp_segment_key_begin (struct esp_store *store, struct esp_variant *variant,
                       const char *file)
{
  ESP_CLEANUP (segment_key) struct esp_segment_key *key = NULL;
  uint8_t secret[SECRET];

  if (!file && strcmp (variant->key, ESP_TICKET_KEY) == 0) {
    errno = EINVAL;
    esp_error ("variant %s: the key " ESP_TICKET_KEY " is what this site's"
               " tickets are issued with: make another by 'espalier key create"
               " NAME'", variant->id);
    return NULL;
  }
  if (secret_load (store, variant->key, file, secret) == -1)
    return NULL;
  if (RAND_bytes (variant->salt, sizeof variant->salt) != 1) {
    errno = EIO;
    esp_error ("variant %s: OpenSSL has no random bytes", variant->id);
  }
  else if (get_check (secret, variant, variant->key_check) == 0)
    key = esp_segment_key_from (secret, variant->salt);
  OPENSSL_cleanse (secret, sizeof secret);
  return ESP_STEAL (key);
}
