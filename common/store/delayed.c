/* SPDX-License-Identifier: BSD-3-Clause */
/* Making delayed restore points, and making stored ones of them.
 *
 * Making one is a draft's commit (draft.c): everything stands in tmp/,
 * synced, before it is seen: data (one hole), map, chain, the files that are
 * written here, meta.  Nothing of it depends on how much data there is, and
 * many are made durable and visible together: a *batch*, in which a child's
 * parent may be a draft as well.
 *
 * A delayed one that is whole can become a stored one (a merge needs that:
 * its blocks change, and then its segments are no longer the center's).
 * meta goes first: from then on nobody reads the other files, which go
 * behind.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/have-internal.h"
#include "util/file.h"
#include "util/host.h"

bool
delayed_is_file (const char *name)
{
  return strcmp (name, ESP_RP_SEGMENTS) == 0 ||
    strcmp (name, ESP_RP_HAVE) == 0 || strcmp (name, ESP_RP_SOURCES) == 0 ||
    strncmp (name, ESP_RP_INDEX, strlen (ESP_RP_INDEX)) == 0;
}

/* --- the files ----------------------------------------------------------- */

/* Does `data` have anything within [OFFSET, END)? */
static bool
has_data (int fd, uint64_t offset, uint64_t end)
{
  off_t at = lseek (fd, (off_t) offset, SEEK_DATA);

  /* Where it cannot be told there may be something. */
  return at == -1 ? errno != ENXIO : (uint64_t) at < end;
}

