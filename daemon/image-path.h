/* SPDX-License-Identifier: BSD-3-Clause */
/* Paths inside images, and what GRUB's file systems say of them.  Pure. */

#ifndef ESPALIERD_IMAGE_PATH_H
#define ESPALIERD_IMAGE_PATH_H

#include <stdbool.h>
#include <stddef.h>

#define IMAGE_PATH_MAX 1024     /* with the NUL */
#define IMAGE_DEVICE_MAX 80

/* "image:/boot/vmlinuz", "image:(msdos1)/vmlinuz". */
struct image_path {
  char device[IMAGE_DEVICE_MAX];        /* as grub-fstest has it,
                                         * "(loop0,msdos1)"; "": any */
  char path[IMAGE_PATH_MAX];            /* begins with '/' */
};

/* Does SPEC begin with "image:"? */
extern bool image_path_is (const char *spec);
/* Parse SPEC.  Devices are (disk), a partition (1), (msdos1), (gpt2), or
 * (lvm/GROUP-VOLUME): nothing with which GRUB would leave the image.  -1 with
 * EINVAL, reported.
 */
extern int image_path_parse (const char *spec, struct image_path *out);

/* Call FN for each device in TEXT, the output of `ls', that is in the image.  FN
 * returns 0 to go on; another value ends it and is returned.
 */
extern int image_each_device (const char *text,
                              int (*fn) (void *arg, const char *device),
                              void *arg);
/* Is NAME in LIST, the output of `ls DIR/' (names with blanks between)? */
extern bool image_list_has (const char *list, const char *name);
/* The newest kernel "vmlinuz-VERSION" of LIST, by its version; "" where there
 * is none.  BELOW: only those older than that version; NULL: any.
 */
extern const char *image_newest_kernel (const char *list, const char *below,
                                        char version[256]);

#endif /* ESPALIERD_IMAGE_PATH_H */
