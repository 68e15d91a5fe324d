/* SPDX-License-Identifier: BSD-3-Clause */
/* Folding a restore point P into its only child C.
 *
 * Nobody else can see the work: P, C and all that descends from C are locked
 * exclusively from the beginning to the end, so no image is open over files
 * that change, and no draft can add a descendant.  A crash ends the locks,
 * and then every tip must read as before.  The steps, each durable before
 * the next, and why what stands behind each of them is right:
 *
 *  0          A delayed C, which must be whole, becomes a stored one; a stored
 *             one loses its digests (`segments`), which would be wrong.
 *  1 data     P's blocks that C does not have are copied into C's data, to
 *             places that C's map calls absent: nobody reads them.
 *  2 map      C's map becomes the union.  C's chain is the old one still,
 *             and answers with P for P's blocks.  (Map and meta are two
 *             files: meta first announces the union's digest beside the old
 *             one, and drops the old one behind.)
 *  3 chains   of C, then of its descendants, parents first, are made anew
 *             without P.  A chain with P and one without it name the same
 *             bytes: P's files are untouched, C's hold copies of them.  A
 *             chain made by `store check --repair` from maps and parents is
 *             right at every moment too, since C's map covers P's.
 *  4 meta     of C gets P's parent.  P is a leaf now, in the documents.
 *  5 catalog  in one transaction: C's parent, the depths, P's row deleted.
 *  6 P's directory is removed.  (A crash before this leaves an orphan.)
 *
 * Each step can be done twice, so a merge that was cut off is simply asked
 * for again.  Until step 5 P can be neither deleted nor mapped away from
 * under C, since the catalog still has C as its child.
 *
 * Peers fold the child into its parent and rename (qemu-img commit): the
 * tip then changes its identity or is unreadable in between.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "store/rp-internal.h"
#include "util/file.h"
#include "util/host.h"

#define COPY_BYTES (UINT64_C (4) << 20)       /* between two progress calls */

struct merge {
  struct esp_store *store;
  struct esp_rp p, c;
  struct esp_rp_list below;     /* C and all that descends from it */
  int p_lock;                   /* P's directory */
  int *locks;                   /* of `below`, the same order; C's first */
  size_t nlocks;
  struct esp_map *p_map, *c_map, *both;
  esp_progress_fn progress;
  void *arg;
  uint64_t done, total;         /* bytes that are to be copied */
};

static void
merge_clear (struct merge *m)
{
  int saved = errno;

  for (size_t i = 0; i < m->nlocks; i++)
    close (m->locks[i]);
  free (m->locks);
  if (m->p_lock >= 0)
    close (m->p_lock);
  esp_map_free (m->p_map);
  esp_map_free (m->c_map);
  esp_map_free (m->both);
  esp_rp_list_clear (&m->below);
  esp_rp_clear (&m->c);
  esp_rp_clear (&m->p);
  errno = saved;
}

/* --- what is to be merged, locked ------------------------------------------ */

static int
find_child (struct merge *m, const esp_uuid *uuid)
{
  struct esp_catalog *catalog = esp_store_catalog (m->store);
  CLEANUP_RP_LIST struct esp_rp_list children = { 0 };
  char text[ESP_UUID_TEXT];

  if (esp_catalog_rp_get (catalog, uuid, &m->p) == -1) {
    esp_error ("no restore point %s", esp_uuid_text (uuid, text));
    return -1;
  }
  if (esp_catalog_rp_children (catalog, uuid, &children) == -1)
    return -1;
  if (children.n == 1) {
    m->c = children.rp[0];
    memset (&children.rp[0], 0, sizeof children.rp[0]);
    return 0;
  }
  errno = EBUSY;
  if (children.n == 0)
    esp_error ("restore point %s has no child to be merged into", m->p.name);
  else
    esp_error ("restore point %s has %zu children; only one that has a "
               "single child can be merged into it", m->p.name, children.n);
  return -1;
}

