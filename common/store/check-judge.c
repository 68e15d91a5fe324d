/* SPDX-License-Identifier: BSD-3-Clause */
/* Judging a restore point: its way to the root, its files, its row; and what
 * becomes of it.  Called parents first, in the second pass.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

/* --- judging a restore point --------------------------------------------- */

static const char *
object_of (const struct check *k, const struct item *it, char object[200])
{
  const struct esp_rp *rp = check_known (k, it);
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
  const struct esp_rp *rp = check_known (k, it);
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

const char *
check_differs (const struct esp_rp *a, const struct esp_rp *b)
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
  if (!(field = check_differs (&it->rp, row)))
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

void
check_judge (struct check *k, struct item *it)
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

/* Children first: one whose child stays, stays too. */
void
check_remove_lost (struct check *k)
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

void
check_rows_without_files (struct check *k)
{
  for (size_t i = k->rows.n; i-- > 0; )
    if (!check_find (k, &k->rows.rp[i].uuid))
      delete_row (k, &k->rows.rp[i], true);
}

