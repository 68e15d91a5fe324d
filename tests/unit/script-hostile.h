/* SPDX-License-Identifier: BSD-3-Clause */
/* Every script with one text in all places that are somebody's text. */

#ifndef ESPALIER_SCRIPT_HOSTILE_H
#define ESPALIER_SCRIPT_HOSTILE_H

#include "boot/script.h"
#include "ipxe-read.h"

/* Script WHICH (0 to 5) with TEXT, malloced; NULL where it was refused. */
#define HOSTILE_SCRIPTS 6u
static inline char *
hostile_script (unsigned which, const char *text)
{
  const struct esp_script_page page = {
    .url = "http://10.0.0.1:8610/boot.ipxe?mac=52-54-00-12-34-56",
    .title = text, .shell = which & 1,
  };
  const struct esp_script_item items[] = {
    { .name = text, .description = text, .query = "&venue=a", .key = '1' },
    { .name = "plain", .description = text, .mark = "[x]",
      .query = "&need=a" },
    { .name = text },
  };
  const struct esp_script_menu menu = {
    .heading = text, .items = items, .n = 3, .timeout = 10, .back = "",
  };
  const char *lines[] = { text, text, NULL };
  const char *disks[] = { "iscsi:10.0.0.1::3260:1:iqn.2026-11.org.espalier:a",
                          "iscsi:10.0.0.1::3260:2:iqn.2026-11.org.espalier:a" };
  const struct esp_script_path paths[] = {
    { .server = text, .disks = disks, .ndisks = 1 + (which & 1),
      .kernel = "http://10.0.0.1/kernel", .initrd = "http://10.0.0.1/initrd",
      .cmdline = text },
  };
  const struct esp_script_boot boot = {
    .venue = text, .description = text, .client = text,
    .way = which < 4 ? ESP_BOOT_ISCSI : ESP_BOOT_NBDROOT, .paths = paths,
    .npaths = 1, .chap_user = "u", .chap_secret = which & 1 ? *text ? text : "x" : NULL,
    .pause = 10, .again = "&venue=a",
  };

  switch (which) {
  case 0: return esp_script_menu (&page, &menu);
  case 1: return esp_script_message (&page, lines, 30, "");
  default: return esp_script_boot (&page, &boot);
  }
}

/* Does TEXT change what iPXE does?  A script that was refused changes
 * nothing.
 */
static inline bool
hostile_is_harmless (unsigned which, const char *text)
{
  char *plain = hostile_script (which, "x");
  char *script = hostile_script (which, text);
  char *expected = ipxe_skeleton (plain);
  char *skeleton = script ? ipxe_skeleton (script) : NULL;
  bool same = !skeleton || strcmp (skeleton, expected) == 0;

  if (!same)
    fprintf (stderr, "%s---\n%s---\n%s", script, skeleton, expected);
  free (plain);
  free (script);
  free (expected);
  free (skeleton);
  return same;
}

#endif /* ESPALIER_SCRIPT_HOSTILE_H */
