/* SPDX-License-Identifier: BSD-3-Clause */
/* What is at a center: the document `refs`, and lists.
 *
 * `refs` is there for remotes that cannot be listed (HTTP): each push adds
 * what it brought, replacing the document only where it is unchanged, again
 * and again until that succeeds.  It is not signed and only says where to
 * look: what is used of a restore point or a venue comes from its signed
 * manifest or reference.  Its summaries of restore points (name, parent,
 * sizes) are for lists, and for asking for a chain's manifests at once
 * instead of one after another.
 *
 * Where the remote can be listed, the list is what counts, and `refs` only
 * saves reading manifests.
 */

#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "store/fields.h"
#include "util/doc.h"
#include "util/host.h"

#define REFS "refs"
#define REFS_KIND "refs"
#define REFS_VERSION 1
#define TRIES 50                /* of a replacement that others were before */

void
esp_center_refs_clear (struct esp_center_refs *refs)
{
  for (size_t i = 0; i < refs->nvenues; i++)
    esp_reference_clear (&refs->venues[i]);
  for (size_t i = 0; i < refs->nrps; i++)
    esp_rp_clear (&refs->rps[i]);
  free (refs->venues);
  free (refs->rps);
  memset (refs, 0, sizeof *refs);
}

/* --- the document ----------------------------------------------------------- */

/* The document, or NULL (ENOENT not reported). */
static json_t *
refs_load (struct esp_center *center, struct esp_object *version)
{
  CLEANUP_FREE char *text = NULL;
  char where[CENTER_WHERE_MAX];
  size_t len;

  text = esp_remote_get_all (center->remote, REFS, ESP_DOC_MAX, &len, version);
  if (!text)
    return NULL;
  return esp_doc_parse (text, len, REFS_KIND, REFS_VERSION,
                        center_where (center, REFS, where));
}

static json_t *
refs_new (void)
{
  json_t *doc = json_pack ("{s:{}, s:[]}", "restore-points", "venues");

  if (!doc)
    center_no_memory ();
  return doc;
}

/* Its members, made where they are missing or of another type. */
static json_t *
member (json_t *doc, const char *key, bool array)
{
  json_t *o = json_object_get (doc, key);

  if (array ? json_is_array (o) : json_is_object (o))
    return o;
  o = array ? json_array () : json_object ();
  return json_object_set_new (doc, key, o) == 0 ? o : NULL;
}

static bool
has_venue (json_t *venues, const char *id)
{
  size_t i;
  json_t *v;

  json_array_foreach (venues, i, v)
    if (json_is_string (v) && strcmp (json_string_value (v), id) == 0)
      return true;
  return false;
}

/* What everybody may see at a glance; the rest is in the manifest. */
static json_t *
summary (const struct esp_rp *rp)
{
  struct esp_rp brief = *rp;

  brief.note = (char *) "";
  brief.resources = NULL;
  brief.nresources = 0;
  return esp_rp_fields (&brief);
}

/* 1: DOC is changed, 0: it has it all, -1. */
static int
refs_put (json_t *doc, const struct esp_rp *const *rps, size_t nrps,
          const char *id)
{
  json_t *o = member (doc, "restore-points", false);
  json_t *venues = member (doc, "venues", true);
  char text[ESP_UUID_TEXT];
  int changed = 0;

  if (!o || !venues)
    return center_no_memory ();
  for (size_t i = 0; i < nrps; i++) {
    esp_uuid_text (&rps[i]->uuid, text);
    if (json_object_get (o, text))
      continue;
    if (json_object_set_new (o, text, summary (rps[i])) == -1)
      return center_no_memory ();
    changed = 1;
  }
  if (!id || has_venue (venues, id))
    return changed;
  return json_array_append_new (venues, json_string (id)) == -1
    ? center_no_memory () : 1;
}

/* One attempt: 1 done, 0 somebody was faster, -1. */
static int
try_add (struct esp_center *center, const struct esp_rp *const *rps,
         size_t nrps, const char *id)
{
  struct esp_object version;
  CLEANUP_JSON json_t *doc = refs_load (center, &version);
  CLEANUP_FREE char *text = NULL;
  bool fresh = !doc && errno == ENOENT;
  size_t len;
  int r;

  if (fresh)
    doc = refs_new ();
  if (!doc || (r = refs_put (doc, rps, nrps, id)) == -1)
    return -1;
  if (r == 0)
    return 1;
  text = esp_doc_format (REFS_KIND, REFS_VERSION, doc, &len);
  if (!text)
    return center_no_memory ();
  r = fresh ? esp_remote_put_absent (center->remote, REFS, text, len, NULL)
    : esp_remote_put_if (center->remote, REFS, &version, text, len, NULL);
  if (r == 0)
    return 1;
  return errno == EEXIST || errno == ESTALE || errno == ENOENT ? 0 : -1;
}

