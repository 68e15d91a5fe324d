/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing venues.
 *
 * The document venues/ID is the truth, with the venue's whole history; the
 * catalog's rows are copied from it.  A change is one catalog transaction:
 *
 *   begin (which keeps every other writer of the store away)
 *   read the document and decide on what it says now
 *   change the rows, so that a restore point that is gone refuses it here
 *   replace the document, atomically and durably
 *   commit
 *
 * A crash before the document is replaced leaves nothing.  One between it
 * and the commit leaves a document that is newer than its rows, never an
 * older one; `store check --repair` copies it, and so does the next change,
 * which begins with the document.  So a mapping that was reported as done
 * survives, and one that was not may appear: never a mixture.
 *
 * A deletion removes the document last before the commit.  A crash in
 * between leaves rows without document: check writes the document again, and
 * the venue is back, since a document that was lost must not take a venue
 * along.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <time.h>
#include <jansson.h>

#include "store/internal.h"
#include "store/venue.h"
#include "util/host.h"

/* As much as an NBD server may say about an export. */
#define DESCRIPTION_MAX 4096
/* Changes kept in the log: keeps the document within what a reader takes. */
#define LOG_MAX 10000

/* What a change asks for. */
struct wish {
  const char *action;
  const esp_uuid *disks;        /* NULL: as they are */
  unsigned ndisks;
  const char *description;      /* NULL: as it is */
};

/* --- checks ------------------------------------------------------------ */

static int
check_description (const char *id, const char *s)
{
  char text[64];

  for (const char *p = s; *p; ++p)
    if ((unsigned char) *p < 0x20 || *p == 0x7f) {
      errno = EINVAL;
      esp_error ("venue '%s': the description '%s' contains control characters:"
                 " write it in one line", id,
                 esp_escape (s, text, sizeof text));
      return -1;
    }
  json_t *utf8 = json_string (s);
  if (!utf8 || strlen (s) > DESCRIPTION_MAX) {
    errno = EINVAL;
    esp_error ("venue '%s': a description is at most %d bytes of UTF-8", id,
               DESCRIPTION_MAX);
    json_decref (utf8);
    return -1;
  }
  json_decref (utf8);
  return 0;
}

static int
check_disks (struct esp_store *store, const char *id, const struct wish *wish)
{
  char text[ESP_UUID_TEXT];

  if (!wish->disks)
    return 0;
  if (wish->ndisks < 1 || wish->ndisks > ESP_DISK_NUMBER_MAX + 1) {
    errno = EINVAL;
    esp_error ("venue '%s': it can have 1 to %d disks, not %u", id,
               ESP_DISK_NUMBER_MAX + 1, wish->ndisks);
    return -1;
  }
  for (unsigned i = 0; i < wish->ndisks; ++i) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    if (esp_catalog_rp_get (store->catalog, &wish->disks[i], &rp) == 0)
      continue;
    if (errno == ENOENT)
      esp_error ("venue '%s', disk %u: there is no restore point %s", id, i,
                 esp_uuid_text (&wish->disks[i], text));
    return -1;
  }
  return 0;
}

static int
check_wish (struct esp_store *store, const char *id, const struct wish *wish)
{
  if (esp_name_check (id, "venue") == -1 ||
      (wish->description && check_description (id, wish->description) == -1))
    return -1;
  return check_disks (store, id, wish);
}

/* --- changing ---------------------------------------------------------- */

static bool
same_disks (const struct esp_venue *v, const struct wish *wish)
{
  if (!wish->disks)
    return true;
  return v->ndisks == wish->ndisks &&
    memcmp (v->disks, wish->disks, v->ndisks * sizeof v->disks[0]) == 0;
}

static bool
changes_nothing (const struct esp_venue *v, const struct wish *wish)
{
  return same_disks (v, wish) &&
    (!wish->description || strcmp (v->description, wish->description) == 0);
}

static esp_uuid *
copy_disks (const esp_uuid *disks, unsigned n)
{
  esp_uuid *r = malloc (n * sizeof *r);

  return r ? memcpy (r, disks, n * sizeof *r) : NULL;
}

static int
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: %m");
  return -1;
}

/* The venue becomes what WISH says. */
static int
take_wish (struct esp_venue *v, const struct wish *wish, uint64_t now)
{
  if (wish->description) {
    char *s = strdup (wish->description);
    if (!s)
      return no_memory ();
    free (v->description);
    v->description = s;
  }
  if (wish->disks) {
    esp_uuid *disks = copy_disks (wish->disks, wish->ndisks);
    if (!disks)
      return no_memory ();
    free (v->disks);
    v->disks = disks;
    v->ndisks = wish->ndisks;
  }
  v->revision++;
  v->changed = now;
  return 0;
}

static void
forget_oldest (struct esp_venue_log *log)
{
  size_t surplus = log->n - LOG_MAX;

  for (size_t i = 0; i < surplus; ++i) {
    free (log->change[i].action);
    free (log->change[i].description);
    free (log->change[i].disks);
  }
  memmove (log->change, log->change + surplus, LOG_MAX * sizeof *log->change);
  log->n = LOG_MAX;
}