/* Thousands of descendants are thousands of locks. */
static void
allow_descriptors (size_t n)
{
  struct rlimit limit;

  if (getrlimit (RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < n + 64) {
    limit.rlim_cur = limit.rlim_max;
    /* Where this is not allowed, opening says so. */
    (void) setrlimit (RLIMIT_NOFILE, &limit);
  }
}

static int
lock_all (struct merge *m)
{
  if (esp_catalog_rp_list (esp_store_catalog (m->store), &m->c.uuid,
                           &m->below) == -1)
    return -1;
  m->locks = calloc (m->below.n, sizeof *m->locks);
  if (m->locks == NULL) {
    esp_error ("malloc: locks: %m");
    return -1;
  }
  allow_descriptors (m->below.n);
  m->p_lock = esp_rp_lock (m->store, &m->p, true);
  if (m->p_lock == -1)
    return -1;
  for (size_t i = 0; i < m->below.n; i++) {
    m->locks[i] = esp_rp_lock (m->store, &m->below.rp[i], true);
    if (m->locks[i] == -1)
      return -1;
    m->nlocks++;
  }
  return 0;
}

/* Now that no draft can add anything: is the tree as it was? */
static int
look_again (struct merge *m)
{
  struct esp_catalog *catalog = esp_store_catalog (m->store);
  CLEANUP_RP_LIST struct esp_rp_list below = { 0 }, children = { 0 };

  if (esp_catalog_rp_children (catalog, &m->p.uuid, &children) == -1 ||
      esp_catalog_rp_list (catalog, &m->c.uuid, &below) == -1)
    return -1;
  if (children.n != 1 || below.n != m->below.n)
    goto changed;
  for (size_t i = 0; i < below.n; i++)
    if (!esp_uuid_eq (&below.rp[i].uuid, &m->below.rp[i].uuid))
      goto changed;
  return esp_rp_check_unused (m->store, &m->p, true);

 changed:
  errno = EBUSY;
  esp_error ("the tree below restore point %s changed meanwhile: try again",
             m->p.name);
  return -1;
}

/* --- step 1: the data --------------------------------------------------------- */

/* Call FN for each run of blocks in state S of P that C does not have. */
static int
each_missing (struct merge *m, enum esp_state s,
              int (*fn) (struct merge *m, uint64_t block, uint64_t n,
                         void *arg), void *arg)
{
  uint64_t end = esp_blocks (m->p.size), n, k;

  for (uint64_t b = 0; b < end; b += n) {
    enum esp_state p = esp_map_run (m->p_map, b, end - b, &n);
    enum esp_state c;

    if (p != s)
      continue;
    c = esp_map_run (m->c_map, b, n, &k);
    n = k;
    if (c == ESP_ABSENT && fn (m, b, n, arg) == -1)
      return -1;
  }
  return 0;
}

static int
add_bytes (struct merge *m, uint64_t block, uint64_t n, void *arg)
{
  (void) block;
  (void) arg;
  m->total += n << ESP_BLOCK_SHIFT;
  return 0;
}

static int
union_run (struct merge *m, uint64_t block, uint64_t n, void *arg)
{
  esp_map_set (m->both, block, n, *(enum esp_state *) arg, NULL);
  return 0;
}

static int
load_maps (struct merge *m)
{
  enum esp_state data = ESP_DATA, zero = ESP_ZERO;

  m->p_map = esp_rp_load_map (m->store, &m->p.uuid);
  m->c_map = esp_rp_load_map (m->store, &m->c.uuid);
  if (m->p_map == NULL || m->c_map == NULL)
    return -1;
  m->both = esp_map_copy (m->c_map, m->c.size);
  if (m->both == NULL)
    return -1;
  each_missing (m, ESP_DATA, union_run, &data);
  each_missing (m, ESP_ZERO, union_run, &zero);
  each_missing (m, ESP_DATA, add_bytes, NULL);
  return 0;
}

struct files { int from, to; char *buf; bool no_range; uint64_t from_size; };

/* Read at most LEN bytes of P at OFFSET; behind the end of a file in place
 * (a disk's last block may be a part of one) are zeroes.
 */
static int
read_p (const struct files *f, size_t len, uint64_t offset)
{
  size_t there = len;

  if (offset + len > f->from_size) {
    there = offset < f->from_size ? f->from_size - offset : 0;
    memset (f->buf + there, 0, len - there);
  }
  return esp_pread_all (f->from, f->buf, there, offset);
}

static int
copy_some (struct files *f, uint64_t offset, size_t len)
{
  loff_t in = (loff_t) offset, out = (loff_t) offset;
  ssize_t r;

  while (!f->no_range && len > 0) {
    r = copy_file_range (f->from, &in, f->to, &out, len, 0);
    if (r > 0)
      len -= (size_t) r;
    else                        /* by hand, also what is behind the end */
      f->no_range = true;
  }
  if (len == 0)
    return 0;
  if (read_p (f, len, (uint64_t) in) == -1)
    return -1;
  return esp_pwrite_all (f->to, f->buf, len, (uint64_t) in);
}

static int
copy_run (struct merge *m, uint64_t block, uint64_t n, void *arg)
{
  struct files *f = arg;
  uint64_t offset = block << ESP_BLOCK_SHIFT, len = n << ESP_BLOCK_SHIFT, k;

  for (; len > 0; offset += k, len -= k, m->done += k) {
    k = len < COPY_BYTES ? len : COPY_BYTES;
    if (m->progress && m->progress (m->arg, m->done, m->total) == -1) {
      errno = ECANCELED;
      esp_error ("the merge was interrupted; nothing has changed");
      return -1;
    }
    if (copy_some (f, offset, k) == -1) {
      esp_error ("copy: from restore point %s to %s: %m", m->p.name,
                 m->c.name);
      return -1;
    }
  }
  esp_rp_step ("merge: in the data");
  return 0;
}

static int
punch_run (struct merge *m, uint64_t block, uint64_t n, void *arg)
{
  struct files *f = arg;

  (void) m;
  /* It only gives space back. */
  (void) esp_punch (f->to, block << ESP_BLOCK_SHIFT, n << ESP_BLOCK_SHIFT);
  return 0;
}

static int
open_p (struct merge *m, struct files *f)
{
  f->from_size = esp_data_length (m->p.size);
  if (m->p.kind == ESP_RP_IN_PLACE) {
    f->from_size = m->p.size;
    return esp_rp_open_in_place (m->store, &m->p.uuid);
  }
  return openat (m->p_lock, ESP_RP_DATA, O_RDONLY|O_NOFOLLOW|O_CLOEXEC);
}

/* C's data is read-only; for the time of the copy it is not. */
static int
open_c (struct merge *m)
{
  if (fchmodat (m->locks[0], ESP_RP_DATA, 0644, 0) == -1)
    return -1;
  return openat (m->locks[0], ESP_RP_DATA, O_RDWR|O_NOFOLLOW|O_CLOEXEC);
}

static int
copy_data (struct merge *m)
{
  CLEANUP_FREE char *buf = malloc (COPY_BYTES);
  CLEANUP_CLOSE int from = -1;
  CLEANUP_CLOSE int to = -1;
  struct files f = { .buf = buf };
  int r = -1;

  if (m->total == 0)
    return 0;
  from = f.from = open_p (m, &f);
  if (from == -1 && m->p.kind == ESP_RP_IN_PLACE)
    return -1;
  if (buf == NULL || from == -1 || (to = f.to = open_c (m)) == -1) {
    esp_error ("open: data of restore points %s and %s: %m", m->p.name,
               m->c.name);
    return -1;
  }
  r = each_missing (m, ESP_DATA, copy_run, &f);
  if (r == 0 && fdatasync (to) == -1) {
    esp_error ("fdatasync: data of restore point %s: %m", m->c.name);
    r = -1;
  }
  if (r == -1) {
    int saved = errno;

    each_missing (m, ESP_DATA, punch_run, &f);
    errno = saved;
  }
  /* A crash before this leaves a file that is merely not read-only. */
  (void) fchmod (to, 0444);
  return r;
}

/* --- step 2: the map ------------------------------------------------------------ */

static int
write_map (struct merge *m)
{
  int dir = m->locks[0];

  if (unlinkat (dir, "map.new", 0) == -1 && errno != ENOENT) {
    esp_error ("unlink: map.new of restore point %s: %m", m->c.name);
    return -1;
  }
  if (esp_map_create (m->both, dir, "map.new") == -1 ||
      esp_map_mark_clean (m->both) == -1)
    return -1;
  return esp_replace_file (dir, "map.new", ESP_RP_MAP);
}

/* C's meta as it is to be behind the map's replacement. */
static json_t *
new_meta (struct merge *m, json_t *old, uint64_t digest, bool new_parent)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_rp_from_meta (old, &rp, NULL, m->c.name) == -1)
    return NULL;
  rp.data_blocks = esp_map_count (m->both, ESP_DATA);
  rp.zero_blocks = esp_map_count (m->both, ESP_ZERO);
  if (new_parent)
    rp.parent = m->p.parent;
  return esp_rp_to_meta (&rp, digest);
}