int
center_refs_add (struct esp_center *center, const struct esp_rp *const *rps,
                 size_t nrps, const char *id)
{
  int r;

  for (unsigned i = 0; i < TRIES; i++) {
    if ((r = try_add (center, rps, nrps, id)) != 0)
      return r == 1 ? 0 : -1;
    /* Not all at once again. */
    if (!center_pause (5 + (unsigned) random () % (10 * (i + 1))))
      break;
  }
  errno = esp_progress_interrupted () ? ECANCELED : ESTALE;
  esp_error ("center %s: its document " REFS " is replaced all the time: "
             "push again", center->config.name);
  return -1;
}

static int
add_rp (struct esp_center_refs *out, struct esp_rp *rp)
{
  struct esp_rp *more = reallocarray (out->rps, out->nrps + 1, sizeof *more);

  if (!more) {
    esp_rp_clear (rp);
    return center_no_memory ();
  }
  out->rps = more;
  out->rps[out->nrps++] = *rp;
  return 0;
}

/* Hints: one that makes no sense is left out. */
static int
read_rps (json_t *o, struct esp_center_refs *out)
{
  const char *key;
  json_t *value;

  json_object_foreach (o, key, value) {
    struct esp_rp rp = { 0 };
    if (esp_rp_read_fields (value, &rp) != NULL) {
      esp_rp_clear (&rp);
      continue;
    }
    if (add_rp (out, &rp) == -1)
      return -1;
  }
  return 0;
}

int
center_refs_hint (struct esp_center *center, struct esp_center_refs *out)
{
  CLEANUP_JSON json_t *doc = refs_load (center, NULL);

  memset (out, 0, sizeof *out);
  return doc ? read_rps (json_object_get (doc, "restore-points"), out) : -1;
}

/* --- lists --------------------------------------------------------------------- */

struct names { char **name; size_t n; };

static void
names_clear (struct names *names)
{
  for (size_t i = 0; i < names->n; i++)
    free (names->name[i]);
  free (names->name);
}
#define CLEANUP_NAMES __attribute__ ((cleanup (names_clear)))

static int
names_add (struct names *names, const char *name, size_t len)
{
  char **more = reallocarray (names->name, names->n + 1, sizeof *more);

  if (!more)
    return center_no_memory ();
  names->name = more;
  if (!(more[names->n] = strndup (name, len)))
    return center_no_memory ();
  names->n++;
  return 0;
}

/* "restore-points/UUID/manifest" */
static int
list_rp (void *arg, const char *name, const struct esp_object *object)
{
  const size_t dir = strlen ("restore-points/"), uuid = ESP_UUID_TEXT - 1;

  (void) object;
  if (strlen (name) != dir + uuid + strlen ("/manifest") ||
      strcmp (name + dir + uuid, "/manifest") != 0)
    return 0;
  return names_add (arg, name + dir, uuid);
}

