/* SPDX-License-Identifier: BSD-3-Clause */
/* Paths inside images, and what GRUB's file systems say of them.
 *
 * grub-fstest takes "(device)/path", and one of its devices is (host), all files
 * of this server.  So a device is never passed on as it was written: it is
 * taken apart, and made anew of parts that are known to stay in the image; and
 * no path has a parenthesis.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/host.h"
#include "util/name.h"

#include "image-path.h"

#define IMAGE "image:"

bool
image_path_is (const char *spec)
{
  return strncmp (spec, IMAGE, strlen (IMAGE)) == 0;
}

static int
bad (const char *spec, const char *why)
{
  char text[200];

  esp_error ("%s: %s", esp_escape (spec, text, sizeof text), why);
  errno = EINVAL;
  return -1;
}

/* "msdos1", "gpt2", "3", and parts of parts: "msdos2,bsd1". */
static bool
partition_ok (const char *s, size_t len)
{
  static const char *const kinds[] = {
    "", "msdos", "gpt", "bsd", "apple", "sun", "sunpc", "dfly", "plan", "dvh",
    NULL };

  while (len > 0) {
    size_t part = strcspn (s, ",)"), letters = 0, i;

    while (letters < part && islower ((unsigned char) s[letters]))
      letters++;
    for (i = 0; kinds[i]; i++)
      if (strlen (kinds[i]) == letters && strncmp (s, kinds[i], letters) == 0)
        break;
    if (!kinds[i] || letters == part || part - letters > 3 ||
        strspn (s + letters, "0123456789") < part - letters)
      return false;
    if (part == len)
      return true;
    s += part + 1;
    len -= part + 1;
  }
  return false;
}

static bool
lvm_ok (const char *s, size_t len)
{
  if (len <= 4 || strncmp (s, "lvm/", 4) != 0)
    return false;
  for (size_t i = 4; i < len; i++)
    if (!isalnum ((unsigned char) s[i]) && !strchr ("_.+-", s[i]))
      return false;
  return true;
}

/* What stands between the parentheses, LEN bytes at S. */
static int
parse_device (const char *s, size_t len, char out[IMAGE_DEVICE_MAX])
{
  if (len > IMAGE_DEVICE_MAX - 10)
    return -1;
  if (len == 4 && strncmp (s, "disk", 4) == 0)
    strcpy (out, "(loop0)");
  else if (lvm_ok (s, len))
    snprintf (out, IMAGE_DEVICE_MAX, "(%.*s)", (int) len, s);
  else if (partition_ok (s, len))
    snprintf (out, IMAGE_DEVICE_MAX, "(loop0,%.*s)", (int) len, s);
  else
    return -1;
  return 0;
}

static bool
path_ok (const char *p)
{
  if (p[0] != '/' || p[1] == 0)
    return false;
  for (; *p; p++)
    if ((unsigned char) *p < 0x20 || *p == 0x7f || strchr ("()'\"\\", *p))
      return false;
  return true;
}

int
image_path_parse (const char *spec, struct image_path *out)
{
  const char *p = spec + strlen (IMAGE), *close;

  memset (out, 0, sizeof *out);
  if (!image_path_is (spec))
    return bad (spec, "does not begin with image:");
  if (*p == '(') {
    close = strchr (p, ')');
    if (!close || parse_device (p + 1, (size_t) (close - p - 1),
                                out->device) == -1)
      return bad (spec, "no such device: write (disk), a partition such as "
                  "(msdos1) or (gpt2), or (lvm/GROUP-VOLUME), or leave it out");
    p = close + 1;
  }
  if (strlen (p) >= sizeof out->path || !path_ok (p))
    return bad (spec, "write the whole path, such as image:/boot/vmlinuz, "
                "without quotes, backslashes, parentheses or control "
                "characters");
  strcpy (out->path, p);
  return 0;
}

/* --- what grub-fstest prints ----------------------------------------------- */

static bool
in_image (const char *device)
{
  return strcmp (device, "(loop0)") == 0 ||
    strncmp (device, "(loop0,", 7) == 0 || strncmp (device, "(lvm/", 5) == 0 ||
    strncmp (device, "(md", 3) == 0 || strncmp (device, "(ldm/", 5) == 0;
}

int
image_each_device (const char *text, int (*fn) (void *, const char *),
                   void *arg)
{
  char device[IMAGE_DEVICE_MAX];

  while ((text = strchr (text, '(')) != NULL) {
    size_t len = strcspn (text, ")") + 1;
    int r;

    if (text[len - 1] == 0)
      return 0;
    if (len < sizeof device) {
      memcpy (device, text, len);
      device[len] = 0;
      r = in_image (device) ? fn (arg, device) : 0;
      if (r != 0)
        return r;
    }
    text += len;
  }
  return 0;
}

/* The next name of a list from *AT on; NULL at its end. */
static const char *
next_name (const char **at, size_t *len)
{
  const char *name = *at + strspn (*at, " \n");

  *len = strcspn (name, " \n");
  *at = name + *len;
  return *len > 0 ? name : NULL;
}

bool
image_list_has (const char *list, const char *name)
{
  size_t len, n = strlen (name);
  const char *p;

  while ((p = next_name (&list, &len)) != NULL)
    if (len == n && memcmp (p, name, n) == 0)
      return true;
  return false;
}

/* What is no kernel that one would boot every day. */
static bool
special (const char *version)
{
  const char *dot = strrchr (version, '.');

  return strstr (version, "rescue") ||
    (dot && (strcmp (dot, ".old") == 0 || strcmp (dot, ".bak") == 0 ||
             strncmp (dot, ".dpkg-", 6) == 0 || strcmp (dot, ".hmac") == 0)) ||
    version[strlen (version) - 1] == '/';
}

const char *
image_newest_kernel (const char *list, const char *below, char version[256])
{
  static const char prefix[] = "vmlinuz-";
  size_t len;
  const char *p;

  version[0] = 0;
  while ((p = next_name (&list, &len)) != NULL) {
    char this[256];

    if (len <= strlen (prefix) || len - strlen (prefix) >= sizeof this ||
        strncmp (p, prefix, strlen (prefix)) != 0)
      continue;
    len -= strlen (prefix);
    memcpy (this, p + strlen (prefix), len);
    this[len] = 0;
    if (!special (this) && strverscmp (this, version) > 0 &&
        (!below || strverscmp (this, below) < 0))
      strcpy (version, this);
  }
  return version;
}
