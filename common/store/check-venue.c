/* SPDX-License-Identifier: BSD-3-Clause */
/* Venues: each document, what it maps, and its rows. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"

static const char *
venue_object (const char *id, char object[300])
{
  char shown[256];

  snprintf (object, 300, "venue %s", esp_escape (id, shown, sizeof shown));
  return object;
}

/* Move the document away and forget the rows. */
static void
lose_venue (struct check *k, const char *id, const char *why)
{
  char object[300], as[300], was[300], where[300] = "moved to damaged/";
  bool mended = false;
  esp_uuid tip;

  snprintf (as, sizeof as, "venue-%s", id);
  snprintf (was, sizeof was, "venues/%s", id);
  if (k->repair)
    mended = set_aside (k->store, esp_store_venues_fd (k->store), id, as, was,
                        why, where) == 0;
  if (mended && k->catalog &&
      esp_catalog_venue_tip (k->catalog, id, 0, &tip) == 0)
    mended = esp_catalog_venue_delete (k->catalog, id) == 0;
  check_tell (k, ESP_DAMAGE, mended, venue_object (id, object), why, where);
}

static bool
same_disks (const esp_uuid *a, unsigned na, const esp_uuid *b, unsigned nb)
{
  return na == nb && memcmp (a, b, na * sizeof *a) == 0;
}

static bool
same_venue (const struct esp_venue *a, const struct esp_venue *b)
{
  return strcmp (a->description, b->description) == 0 &&
    a->created == b->created && a->changed == b->changed &&
    a->revision == b->revision &&
    same_disks (a->disks, a->ndisks, b->disks, b->ndisks);
}

static bool
same_log (const struct esp_venue_log *a, const struct esp_venue_log *b)
{
  if (a->n != b->n)
    return false;
  for (size_t i = 0; i < a->n; ++i) {
    const struct esp_venue_change *x = &a->change[i], *y = &b->change[i];
    if (x->revision != y->revision || x->time != y->time ||
        strcmp (x->action, y->action) != 0 ||
        strcmp (x->description, y->description) != 0 ||
        !same_disks (x->disks, x->ndisks, y->disks, y->ndisks))
      return false;
  }
  return true;
}

static bool
same_boot (const struct esp_venue_boot *a, const struct esp_venue_boot *b)
{
  return a->boot == b->boot && a->weight == b->weight &&
    strcmp (a->kernel, b->kernel) == 0 && strcmp (a->initrd, b->initrd) == 0 &&
    strcmp (a->cmdline, b->cmdline) == 0 &&
    strcmp (a->networks, b->networks) == 0;
}

/* What the catalog says of venue ID, as a document. */
static int
read_rows (struct check *k, const char *id, struct venue_doc *out)
{
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };

  if (esp_catalog_venue_get (k->catalog, id, &d.venue) == -1 ||
      esp_catalog_venue_log (k->catalog, id, &d.log) == -1 ||
      esp_catalog_venue_boot_get (k->catalog, id, &d.boot) == -1)
    return -1;
  *out = d;
  memset (&d, 0, sizeof d);
  return 0;
}

/* Are the rows what the document says?  1, 0, or -1. */
static int
rows_agree (struct check *k, const struct venue_doc *d)
{
  CLEANUP_VENUE_DOC struct venue_doc rows = { 0 };
  esp_uuid tip;

  if (esp_catalog_venue_tip (k->catalog, d->venue.id, 0, &tip) == -1)
    return errno == ENOENT ? 0 : -1;
  if (read_rows (k, d->venue.id, &rows) == -1)
    return -1;
  return same_venue (&d->venue, &rows.venue) &&
    same_log (&d->log, &rows.log) && same_boot (&d->boot, &rows.boot);
}

static int
judge_rows (struct check *k, const struct venue_doc *d)
{
  char object[300];
  int r = k->catalog ? rows_agree (k, d) : 1;

  if (r != 0)
    return r == 1 ? 0 : -1;
  check_tell (k, ESP_DISAGREEMENT,
              k->repair && venue_copy_to_catalog (k->catalog, d) == 0,
              venue_object (d->venue.id, object),
              "its document and the catalog say different things",
              "the catalog takes what the document says");
  return 0;
}

