/* SPDX-License-Identifier: BSD-3-Clause */
/* How machines boot from a venue: the options of `venue add` and `venue set`,
 * and what `venue show` says of them.
 *
 * What was said stays when the venue is mapped to another restore point, or
 * rolled back: a mapping is what the disks are, these are who may have them and
 * how.  A rollback must not let in a network that was shut out since.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/address.h"
#include "venue.h"

#define IMAGE "image:"
#define CMDLINE_MAX 1024

static const char *const boot_names[] = {
  "boot", "kernel", "initrd", "cmdline", "weight", "network", NULL
};

bool
boot_options_given (const struct args *args)
{
  for (const char *const *name = boot_names; *name; name++)
    if (opt_has (args, *name))
      return true;
  return false;
}

void
boot_defaults (const char *id, struct esp_venue_boot *out)
{
  *out = (struct esp_venue_boot) {
    .kernel = xstrdup (""), .initrd = xstrdup (""), .cmdline = xstrdup (""),
    .networks = xstrdup (""), .weight = ESP_WEIGHT_DEFAULT,
  };
  snprintf (out->id, sizeof out->id, "%s", id);
}

void
boot_copy (const struct esp_venue_boot *from, struct esp_venue_boot *to)
{
  *to = *from;
  to->kernel = xstrdup (from->kernel);
  to->initrd = xstrdup (from->initrd);
  to->cmdline = xstrdup (from->cmdline);
  to->networks = xstrdup (from->networks);
}

/* Replace *TO, which is malloced, by VALUE, which is taken over. */
static void
replace (char **to, char *value)
{
  free (*to);
  *to = value;
}

static int
apply_boot (const struct args *args, struct esp_venue_boot *boot)
{
  const char *how = opt_value (args, "boot");

  if (!how)
    return 0;
  if (strcmp (how, "default") == 0)
    boot->boot = ESP_BOOT_UNSET;
  else if (!*how || esp_boot_parse (how, &boot->boot) == -1)
    return *how ? CLI_USAGE
      : usage (args->cmd, "--boot: say iscsi, http, nbdroot or default");
  return 0;
}

/* A file that espalierd is to send: one that is not there is found out now,
 * not when a room full of machines is switched on.
 */
static int
check_file (const struct args *args, const char *option, const char *path)
{
  struct stat st;

  if (stat (path, &st) == -1 || access (path, R_OK) == -1) {
    esp_error ("%s: --%s %s: %m (put it there first, or take it out of the disk: "
               "--%s " IMAGE "/boot/...)", args->cmd->name, option, path, option);
    return CLI_FAILED;
  }
  if (!S_ISREG (st.st_mode) || st.st_size == 0) {
    esp_error ("%s: --%s %s: %s", args->cmd->name, option, path,
               S_ISREG (st.st_mode) ? "it is empty" : "it is not a file");
    return CLI_FAILED;
  }
  return 0;
}

/* "/boot/vmlinuz", "(msdos1)/vmlinuz", "(lvm/debian-root)/vmlinuz". */
static bool
image_path_ok (const char *path)
{
  const char *close = *path == '(' ? strchr (path, ')') : NULL;

  if (close)
    path = close + 1;
  return path[0] == '/' && path[1];
}

static int
apply_kernel (const struct args *args, const char *option, char **to)
{
  const char *value = opt_value (args, option);
  int r;

  if (!value)
    return 0;
  if (strcmp (value, "none") == 0) {
    replace (to, xstrdup (""));
    return 0;
  }
  if (strncmp (value, IMAGE, strlen (IMAGE)) == 0) {
    if (!image_path_ok (value + strlen (IMAGE)))
      return usage (args->cmd, "--%s %s: write the whole path, such as "
                    IMAGE "/boot/vmlinuz or " IMAGE "(msdos1)/vmlinuz",
                    option, value);
    replace (to, xstrdup (value));
    return 0;
  }
  if (!*value)
    return usage (args->cmd, "--%s: give a file, " IMAGE "PATH, or none",
                  option);
  if ((r = check_file (args, option, value)) != 0)
    return r;
  char *path = realpath (value, NULL);
  if (!path) {
    esp_error ("realpath: %s: %m", value);
    return CLI_FAILED;
  }
  /* As it was written where that is absolute: it may be a link that follows the
   * newest kernel.
   */
  if (*value == '/') {
    free (path);
    path = xstrdup (value);
  }
  replace (to, path);
  return 0;
}

