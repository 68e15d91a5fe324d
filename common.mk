# SPDX-License-Identifier: BSD-3-Clause
# Included by every Makefile.am: flags and rules that stand once.
AM_CFLAGS = $(WARN_CFLAGS) $(SAN_CFLAGS) -fvisibility=hidden
AM_CPPFLAGS = -I$(top_srcdir)/common -I$(top_builddir)
AM_LDFLAGS = $(SAN_CFLAGS)
LIBESPALIER = $(top_builddir)/common/libespalier.la
# Filters of nbdkit, and what they have in common.
FILTER_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/filters $(NBDKIT_CFLAGS)
LIBFILTERS = $(top_builddir)/filters/common/libfilters.la

# Manual pages: NAME.1 from NAME.pod, NAME.8 likewise.
SUFFIXES = .pod .1 .8
POD_RULE = $(AM_V_GEN)$(POD2MAN) --utf8 --stderr --errors=die \
	--center "Espalier" --release "espalier-$(PACKAGE_VERSION)" \
	--name "$(shell echo $(*F) | tr a-z A-Z)"
.pod.1:
	$(POD_RULE) --section 1 $< $@.t && mv $@.t $@
.pod.8:
	$(POD_RULE) --section 8 $< $@.t && mv $@.t $@
