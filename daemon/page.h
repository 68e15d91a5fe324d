/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /: the page for people, which is in the program itself. */

#ifndef ESPALIERD_PAGE_H
#define ESPALIERD_PAGE_H

#include "http.h"

/* A file of daemon/page/; page-data.c is made of them (page/embed). */
struct page_file {
  const char *name, *type;
  const unsigned char *bytes;
  size_t len;
};
extern const struct page_file page_files[];     /* ends with a name of NULL */

extern int page_handle (struct request *r);             /* "/" */
extern int page_file_handle (struct request *r);        /* "/page/NAME" */

#endif /* ESPALIERD_PAGE_H */
