/* SPDX-License-Identifier: BSD-3-Clause */
/* The documents `clients` and `needs` (docs/formats.md): reading and writing
 * them.  A reader trusts no field; what it lets through is what the commands
 * let through.
 *
 * A document that is not there says the same as one with an empty list; it
 * is never removed, so that one that was lost can be told: the catalog has rows
 * then.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "boot/address.h"
#include "store/cleanups.h"
#include "store/fields.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

#define CHAP_MAX 128u           /* bytes of a user's name */

/* --- clients ------------------------------------------------------------ */

static bool
canonical_key (const struct esp_client *x)
{
  char key[ESP_CLIENT_KEY_MAX + 1], text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  enum esp_client_kind kind;
  bool ok = esp_client_key_parse (x->key, &kind, key) == 0 &&
    strcmp (x->key, key) == 0 && kind == x->kind;

  esp_catch_end (outer);
  return ok;
}

/* Would a machine without a name be called like that? */
static bool
is_another_machine (const struct esp_client *x)
{
  char name[ESP_CLIENT_KEY_MAX + 1], text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  enum esp_client_kind kind;
  bool is = esp_client_key_parse (x->name, &kind, name) == 0 &&
    strcmp (x->name, name) == 0;

  esp_catch_end (outer);
  return is && strcmp (x->name, x->key) != 0;
}

static bool
chap_ok (const char *s)
{
  for (const char *p = s; *p; ++p)
    if (*p <= ' ' || *p > '~')
      return false;
  return strlen (s) <= CHAP_MAX;
}

const char *
site_client_fault (const struct esp_client *x)
{
  if (!canonical_key (x))
    return "its key is not written as it should be";
  if (x->name[0] && x->kind == ESP_CLIENT_NETWORK)
    return "a network is many machines, which cannot have one name";
  if (x->name[0] && !esp_client_ok (x->name))
    return "a client's name has letters, digits, \".\", \"_\", \"-\" and \":\","
      " at most 128 bytes, and does not begin with a dot or a dash";
  if (x->name[0] && is_another_machine (x))
    return "its name is another machine's address, whose overlay it would"
      " take";
  if (x->venue[0] && !esp_name_ok (x->venue))
    return "its venue has no valid name";
  if ((unsigned) x->boot > ESP_BOOT_NBDROOT)
    return "a way to boot is iscsi, http or nbdroot";
  if (!chap_ok (x->chap ? x->chap : ""))
    return "a user of CHAP has at most 128 characters of ASCII, without"
      " blanks";
  return NULL;
}

/* The member KEY into SIZE bytes at OUT. */
static bool
take_name (json_t *o, const char *key, char *out, size_t size)
{
  const char *s = esp_field_string (o, key, size - 1);

  if (!s)
    return false;
  strcpy (out, s);
  return true;
}

static bool
read_way (json_t *o, enum esp_boot *out)
{
  const char *s = esp_field_string (o, "boot", 16);
  char text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  bool ok = s && esp_boot_parse (s, out) == 0;

  esp_catch_end (outer);
  return ok;
}

static bool
read_kind (struct esp_client *x)
{
  char key[ESP_CLIENT_KEY_MAX + 1], text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = esp_client_key_parse (x->key, &x->kind, key);

  esp_catch_end (outer);
  return r == 0;
}

static bool
read_client (json_t *o, struct esp_client *x)
{
  const char *chap;

  if (!json_is_object (o) ||
      !take_name (o, "key", x->key, sizeof x->key) || !read_kind (x) ||
      !take_name (o, "name", x->name, sizeof x->name) ||
      !take_name (o, "venue", x->venue, sizeof x->venue) ||
      !read_way (o, &x->boot) ||
      !esp_field_u64 (o, "created", 0, ESP_FIELD_TIME_MAX, &x->created) ||
      !esp_field_u64 (o, "changed", 0, ESP_FIELD_TIME_MAX, &x->changed) ||
      !(chap = esp_field_string (o, "chap", CHAP_MAX)))
    return false;
  return (x->chap = strdup (chap)) && !site_client_fault (x);
}

static json_t *
client_json (const struct esp_client *x)
{
  return json_pack ("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "key", x->key,
                    "name", x->name, "venue", x->venue,
                    "boot", esp_boot_name (x->boot),
                    "chap", x->chap ? x->chap : "",
                    "created", (json_int_t) x->created,
                    "changed", (json_int_t) x->changed);
}

