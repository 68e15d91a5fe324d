/* SPDX-License-Identifier: BSD-3-Clause */
/* Inputs of the fuzzers of binary files are changes of a sound file, so
 * that the fuzzer need not guess it: first a byte of flags, then records:
 * where (3 bytes: the highest one chooses a part of the file), how many
 * bytes (1: its low 3 bits and 1), and the bytes.
 */

#ifndef ESPALIER_FUZZ_PATCH_H
#define ESPALIER_FUZZ_PATCH_H

#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"
#include "util/file.h"

enum {
  PATCH_SEAL = 1,               /* make the checksums right again */
  PATCH_CUT = 2,                /* the first record's place: the new length */
};

/* A part of the file. */
struct part { size_t at, len; };

static char patch_dir[200];
static int patch_dirfd = -1;

static inline void
patch_remove (void)
{
  close (patch_dirfd);
  esp_remove_tree (AT_FDCWD, patch_dir);
}

/* A directory for this process, removed at its end. */
static inline void
patch_begin (void)
{
  const char *base = getenv ("TMPDIR");

  snprintf (patch_dir, sizeof patch_dir, "%s/espalier-fuzz-XXXXXX",
            base ? base : "/tmp");
  FUZZ_REQUIRE (mkdtemp (patch_dir));
  patch_dirfd = open (patch_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  FUZZ_REQUIRE (patch_dirfd >= 0);
  atexit (patch_remove);
}

/* Apply DATA's records to FILE.  *LEN gets shorter with PATCH_CUT. */
static inline void
patch_apply (uint8_t *file, size_t *len, const struct part *parts,
             unsigned nparts, const uint8_t *data, size_t size)
{
  bool cut = size > 0 && data[0] & PATCH_CUT;
  size_t cut_at = *len, i = 1;

  while (i + 4 <= size) {
    const struct part *p = &parts[data[i + 2] % nparts];
    size_t at = p->at + (data[i] | data[i + 1] << 8) % p->len;
    size_t n = (data[i + 3] & 7) + 1;

    i += 4;
    if (cut) {
      cut_at = at;
      cut = false;
      continue;
    }
    for (; n > 0 && i < size && at < *len; --n)
      file[at++] = data[i++];
  }
  *len = cut_at;
}

/* FILE as "x" in the directory. */
static inline void
patch_write (const uint8_t *file, size_t len)
{
  int fd = openat (patch_dirfd, "x", O_RDWR | O_CREAT | O_TRUNC, 0644);

  FUZZ_REQUIRE (fd >= 0);
  FUZZ_REQUIRE (esp_pwrite_all (fd, file, len, 0) == 0);
  close (fd);
}

#endif /* ESPALIER_FUZZ_PATCH_H */
