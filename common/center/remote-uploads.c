/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: uploads that were begun and not ended.
 *
 * A list says which there are, and (S3) when each was begun; only those that
 * were begun long enough ago are looked at one by one: when was the last part
 * put?  A push that runs for weeks is none that was left.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/remote-internal.h"

static void
clear_upload (struct esp_upload *u)
{
  free (u->name);
  free (u->id);
  *u = (struct esp_upload) { 0 };
}

void
esp_upload_list_clear (struct esp_upload_list *l)
{
  int saved = errno;

  while (l->n)
    clear_upload (&l->u[--l->n]);
  free (l->u);
  l->u = NULL;
  errno = saved;
}

static int
append (struct esp_upload_list *l, const struct esp_upload *u)
{
  struct esp_upload *p = reallocarray (l->u, l->n + 1, sizeof *p);

  if (!p)
    return -1;
  l->u = p;
  p[l->n++] = *u;
  return 0;
}

int
esp_op_upload (struct esp_op *op, const char *name, const char *id,
               uint64_t changed)
{
  struct esp_upload u = { strdup (name), strdup (id), changed, 0 };

  if (u.name && u.id && append (&op->uploads, &u) == 0)
    return 0;
  clear_upload (&u);
  errno = ENOMEM;
  return -1;
}

static void
clear_op (struct esp_op *op)
{
  esp_upload_list_clear (&op->uploads);
  free (op->next_name);
  free (op->next_id);
}

static int
list_all (struct esp_remote *r, struct esp_upload_list *all)
{
  __attribute__ ((cleanup (clear_op))) struct esp_op op = {
    .verb = ESP_VERB_UPLOADS, .name = "",
  };

  do {
    op.tries = 0;
    if (esp_op_run (r, &op) < 0)
      return -1;
    for (size_t i = 0; i < op.uploads.n; ++i) {
      if (append (all, &op.uploads.u[i]) < 0) {
        esp_error ("malloc: %m");
        return -1;
      }
      op.uploads.u[i] = (struct esp_upload) { 0 };      /* ALL's now */
    }
    esp_upload_list_clear (&op.uploads);
  } while (op.next_name);
  return 0;
}

/* Fill in CHANGED and BYTES; ENOENT where it is gone. */
static int
look (struct esp_remote *r, struct esp_upload *u)
{
  struct esp_op op = { .verb = ESP_VERB_LOOK, .name = u->name, .id = u->id,
                       .upload = u };

  return esp_op_run (r, &op);
}

/* Move U to OUT, if it was left before then. */
static int
keep_if_old (struct esp_remote *r, struct esp_upload *u, uint64_t before,
             struct esp_upload_list *out)
{
  if (u->changed > before)
    return 0;
  if (look (r, u) < 0)
    return errno == ENOENT ? 0 : -1;
  if (u->changed > before)
    return 0;
  if (append (out, u) < 0) {
    esp_error ("malloc: %m");
    return -1;
  }
  *u = (struct esp_upload) { 0 };       /* OUT's now */
  return 0;
}

int
esp_remote_uploads (struct esp_remote *r, uint64_t idle,
                    struct esp_upload_list *out)
{
  CLEANUP_UPLOAD_LIST struct esp_upload_list all = { 0 };
  uint64_t now = (uint64_t) time (NULL), before = now > idle ? now - idle : 0;

  *out = (struct esp_upload_list) { 0 };
  if (list_all (r, &all) < 0)
    return -1;
  for (size_t i = 0; i < all.n; ++i)
    if (keep_if_old (r, &all.u[i], before, out) < 0) {
      esp_upload_list_clear (out);
      return -1;
    }
  return 0;
}

int
esp_remote_uploads_remove (struct esp_remote *r,
                           const struct esp_upload *upload)
{
  struct esp_upload now = *upload;
  struct esp_op op = { .verb = ESP_VERB_REMOVE, .name = upload->name,
                       .id = upload->id };

  if (look (r, &now) < 0)
    return errno == ENOENT ? 0 : -1;
  if (now.changed != upload->changed)
    return 0;
  return esp_op_run (r, &op) < 0 ? -1 : 1;
}