static int
replace_map (struct merge *m)
{
  uint64_t digest = esp_map_digest (m->both);
  CLEANUP_JSON json_t *meta = esp_meta_load (m->store, &m->c.uuid, NULL, NULL);
  CLEANUP_JSON json_t *fresh = NULL;
  char text[17];

  if (meta == NULL)
    return -1;
  if (json_object_set_new (meta, ESP_META_DIGEST_NEXT,
                           json_string (esp_digest_text (digest, text))) == -1)
    return -1;
  if (esp_meta_save (m->locks[0], meta, m->c.name) == -1)
    return -1;
  esp_rp_step ("merge: before the map");
  if (write_map (m) == -1)
    return -1;
  esp_rp_step ("merge: after the map");
  fresh = new_meta (m, meta, digest, false);
  return fresh ? esp_meta_save (m->locks[0], fresh, m->c.name) : -1;
}

/* --- step 3: the chains ----------------------------------------------------------- */

static int
replace_chain (struct merge *m, size_t i)
{
  struct esp_rp *rp = &m->below.rp[i];
  CLEANUP_MAP struct esp_map *map = NULL;
  esp_uuid old_parent = rp->parent;
  int r;

  map = esp_rp_load_map (m->store, &rp->uuid);
  if (map == NULL)
    return -1;
  if (i == 0)
    rp->parent = m->p.parent;
  r = esp_rp_build_chain (m->store, rp, -1, map, m->locks[i],
                          "chain.new");
  rp->parent = old_parent;
  if (r == -1 || esp_replace_file (m->locks[i], "chain.new", ESP_RP_CHAIN) == -1)
    return -1;
  esp_rp_step ("merge: after a chain");
  return 0;
}