/* What the venue is now becomes the newest entry of its log. */
static int
append_change (struct esp_venue_log *log, const struct esp_venue *v,
               const char *action)
{
  struct esp_venue_change *x, *more =
    reallocarray (log->change, log->n + 1, sizeof *x);

  if (!more)
    return no_memory ();
  log->change = more;
  x = memset (&log->change[log->n++], 0, sizeof *x);
  x->revision = v->revision;
  x->time = v->changed;
  x->ndisks = v->ndisks;
  if (!(x->action = strdup (action)) ||
      !(x->description = strdup (v->description)) ||
      !(x->disks = copy_disks (v->disks, v->ndisks)))
    return no_memory ();
  if (log->n > LOG_MAX)
    forget_oldest (log);
  return 0;
}

int
venue_copy_to_catalog (struct esp_catalog *catalog, const struct venue_doc *d)
{
  if (esp_catalog_venue_put (catalog, &d->venue, NULL) == -1 ||
      esp_catalog_venue_set_log (catalog, d->venue.id, &d->log) == -1)
    return -1;
  return esp_catalog_venue_boot_put (catalog, &d->boot);
}

/* Within a transaction: apply WISH to D, write it. */
static int
change (struct esp_store *store, struct venue_doc *d, const struct wish *wish)
{
  if (take_wish (&d->venue, wish, time (NULL)) == -1 ||
      append_change (&d->log, &d->venue, wish->action) == -1 ||
      venue_copy_to_catalog (store->catalog, d) == -1)
    return -1;
  return venue_write (store, d);
}

static int
exists (const char *id)
{
  errno = EEXIST;
  esp_error ("there is already a venue '%s': change it with 'espalier venue"
             " set'", id);
  return -1;
}

/* Neither rows nor a document: a document alone is a venue that a crash (or
 * a lost catalog) left, and its history is not for us to overwrite.
 */
static int
check_new (struct esp_store *store, const char *id)
{
  struct stat st;
  esp_uuid tip;

  if (esp_catalog_venue_tip (store->catalog, id, 0, &tip) == 0)
    return exists (id);
  if (errno != ENOENT)
    return -1;
  if (fstatat (esp_store_venues_fd (store), id, &st,
               AT_SYMLINK_NOFOLLOW) == -1)
    return 0;
  errno = EEXIST;
  esp_error ("there is a document venues/%s that the catalog does not know:"
             " run 'espalier store check --repair'", id);
  return -1;
}

int
esp_venue_add (struct esp_store *store, const char *id, const esp_uuid *disks,
               unsigned ndisks, const char *description)
{
  const struct wish wish = {
    .action = "add", .disks = disks, .ndisks = ndisks,
    .description = description ? description : "",
  };
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_name_check (id, "venue") == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (check_new (store, id) == -1 || check_wish (store, id, &wish) == -1)
    return -1;
  strcpy (d.venue.id, id);
  strcpy (d.boot.id, id);
  d.boot.weight = ESP_WEIGHT_DEFAULT;
  d.venue.created = time (NULL);
  if (change (store, &d, &wish) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

int
esp_venue_set (struct esp_store *store, const char *id, const esp_uuid *disks,
               unsigned ndisks, const char *description)
{
  const struct wish wish = {
    .action = "set", .disks = disks, .ndisks = ndisks,
    .description = description,
  };
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_name_check (id, "venue") == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (venue_read_to_change (store, id, &d) == -1 ||
      check_wish (store, id, &wish) == -1)
    return -1;
  if (changes_nothing (&d.venue, &wish))
    return 0;
  if (change (store, &d, &wish) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

/* The change to go back to; REVISION 0 is the one before the present. */
static const struct esp_venue_change *
find_change (const struct esp_venue *v, const struct esp_venue_log *log,
             uint64_t revision)
{
  if (revision == 0 && log->n >= 2)
    return &log->change[log->n - 2];
  for (size_t i = 0; revision && i < log->n; ++i)
    if (log->change[i].revision == revision)
      return &log->change[i];
  errno = ENOENT;
  if (revision == 0)
    esp_error ("venue '%s' has no earlier revision to go back to", v->id);
  else
    esp_error ("venue '%s' has no revision %llu (see 'espalier venue log %s')",
               v->id, (unsigned long long) revision, v->id);
  return NULL;
}

int
esp_venue_rollback (struct esp_store *store, const char *id,
                    uint64_t revision)
{
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  const struct esp_venue_change *old;
  char action[48];

  if (esp_name_check (id, "venue") == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (venue_read_to_change (store, id, &d) == -1 ||
      !(old = find_change (&d.venue, &d.log, revision)))
    return -1;
  snprintf (action, sizeof action, "rollback to %llu",
            (unsigned long long) old->revision);
  CLEANUP_FREE esp_uuid *disks = copy_disks (old->disks, old->ndisks);
  CLEANUP_FREE char *description = strdup (old->description);
  if (!disks || !description)
    return no_memory ();
  const struct wish wish = { action, disks, old->ndisks, description };
  if (check_disks (store, id, &wish) == -1)
    return -1;
  if (changes_nothing (&d.venue, &wish))
    return 0;
  if (change (store, &d, &wish) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}