static int
by_text (const void *a, const void *b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* Is any of N texts (that are not empty) there twice?  1 if so, or without
 * memory.
 */
static bool
twice (const char **text, size_t n)
{
  qsort (text, n, sizeof *text, by_text);
  for (size_t i = 1; i < n; ++i)
    if (text[i][0] && strcmp (text[i - 1], text[i]) == 0)
      return true;
  return false;
}

static bool
clients_differ (const struct esp_client_list *list)
{
  CLEANUP_FREE const char **keys = calloc (list->n + 1, sizeof *keys);
  CLEANUP_FREE const char **names = calloc (list->n + 1, sizeof *names);

  if (!keys || !names)
    return false;
  for (size_t i = 0; i < list->n; ++i) {
    keys[i] = list->client[i].key;
    names[i] = list->client[i].name;
  }
  return !twice (keys, list->n) && !twice (names, list->n);
}

static bool
take_clients (json_t *doc, struct esp_client_list *list)
{
  bool bad = false;
  json_t *array = esp_doc_array (doc, "clients", &bad), *o;
  size_t i, n = json_array_size (array);

  if (bad || !array || n > ESP_CLIENTS_MAX ||
      !(list->client = calloc (n + 1, sizeof *list->client)))
    return false;
  list->n = n;
  json_array_foreach (array, i, o)
    if (!read_client (o, &list->client[i]))
      return false;
  return clients_differ (list);
}

/* --- needs -------------------------------------------------------------- */

static const char *
resource_fault (const struct esp_need *x, size_t i)
{
  const struct esp_resource *r = &x->resources[i];

  if ((strcmp (r->kind, "env") != 0 && strcmp (r->kind, "app") != 0) ||
      !site_text_ok (r->name, 1, ESP_NAME_MAX) ||
      !site_text_ok (r->version ? r->version : "", 0, ESP_NAME_MAX))
    return "a resource has a name and perhaps a version, each of at most 128"
      " bytes of UTF-8 in one line";
  for (size_t j = 0; j < i; ++j)
    if (strcmp (x->resources[j].kind, r->kind) == 0 &&
        strcmp (x->resources[j].name, r->name) == 0)
      return "it asks for one resource twice";
  return NULL;
}

const char *
site_need_fault (const struct esp_need *x)
{
  const char *why = NULL;
  size_t n = strlen (x->name);

  if (!site_text_ok (x->name, 1, ESP_NAME_MAX) || x->name[0] == ' ' ||
      x->name[n - 1] == ' ' || x->name[0] == '-')
    return "a need's name is one line of 1 to 128 bytes of UTF-8, without"
      " blanks at its ends or a dash in front";
  if (!site_text_ok (x->description ? x->description : "", 0,
                     ESP_FIELD_DESCRIPTION_MAX))
    return "a description is one line of at most 4096 bytes of UTF-8";
  if (x->nresources > ESP_NEED_RESOURCES_MAX)
    return "it has more than 256 resources";
  for (size_t i = 0; i < x->nresources && !why; ++i)
    why = resource_fault (x, i);
  return why;
}

static bool
read_need (json_t *o, struct esp_need *x)
{
  const char *name, *description;

  if (!json_is_object (o) ||
      !(name = esp_field_string (o, "name", ESP_NAME_MAX)) ||
      !(description = esp_field_string (o, "description",
                                        ESP_FIELD_DESCRIPTION_MAX)) ||
      !esp_resources_read (o, ESP_NEED_RESOURCES_MAX, &x->resources,
                           &x->nresources))
    return false;
  return (x->name = strdup (name)) &&
    (x->description = strdup (description)) && !site_need_fault (x);
}

static json_t *
need_json (const struct esp_need *x)
{
  return json_pack ("{s:s, s:s, s:o}", "name", x->name,
                    "description", x->description ? x->description : "",
                    "resources", esp_resources_json (x->resources,
                                                     x->nresources));
}

static bool
needs_differ (const struct esp_need_list *list)
{
  CLEANUP_FREE const char **names = calloc (list->n + 1, sizeof *names);

  for (size_t i = 0; names && i < list->n; ++i)
    names[i] = list->need[i].name;
  return names && !twice (names, list->n);
}

static bool
take_needs (json_t *doc, struct esp_need_list *list)
{
  bool bad = false;
  json_t *array = esp_doc_array (doc, "needs", &bad), *o;
  size_t i, n = json_array_size (array);

  if (bad || !array || n > ESP_NEEDS_MAX ||
      !(list->need = calloc (n + 1, sizeof *list->need)))
    return false;
  list->n = n;
  json_array_foreach (array, i, o)
    if (!read_need (o, &list->need[i]))
      return false;
  return needs_differ (list);
}

/* --- documents ---------------------------------------------------------- */

static int
damaged (const char *name)
{
  errno = EBADMSG;
  esp_error ("%s: damaged: a field is missing or wrong: run 'espalier store"
             " check'", name);
  return -1;
}

/* DOC (NULL: it was reported) into OUT. */
static int
clients_of (json_t *doc, struct esp_client_list *out)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };

  if (!doc)
    return -1;
  if (!take_clients (doc, &list))
    return damaged (SITE_CLIENTS);
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

