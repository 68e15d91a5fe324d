/* SPDX-License-Identifier: BSD-3-Clause */
/* The image centers that a store knows: a document centers/NAME for each,
 * mode 0600 in a directory of mode 0700, made with the first of them.
 *
 * Nothing in it is a secret: credentials and keys are files that it names,
 * by their absolute paths, since commands run in other directories.  Names
 * of centers are names (util/name.h), so each is one component of a path.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "center/center-internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

#define CENTER_KIND "center"
#define CENTER_VERSION 1
#define NUMBER_MAX 86400u       /* seconds, retries, connections */

void
esp_center_config_clear (struct esp_center_config *c)
{
  free (c->url);
  free (c->ca);
  free (c->cert);
  free (c->key);
  free (c->proxy);
  free (c->credentials);
  free (c->profile);
  memset (c, 0, sizeof *c);
}

void
esp_center_config_list_clear (struct esp_center_config_list *l)
{
  for (size_t i = 0; i < l->n; i++)
    esp_center_config_clear (&l->c[i]);
  free (l->c);
  memset (l, 0, sizeof *l);
}

/* --- the fields, once --------------------------------------------------- */

struct text_field { const char *key; size_t offset; bool file; };
static const struct text_field texts[] = {
  { "ca", offsetof (struct esp_center_config, ca), true },
  { "certificate", offsetof (struct esp_center_config, cert), true },
  { "key", offsetof (struct esp_center_config, key), true },
  { "proxy", offsetof (struct esp_center_config, proxy), false },
  { "credentials", offsetof (struct esp_center_config, credentials), true },
  { "profile", offsetof (struct esp_center_config, profile), false },
};
struct number_field { const char *key; size_t offset; };
static const struct number_field numbers[] = {
  { "connect-timeout", offsetof (struct esp_center_config, connect_timeout) },
  { "timeout", offsetof (struct esp_center_config, timeout) },
  { "retries", offsetof (struct esp_center_config, retries) },
  { "connections", offsetof (struct esp_center_config, connections) },
};
#define N_OF(a) (sizeof (a) / sizeof (a)[0])

static char **
text_of (const struct esp_center_config *c, const struct text_field *f)
{
  return (char **) ((char *) c + f->offset);
}

static unsigned *
number_of (const struct esp_center_config *c, const struct number_field *f)
{
  return (unsigned *) ((char *) c + f->offset);
}

static json_t *
to_json (const struct esp_center_config *c)
{
  json_t *o = json_object ();
  int r = json_object_set_new (o, "url", json_string (c->url));

  for (size_t i = 0; i < N_OF (texts); i++)
    if (*text_of (c, &texts[i]))
      r |= json_object_set_new (o, texts[i].key,
                                json_string (*text_of (c, &texts[i])));
  for (size_t i = 0; i < N_OF (numbers); i++) {
    unsigned n = *number_of (c, &numbers[i]);
    if (n == UINT_MAX)          /* "none": not the default */
      r |= json_object_set_new (o, numbers[i].key, json_integer (0));
    else if (n)
      r |= json_object_set_new (o, numbers[i].key, json_integer (n));
  }
  r |= json_object_set_new (o, "unsigned", json_boolean (c->unsigned_ok));
  r |= json_object_set_new (o, "created", json_integer ((json_int_t) c->created));
  if (r == 0)
    return o;
  json_decref (o);
  center_no_memory ();
  return NULL;
}

static int
damaged (const char *name, const char *key)
{
  errno = EBADMSG;
  esp_error ("centers/%s: the field '%s' is wrong: remove the center and add "
             "it again", name, key);
  return -1;
}

static int
read_text (json_t *o, const char *key, char **out, const char *name)
{
  bool bad = false;
  const char *s = esp_doc_string (o, key, &bad);

  if (bad)
    return damaged (name, key);
  if (s && !(*out = strdup (s)))
    return center_no_memory ();
  return 0;
}

static int
read_number (json_t *o, const struct number_field *f,
             struct esp_center_config *c)
{
  bool bad = false;
  uint64_t n = esp_doc_u64 (o, f->key, 0, &bad);