static int
apply_cmdline (const struct args *args, struct esp_venue_boot *boot)
{
  const char *text = opt_value (args, "cmdline");
  char buf[64];

  if (!text)
    return 0;
  for (const char *p = text; *p; p++)
    if ((unsigned char) *p < 0x20 || (unsigned char) *p >= 0x7f)
      return usage (args->cmd, "--cmdline %s: a kernel's command line is one "
                    "line of ASCII", esp_escape (text, buf, sizeof buf));
  if (strlen (text) > CMDLINE_MAX)
    return usage (args->cmd, "--cmdline: %zu bytes: a kernel takes %d", strlen
                  (text), CMDLINE_MAX);
  replace (&boot->cmdline, xstrdup (text));
  return 0;
}

static int
apply_weight (const struct args *args, struct esp_venue_boot *boot)
{
  const char *text = opt_value (args, "weight");
  char *end;
  unsigned long n;

  if (!text)
    return 0;
  errno = 0;
  n = strtoul (text, &end, 10);
  if (errno || *end || *text < '0' || *text > '9' || n > ESP_WEIGHT_MAX)
    return usage (args->cmd, "--weight %s: a number from 0 to %u", text,
                  ESP_WEIGHT_MAX);
  boot->weight = (unsigned) n;
  return 0;
}

/* All networks are given anew; "any" stands alone. */
static int
apply_networks (const struct args *args, struct esp_venue_boot *boot)
{
  char *list = xstrdup ("");
  unsigned n = opt_count (args, "network");

  for (unsigned i = 0; i < n; i++) {
    const char *text = opt_nth (args, "network", i);
    struct esp_network network;
    char buf[64];

    if (strcmp (text, "any") == 0 && n == 1)
      break;
    if (strcmp (text, "any") == 0) {
      free (list);
      return usage (args->cmd, "--network any goes without other networks");
    }
    if (esp_network_parse (text, &network) == -1) {
      free (list);
      return CLI_USAGE;
    }
    replace (&list, xasprintf ("%s%s%s", list, *list ? " " : "",
                               esp_network_format (&network, buf)));
  }
  if (n > 0)
    replace (&boot->networks, list);
  else
    free (list);
  return 0;
}

int
boot_options_apply (const struct args *args, struct esp_venue_boot *boot)
{
  int r;

  if ((r = apply_boot (args, boot)) != 0 ||
      (r = apply_kernel (args, "kernel", &boot->kernel)) != 0 ||
      (r = apply_kernel (args, "initrd", &boot->initrd)) != 0 ||
      (r = apply_cmdline (args, boot)) != 0 ||
      (r = apply_weight (args, boot)) != 0 ||
      (r = apply_networks (args, boot)) != 0)
    return r;
  if (*boot->initrd && !*boot->kernel)
    return usage (args->cmd, "an initrd without a kernel: give --kernel, too, "
                  "or --initrd none");
  return 0;
}

/* --- showing --------------------------------------------------------------- */

void
boot_fields (const struct esp_venue_boot *boot)
{
  if (boot->boot != ESP_BOOT_UNSET)
    field ("Boots by:", "%s", esp_boot_name (boot->boot));
  if (*boot->kernel)
    field_text ("Kernel:", boot->kernel);
  if (*boot->initrd)
    field_text ("Initrd:", boot->initrd);
  if (*boot->cmdline)
    field_text ("Command line:", boot->cmdline);
  if (boot->weight != ESP_WEIGHT_DEFAULT)
    field ("Weight:", "%u", boot->weight);
  if (*boot->networks)
    field_text ("Networks:", boot->networks);
}