static int
needs_of (json_t *doc, struct esp_need_list *out)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };

  if (!doc)
    return -1;
  if (!take_needs (doc, &list))
    return damaged (SITE_NEEDS);
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

int
esp_site_parse_clients (const char *buf, size_t len,
                        struct esp_client_list *out)
{
  CLEANUP_JSON json_t *doc = esp_doc_parse (buf, len, ESP_CLIENTS_KIND,
                                            ESP_CLIENTS_VERSION, SITE_CLIENTS);
  return clients_of (doc, out);
}

int
esp_site_parse_needs (const char *buf, size_t len, struct esp_need_list *out)
{
  CLEANUP_JSON json_t *doc = esp_doc_parse (buf, len, ESP_NEEDS_KIND,
                                            ESP_NEEDS_VERSION, SITE_NEEDS);
  return needs_of (doc, out);
}

int
site_read_clients (struct esp_store *store, struct esp_client_list *out)
{
  CLEANUP_JSON json_t *doc = NULL;

  memset (out, 0, sizeof *out);
  doc = esp_doc_load (store->fd, SITE_CLIENTS, ESP_CLIENTS_KIND,
                      ESP_CLIENTS_VERSION);
  return clients_of (doc, out);
}

int
site_read_needs (struct esp_store *store, struct esp_need_list *out)
{
  CLEANUP_JSON json_t *doc = NULL;

  memset (out, 0, sizeof *out);
  doc = esp_doc_load (store->fd, SITE_NEEDS, ESP_NEEDS_KIND,
                      ESP_NEEDS_VERSION);
  return needs_of (doc, out);
}

/* {KEY: [ITEM (0), … ITEM (N - 1)]} */
static json_t *
list_json (const char *key, size_t n, const void *list,
           json_t *(*item) (const void *list, size_t i))
{
  CLEANUP_JSON json_t *array = json_array ();

  for (size_t i = 0; array && i < n; ++i)
    if (json_array_append_new (array, item (list, i)) == -1)
      return NULL;
  return array ? json_pack ("{s:O}", key, array) : NULL;
}

static json_t *
client_item (const void *list, size_t i)
{
  return client_json (&((const struct esp_client_list *) list)->client[i]);
}

static json_t *
need_item (const void *list, size_t i)
{
  return need_json (&((const struct esp_need_list *) list)->need[i]);
}

char *
esp_site_format_clients (const struct esp_client_list *list, size_t *len)
{
  CLEANUP_JSON json_t *doc = list_json ("clients", list->n, list, client_item);

  return doc ? esp_doc_format (ESP_CLIENTS_KIND, ESP_CLIENTS_VERSION, doc, len)
    : NULL;
}

char *
esp_site_format_needs (const struct esp_need_list *list, size_t *len)
{
  CLEANUP_JSON json_t *doc = list_json ("needs", list->n, list, need_item);

  return doc ? esp_doc_format (ESP_NEEDS_KIND, ESP_NEEDS_VERSION, doc, len)
    : NULL;
}

/* Save TEXT (NULL: it could not be made). */
static int
save (struct esp_store *store, const char *name, const char *text, size_t len)
{
  if (text)
    return esp_write_file_atomic (store->fd, name, text, len, 0644);
  if (errno != EFBIG)
    errno = ENOMEM;
  esp_error ("%s: %m", name);
  return -1;
}

int
site_write_clients (struct esp_store *store,
                    const struct esp_client_list *list)
{
  size_t len = 0;
  CLEANUP_FREE char *text = esp_site_format_clients (list, &len);

  return save (store, SITE_CLIENTS, text, len);
}

int
site_write_needs (struct esp_store *store, const struct esp_need_list *list)
{
  size_t len = 0;
  CLEANUP_FREE char *text = esp_site_format_needs (list, &len);

  return save (store, SITE_NEEDS, text, len);
}
