/* SPDX-License-Identifier: BSD-3-Clause */
/* Paths inside images: what is passed to GRUB stays in the image. */

#include "unit.h"

#include "daemon/image-path.h"

static void
check_good (const char *spec, const char *device, const char *path)
{
  struct image_path p;

  assert_int_equal (image_path_parse (spec, &p), 0);
  assert_string_equal (p.device, device);
  assert_string_equal (p.path, path);
}

static void
test_good (void **state)
{
  (void) state;
  check_good ("image:/boot/vmlinuz", "", "/boot/vmlinuz");
  check_good ("image:(disk)/vmlinuz", "(loop0)", "/vmlinuz");
  check_good ("image:(msdos1)/vmlinuz", "(loop0,msdos1)", "/vmlinuz");
  check_good ("image:(2)/a b", "(loop0,2)", "/a b");
  check_good ("image:(gpt12)/größe", "(loop0,gpt12)", "/größe");
  check_good ("image:(msdos2,bsd1)/x", "(loop0,msdos2,bsd1)", "/x");
  check_good ("image:(lvm/vg--1-root)/x", "(lvm/vg--1-root)", "/x");
}

static void
test_bad (void **state)
{
  static const char *const bad[] = {
    "", "/boot/vmlinuz", "image:", "image:/", "image:vmlinuz", "image:()/x",
    "image:(host)/etc/passwd", "image:(hd0)/x", "image:(hd0,msdos1)/x",
    "image:(proc)/x", "image:(loop0)/x", "image:(memdisk)/x",
    "image:(msdos1", "image:(msdos1)", "image:(msdos1)x", "image:(msdos1)/",
    "image:(msdos)/x", "image:(msdos1234)/x", "image:(1,)/x", "image:(,1)/x",
    "image:(1)(host)/x", "image:/boot/(host)/x", "image:(lvm/)/x",
    "image:(lvm/a/b)/x", "image:(lvm/../b)/x", "image:(lvm/a b)/x",
    "image:/a\nb", "image:/a\x7f", "image:/'a'", "image:/\"a\"",
    "image:/a\\b", "image:((host))/x", "image:(gpt1)(host)/x",
  };
  struct image_path p;
  char why[256];

  (void) state;
  esp_catch_errors (why, sizeof why);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    why[0] = 0;
    if (image_path_parse (bad[i], &p) == 0)
      fail_msg ("taken: %s", bad[i]);
    assert_string_not_equal (why, "");
  }
  esp_catch_errors (NULL, 0);
}

static void
test_long (void **state)
{
  char spec[3000] = "image:/", why[256] = "";
  struct image_path p;

  (void) state;
  memset (spec + 7, 'a', IMAGE_PATH_MAX - 2);
  check_good (spec, "", spec + 6);
  spec[7 + IMAGE_PATH_MAX - 2] = 'a';
  esp_catch_errors (why, sizeof why);
  assert_int_equal (image_path_parse (spec, &p), -1);
  strcpy (spec, "image:(lvm/");
  memset (spec + 11, 'a', 200);
  strcpy (spec + 211, ")/x");
  assert_int_equal (image_path_parse (spec, &p), -1);
  esp_catch_errors (NULL, 0);
}

static int
join (void *arg, const char *device)
{
  strcat (arg, device);
  return 0;
}

static void
test_devices (void **state)
{
  char got[200] = "";

  (void) state;
  image_each_device ("(proc) (loop0) (loop0,gpt2) (host) (lvm/vg-root) (hd0)\n"
                     "(loop1) (md/0) (loop0", join, got);
  assert_string_equal (got, "(loop0)(loop0,gpt2)(lvm/vg-root)(md/0)");
}

static void
test_kernels (void **state)
{
  static const char list[] =
    "vmlinuz-6.1.0-9-amd64 config-6.1.0-40-amd64 vmlinuz-6.1.0-40-amd64 "
    "vmlinuz vmlinuz-0-rescue-0123 vmlinuz-6.2.old vmlinuz-9/ vmlinuz- grub/ ";
  char version[256], below[256];

  (void) state;
  assert_string_equal (image_newest_kernel (list, NULL, version),
                       "6.1.0-40-amd64");
  strcpy (below, version);
  assert_string_equal (image_newest_kernel (list, below, version),
                       "6.1.0-9-amd64");
  strcpy (below, version);
  assert_string_equal (image_newest_kernel (list, below, version), "");
  assert_string_equal (image_newest_kernel ("", NULL, version), "");
  assert_true (image_list_has (list, "vmlinuz"));
  assert_false (image_list_has (list, "vmlinu"));
  assert_false (image_list_has (list, "grub"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_good),
    cmocka_unit_test (test_bad),
    cmocka_unit_test (test_long),
    cmocka_unit_test (test_devices),
    cmocka_unit_test (test_kernels),
  };
  return cmocka_run_group_tests (tests, NULL, NULL);
}
