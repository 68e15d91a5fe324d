/* SPDX-License-Identifier: BSD-3-Clause */
/* iPXE scripts that boot: each server in turn.  What a server of which the boot
 * failed left behind (drives, images) is taken away before the next one: label uN_K
 * takes away all below its K, fN says that server N failed.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "boot/ascii.h"
#include "boot/script-internal.h"
#include "util/host.h"

/* Linux on x86 takes 2,047 bytes; iPXE has pointers to all words on its stack. */
#define CMDLINE_MAX 2047u
#define CMDLINE_WORDS_MAX 128u

static int
bad_cmdline (const char *venue, const char *why)
{
  errno = EINVAL;
  esp_error ("venue %s: its kernel's command line %s: change it "
             "with espalier venue set --cmdline", venue, why);
  return -1;
}

static int
check_cmdline (const char *venue, const char *s)
{
  size_t words = 0;

  if (strlen (s) > CMDLINE_MAX)
    return bad_cmdline (venue, "is longer than 2,047 bytes");
  if (strstr (s, "${"))
    return bad_cmdline (venue, "has a \"${\", which iPXE would replace");
  for (const char *p = s; *p; ++p) {
    if ((unsigned char) *p < ' ' || *p == 0x7f)
      return bad_cmdline (venue, "has control characters");
    words += *p != ' ' && (p == s || p[-1] == ' ');
  }
  return words <= CMDLINE_WORDS_MAX ? 0
    : bad_cmdline (venue, "has more than 128 words");
}

static int
check_path (const struct esp_script_boot *boot,
            const struct esp_script_path *path)
{
  if (path->chain)
    return script_check_url (path->chain, "another server's page");
  if (boot->way == ESP_BOOT_NBDROOT) {
    if (script_check_url (path->kernel, "the kernel's URL") == -1 ||
        (path->initrd &&
         script_check_url (path->initrd, "the initrd's URL") == -1))
      return -1;
    return check_cmdline (boot->venue, path->cmdline);
  }
  if (path->ndisks < 1 || path->ndisks > ESP_SCRIPT_DISKS_MAX) {
    errno = EINVAL;
    esp_error ("venue %s: iPXE boots from 1 to %u disks, not from %zu",
               boot->venue, ESP_SCRIPT_DISKS_MAX, path->ndisks);
    return -1;
  }
  for (size_t i = 0; i < path->ndisks; ++i)
    if (script_check_url (path->disks[i], "a disk's URL") == -1)
      return -1;
  return 0;
}

static int
check_boot (const struct esp_script_boot *boot)
{
  if (boot->npaths == 0 || boot->way == ESP_BOOT_UNSET) {
    errno = EINVAL;
    esp_error ("venue %s: no server can boot it", boot->venue);
    return -1;
  }
  if (boot->initiator &&
      script_check_url (boot->initiator, "the initiator's name") == -1)
    return -1;
  for (size_t i = 0; i < boot->npaths; ++i)
    if (check_path (boot, &boot->paths[i]) == -1)
      return -1;
  return boot->again ? script_check_query (boot->again) : 0;
}

/* The setting NAME in hexadecimal: any bytes, and nothing to be replaced. */
static void
put_setting (FILE *fp, const char *name, const char *value)
{
  fprintf (fp, "set %s:hex ", name);
  for (const char *p = value; *p; ++p)
    fprintf (fp, "%s%02x", p == value ? "" : ":", (unsigned char) *p);
  putc ('\n', fp);
}

static void
put_initiator (FILE *fp, const struct esp_script_boot *boot)
{
  if (boot->initiator)
    fprintf (fp, "set initiator-iqn %s\n", boot->initiator);
  if (boot->chap_user && *boot->chap_user &&
      boot->chap_secret && *boot->chap_secret) {
    put_setting (fp, "username", boot->chap_user);
    put_setting (fp, "password", boot->chap_secret);
  }
  else
    fputs ("clear username ||\nclear password ||\n", fp);
}

