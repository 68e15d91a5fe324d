/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier rp tree: the drawing.
 *
 *   ■ windows-11
 *   ● 11-updates
 *   ├─● games-autumn
 *   │ ● games-winter
 *   └─● office-suite
 *
 * An only child stands straight below its parent: long chains of updates,
 * which are usual, stay readable however long they are.  Only branches move
 * to the right.
 */

#include <config.h>

#include "rp.h"
#include "util/bits.h"

struct strokes { const char *root, *point, *branch, *last, *through, *blank; };

static const struct strokes boxes = { "■ ", "● ", "├─", "└─", "│ ", "  " };
static const struct strokes plain = { "# ", "* ", "|-", "`-", "| ", "  " };

/* One restore point in the drawing; numbers of others, 0: none (the first
 * in the list is nobody's child).
 */
struct node { size_t first_child, last_child, next; };

struct drawing {
  const struct strokes *s;
  const struct esp_rp *rp;
  struct node *node;
  size_t n;
  const struct venue_index *venues;
  struct table *table;
};

/* Is node I drawn without a parent? */
static bool
is_top (const struct drawing *d, const struct rp_index *rps, size_t i)
{
  return !rp_index_get (rps, &d->rp[i].parent);
}

/* Link children to their parents, in the list's order. */
static void
link_nodes (struct drawing *d, const struct rp_index *rps)
{
  d->rp = rps->list.rp;
  d->n = rps->list.n;
  d->node = xcalloc (d->n, sizeof *d->node);
  for (size_t i = 0; i < d->n; i++) {
    const struct esp_rp *parent = rp_index_get (rps, &d->rp[i].parent);
    struct node *p;

    if (!parent)
      continue;
    p = &d->node[parent - d->rp];
    if (p->first_child)
      d->node[p->last_child].next = i;
    else
      p->first_child = i;
    p->last_child = i;
  }
}

static void
draw_row (struct drawing *d, size_t i, const char *prefix)
{
  const struct esp_rp *rp = &d->rp[i];
  CLEANUP_FREE char *venues = venue_index_text (d->venues, &rp->uuid);
  bool root = esp_uuid_is_null (&rp->parent);

  table_row (d->table);
  table_cellf (d->table, "%s%s%s", prefix, root ? d->s->root : d->s->point,
               rp->name);
  table_size (d->table, rp->size);
  table_own (d->table, rp);
  table_time (d->table, rp->created);
  table_cell (d->table, venues);
  table_cell (d->table, rp->note);
}

/* Draw node I and all below it: FIRST stands before its own row, REST
 * before all others.
 */
static void
draw (struct drawing *d, size_t i, const char *first, const char *rest)
{
  size_t c;

  draw_row (d, i, first);
  while ((c = d->node[i].first_child) != 0 && c == d->node[i].last_child) {
    i = c;
    draw_row (d, i, rest);
  }
  for (; c; c = d->node[c].next) {
    bool last = !d->node[c].next;
    CLEANUP_FREE char *f =
      xasprintf ("%s%s", rest, last ? d->s->last : d->s->branch);
    CLEANUP_FREE char *r =
      xasprintf ("%s%s", rest, last ? d->s->blank : d->s->through);
    draw (d, c, f, r);
  }
}

int
rp_tree_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp start = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };
  CLEANUP_VENUE_INDEX struct venue_index venues = { 0 };
  struct drawing d = { .s = output_utf8 () ? &boxes : &plain,
                       .venues = &venues };

  if (cli.json)
    return rp_list_run (args);
  if (cli_open () != 0 ||
      (args->n > 0 &&
       esp_catalog_rp_find (cli_catalog (), args->arg[0], &start) == -1) ||
      rp_index_load (&rps, args->n ? &start.uuid : NULL) != 0 ||
      venue_index_load (&venues) != 0)
    return CLI_FAILED;
  link_nodes (&d, &rps);
  d.table = table_new ("NAME|SIZE>|OWN>|CREATED|VENUES|NOTE");
  for (size_t i = 0; i < d.n; i++)
    if (is_top (&d, &rps, i))
      draw (&d, i, "", "");
  table_end (d.table, "no restore points yet: espalier root add NAME IMAGE "
             "adds the first");
  free (d.node);
  return CLI_OK;
}