static int
hex_digit (char c)
{
  return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10
    : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The opposite of esp_path_component; false for what it shortened. */
static bool
decode (const char *s, char id[ESP_NAME_MAX + 1])
{
  size_t n = 0;

  for (; *s && n < ESP_NAME_MAX; s++, n++) {
    int high, low;
    if (*s != '%') {
      id[n] = *s;
      continue;
    }
    if ((high = hex_digit (s[1])) < 0 || (low = hex_digit (s[2])) < 0)
      return false;
    id[n] = (char) (16 * high + low);
    s += 2;
  }
  id[n] = 0;
  return !*s && esp_name_ok (id);
}

/* "venues/ID" */
static int
list_venue (void *arg, const char *name, const struct esp_object *object)
{
  char id[ESP_NAME_MAX + 1];

  (void) object;
  if (strncmp (name, "venues/", 7) != 0 || !decode (name + 7, id))
    return 0;
  return names_add (arg, id, strlen (id));
}

/* What DOC says; it may be NULL. */
static int
names_of_doc (json_t *doc, struct names *rps, struct names *venues)
{
  json_t *v;
  const char *key;
  size_t i;

  json_object_foreach (json_object_get (doc, "restore-points"), key, v)
    if (names_add (rps, key, strlen (key)) == -1)
      return -1;
  json_array_foreach (json_object_get (doc, "venues"), i, v)
    if (json_is_string (v) && esp_name_ok (json_string_value (v)) &&
        names_add (venues, json_string_value (v), json_string_length (v)) == -1)
      return -1;
  return 0;
}

static int
names_there (struct esp_center *center, json_t *doc, struct names *rps,
             struct names *venues)
{
  if (esp_remote_list (center->remote, "restore-points/", list_rp, rps) == 0)
    return esp_remote_list (center->remote, "venues/", list_venue, venues);
  return errno == ENOTSUP ? names_of_doc (doc, rps, venues) : -1;
}

/* --- all of it ------------------------------------------------------------------ */

struct loading {
  struct esp_center *center;
  json_t *summaries;            /* of `refs`, or NULL */
  const struct names *rps, *venues;
  struct esp_center_refs *out;  /* with a place for each; one that could not
                                 * be read stays empty */
  atomic_size_t bad;
};

/* One object that cannot be believed does not hide the others. */
static int
tell (struct loading *l, int r, const char *why)
{
  if (r == -1 && errno != ENOENT) {
    esp_warning ("%s", why);
    atomic_fetch_add (&l->bad, 1);
  }
  return 0;
}

static int
load_rp (void *arg, size_t i)
{
  struct loading *l = arg;
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  char why[512] = "";
  struct esp_catch outer;
  esp_uuid uuid;
  int r;

  if (esp_uuid_parse (l->rps->name[i], &uuid) == -1)
    return 0;
  json_t *brief = json_object_get (l->summaries, l->rps->name[i]);
  if (brief && !esp_rp_read_fields (brief, &l->out->rps[i]) &&
      esp_uuid_eq (&l->out->rps[i].uuid, &uuid))
    return 0;
  esp_rp_clear (&l->out->rps[i]);
  outer = esp_catch_begin (why, sizeof why);
  r = esp_center_manifest (l->center, &uuid, &m, NULL);
  esp_catch_end (outer);
  if (r == 0) {
    l->out->rps[i] = m.rp;
    memset (&m.rp, 0, sizeof m.rp);
  }
  return tell (l, r, why);
}

static int
load_venue (void *arg, size_t i)
{
  struct loading *l = arg;
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = esp_center_reference (l->center, l->venues->name[i],
                                &l->out->venues[i], NULL);

  esp_catch_end (outer);
  if (r == -1) {
    int saved = errno;
    esp_reference_clear (&l->out->venues[i]);
    errno = saved;
  }
  return tell (l, r, why);
}

/* Close the gaps of what could not be read. */
static void
squeeze (struct esp_center_refs *out)
{
  size_t n = 0;

  for (size_t i = 0; i < out->nrps; i++)
    if (!esp_uuid_is_null (&out->rps[i].uuid))
      out->rps[n++] = out->rps[i];
  out->nrps = n;
  n = 0;
  for (size_t i = 0; i < out->nvenues; i++)
    if (out->venues[i].venue.id[0])
      out->venues[n++] = out->venues[i];
  out->nvenues = n;
}

static int
compare_rps (const void *a, const void *b)
{
  const struct esp_rp *x = a, *y = b;

  if (x->created != y->created)
    return x->created < y->created ? -1 : 1;
  return strcmp (x->name, y->name);
}

static int
load_all (struct loading *l)
{
  struct esp_center_refs *out = l->out;
  unsigned threads = center_threads (l->center);

  out->rps = calloc (l->rps->n + 1, sizeof *out->rps);
  out->venues = calloc (l->venues->n + 1, sizeof *out->venues);
  if (!out->rps || !out->venues)
    return center_no_memory ();
  out->nrps = l->rps->n;
  out->nvenues = l->venues->n;
  if (center_parallel (out->nrps, threads, load_rp, l) == -1 ||
      center_parallel (out->nvenues, threads, load_venue, l) == -1)
    return -1;
  squeeze (out);
  out->bad = atomic_load (&l->bad);
  if (out->nrps > 0)
    qsort (out->rps, out->nrps, sizeof *out->rps, compare_rps);
  return 0;
}

int
esp_center_refs (struct esp_center *center, struct esp_center_refs *out)
{
  CLEANUP_JSON json_t *doc = refs_load (center, NULL);
  CLEANUP_NAMES struct names rps = { 0 }, venues = { 0 };
  struct loading l = { center, NULL, &rps, &venues, out, 0 };

  memset (out, 0, sizeof *out);
  if (!doc && errno != ENOENT)
    return -1;
  l.summaries = json_object_get (doc, "restore-points");
  if (names_there (center, doc, &rps, &venues) == 0 && load_all (&l) == 0)
    return 0;
  esp_center_refs_clear (out);
  return -1;
}
