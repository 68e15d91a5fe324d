/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier center show CENTER RP: what a center has of a restore point. */

#include <config.h>

#include <errno.h>

#include "center/center.h"
#include "espalier.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/host.h"

ESP_DEFINE_CLEANUP (open_center, struct esp_center *, esp_center_close)

static const char *
codec_name (enum esp_codec codec)
{
  return codec == ESP_CODEC_ZSTD ? "zstd" : "none";
}

static json_t *
json_variants (const struct esp_manifest *m)
{
  json_t *a = json_array ();

  for (size_t i = 0; i < m->nvariants; i++) {
    const struct esp_variant *v = &m->variants[i];
    json_array_append_new
      (a, json_pack ("{s:s, s:I, s:s, s:s?, s:I, s:I}", "id", v->id,
                     "segment_size", (json_int_t) 1 << v->shift,
                     "compression", codec_name (v->codec),
                     "key", *v->key ? v->key : NULL,
                     "segments", (json_int_t) v->segments,
                     "pack_size", (json_int_t) v->pack_size));
  }
  return a;
}

static json_t *
json_manifest (const struct esp_manifest *m)
{
  const struct esp_rp *rp = &m->rp;

  return json_pack ("{s:o, s:s, s:o, s:I, s:I, s:I, s:s, s:o, s:I, s:s, s:o}",
                    "uuid", json_uuid (&rp->uuid), "name", rp->name,
                    "parent", json_uuid (&rp->parent),
                    "size", (json_int_t) rp->size,
                    "data", (json_int_t) (rp->data_blocks << ESP_BLOCK_SHIFT),
                    "created", (json_int_t) rp->created,
                    "note", rp->note ? rp->note : "",
                    "resources", json_resources (rp->resources,
                                                 rp->nresources),
                    "pushed", (json_int_t) m->pushed,
                    "pushed_by", m->pushed_by ? m->pushed_by : "",
                    "variants", json_variants (m));
}

static void
print_manifest (const struct esp_manifest *m)
{
  const struct esp_rp *rp = &m->rp;
  char text[ESP_UUID_TEXT];
  struct table *t;

  field_text ("Name:", rp->name);
  field_text ("UUID:", esp_uuid_text (&rp->uuid, text));
  field_text ("Parent:", esp_uuid_is_null (&rp->parent)
              ? "none: a root store" : esp_uuid_text (&rp->parent, text));
  field_size ("Size:", rp->size);
  field_size ("Own data:", rp->data_blocks << ESP_BLOCK_SHIFT);
  field_time ("Created:", rp->created);
  field_time ("Pushed:", m->pushed);
  field_text ("By:", m->pushed_by ? m->pushed_by : "");
  if (rp->note && *rp->note)
    field_text ("Note:", rp->note);
  putchar ('\n');
  t = table_new ("VARIANT|SEGMENTS>|OF>|COMPRESSION|KEY|PACK>");
  for (size_t i = 0; i < m->nvariants; i++) {
    const struct esp_variant *v = &m->variants[i];
    table_row (t);
    table_cell (t, v->id);
    table_cellf (t, "%ju", (uintmax_t) v->segments);
    table_size (t, UINT64_C (1) << v->shift);
    table_cell (t, codec_name (v->codec));
    table_cell (t, *v->key ? v->key : "-");
    table_size (t, v->pack_size);
  }
  table_end (t, "no variants: nothing of it can be pulled");
}

int
center_show_rp (const char *name, const char *ref)
{
  ESP_CLEANUP (open_center) struct esp_center *center =
    esp_center_open (cli.store, name);
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  esp_uuid uuid;

  if (!center || center_find_rp (center, ref, &uuid) == -1)
    return CLI_FAILED;
  if (esp_center_manifest (center, &uuid, &m, NULL) == -1) {
    if (errno == ENOENT)
      esp_error ("center %s: %s is not there any more", name, ref);
    return CLI_FAILED;
  }
  if (cli.json)
    return json_print (json_manifest (&m));
  print_manifest (&m);
  return CLI_OK;
}
