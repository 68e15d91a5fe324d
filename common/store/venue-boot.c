/* SPDX-License-Identifier: BSD-3-Clause */
/* A venue's settings of booting: checking them, and their place in the
 * venue's document (docs/formats.md, "venues/ID").
 *
 * They are this site's: a venue's reference at a center has none of them, and a
 * pull of the venue keeps what is set here.  They are no part of a revision
 * either: a rollback takes back what the venue maps, not who may have it.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "boot/address.h"
#include "store/cleanups.h"
#include "store/fields.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "util/doc.h"
#include "util/host.h"

#define FILE_MAX 1024u
#define CMDLINE_MAX 2048u       /* as much as Linux takes */
#define NETWORKS_MAX 4096u
#define IMAGE "image:"

bool
site_text_ok (const char *s, size_t min, size_t max)
{
  size_t n = strlen (s);
  json_t *utf8;

  if (n < min || n > max)
    return false;
  for (size_t i = 0; i < n; ++i)
    if ((unsigned char) s[i] < 0x20 || s[i] == 0x7f)
      return false;
  utf8 = json_string (s);
  json_decref (utf8);
  return utf8 != NULL;
}

/* --- checking ----------------------------------------------------------- */

/* "/file", "image:/path", "image:(msdos1)/path". */
static bool
file_ok (const char *s)
{
  if (!*s)
    return true;
  if (!site_text_ok (s, 2, FILE_MAX))
    return false;
  if (strncmp (s, IMAGE, strlen (IMAGE)) == 0) {
    s += strlen (IMAGE);
    if (*s == '(' && !(s = strchr (s, ')')))
      return false;
    if (*s == ')')
      s++;
  }
  return s[0] == '/' && s[1] != 0;
}

/* What is wrong with all but the networks; NULL: nothing. */
static const char *
fault (const struct esp_venue_boot *b)
{
  if ((unsigned) b->boot > ESP_BOOT_NBDROOT)
    return "a way to boot is iscsi, http or nbdroot";
  if (!file_ok (b->kernel))
    return "a kernel is an absolute path of a file here, or image:/path for"
      " one inside of disk 0";
  if (!file_ok (b->initrd))
    return "an initrd is an absolute path of a file here, or image:/path for"
      " one inside of disk 0";
  if (*b->initrd && !*b->kernel)
    return "an initrd needs a kernel";
  if (!site_text_ok (b->cmdline, 0, CMDLINE_MAX))
    return "a command line is one line of at most 2048 bytes of UTF-8";
  if (b->weight > ESP_WEIGHT_MAX)
    return "a weight is 0 to 1000";
  return NULL;
}

static int
bad_setting (const char *id, const char *why)
{
  errno = EINVAL;
  esp_error ("venue '%s': %s", id, why);
  return -1;
}

/* --- the document ------------------------------------------------------- */

json_t *
venue_boot_json (const struct esp_venue_boot *b)
{
  return json_pack ("{s:s, s:s, s:s, s:s, s:s, s:I}",
                    "way", esp_boot_name (b->boot), "kernel", b->kernel,
                    "initrd", b->initrd, "cmdline", b->cmdline,
                    "networks", b->networks, "weight", (json_int_t) b->weight);
}

static bool
take (json_t *o, const char *key, size_t max, char **out)
{
  const char *s = o ? esp_field_string (o, key, max) : "";

  return s && (*out = strdup (s));
}

static bool
canonical_networks (const char *s)
{
  char text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  CLEANUP_FREE char *again = esp_networks_canonical (s);

  esp_catch_end (outer);
  return again && strcmp (again, s) == 0;
}

static bool
read_way (json_t *o, enum esp_boot *out)
{
  const char *s = esp_field_string (o, "way", 16);
  char text[256];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  bool ok = s && esp_boot_parse (s, out) == 0;

  esp_catch_end (outer);
  return ok;
}

bool
venue_boot_read (json_t *doc, const char *id, struct esp_venue_boot *b)
{
  json_t *o = json_object_get (doc, "boot");
  uint64_t weight = ESP_WEIGHT_DEFAULT;

  if (o && (!json_is_object (o) || !read_way (o, &b->boot) ||
            !esp_field_u64 (o, "weight", 0, ESP_WEIGHT_MAX, &weight)))
    return false;
  strcpy (b->id, id);           /* a valid name, so it fits */
  b->weight = (unsigned) weight;
  return take (o, "kernel", FILE_MAX, &b->kernel) &&
    take (o, "initrd", FILE_MAX, &b->initrd) &&
    take (o, "cmdline", CMDLINE_MAX, &b->cmdline) &&
    take (o, "networks", NETWORKS_MAX, &b->networks) &&
    !fault (b) && canonical_networks (b->networks);
}

/* --- changing ----------------------------------------------------------- */

/* A checked copy of B, with canonical networks. */
static int
copy_settings (const struct esp_venue_boot *b, struct esp_venue_boot *out)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot c = {
    .boot = b->boot, .weight = b->weight,
    .kernel = strdup (b->kernel ? b->kernel : ""),
    .initrd = strdup (b->initrd ? b->initrd : ""),
    .cmdline = strdup (b->cmdline ? b->cmdline : ""),
  };
  const char *why;

  strcpy (c.id, b->id);
  if (!c.kernel || !c.initrd || !c.cmdline) {
    esp_error ("strdup: %m");
    return -1;
  }
  if ((why = fault (&c)))
    return bad_setting (c.id, why);
  if (!(c.networks = esp_networks_canonical (b->networks ? b->networks : "")))
    return -1;
  if (strlen (c.networks) > NETWORKS_MAX)
    return bad_setting (c.id, "its networks take more than 4096 bytes: use"
                        " larger ones");
  *out = c;
  memset (&c, 0, sizeof c);
  return 0;
}

int
esp_site_venue_boot_set (struct esp_store *store,
                         const struct esp_venue_boot *boot)
{
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  CLEANUP_VENUE_BOOT struct esp_venue_boot new = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_name_check (boot->id, "venue") == -1 ||
      copy_settings (boot, &new) == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (venue_read_to_change (store, boot->id, &d) == -1)
    return -1;
  esp_venue_boot_clear (&d.boot);
  d.boot = new;
  memset (&new, 0, sizeof new);
  if (venue_copy_to_catalog (store->catalog, &d) == -1 ||
      venue_write (store, &d) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}