/* The number of the first disk whose tip is not there, or -1. */
static int
bad_disk (const struct check *k, const struct esp_venue *v)
{
  for (unsigned i = 0; i < v->ndisks; ++i)
    if (!check_tip_ok (k, &v->disks[i]))
      return i;
  return -1;
}

/* Write the document from the rows again. */
static int
write_from_rows (struct check *k, const char *id)
{
  CLEANUP_VENUE_DOC struct venue_doc rows = { 0 };

  if (read_rows (k, id, &rows) == -1)
    return -1;
  return venue_write (k->store, &rows);
}

/* The document cannot be read, for the reason WHY. */
static void
bad_document (struct check *k, const char *id, int err, const char *why)
{
  char object[300];
  esp_uuid tip;

  venue_object (id, object);
  if (!check_is_damage (err))
    check_tell (k, ESP_DAMAGE, false, object, why, NULL);
  else if (k->catalog && esp_catalog_venue_tip (k->catalog, id, 0, &tip) == 0)
    check_tell (k, ESP_DAMAGE, k->repair && write_from_rows (k, id) == 0,
                object, why, "the document is written again from the catalog");
  else
    lose_venue (k, id, why);
}

static int
judge_venue (struct check *k, const char *id)
{
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  char text[TEXT_MAX] = "", u[ESP_UUID_TEXT];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = venue_read (k->store, id, &d), disk;

  esp_catch_end (outer);
  if (r == -1) {
    bad_document (k, id, errno, text);
    return 0;
  }
  disk = bad_disk (k, &d.venue);
  if (disk == -1)
    return judge_rows (k, &d);
  snprintf (text, sizeof text,
            "disk %d maps restore point %s, which is missing or damaged",
            disk, esp_uuid_text (&d.venue.disks[disk], u));
  lose_venue (k, id, text);
  return 0;
}

/* What is no venue's name: mostly a file that was being written. */
static void
judge_stranger (struct check *k, int dirfd, const char *name)
{
  char object[300], was[300], where[300], shown[256];
  bool mended = false;

  snprintf (object, sizeof object, "venues/%s",
            esp_escape (name, shown, sizeof shown));
  snprintf (was, sizeof was, "venues/%.255s", name);
  if (k->repair)
    mended = set_aside (k->store, dirfd, name, name[0] == '.' ? name + 1 : name,
                        was, "Its name is not that of a venue.", where) == 0;
  check_tell (k, ESP_LEFTOVER, mended, object,
              "its name is not that of a venue", "moved to damaged/");
}

static int
judge_entry (void *arg, int dirfd, const char *name)
{
  struct check *k = arg;

  if (esp_name_ok (name))
    return judge_venue (k, name);
  /* Without the transaction it may be being written now. */
  if (k->in_transaction)
    judge_stranger (k, dirfd, name);
  return 0;
}

/* Venues that the catalog has and that have no document. */
static int
judge_missing (struct check *k)
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };
  char object[300];

  if (esp_catalog_venue_list (k->catalog, NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i) {
    const char *id = list.venue[i].id;
    if (faccessat (esp_store_venues_fd (k->store), id, F_OK,
                   AT_SYMLINK_NOFOLLOW) == 0)
      continue;
    bool mended = k->repair && write_from_rows (k, id) == 0;
    check_tell (k, ESP_DAMAGE, mended, venue_object (id, object),
                "its document is missing",
                "the document is written again from the catalog");
    if (mended && bad_disk (k, &list.venue[i]) >= 0 &&
        judge_venue (k, id) == -1)
      return -1;
  }
  return 0;
}

int
check_venues (struct check *k)
{
  if (esp_each_entry (esp_store_venues_fd (k->store), judge_entry, k) == -1)
    return -1;
  return k->catalog ? judge_missing (k) : 0;
}
