/* SPDX-License-Identifier: BSD-3-Clause */
/* store check: is what the documents, the files and the catalog say true,
 * and the same?
 *
 * It runs beside servers and other commands, in two passes.  The first looks
 * at every restore point's files without any lock and remembers which do not
 * look right.  The second runs inside one write transaction of the catalog,
 * under which nothing is published, renamed, mapped or forgotten: it lists
 * the store again, looks again at what the first pass remembered and at what
 * is new, compares with the rows, and only then tells, and mends.  So a
 * restore point that was made meanwhile is no orphan, and one that was
 * deleted no damage.  What takes long (reading every map) is done outside of
 * the transaction.
 *
 * A directory that somebody holds exclusively is being merged or deleted,
 * which are allowed to be half done: it is left out.  On a store that cannot
 * be written there is no transaction, and nobody to wait for.
 *
 * The documents win over the rows: they are written first.  Restore points
 * go parents first, since a chain map is made from the parent's.  One that
 * cannot be mended takes what descends from it along: without their parent
 * they cannot be read.  Files that we may not or cannot read at all, and
 * those of a newer version, are told and left alone.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

void
check_tell (struct check *k, int kind, bool mended, const char *object,
            const char *problem, const char *remedy)
{
  const struct esp_finding f = {
    .kind = kind, .object = object, .problem = problem, .remedy = remedy,
    .mended = mended,
  };

  if (!mended)
    k->unmended++;
  if (k->fn)
    k->fn (k->arg, &f);
}

/* --- look-ups ------------------------------------------------------------ */

static int
by_item (const void *key, const void *elem)
{
  return memcmp (key, &(*(struct item *const *) elem)->uuid,
                 sizeof (esp_uuid));
}

struct item *
check_find (const struct check *k, const esp_uuid *uuid)
{
  struct item **p = k->n ? bsearch (uuid, k->items, k->n, sizeof *k->items,
                                    by_item) : NULL;

  return p ? *p : NULL;
}

static int
by_row (const void *key, const void *elem)
{
  return memcmp (key, &(*(struct esp_rp *const *) elem)->uuid,
                 sizeof (esp_uuid));
}

const struct esp_rp *
check_row (const struct check *k, const esp_uuid *uuid)
{
  struct esp_rp **p = k->by_uuid
    ? bsearch (uuid, k->by_uuid, k->rows.n, sizeof *k->by_uuid, by_row) : NULL;

  return p ? *p : NULL;
}

bool
check_tip_ok (const struct check *k, const esp_uuid *uuid)
{
  const struct item *it = check_find (k, uuid);

  return it && !it->lost;
}

/* --- listing ------------------------------------------------------------- */

/* Insert a new item for UUID where it belongs; NULL without memory. */
static struct item *
add_item (struct check *k, const esp_uuid *uuid)
{
  struct item **more = reallocarray (k->items, k->n + 1, sizeof *more);
  struct item *it = calloc (1, sizeof *it);
  size_t at = k->n;

  if (more)
    k->items = more;
  if (!more || !it) {
    free (it);
    esp_error ("malloc: %m");
    return NULL;
  }
  /* The directory is read in order, so this is nearly always the end. */
  while (at > 0 && memcmp (&k->items[at - 1]->uuid, uuid, sizeof *uuid) > 0)
    at--;
  memmove (&k->items[at + 1], &k->items[at],
           (k->n - at) * sizeof *k->items);
  it->uuid = *uuid;
  k->items[at] = it;
  k->n++;
  return it;
}

static void
stranger (struct check *k, int dirfd, const char *name)
{
  char object[600], shown[300], was[400], where[300];
  bool mended = false;

  snprintf (object, sizeof object, "restore-points/%s",
            esp_escape (name, shown, sizeof shown));
  snprintf (was, sizeof was, "restore-points/%.255s", name);
  if (k->repair)
    mended = set_aside (k->store, dirfd, name, name, was,
                        "It is not named as a restore point is.", where) == 0;
  check_tell (k, ESP_LEFTOVER, mended, object,
              "its name is not that of a restore point",
              "moved to damaged/");
}

struct listing { struct check *k; bool first; };