static void
put_san (FILE *fp, const struct esp_script_path *path, size_t n)
{
  if (path->ndisks == 1) {
    fprintf (fp, "sanboot %s ||\n", path->disks[0]);
    return;
  }
  for (size_t k = 0; k < path->ndisks; ++k)
    fprintf (fp, "sanhook --drive 0x%zx %s || goto u%zu_%zu\n", 0x80 + k,
             path->disks[k], n, k);
  fputs ("sanboot --keep --drive 0x80 ||\n", fp);
  for (size_t k = path->ndisks; k > 0; --k)
    fprintf (fp, "sanunhook --drive 0x%zx ||\n:u%zu_%zu\n", 0x80 + k - 1, n,
             k - 1);
}

static void
put_kernel (FILE *fp, const struct esp_script_path *path, size_t n)
{
  const char *p = path->cmdline;

  fprintf (fp, "kernel --name linux %s", path->kernel);
  if (path->initrd)
    fputs (" initrd=initrd", fp);       /* for EFI: it finds it by its name */
  while (*(p += strspn (p, " "))) {
    size_t len = strcspn (p, " ");

    putc (' ', fp);
    script_word (fp, p, len);
    p += len;
  }
  fprintf (fp, " || goto f%zu\n", n);
  if (path->initrd)
    fprintf (fp, "initrd --name initrd %s || goto u%zu\n", path->initrd, n);
  fputs ("boot linux ||\n", fp);
  if (path->initrd)
    fprintf (fp, "imgfree initrd ||\n:u%zu\n", n);
  fputs ("imgfree linux ||\n", fp);
}

/* Its script runs in ours, and comes back when it failed; settings are one
 * for all scripts.
 */
static void
put_chain (FILE *fp, const struct esp_script_page *page,
           const struct esp_script_path *path)
{
  fprintf (fp, "chain --autofree %s ||\nset u %s\n", path->chain, page->url);
}

static int
put_path (FILE *fp, const struct esp_script_page *page,
          const struct esp_script_boot *boot, size_t n)
{
  const struct esp_script_path *path = &boot->paths[n];
  CLEANUP_FREE char *line = NULL;

  if (script_line (fp, "echo Server", path->server) == -1)
    return -1;
  if (path->chain)
    put_chain (fp, page, path);
  else if (boot->way == ESP_BOOT_NBDROOT)
    put_kernel (fp, path, n);
  else {
    if (boot->way == ESP_BOOT_ISCSI && (n == 0 || path[-1].chain))
      put_initiator (fp, boot);
    put_san (fp, path, n);
  }
  if (asprintf (&line, "%s could not boot this machine", path->server) == -1) {
    line = NULL;
    return -1;
  }
  fprintf (fp, ":f%zu\n", n);
  return script_line (fp, "echo", line);
}

static int
put_boot (FILE *fp, const struct esp_script_page *page,
          const struct esp_script_boot *boot)
{
  CLEANUP_FREE char *name = esp_ascii_line (boot->venue, boot->description,
                                            60);
  CLEANUP_FREE char *as = NULL;
  int r;

  if (!name || asprintf (&as, "as %s", boot->client) == -1) {
    as = NULL;
    return -1;
  }
  r = script_line (fp, "echo", page->title);
  if (r == 0)
    r = script_line (fp, "echo Venue", name);
  if (r == 0)
    r = script_line (fp, "echo", as);
  for (size_t i = 0; i < boot->npaths && r == 0; ++i)
    r = put_path (fp, page, boot, i);
  if (!boot->again) {
    fputs ("exit 1\n", fp);
    return r;
  }
  fprintf (fp, ":failed\necho Once more in %u seconds\n", boot->pause);
  script_pause (fp, page, boot->pause);
  script_chain (fp, boot->again);
  fputs (" || goto failed\n", fp);
  return r;
}

char *
esp_script_boot (const struct esp_script_page *page,
                 const struct esp_script_boot *boot)
{
  CLEANUP_SCRIPT struct script s = { 0 };

  if (check_boot (boot) == -1 || script_begin (&s, page) == -1)
    return NULL;
  return script_end (&s, put_boot (s.fp, page, boot));
}
