/* SPDX-License-Identifier: BSD-3-Clause */
/* What keys a store has. */

#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <openssl/crypto.h>

#include "boot/ticket.h"
#include "center/cleanups.h"
#include "center/format-internal.h"
#include "center/keyfile.h"
#include "util/file.h"

struct list {
  struct esp_store *store;
  struct esp_key_info_list *out;
};

void
esp_key_info_list_clear (struct esp_key_info_list *list)
{
  free (list->key);
  memset (list, 0, sizeof *list);
}

/* One more, with its name and kind. */
static struct esp_key_info *
add (struct list *l, const char *name, const char *kind)
{
  struct esp_key_info_list *x = l->out;
  struct esp_key_info *more = reallocarray (x->key, x->n + 1, sizeof *more);

  if (!more) {
    format_no_memory ("keys");
    return NULL;
  }
  x->key = more;
  more += x->n++;
  memset (more, 0, sizeof *more);
  snprintf (more->name, sizeof more->name, "%s", name);
  snprintf (more->kind, sizeof more->kind, "%s", kind);
  return more;
}

static int
add_variant_key (void *arg, int dirfd, const char *entry)
{
  struct list *l = arg;
  char name[ESP_KEY_NAME_MAX + 1];
  struct esp_key_info *info;
  uint8_t secret[32];

  (void) dirfd;
  if (!key_entry_name (entry, KEY_SUFFIX, name))
    return 0;
  if (secret_load (l->store, name, NULL, secret) == -1 ||
      !(info = add (l, name, strcmp (name, ESP_TICKET_KEY) == 0
                    ? ESP_TICKET_KEY : "variant")))
    return -1;
  secret_id (secret, info->id);
  OPENSSL_cleanse (secret, sizeof secret);
  return 0;
}

static int
add_signing_key (struct list *l)
{
  CLEANUP_CLOSE int fd = openat (keys_fd (l->store), SIGNING_FILE,
                                 O_RDONLY | O_CLOEXEC);
  ESP_CLEANUP (signer) struct esp_signer *own = NULL;
  struct esp_key_info *info;

  if (fd == -1 && errno == ENOENT)
    return 0;
  if (!(own = esp_signer_load (l->store, false)) ||
      !(info = add (l, "signing", "signing")))
    return -1;
  return public_id (signer_key (own), info->id);
}

static int
add_trusted_key (void *arg, int dirfd, const char *entry)
{
  char name[ESP_KEY_NAME_MAX + 1];
  CLEANUP_PKEY EVP_PKEY *key = NULL;
  struct esp_key_info *info;

  if (!key_entry_name (entry, PUB_SUFFIX, name))
    return 0;
  if (!(key = trusted_read (dirfd, entry)) ||
      !(info = add (arg, name, "trusted")))
    return -1;
  return public_id (key, info->id);
}

static int
add_all (struct list *l)
{
  int keys = keys_fd (l->store);
  CLEANUP_CLOSE int trusted = -1;

  if (keys == -1 || add_signing_key (l) == -1 ||
      esp_each_entry (keys, add_variant_key, l) == -1)
    return -1;
  trusted = trusted_fd (l->store, false);
  if (trusted == -1)
    return errno == ENOENT ? 0 : -1;
  return esp_each_entry (trusted, add_trusted_key, l);
}

int
esp_key_list (struct esp_store *store, struct esp_key_info_list *out)
{
  struct list l = { store, out };

  memset (out, 0, sizeof *out);
  if (add_all (&l) == 0)
    return 0;
  int saved = errno;
  esp_key_info_list_clear (out);
  errno = saved;
  return -1;
}