  if (bad || n > NUMBER_MAX)
    return damaged (c->name, f->key);
  *number_of (c, f) = n == 0 && json_object_get (o, f->key) ? UINT_MAX
    : (unsigned) n;
  return 0;
}

static int
from_json (json_t *o, struct esp_center_config *c)
{
  bool bad = false;

  if (read_text (o, "url", &c->url, c->name) == -1)
    return -1;
  if (!c->url)
    return damaged (c->name, "url");
  for (size_t i = 0; i < N_OF (texts); i++)
    if (read_text (o, texts[i].key, text_of (c, &texts[i]), c->name) == -1)
      return -1;
  for (size_t i = 0; i < N_OF (numbers); i++)
    if (read_number (o, &numbers[i], c) == -1)
      return -1;
  c->created = esp_doc_u64 (o, "created", 0, &bad);
  if (bad)
    return damaged (c->name, "created");
  c->unsigned_ok = json_is_true (json_object_get (o, "unsigned"));
  return 0;
}

/* --- checks ------------------------------------------------------------- */

static int
invalid (const char *name, const char *what, const char *value,
         const char *todo)
{
  char text[160];

  errno = EINVAL;
  esp_error ("center %s: %s %s: %s", name, what,
             esp_escape (value, text, sizeof text), todo);
  return -1;
}

/* A password in a URL would be seen by all who see the process. */
static int
check_url (const char *name, const char *url)
{
  const char *rest = strstr (url, "://");
  size_t authority;

  if (url[0] == '/')
    return 0;
  if (!rest || (strncmp (url, "file://", 7) != 0 &&
                strncmp (url, "http://", 7) != 0 &&
                strncmp (url, "https://", 8) != 0 &&
                strncmp (url, "s3://", 5) != 0))
    return invalid (name, "URL", url, "write file:///DIRECTORY, http://..., "
                    "https://... or s3://BUCKET/PREFIX?endpoint=...");
  authority = strcspn (rest + 3, "/?#");
  if (memchr (rest + 3, '@', authority))
    return invalid (name, "URL", "(not shown)", "a user's name and password do "
                    "not belong there: use a client certificate or a file of "
                    "credentials");
  return 0;
}

/* The absolute path of a file that must be readable. */
static int
check_file (const char *name, const char *what, char **path)
{
  char *full = realpath (*path, NULL);

  if (!full || access (full, R_OK) == -1) {
    char why[128];
    snprintf (why, sizeof why, "%s", strerror (errno));
    free (full);
    return invalid (name, what, *path, why);
  }
  free (*path);
  *path = full;
  return 0;
}

static int
check_numbers (const struct esp_center_config *c)
{
  for (size_t i = 0; i < N_OF (numbers); i++) {
    unsigned n = *number_of (c, &numbers[i]);
    if (n > NUMBER_MAX && n != UINT_MAX)
      return invalid (c->name, numbers[i].key, "too large",
                      "take less than 86400");
  }
  return 0;
}

/* C is a private copy: paths become absolute in it. */
static int
check_config (struct esp_center_config *c)
{
  struct esp_remote *remote;

  if (esp_name_check (c->name, "center") == -1 ||
      check_url (c->name, c->url) == -1 || check_numbers (c) == -1)
    return -1;
  for (size_t i = 0; i < N_OF (texts); i++)
    if (texts[i].file && *text_of (c, &texts[i]) &&
        check_file (c->name, texts[i].key, text_of (c, &texts[i])) == -1)
      return -1;
  if (!(remote = center_open_remote (c)))
    return -1;
  esp_remote_close (remote);
  return 0;
}

/* --- reading and writing ------------------------------------------------- */

/* STORE/centers; ENOENT where there never was a center. */
int
center_config_dir (struct esp_store *store, bool create)
{
  return create ? esp_make_dir (esp_store_fd (store), CENTERS_DIR, 0700)
    : esp_open_dir (esp_store_fd (store), CENTERS_DIR);
}

