# Readers of patches/series, and git in the tree that is made of the patches. Lines of
# the series:
#
#   layer/name.patch  a patch for QEMU's own files, in the order of the series;
#                     a layer is a series of its own for qemu-devel
#       path/file     indented: a new file of ours that travels with that patch
#   local/name.patch  a patch that stays here and is not sent to QEMU
#
# SPDX-License-Identifier: GPL-2.0-or-later

. "$top/scripts/${project_name}.conf"
series=$project/patches/series

# version_of DIRECTORY: the version of the source in it
version_of() {
    cat "$1/VERSION" 2> /dev/null ||
        sed -n "s/^  version: '\\(.*\\)',$/\\1/p" "$1/meson.build" 2> /dev/null
}

# port_of VERSION: the directory with the patches of this base that replace common ones,
# or nothing. It is the port of the newest base that is not newer than VERSION. A version
# whose last number is 50 or more is a step towards the next release; after x.2, this is
# x+1.0.
port_of() {
    local version=$1 parts
    IFS=. read -ra parts <<< "$1"
    if [[ ${parts[2]:-0} =~ ^[0-9]+$ ]] && [ "${parts[2]:-0}" -ge 50 ]; then
        version=${parts[0]}.$((parts[1] + 1))
        [ "${parts[1]}" -lt 2 ] || version=$((parts[0] + 1)).0
    fi
    { echo "$base_common"; ls "$project/patches" | sed -n '/^[0-9.]*$/p'; } | sort -rV |
        while read -r base; do
            printf '%s\n%s\n' "$base" "$version" | sort -VC || continue
            [ "$base" = "$base_common" ] || echo "$project/patches/$base"
            break
        done
}

# series_patches [LAYER]: all, or those of a layer
series_patches() { sed -n "s,^\\(${1:-[^#[:space:]]*}/[^[:space:]]*\\)\$,\\1,p" "$series"; }
# series_layers: the layers that are sent to the project, in order
series_layers()  { series_patches | xargs -r dirname | uniq | grep -vx local; }
series_files()   { sed -n 's/^[[:space:]]\{1,\}\([^#[:space:]]\{1,\}\)$/\1/p' "$series"; }
# series_files_of PATCH: the new files that travel with it
series_files_of() {
    awk -v patch="$1" '/^[^#[:space:]]/ { mine = $1 == patch; next }
                       /^[[:space:]]+[^#[:space:]]/ { if (mine) print $1 }' "$series"
}

# patch_of NAME, file_of NAME: the path of a patch, or of a file of ours, for $port
patch_of() { if [ -e "$port/$1" ]; then echo "$port/$1"; else echo "$project/patches/$1"; fi; }
file_of()  { if [ -e "$port/$1" ]; then echo "$port/$1"; else echo "$project/$1"; fi; }

# mails: all patches for $port, in order. The first one changes our own files.
mails() {
    [ ! -e "$port/own-files.patch" ] || echo "$port/own-files.patch"
    series_patches | while read -r name; do patch_of "$name"; done
}

# copies: our own files that are not links in the tree, because $port changes them, or
# because the project's checks accept regular files only
copies() {
    [ ! -e "$port/own-files.patch" ] || diff_paths "$port/own-files.patch"
    [ -z "${base_copies:-}" ] || series_files | grep -E "$base_copies" || true
}

# diff_paths FILE...: the files that these patches change
diff_paths() { sed -n 's,^diff --git a/.* b/\(.*\)$,\1,p' "$@"; }

# mail_id FILE: a checksum of its message and its changes, without line numbers
mail_id() {
    { sed '1,3d; /^diff --git /Q' "$1"; git patch-id --verbatim < "$1" | cut -d ' ' -f 1; } |
        sha1sum | cut -c 1-12
}

# inputs: a checksum of the patches, and of the originals of copies
inputs() {
    { mails; copies | sed "s,^,$project/,"; } | xargs -r cat 2> /dev/null | sha1sum
}

# tree_of BUILD-DIRECTORY: the tree that it builds
tree_of() {
    sed -n 's/.*"source": "\([^"]*\)".*/\1/p' "$1/meson-info/meson-info.json" 2> /dev/null |
        grep . || die "$1 is not configured" "run make"
}

# in_tree GIT-ARGUMENT...: git in $tree, as the author of all patches, at a fixed date, and
# without the user's configuration, so that the same content gives the same commits and mails
in_tree() {
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
    GIT_AUTHOR_NAME=$author GIT_AUTHOR_EMAIL= GIT_AUTHOR_DATE='1970-01-01T00:00:00Z' \
    GIT_COMMITTER_NAME=$author GIT_COMMITTER_EMAIL= GIT_COMMITTER_DATE='1970-01-01T00:00:00Z' \
        git -C "$tree" -c safe.directory='*' -c gc.auto=0 -c core.autocrlf=false -c advice.detachedHead=false "$@"
}
author=acpi-egm-memory

# saved: are all changes of $tree also in patches/? After an interrupted run, files can
# already belong to the next state.
saved() {
    in_tree diff --quiet refs/egm/saved -- && [ "$(in_tree rev-parse HEAD)" = "$(in_tree rev-parse refs/egm/saved)" ] ||
    { in_tree rev-parse -q --verify refs/egm/next > /dev/null &&
      [ -z "$(comm -12 <(in_tree diff --name-only refs/egm/saved -- | sort) \
                       <(in_tree diff --name-only refs/egm/next -- | sort))" ]; }
}

# scratch_clone TREE DIRECTORY: clone TREE; the work tree has only the files that patches
# touch
scratch_clone() {
    git clone -q --shared --no-checkout "$1" "$2"
    { git -C "$1" diff --name-only base HEAD; mails | xargs -r cat 2> /dev/null | diff_paths || true
      printf '%s\n' scripts/checkpatch.pl tests/qtest/bios-tables-test-allowed-diff.h
    } | sed 's,^,/,' | git -C "$2" sparse-checkout set --no-cone --stdin
}

# lock: one at a time in this checkout
lock() { exec 8< "$top"; flock -n 8 || { say "waiting for another run" >&2; flock 8; }; }
