# Readers of patches/series. Its lines:
#
#   name.patch        a patch for QEMU's own files, in the order of the series
#       path/file     indented: a new file of ours that travels with that patch
#   local/name.patch  a patch that stays here and is not sent to QEMU
#
# SPDX-License-Identifier: GPL-2.0-or-later

series_patches() { sed -n 's/^\([^#[:space:]][^[:space:]]*\)$/\1/p' "$top/patches/series"; }
series_files()   { sed -n 's/^[[:space:]]\{1,\}\([^#[:space:]]\{1,\}\)$/\1/p' "$top/patches/series"; }

# series_files_of PATCH: the new files that travel with it
series_files_of() {
    awk -v patch="$1" '/^[^#[:space:]]/ { mine = $1 == patch; next }
                       /^[[:space:]]+[^#[:space:]]/ { if (mine) print $1 }' \
        "$top/patches/series"
}

# clone_base TREE DIRECTORY: the base of a merged tree, on a branch "series"; of
# its ten thousand files, those that the series changes
clone_base() {
    git clone -q --shared --no-checkout "$1" "$2" 2> /dev/null
    { echo /scripts/checkpatch.pl
      sed -n 's,^diff --git a/.* b/\(.*\),/\1,p' $(series_patches | sed "s,^,$top/patches/,")
      echo /tests/qtest/bios-tables-test-allowed-diff.h
    } | git -C "$2" sparse-checkout set --no-cone --stdin
    git -C "$2" checkout -q -b series "$(git -C "$1" rev-parse refs/egm/base)"
}
