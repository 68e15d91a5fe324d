# SPDX-License-Identifier: BSD-3-Clause
# Included by every Makefile.am: flags and rules that stand once.
AM_CFLAGS = $(WARN_CFLAGS) $(SAN_CFLAGS) -fvisibility=hidden
AM_CPPFLAGS = -I$(top_srcdir)/common -I$(top_builddir)
AM_LDFLAGS = $(SAN_CFLAGS)
LIBESPALIER = $(top_builddir)/common/libespalier.la
