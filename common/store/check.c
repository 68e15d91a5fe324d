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
#include <stdio.h>
#include <stdlib.h>

#include "store/check-internal.h"
#include "util/host.h"

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

/* --- the whole ----------------------------------------------------------- */

/* What the first pass read may be old by now, or have been half of a change:
 * whatever does not fit is read again.
 */
static void
read_again (struct check *k, struct item *it)
{
  const struct esp_rp *row = check_row (k, &it->uuid);

  if (!row || check_differs (&it->rp, row) ||
      (!esp_uuid_is_null (&it->rp.parent) && !check_find (k, &it->rp.parent)))
    it->flagged = true;
  if (it->flagged)
    check_read_meta (k, it);
}

static int
second_pass (struct check *k)
{
  if (check_list_items (k, false) == -1 || check_list_rows (k) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    read_again (k, k->items[i]);
  if (check_make_order (k) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    check_judge (k, k->order[i]);
  if (check_venues (k) == -1 || check_site (k) == -1 ||
      check_overlays (k) == -1)
    return -1;
  if (k->repair)
    check_remove_lost (k);
  check_rows_without_files (k);
  return check_tmp (k);
}

static int
first_pass (struct check *k)
{
  if (check_list_items (k, true) == -1)
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

/* --- the store's document ------------------------------------------------ */

static int
check_document (struct check *k)
{
  bool bad = k->store->document_bad;

  if (bad && k->repair && store_mend_document (k->store) == -1)
    return -1;
  if (bad)
    check_tell (k, ESP_DAMAGE, k->repair, "the store's file espalier",
                "is missing or damaged", "written anew");
  return 0;
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
  if (check_document (&k) == -1 || check_catalog (&k) == -1 ||
      both_passes (&k) == -1)
    return -1;
  if (unmended)
    *unmended = k.unmended;
  return 0;
}