/* --- steps 4 to 6 ------------------------------------------------------------------ */

static int
replace_parent (struct merge *m)
{
  CLEANUP_JSON json_t *meta = esp_meta_load (m->store, &m->c.uuid, NULL, NULL);
  CLEANUP_JSON json_t *fresh = NULL;

  if (meta == NULL)
    return -1;
  fresh = new_meta (m, meta, esp_map_digest (m->both), true);
  return fresh ? esp_meta_save (m->locks[0], fresh, m->c.name) : -1;
}

static int
update_rows (struct merge *m)
{
  struct esp_catalog *catalog = esp_store_catalog (m->store);
  CLEANUP_RP_LIST struct esp_rp_list below = { 0 };

  /* Read again: what the rows say of names and notes stays as it is now. */
  if (esp_catalog_rp_list (catalog, &m->c.uuid, &below) == -1 ||
      esp_rp_check_unused (m->store, &m->p, true) == -1)
    return -1;
  for (size_t i = 0; i < below.n; i++) {
    struct esp_rp *rp = &below.rp[i];

    rp->depth--;
    if (i == 0) {
      rp->parent = m->p.parent;
      rp->data_blocks = esp_map_count (m->both, ESP_DATA);
      rp->zero_blocks = esp_map_count (m->both, ESP_ZERO);
    }
    if (esp_catalog_rp_update (catalog, rp) == -1)
      return -1;
  }
  return esp_catalog_rp_delete (catalog, &m->p.uuid);
}

static int
update_catalog (struct merge *m)
{
  struct esp_catalog *catalog = esp_store_catalog (m->store);
  int saved;

  if (esp_catalog_begin (catalog) == -1)
    return -1;
  if (update_rows (m) == 0) {
    esp_rp_step ("merge: before the commit");
    if (esp_catalog_commit (catalog) == 0)
      return 0;
  }
  saved = errno;
  esp_catalog_rollback (catalog);
  errno = saved;
  return -1;
}

/* Delayed ones must be whole; C then is what was made here.  (Not what is
 * only local: its tables would not fit its new blocks.)
 */
static int
become_stored (struct merge *m)
{
  if (delayed_require_whole_locked (m->p_lock, &m->p, "merged") == -1 ||
      delayed_require_whole_locked (m->locks[0], &m->c, "merged into") == -1)
    return -1;
  return delayed_to_stored (m->store, &m->c, m->locks[0]);
}

static int
merge (struct merge *m)
{
  char text[ESP_UUID_TEXT];

  if (become_stored (m) == -1 || load_maps (m) == -1 || copy_data (m) == -1)
    return -1;
  esp_rp_step ("merge: after the data");
  profile_take_over (m->store, &m->c, &m->p.uuid, m->locks[0]);
  if (replace_map (m) == -1)
    return -1;
  esp_rp_step ("merge: before the chains");
  for (size_t i = 0; i < m->below.n; i++)
    if (replace_chain (m, i) == -1)
      return -1;
  if (replace_parent (m) == -1)
    return -1;
  esp_rp_step ("merge: after meta");
  if (update_catalog (m) == -1)
    return -1;
  esp_rp_step ("merge: after the commit");
  return esp_store_discard (m->store, esp_store_rps_fd (m->store),
                            esp_uuid_text (&m->p.uuid, text));
}

int
esp_rp_merge (struct esp_store *store, const esp_uuid *uuid,
              esp_progress_fn progress, void *arg)
{
  __attribute__ ((cleanup (merge_clear))) struct merge m = {
    .store = store, .p_lock = -1, .progress = progress, .arg = arg,
  };

  if (esp_rp_writable (store) == -1 ||
      find_child (&m, uuid) == -1 ||
      esp_rp_check_unused (store, &m.p, true) == -1 ||
      delayed_require_whole (store, &m.p, "merged") == -1 ||
      delayed_require_whole (store, &m.c, "merged into") == -1 ||
      lock_all (&m) == -1 || look_again (&m) == -1)
    return -1;
  return merge (&m);
}