static int
copy_config (const struct esp_center_config *c, struct esp_center_config *out)
{
  *out = *c;
  out->url = strdup (c->url);
  if (!out->url)
    return center_no_memory ();
  for (size_t i = 0; i < N_OF (texts); i++)
    *text_of (out, &texts[i]) = NULL;
  for (size_t i = 0; i < N_OF (texts); i++) {
    const char *s = *text_of (c, &texts[i]);
    if (s && !(*text_of (out, &texts[i]) = strdup (s)))
      return center_no_memory ();
  }
  return 0;
}

int
esp_center_add (struct esp_store *store,
                const struct esp_center_config *config)
{
  CLEANUP_CENTER_CONFIG struct esp_center_config c = { 0 };
  CLEANUP_JSON json_t *o = NULL;
  CLEANUP_CLOSE int fd = -1;
  struct stat st;

  if (esp_rp_writable (store) == -1 || copy_config (config, &c) == -1 ||
      check_config (&c) == -1)
    return -1;
  c.created = (uint64_t) time (NULL);
  if (!(o = to_json (&c)))
    return -1;
  fd = center_config_dir (store, true);
  if (fd == -1) {
    esp_error ("mkdir: %s/" CENTERS_DIR ": %m", esp_store_path (store));
    return -1;
  }
  if (fstatat (fd, c.name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    esp_error ("there is already a center %s: remove it first, or choose "
               "another name", c.name);
    return -1;
  }
  return esp_doc_save (fd, c.name, CENTER_KIND, CENTER_VERSION, o, 0600);
}

static int
load_from (int dirfd, const char *name, struct esp_center_config *out)
{
  CLEANUP_JSON json_t *o =
    esp_doc_load (dirfd, name, CENTER_KIND, CENTER_VERSION);

  if (!o)
    return -1;
  strcpy (out->name, name);
  return from_json (o, out);
}

int
esp_center_load (struct esp_store *store, const char *name,
                 struct esp_center_config *out)
{
  CLEANUP_CLOSE int fd = -1;

  memset (out, 0, sizeof *out);
  if (esp_name_check (name, "center") == -1)
    return -1;
  fd = center_config_dir (store, false);
  if (fd >= 0 && load_from (fd, name, out) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("there is no center %s: 'espalier center list' shows those "
               "that there are, 'espalier center add %s URL' adds one", name,
               name);
  else if (fd == -1)
    esp_error ("open: %s/" CENTERS_DIR ": %m", esp_store_path (store));
  esp_center_config_clear (out);
  return -1;
}

static int
add_to_list (void *arg, int dirfd, const char *name)
{
  struct esp_center_config_list *l = arg;
  struct esp_center_config *more, c = { 0 };

  if (!esp_name_ok (name))
    return 0;                   /* being written, or not ours */
  if (load_from (dirfd, name, &c) == -1) {
    esp_center_config_clear (&c);
    return errno == ENOENT ? 0 : -1;    /* removed just now */
  }
  more = reallocarray (l->c, l->n + 1, sizeof *more);
  if (!more) {
    esp_center_config_clear (&c);
    return center_no_memory ();
  }
  l->c = more;
  l->c[l->n++] = c;
  return 0;
}

int
esp_center_list (struct esp_store *store, struct esp_center_config_list *out)
{
  CLEANUP_CLOSE int fd = center_config_dir (store, false);

  memset (out, 0, sizeof *out);
  if (fd == -1 && errno == ENOENT)
    return 0;
  if (fd == -1) {
    esp_error ("open: %s/" CENTERS_DIR ": %m", esp_store_path (store));
    return -1;
  }
  if (esp_each_entry (fd, add_to_list, out) == 0)
    return 0;
  esp_center_config_list_clear (out);
  return -1;
}

/* --- removing ------------------------------------------------------------- */

int
center_config_delete (struct esp_store *store, const char *name)
{
  CLEANUP_CLOSE int fd = center_config_dir (store, false);

  if (fd >= 0 && unlinkat (fd, name, 0) == 0 && esp_sync_dir (fd) == 0)
    return 0;
  esp_error ("unlink: " CENTERS_DIR "/%s: %m", name);
  return -1;
}
