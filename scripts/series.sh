# Readers of patches/series, and of the port that a base needs. Lines of the
# series:
#
#   layer/name.patch  a patch for QEMU's own files, in the order of the series;
#                     a layer is a series of its own for qemu-devel
#       path/file     indented: a new file of ours that travels with that patch
#   local/name.patch  a patch that stays here and is not sent to QEMU
#
# SPDX-License-Identifier: GPL-2.0-or-later

. "$project/patches/base.conf"

# version_of DIRECTORY: what source this is
version_of() {
    cat "$1/VERSION" 2> /dev/null ||
        sed -n "s/^  version: '\\(.*\\)',$/\\1/p" "$1/meson.build" 2> /dev/null
}

# series_patches [LAYER]: all, or those of a layer
series_patches() {
    awk -v layer="${1:-}" '/^[^#[:space:]]+$/ {
            mine = $1; if (!sub("/[^/]*$", "", mine)) mine = "."
            if (layer == "" || layer == mine) print
        }' "$project/patches/series"
}
# series_layers: what is sent, in order
series_layers() { series_patches | xargs -r dirname | uniq | grep -vx local; }
# series_branch LAYER: where it is kept
series_branch() { echo "series/${1/#./all}"; }
series_files()   { sed -n 's/^[[:space:]]\{1,\}\([^#[:space:]]\{1,\}\)$/\1/p' "$project/patches/series"; }

# series_files_of PATCH: the new files that travel with it
series_files_of() {
    awk -v patch="$1" '/^[^#[:space:]]/ { mine = $1 == patch; next }
                       /^[[:space:]]+[^#[:space:]]/ { if (mine) print $1 }' \
        "$project/patches/series"
}

# find_port VERSION: the newest port that is not newer than this base, if any
find_port() {
    local port
    for port in $(ls "$project/ports" 2> /dev/null | sort -rV); do
        if printf '%s\n%s\n' "$port" "$1" | sort -VC; then
            echo "$project/ports/$port"
            return
        fi
    done
}

# diff_paths FILE...: the files that these patches change
diff_paths() { sed -n 's,^diff --git a/.* b/\(.*\)$,\1,p' "$@"; }

# diff_of PATH: from a patch on stdin, the part that changes this file
diff_of() { awk -v line="diff --git a/$1 b/$1" '/^diff --git / { on = $0 == line } on'; }

# diff_id PATH: the same as a number that line numbers have no part in
diff_id() { diff_of "$1" | git patch-id --stable | cut -c 1-12; }

# apply_patch PORT PATCH COMMAND...: give git-apply COMMAND what PATCH changes.
# For the files that the port's patch of that name replaces, it says what.
apply_patch() {
    local common=$project/patches/$2 own=$1/patches/$2 path id exclude=()
    shift 2
    if [ ! -e "$own" ]; then
        "$@" --allow-empty "$common"
        return
    fi
    while read -r path id; do
        if [ "$(diff_id "$path" < "$common")" != "$id" ] && [ -z "${take_stale:-}" ]; then
            echo "error: ${own#"$top"/} replaces an older diff of $path" >&2
            return 1
        fi
        exclude+=("--exclude=$path")
    done < <(sed -n 's/^Replaces: //p' "$own")
    "$@" --allow-empty "${exclude[@]}" "$common" && "$@" --allow-empty "$own"
}

# tree_of BUILD-DIRECTORY: the merged tree that it builds
tree_of() {
    local tree
    tree=$(sed -n 's/.*"source": "\([^"]*\)".*/\1/p' \
               "$1/meson-info/meson-info.json" 2> /dev/null) && [ -d "$tree" ] ||
        die "$1 is not configured" "run make"
    echo "$tree"
}

# clone_base TREE DIRECTORY: the base of a merged tree, on branch "base"; of its ten
# thousand files, those that the series changes
clone_base() {
    git clone -q --shared --no-checkout "$1" "$2" 2> /dev/null
    { echo /scripts/checkpatch.pl
      git -C "$1" diff --name-only refs/egm/base refs/egm/merged | sed 's,^,/,'
      echo /tests/qtest/bios-tables-test-allowed-diff.h
    } | git -C "$2" sparse-checkout set --no-cone --stdin
    git -C "$2" checkout -q -b base "$(git -C "$1" rev-parse refs/egm/base)"
}
