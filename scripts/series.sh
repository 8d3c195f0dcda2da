# Readers of patches/series. Its lines:
#
#   name.patch        a patch for QEMU's own files, in the order of the series
#       path/file     indented: a new file of ours that travels with that patch
#   local/name.patch  a patch that stays here and is not sent to QEMU
#
# SPDX-License-Identifier: GPL-2.0-or-later

series_patches() { sed -n 's/^\([^#[:space:]][^[:space:]]*\)$/\1/p' "$top/patches/series"; }
series_files()   { sed -n 's/^[[:space:]]\{1,\}\([^#[:space:]]\{1,\}\)$/\1/p' "$top/patches/series"; }