int
delayed_write_have (int dir, const struct segments *table)
{
  CLEANUP_FREE uint8_t *states = calloc (1, table->n + 1);
  CLEANUP_FREE void *buf = NULL;
  CLEANUP_CLOSE int fd = openat (dir, ESP_RP_DATA,
                                 O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  uint64_t step = UINT64_C (1) << table->shift, offset;
  size_t len;

  if (fd == -1 || !states) {
    esp_error ("open: " ESP_RP_DATA ": %m");
    return -1;
  }
  for (size_t i = 0; i < table->n; i++) {
    offset = (uint64_t) segments_number (table, i) << table->shift;
    if (has_data (fd, offset, offset + step))
      states[i] = ESP_HAVE_LOCAL;
  }
  buf = have_format (table->n, table->shift, states, &len);
  return buf ? esp_write_file_atomic (dir, ESP_RP_HAVE, buf, len, 0644) : -1;
}

static int
write_profile (int dir, const struct esp_profile *profile)
{
  CLEANUP_FREE void *buf = NULL;
  size_t len;

  if (!profile || profile->n == 0)
    return 0;
  buf = esp_profile_pack (profile, &len);
  return buf ? esp_write_file_atomic (dir, ESP_RP_PROFILE, buf, len, 0644)
    : -1;
}

/* TABLE as `segments`, and nothing of it here. */
static int
write_tables (int dir, const struct esp_map *map,
              const struct esp_index *table, bool growing)
{
  CLEANUP_FREE void *buf = NULL, *have = NULL;
  struct segments s;
  size_t len, have_len;

  if (!(buf = segments_format (table, map->size, growing, &len)) ||
      segments_parse (buf, len, map->size, "index", &s) == -1 ||
      segments_fit (&s, map, "index") == -1 ||
      !(have = have_format (s.n, s.shift, NULL, &have_len)))
    return -1;
  return esp_write_file_atomic (dir, ESP_RP_SEGMENTS, buf, len, 0644) == -1
    ? -1 : esp_write_file_atomic (dir, ESP_RP_HAVE, have, have_len, 0644);
}

int
delayed_write_files (int dir, const struct esp_map *map,
                     const struct delayed_parts *parts)
{
  CLEANUP_INDEX struct esp_index own = { 0 };
  const struct esp_index *table = parts->index;

  if (!table) {
    if (segments_of_map (map, parts->shift, &own) == -1)
      return -1;
    table = &own;
  }
  if (write_tables (dir, map, table, !parts->index) == -1)
    return -1;
  esp_rp_step ("delayed: after segments and have");
  if (sources_write_first (dir, parts->source, parts->index) == -1)
    return -1;
  return write_profile (dir, parts->profile);
}

/* --- making one ------------------------------------------------------------ */

static int
look_for_uuid (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp there = { 0 };
  char text[ESP_UUID_TEXT];

  if (esp_catalog_rp_get (esp_store_catalog (store), uuid, &there) == 0) {
    errno = EEXIST;
    esp_error ("restore point %s is here already, as %s",
               esp_uuid_text (uuid, text), there.name);
    return -1;
  }
  return errno == ENOENT ? 0 : -1;
}

/* PARENT gets the row of RP's parent, *P points to it; NULL for a root. */
static int
find_parent (struct esp_store *store, const struct esp_rp *rp,
             struct esp_rp *parent, const struct esp_rp **p)
{
  char text[ESP_UUID_TEXT];

  *p = NULL;
  if (esp_uuid_is_null (&rp->parent))
    return 0;
  *p = parent;
  if (esp_catalog_rp_get (esp_store_catalog (store), &rp->parent,
                          parent) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("restore point %s: its parent %s is not here", rp->name,
               esp_uuid_text (&rp->parent, text));
  return -1;
}

/* What the manifest says goes into the draft. */
static int
fill (struct esp_draft *draft, const struct esp_rp *rp,
      const struct esp_map *map)
{
  struct esp_rp *to = &draft->rp;

  to->uuid = rp->uuid;
  to->kind = ESP_RP_DELAYED;
  to->created = rp->created;
  free (to->note);
  to->note = strdup (rp->note ? rp->note : "");
  if (!to->note) {
    esp_error ("malloc: restore point: %m");
    return -1;
  }
  esp_map_free (draft->map);
  draft->map = esp_map_copy (map, rp->size);
  return !draft->map ? -1
    : esp_rp_copy_resources (to, rp->resources, rp->nresources);
}

static int
check_map (const struct esp_rp *rp, const struct esp_map *map,
           const struct esp_index *index, unsigned shift)
{
  if (index)
    shift = index->shift;
  if (map->size <= rp->size && shift >= ESP_SEGMENT_SHIFT_MIN &&
      shift <= ESP_SEGMENT_SHIFT_MAX && !esp_uuid_is_null (&rp->uuid))
    return 0;
  errno = EINVAL;
  esp_error ("restore point %s: its map or the size of its segments makes no "
             "sense", rp->name);
  return -1;
}

/* --- batches ----------------------------------------------------------------- */

struct esp_rp_batch {
  struct esp_store *store;
  struct esp_draft *draft[ESP_RP_BATCH_MAX];
  size_t n;
};

struct esp_rp_batch *
esp_rp_batch_new (struct esp_store *store)
{
  struct esp_rp_batch *b = calloc (1, sizeof *b);

  if (!b) {
    esp_error ("malloc: batch: %m");
    return NULL;
  }
  b->store = store;
  return b;
}

static void
batch_clear (struct esp_rp_batch *b, void (*fn) (struct esp_draft *draft))
{
  while (b->n > 0)
    fn (b->draft[--b->n]);
}

void
esp_rp_batch_free (struct esp_rp_batch *b)
{
  if (!b)
    return;
  batch_clear (b, esp_draft_abort);
  free (b);
}

static struct esp_draft *
batch_find (const struct esp_rp_batch *b, const esp_uuid *uuid)
{
  for (size_t i = b->n; i-- > 0; )
    if (esp_uuid_eq (&b->draft[i]->rp.uuid, uuid))
      return b->draft[i];
  return NULL;
}

/* A draft for RP over its parent, wherever that is. */
static struct esp_draft *
begin (struct esp_rp_batch *b, const struct esp_rp *rp)
{
  struct esp_draft *over = batch_find (b, &rp->parent);
  CLEANUP_RP struct esp_rp row = { 0 };
  const struct esp_rp *parent;

  if (over)
    return draft_begin_over (b->store, rp->name, over, rp->size);
  return find_parent (b->store, rp, &row, &parent) == -1 ? NULL
    : esp_draft_begin (b->store, rp->name, parent, rp->size);
}

static int
check_new (const struct esp_rp_batch *b, const struct esp_rp *rp)
{
  if (b->n == ESP_RP_BATCH_MAX || batch_find (b, &rp->uuid)) {
    errno = EINVAL;
    esp_error ("restore point %s: its batch is full, or has it already",
               rp->name);
    return -1;
  }
  return look_for_uuid (b->store, &rp->uuid);
}

int
esp_rp_batch_add (struct esp_rp_batch *b, const struct esp_rp *rp,
                  struct esp_map *map, unsigned shift,
                  const struct esp_index *index,
                  const struct esp_source *source,
                  const struct esp_profile *profile)
{
  const struct delayed_parts parts = { shift, index, source, profile };
  struct esp_draft *draft;

  if (esp_rp_writable (b->store) == -1 ||
      check_map (rp, map, index, shift) == -1 || check_new (b, rp) == -1 ||
      !(draft = begin (b, rp)))
    return -1;
  draft->delayed = &parts;
  if (fill (draft, rp, map) == -1 || draft_complete (draft) == -1) {
    esp_draft_abort (draft);
    return -1;
  }
  draft->delayed = NULL;
  b->draft[b->n++] = draft;
  return 0;
}

int
esp_rp_batch_commit (struct esp_rp_batch *b)
{
  int r = b->n > 0 ? drafts_publish (b->draft, b->n) : 0;

  batch_clear (b, r == 0 ? draft_free : esp_draft_abort);
  return r;
}

int
esp_rp_create_delayed (struct esp_store *store, const struct esp_rp *rp,
                       struct esp_map *map, unsigned shift,
                       const struct esp_index *index,
                       const struct esp_source *source,
                       const struct esp_profile *profile)
{
  CLEANUP_RP_BATCH struct esp_rp_batch *b = esp_rp_batch_new (store);

  return b && esp_rp_batch_add (b, rp, map, shift, index, source,
                                profile) == 0
    ? esp_rp_batch_commit (b) : -1;
}

/* --- whole ones ------------------------------------------------------------- */

static int
not_whole (const struct esp_rp *rp, const char *what)
{
  errno = EBUSY;
  esp_error ("restore point %s cannot be %s yet: not all of it is local and "
             "checked: run 'espalier hydrate %s --now' first (of a tip or a "
             "venue it fetches all that it stands on)", rp->name, what,
             rp->name);
  return -1;
}

int
delayed_require_whole (struct esp_store *store, const struct esp_rp *rp,
                       const char *what)
{
  struct esp_have *have;
  int r;

  if (rp->kind != ESP_RP_DELAYED)
    return 0;
  have = esp_have_open (store, &rp->uuid);
  if (!have)
    return -1;
  for (size_t i = 0; i < have->n; i++)
    if (esp_have_state (have, i) == ESP_HAVE_LOCAL)
      esp_have_check (have, i, false);
  r = esp_have_complete (have) ? esp_have_sync (have) : not_whole (rp, what);
  esp_have_close (have);
  return r;
}

/* The file was closed cleanly by whoever had it, and nobody can open it. */
int
delayed_require_whole_locked (int dir, const struct esp_rp *rp,
                              const char *what)
{
  CLEANUP_SEGMENTS struct segments table = { 0 };
  CLEANUP_FREE char *buf = NULL;
  bool believed = false;
  size_t len, i = 0;

  if (rp->kind != ESP_RP_DELAYED)
    return 0;
  if (segments_open (dir, rp->size, rp->name, &table) == 0 &&
      esp_read_file (dir, ESP_RP_HAVE, HAVE_HEADER + 2 * table.n, &buf,
                     &len) == 0 &&
      have_parse (buf, len, table.n, table.shift, rp->name, &believed) == 0)
    while (believed && i < table.n && buf[HAVE_HEADER + i] == ESP_HAVE_CHECKED)
      i++;
  return believed && i == table.n ? 0 : not_whole (rp, what);
}

static int
remove_file (void *arg, int dir, const char *name)
{
  (void) arg;
  if (!delayed_is_file (name) || unlinkat (dir, name, 0) == 0 ||
      errno == ENOENT)
    return 0;
  esp_error ("unlink: %s: %m", name);
  return -1;
}

static int
save_as_stored (struct esp_store *store, struct esp_rp *rp, int dir)
{
  uint64_t digest;
  CLEANUP_JSON json_t *meta = esp_meta_load (store, &rp->uuid, NULL, &digest);

  if (!meta || json_object_set_new (meta, "kind", json_string ("stored")) ||
      esp_meta_save (dir, meta, rp->name) == -1)
    return -1;
  rp->kind = ESP_RP_STORED;
  esp_rp_step ("delayed: stored by meta");
  /* The row: until it follows, `store check` finds that they differ. */
  return esp_catalog_rp_update (esp_store_catalog (store), rp);
}

int
delayed_to_stored (struct esp_store *store, struct esp_rp *rp, int dir)
{
  if (rp->kind == ESP_RP_DELAYED && save_as_stored (store, rp, dir) == -1)
    return -1;
  return esp_each_entry (dir, remove_file, NULL) == 0 &&
    esp_sync_dir (dir) == 0 ? 0 : -1;
}

/* --- what is local, without opening ---------------------------------------- */

int
esp_have_peek (struct esp_store *store, const esp_uuid *uuid, uint64_t *local)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (store, uuid);
  CLEANUP_CLOSE int fd = -1;
  struct have_header h;

  *local = 0;
  if (dir == -1)
    return -1;
  fd = openat (dir, ESP_RP_HAVE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd == -1 || esp_pread_all (fd, &h, sizeof h, 0) == -1)
    return -1;
  if (memcmp (h.magic, HAVE_MAGIC, sizeof h.magic) != 0) {
    errno = EBADMSG;
    return -1;
  }
  *local = h.local;
  return 0;
}