static int
list_one (void *arg, int dirfd, const char *name)
{
  struct listing *l = arg;
  char text[ESP_UUID_TEXT];
  struct item *it;
  esp_uuid uuid;

  if (esp_uuid_parse (name, &uuid) == -1 ||
      strcmp (esp_uuid_text (&uuid, text), name) != 0) {
    if (!l->first)
      stranger (l->k, dirfd, name);
    return 0;
  }
  it = check_find (l->k, &uuid);
  if (!it) {
    if (!(it = add_item (l->k, &uuid)))
      return -1;
    it->flagged = !l->first;
  }
  it->gone = false;
  return 0;
}

/* List restore-points/: items that are not there any more are dropped. */
static int
list_items (struct check *k, bool first)
{
  struct listing l = { .k = k, .first = first };
  size_t n = 0;

  for (size_t i = 0; i < k->n; ++i)
    k->items[i]->gone = true;
  if (esp_each_entry (esp_store_rps_fd (k->store), list_one, &l) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    if (k->items[i]->gone) {
      esp_rp_clear (&k->items[i]->rp);
      free (k->items[i]);
    }
    else
      k->items[n++] = k->items[i];
  k->n = n;
  return 0;
}

static int
compare_rows (const void *a, const void *b)
{
  return memcmp (&(*(struct esp_rp *const *) a)->uuid,
                 &(*(struct esp_rp *const *) b)->uuid, sizeof (esp_uuid));
}

static int
list_rows (struct check *k)
{
  if (!k->catalog)
    return 0;
  if (esp_catalog_rp_list (k->catalog, NULL, &k->rows) == -1)
    return -1;
  k->by_uuid = calloc (k->rows.n + 1, sizeof *k->by_uuid);
  if (!k->by_uuid) {
    esp_error ("malloc: %m");
    return -1;
  }
  for (size_t i = 0; i < k->rows.n; ++i)
    k->by_uuid[i] = &k->rows.rp[i];
  qsort (k->by_uuid, k->rows.n, sizeof *k->by_uuid, compare_rows);
  return 0;
}

/* --- the order: parents first -------------------------------------------- */

/* What is known of a restore point: meta, or the row where meta is bad. */
static const struct esp_rp *
known (const struct check *k, const struct item *it)
{
  return it->rp.size ? &it->rp : check_row (k, &it->uuid);
}

static void
find_parents (struct check *k)
{
  for (size_t i = 0; i < k->n; ++i) {
    const struct esp_rp *rp = known (k, k->items[i]);
    k->items[i]->parent = rp ? check_find (k, &rp->parent) : NULL;
  }
}

/* Place IT behind its ancestors. */
static void
place (struct check *k, struct item *it, struct item **path, size_t *placed)
{
  size_t n = 0;

  for (; it && it->order == ITEM_NEW; it = it->parent) {
    it->order = ITEM_ON_PATH;
    path[n++] = it;
  }
  /* We met a part of this very path: a ring. */
  for (; it && it->order == ITEM_ON_PATH && !it->in_ring; it = it->parent)
    it->in_ring = true;
  while (n > 0) {
    path[--n]->order = ITEM_PLACED;
    k->order[(*placed)++] = path[n];
  }
}

static int
make_order (struct check *k)
{
  CLEANUP_FREE struct item **path = calloc (k->n + 1, sizeof *path);
  size_t placed = 0;

  k->order = calloc (k->n + 1, sizeof *k->order);
  if (!path || !k->order) {
    esp_error ("malloc: %m");
    return -1;
  }
  find_parents (k);
  for (size_t i = 0; i < k->n; ++i)
    place (k, k->items[i], path, &placed);
  return 0;
}

/* --- judging a restore point --------------------------------------------- */

static const char *
object_of (const struct check *k, const struct item *it, char object[200])
{
  const struct esp_rp *rp = known (k, it);
  char text[ESP_UUID_TEXT];

  esp_uuid_text (&it->uuid, text);
  if (rp)
    snprintf (object, 200, "restore point %s (%.8s)", rp->name, text);
  else
    snprintf (object, 200, "restore point %s", text);
  return object;
}

/* Keep others from deleting and merging IT.  The descriptor that holds the
 * lock, or -1: somebody does it now, or has done it (a directory is taken
 * away behind the transaction that deletes its row).
 */
static int
hold (struct check *k, const struct item *it)
{
  CLEANUP_CLOSE int fd = esp_store_rp_dir (k->store, &it->uuid);

  if (fd >= 0 ? esp_lock (fd, false) == -1 && errno == EWOULDBLOCK
      : errno == ENOENT)
    return -1;
  /* What cannot be opened is not in work: looking at it says why. */
  return fd >= 0 ? esp_steal_fd (&fd) : open ("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void
lose (struct item *it, const char *why)
{
  it->lost = true;
  snprintf (it->why, sizeof it->why, "%s", why);
}

/* Mend PART or find that it cannot be mended. */
static void
repair_part (struct check *k, struct item *it, enum part part)
{
  const char *remedy = mend_remedy (k, it, part);
  char object[200], problem[TEXT_MAX], text[TEXT_MAX] = "";
  struct esp_catch outer;
  int r;

  object_of (k, it, object);
  memcpy (problem, it->problem[part], sizeof problem);
  if (!remedy) {
    lose (it, problem);
    return;
  }
  outer = esp_catch_begin (text, sizeof text);
  r = mend_part (k, it, part);
  esp_catch_end (outer);
  if (r == 0)
    check_tell (k, ESP_DAMAGE, true, object, problem, remedy);
  else if (check_is_damage (errno))
    lose (it, problem);
  else {
    it->unknown = true;
    check_tell (k, ESP_DAMAGE, false, object, problem, text);
  }
}

static void
repair_item (struct check *k, struct item *it)
{
  /* A part can show a fault of the next one, so this may take some rounds;
   * more of them than parts means that mending does not help.
   */
  for (int round = 0; round <= PARTS; ++round) {
    int part = 0;

    while (part < PARTS && !it->problem[part][0])
      part++;
    if (part == PARTS)
      return;
    if (round == PARTS)
      lose (it, it->problem[part]);
    else
      repair_part (k, it, part);
    if (it->lost || it->unknown)
      return;
    check_examine (k, it);
  }
}

static void
tell_problems (struct check *k, struct item *it)
{
  bool mendable = true;
  char object[200];

  object_of (k, it, object);
  for (int part = 0; part < PARTS; ++part)
    if (it->problem[part][0]) {
      const char *remedy = it->unknown ? NULL : mend_remedy (k, it, part);
      check_tell (k, ESP_DAMAGE, false, object, it->problem[part],
                  remedy || it->unknown ? remedy
                  : "moved to damaged/ with what descends from it");
      mendable = mendable && remedy;
    }
  if (!mendable && !it->unknown)
    lose (it, "damaged");
}

/* A root in place is somebody else's file: there is nothing to mend or to
 * move, and it may come back.
 */
static bool
is_foreign (const struct item *it)
{
  return it->rp.size && it->rp.kind == ESP_RP_IN_PLACE &&
    it->problem[PART_DATA][0] && !it->problem[PART_META][0] &&
    !it->problem[PART_MAP][0] && !it->problem[PART_CHAIN][0];
}

static void
judge_files (struct check *k, struct item *it)
{
  if (it->flagged || (it->parent && it->parent->rebuilt))
    check_examine (k, it);
  if (!check_has_problem (it))
    return;
  if (is_foreign (it))
    it->unknown = true;
  if (it->unknown || !k->repair)
    tell_problems (k, it);
  else
    repair_item (k, it);
}

/* What is wrong with the way to the root, or NULL. */
static const char *
bad_parent (struct check *k, const struct item *it, char text[TEXT_MAX])
{
  const struct esp_rp *rp = known (k, it);
  char u[ESP_UUID_TEXT];

  if (!rp || esp_uuid_is_null (&rp->parent))
    return NULL;
  esp_uuid_text (&rp->parent, u);
  if (it->in_ring)
    return "its parents go round in a ring";
  if (!it->parent)
    snprintf (text, TEXT_MAX, "its parent %s is missing", u);
  else if (it->parent->lost)
    snprintf (text, TEXT_MAX, "its parent %s is damaged", u);
  else
    return NULL;
  return text;
}

/* --- the row ------------------------------------------------------------- */

static bool
same_text (const char *a, const char *b)
{
  return strcmp (a ? a : "", b ? b : "") == 0;
}

static bool
same_resources (const struct esp_rp *a, const struct esp_rp *b)
{
  if (a->nresources != b->nresources)
    return false;
  for (size_t i = 0; i < a->nresources; ++i)
    if (!same_text (a->resources[i].kind, b->resources[i].kind) ||
        !same_text (a->resources[i].name, b->resources[i].name) ||
        !same_text (a->resources[i].version, b->resources[i].version))
      return false;
  return true;
}

/* The first field in which the row differs from meta, or NULL. */
static const char *
differs (const struct esp_rp *a, const struct esp_rp *b)
{
  if (strcmp (a->name, b->name) != 0) return "name";
  if (!esp_uuid_eq (&a->parent, &b->parent)) return "parent";
  if (a->kind != b->kind) return "kind";
  if (a->size != b->size) return "size";
  if (a->created != b->created) return "date";
  if (a->data_blocks != b->data_blocks) return "number of data blocks";
  if (a->zero_blocks != b->zero_blocks) return "number of zero blocks";
  if (!same_text (a->note, b->note)) return "note";
  if (!same_text (a->path, b->path)) return "path";
  return same_resources (a, b) ? NULL : "resources";
}

static void
adopt (struct check *k, struct item *it, const char *object)
{
  bool mended = k->repair && mend_adopt (k->store, k->catalog, &it->rp) == 0;
  char remedy[200];

  snprintf (remedy, sizeof remedy, mended ? "adopted as '%s'" : "adopted",
            it->rp.name);
  check_tell (k, ESP_ORPHAN, mended, object,
              "it is complete, but the catalog does not know it", remedy);
}

static void
judge_row (struct check *k, struct item *it)
{
  const struct esp_rp *row = check_row (k, &it->uuid);
  char object[200], problem[TEXT_MAX];
  const char *field;

  if (!k->catalog || !it->rp.size)
    return;
  object_of (k, it, object);
  if (!row) {
    adopt (k, it, object);
    return;
  }
  if (!(field = differs (&it->rp, row)))
    return;
  snprintf (problem, sizeof problem,
            "meta and the catalog say different things (%s)", field);
  check_tell (k, ESP_DISAGREEMENT,
              k->repair && mend_update (k->store, k->catalog, &it->rp) == 0,
              object, problem, "the catalog takes what meta says");
}

static void
judge_held (struct check *k, struct item *it)
{
  char text[TEXT_MAX], object[200];
  const char *bad = bad_parent (k, it, text);

  if (!bad)
    judge_files (k, it);
  else {
    lose (it, bad);
    if (!k->repair)
      check_tell (k, ESP_DAMAGE, false, object_of (k, it, object), bad,
                  "moved to damaged/");
  }
  if (!it->lost && (!it->unknown || is_foreign (it)))
    judge_row (k, it);
}

static void
judge (struct check *k, struct item *it)
{
  CLEANUP_CLOSE int held = -1;

  /* In the transaction what has a row and looked well cannot be in work. */
  if (k->in_transaction &&
      (it->flagged || !check_row (k, &it->uuid)) &&
      (held = hold (k, it)) == -1)
    return;
  judge_held (k, it);
}

/* --- rows without files, and what is lost -------------------------------- */

static void
delete_row (struct check *k, const struct esp_rp *row, bool tell)
{
  char object[200];
  bool mended = false;

  snprintf (object, sizeof object, "restore point %s", row->name);
  if (k->repair)
    mended = esp_catalog_rp_delete (k->catalog, &row->uuid) == 0;
  if (tell)
    check_tell (k, ESP_DAMAGE, mended, object, "its files are missing",
                "taken out of the catalog");
}

/* Nobody may have it open when it is moved away: -1. */
static int
lose_files (struct check *k, struct item *it, const char *object)
{
  CLEANUP_CLOSE int fd = esp_store_rp_dir (k->store, &it->uuid);
  char name[ESP_UUID_TEXT], as[80], was[80], where[300];

  if (it->needed || (fd >= 0 && esp_lock (fd, true) == -1 &&
                     errno == EWOULDBLOCK)) {
    check_tell (k, ESP_DAMAGE, false, object, it->why,
                "it, or what descends from it, is open: disconnect the"
                " clients and repair again");
    return -1;
  }
  snprintf (as, sizeof as, "restore-point-%s", esp_uuid_text (&it->uuid, name));
  snprintf (was, sizeof was, "restore-points/%s", name);
  if (set_aside (k->store, esp_store_rps_fd (k->store), name, as, was,
                 it->why, where) == -1) {
    check_tell (k, ESP_DAMAGE, false, object, it->why, NULL);
    return -1;
  }
  check_tell (k, ESP_DAMAGE, true, object, it->why, where);
  return 0;
}

/* Children first.  A restore point whose child stays, stays too. */
static void
remove_lost (struct check *k)
{
  char object[200];

  for (size_t i = k->n; i-- > 0; ) {
    struct item *it = k->order[i];
    const struct esp_rp *row = check_row (k, &it->uuid);

    if (!it->lost)
      continue;
    if (lose_files (k, it, object_of (k, it, object)) == -1) {
      if (it->parent)
        it->parent->needed = true;
    }
    else if (row && k->catalog)
      delete_row (k, row, false);
  }
}

static void
judge_rows (struct check *k)
{
  for (size_t i = k->rows.n; i-- > 0; )
    if (!check_find (k, &k->rows.rp[i].uuid))
      delete_row (k, &k->rows.rp[i], true);
}

/* --- the whole ----------------------------------------------------------- */

/* What the first pass read may be old by now, or have been half of a change:
 * whatever does not fit is read again.
 */
static void
read_again (struct check *k, struct item *it)
{
  const struct esp_rp *row = check_row (k, &it->uuid);

  if (!row || differs (&it->rp, row) ||
      (!esp_uuid_is_null (&it->rp.parent) && !check_find (k, &it->rp.parent)))
    it->flagged = true;
  if (it->flagged)
    check_read_meta (k, it);
}

static int
second_pass (struct check *k)
{
  if (list_items (k, false) == -1 || list_rows (k) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    read_again (k, k->items[i]);
  if (make_order (k) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    judge (k, k->order[i]);
  if (check_venues (k) == -1 || check_overlays (k) == -1)
    return -1;
  if (k->repair)
    remove_lost (k);
  judge_rows (k);
  return check_tmp (k);
}

static int
first_pass (struct check *k)
{
  if (list_items (k, true) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i) {
    check_examine (k, k->items[i]);
    k->items[i]->flagged = check_has_problem (k->items[i]);
  }
  return 0;
}

static int
both_passes (struct check *k)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (first_pass (k) == -1)
    return -1;
  if (k->catalog && !esp_store_readonly (k->store)) {
    if (esp_catalog_begin (k->catalog) == -1)
      return -1;
    tx = k->catalog;
    k->in_transaction = true;
  }
  if (second_pass (k) == -1)
    return -1;
  return tx ? esp_catalog_commit (ESP_STEAL (tx)) : 0;
}

/* --- the catalog itself -------------------------------------------------- */

static int
unsound_catalog (struct check *k, const char *problem, int err)
{
  bool mended = false;

  k->catalog = NULL;
  if (!check_is_damage (err)) {         /* a newer one, or no permission */
    check_tell (k, ESP_DAMAGE, false, ESP_CATALOG_FILE, problem, NULL);
    return 0;
  }
  if (k->repair) {
    esp_catalog_close (ESP_STEAL (k->store->catalog));
    mended = rebuild_catalog (k->store, NULL, NULL, NULL, NULL) == 0 &&
      store_open_catalog (k->store) == 0;
    if (!mended)
      return -1;
    k->catalog = k->store->catalog;
  }
  check_tell (k, ESP_DAMAGE, mended, ESP_CATALOG_FILE, problem,
              "made anew from the documents");
  return 0;
}

static int
check_catalog (struct check *k)
{
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = k->store->catalog || store_open_catalog (k->store) == 0
    ? esp_catalog_check (k->store->catalog) : -1;

  esp_catch_end (outer);
  k->catalog = k->store->catalog;
  return r == 0 ? 0 : unsound_catalog (k, text, errno);
}

static void
check_clear (struct check *k)
{
  int saved = errno;

  for (size_t i = 0; i < k->n; ++i) {
    esp_rp_clear (&k->items[i]->rp);
    free (k->items[i]);
  }
  free (k->items);
  free (k->order);
  free (k->by_uuid);
  esp_rp_list_clear (&k->rows);
  errno = saved;
}

int
esp_store_check (struct esp_store *store, bool repair, esp_finding_fn fn,
                 void *arg, unsigned *unmended)
{
  __attribute__ ((cleanup (check_clear))) struct check k = {
    .store = store, .repair = repair, .fn = fn, .arg = arg,
  };

  if (repair && esp_store_readonly (store)) {
    errno = EROFS;
    esp_error ("%s: the store is read-only: it can be checked, but not"
               " repaired", store->path);
    return -1;
  }
  if (check_catalog (&k) == -1 || both_passes (&k) == -1)
    return -1;
  if (unmended)
    *unmended = k.unmended;
  return 0;
}
