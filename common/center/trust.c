/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose signatures a store believes: keys/trusted/NAME.pub, and its own. */

#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <openssl/crypto.h>

#include "center/cleanups.h"
#include "center/format-internal.h"
#include "center/keyfile.h"
#include "util/file.h"

#define OWN_NAME "this store"

struct esp_trust {
  struct trusted_key *keys;
  size_t n;
};

ESP_DEFINE_CLEANUP (trust, struct esp_trust *, esp_trust_free)

void
esp_trust_free (struct esp_trust *trust)
{
  if (!trust)
    return;
  for (size_t i = 0; i < trust->n; ++i)
    EVP_PKEY_free (trust->keys[i].key);
  free (trust->keys);
  free (trust);
}

const struct trusted_key *
trust_find (const struct esp_trust *trust, const char *id)
{
  for (size_t i = 0; i < trust->n; ++i)
    if (strcmp (trust->keys[i].id, id) == 0)
      return &trust->keys[i];
  return NULL;
}

/* Takes KEY. */
static int
add_key (struct esp_trust *trust, const char *name, EVP_PKEY *key)
{
  CLEANUP_PKEY EVP_PKEY *owned = key;
  struct trusted_key *more = reallocarray (trust->keys, trust->n + 1,
                                           sizeof *more);

  if (!more)
    return format_no_memory ("trusted keys");
  trust->keys = more;
  more += trust->n;
  snprintf (more->name, sizeof more->name, "%s", name);
  if (public_id (key, more->id) == -1)
    return -1;
  more->key = ESP_STEAL (owned);
  trust->n++;
  return 0;
}

bool
key_entry_name (const char *entry, const char *suffix,
                char name[ESP_KEY_NAME_MAX + 1])
{
  size_t n = strlen (entry), s = strlen (suffix);

  if (n <= s || n - s > ESP_KEY_NAME_MAX || strcmp (entry + n - s, suffix))
    return false;
  memcpy (name, entry, n - s);
  name[n - s] = 0;
  return esp_name_ok (name);
}

EVP_PKEY *
trusted_read (int dirfd, const char *entry)
{
  char pem[KEYFILE_MAX], shown[16 + 256];
  ssize_t n;

  snprintf (shown, sizeof shown, "keys/" TRUSTED_DIR "/%s", entry);
  n = keyfile_read (dirfd, entry, KEYFILE_PUBLIC, shown, pem);
  if (n == -1) {
    if (errno == ENOENT)        /* removed meanwhile */
      esp_error ("open: %s: %m", shown);
    return NULL;
  }
  return public_parse (pem, (size_t) n, shown);
}

static int
load_entry (void *arg, int dirfd, const char *entry)
{
  char name[ESP_KEY_NAME_MAX + 1];
  EVP_PKEY *key;

  if (!key_entry_name (entry, PUB_SUFFIX, name))
    return 0;
  key = trusted_read (dirfd, entry);
  return key ? add_key (arg, name, key) : -1;
}

/* The store's own key, where it has one. */
static int
load_own (struct esp_store *store, struct esp_trust *trust)
{
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  ESP_CLEANUP (signer) struct esp_signer *own = esp_signer_load (store,
                                                                 false);

  esp_catch_end (outer);
  if (!own) {
    if (errno == ENOKEY)
      return 0;
    esp_error ("%s", why);
    return -1;
  }
  EVP_PKEY_up_ref (signer_key (own));
  return add_key (trust, OWN_NAME, signer_key (own));
}

struct esp_trust *
esp_trust_load (struct esp_store *store)
{
  ESP_CLEANUP (trust) struct esp_trust *trust = calloc (1, sizeof *trust);
  CLEANUP_CLOSE int fd = -1;

  if (!trust) {
    format_no_memory ("trusted keys");
    return NULL;
  }
  if (load_own (store, trust) == -1)
    return NULL;
  fd = trusted_fd (store, false);
  if (fd == -1)
    return errno == ENOENT ? ESP_STEAL (trust) : NULL;
  return esp_each_entry (fd, load_entry, trust) == 0 ? ESP_STEAL (trust)
    : NULL;
}

int
esp_trust_add (struct esp_store *store, const char *name, const char *file)
{
  char pem[KEYFILE_MAX], entry[ESP_KEY_NAME_MAX + sizeof PUB_SUFFIX];
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;

  if (key_check_name (name) == -1)
    return -1;
  n = keyfile_read (AT_FDCWD, file, KEYFILE_GIVEN, file, pem);
  if (n == -1) {
    if (errno == ENOENT)
      esp_error ("open: %s: %m", file);
    return -1;
  }
  CLEANUP_PKEY EVP_PKEY *key = public_parse (pem, (size_t) n, file);
  /* Somebody may have given a private key. */
  if (!key) {
    OPENSSL_cleanse (pem, sizeof pem);
    return -1;
  }
  if ((fd = trusted_fd (store, true)) == -1)
    return -1;
  snprintf (entry, sizeof entry, "%s" PUB_SUFFIX, name);
  if (keyfile_create (fd, entry, entry, pem, (size_t) n) == 0)
    return 0;
  if (errno == EEXIST)
    esp_error ("a key is trusted under the name %s already: choose another"
               " name", name);
  return -1;
}

int
esp_trust_remove (struct esp_store *store, const char *name)
{
  char entry[ESP_KEY_NAME_MAX + sizeof PUB_SUFFIX];
  CLEANUP_CLOSE int fd = -1;

  if (key_check_name (name) == -1)
    return -1;
  snprintf (entry, sizeof entry, "%s" PUB_SUFFIX, name);
  fd = trusted_fd (store, false);
  if (fd == -1 && errno != ENOENT)
    return -1;
  if (fd != -1 && unlinkat (fd, entry, 0) == 0 && esp_sync_dir (fd) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("no key is trusted under the name %s: 'espalier key list'"
               " shows them", name);
  else
    esp_error ("remove: keys/" TRUSTED_DIR "/%s: %m", entry);
  return -1;
}
