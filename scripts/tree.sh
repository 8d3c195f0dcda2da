# Making a merged tree: $tree, of $base_name $version, with $port or without.
#
# SPDX-License-Identifier: GPL-2.0-or-later

# in_tree GIT-ARGUMENT...: git in $tree, with no one's identity and settings
in_tree() {
    git -C "$tree" -c user.name=acpi-egm-memory -c user.email= -c gc.auto=0 \
        -c core.autocrlf=false -c advice.detachedHead=false "$@"
}

# commit TREE-ID PARENT MESSAGE-FILE: with a fixed date, so that the same
# content gives the same commit
commit() {
    GIT_AUTHOR_DATE='1970-01-01T00:00:00Z' GIT_COMMITTER_DATE='1970-01-01T00:00:00Z' \
        in_tree commit-tree "$1" ${2:+-p "$2"} -F "$3"
}

# new_tree: an empty one, marked as ours
new_tree() {
    need_space "$top" 1500 "the merged tree"
    git init -q "$tree"
    : > "$tree/.git/egm-tree"
    in_tree config user.name acpi-egm-memory
    in_tree config user.email ''
    in_tree config gc.auto 0
}

# import_base DIRECTORY: the source in it becomes a commit, whose id is printed.
# The index keeps its time stamps: a second import only looks at them. Files are
# named one by one, because 'git add' takes no files of a repository in it, such
# as meson's subprojects.
import_base() {
    local index=$tree/.git/base-index
    base_git() {
        GIT_INDEX_FILE=$index in_tree --git-dir="$tree/.git" --work-tree="$1" -C "$@"
    }
    base_git "$1" ls-files -z --deleted | base_git "$1" update-index -z --remove --stdin
    (cd "$1" && find . -mindepth 1 \
         \( -name .git -o -path ./build -o -path './build-*' ! -path './build-aux*' \) -prune \
         -o ! -type d ! -path ./.sealed -printf '%P\0') |
        grep -zvE "^(${base_untracked:-})/" |
        base_git "$1" update-index -z --add --stdin
    commit "$(base_git "$1" write-tree)" "" \
        <(echo "base: $base_name $(version_of "$1")")
}

# What the merged tree is made of, besides the base
inputs() {
    local directories=("$project/patches")
    [ -z "$port" ] || [ ! -d "$port/patches" ] || directories+=("$port/patches")
    { find "${directories[@]}" \( -name '*.patch' -o -name series \) -print0 | sort -z
      # the originals of copies
      [ ! -d "$tree/.git/egm-files" ] ||
          (cd "$tree/.git/egm-files" && find . -type f -printf "$project/%P\\0" | sort -z)
    } | xargs -0 cat 2> /dev/null | sha256sum
}

# edited_files: our files that are copies in the tree and were edited there
edited_files() {
    local file
    for file in $(series_files); do
        if [ -f "$tree/$file" ] && [ ! -L "$tree/$file" ] &&
           ! cmp -s "$tree/$file" "$tree/.git/egm-files/$file"; then
            echo "$file"
        fi
    done
}

# remember: the copies and what the tree is made of, to notice changes
remember() {
    local file
    rm -rf "$tree/.git/egm-files"
    for file in $(series_files); do
        [ -L "$tree/$file" ] || [ ! -f "$tree/$file" ] ||
            install -D -m 644 "$tree/$file" "$tree/.git/egm-files/$file"
    done
    inputs > "$tree/.git/egm-inputs"
}

# place_files: our own files. Links to this checkout, or to the port if it has one
# of that name; those with other lines in the port's files.patch become copies.
# What was placed before and is gone is removed.
place_files() {
    local scratch file old link source
    scratch=$(mktemp -d)
    if [ -n "$port" ] && [ -e "$port/files.patch" ]; then
        (cd "$project" && cp --parents $(diff_paths "$port/files.patch") "$scratch")
        patch -d "$scratch" -p1 -F0 -s --no-backup-if-mismatch \
            < "$port/files.patch" > "$scratch/log" || {
            source=$(head -n 1 "$scratch/log")
            rm -rf "$scratch"
            die "${port#"$top"/}/files.patch does not apply" "$source"
        }
    fi
    for old in $(cat "$tree/.git/egm-links" 2> /dev/null); do
        series_files | grep -qxF "$old" || rm -rf "${tree:?}/$old"
    done
    for file in $(series_files); do
        [ -e "$project/$file" ] || die "patches/series names $file, which does not exist"
        ! in_tree cat-file -e "HEAD:$file" 2> /dev/null ||
            die "$base_name $version has a file $file of its own"
        mkdir -p "$(dirname "$tree/$file")"
        if [ -e "$scratch/$file" ]; then
            if [ -L "$tree/$file" ] || ! cmp -s "$scratch/$file" "$tree/$file"; then
                cp --remove-destination "$scratch/$file" "$tree/$file"
            fi
            continue
        fi
        source=$project/$file
        [ -z "$port" ] || [ ! -e "$port/$file" ] || source=$port/$file
        link=$(realpath -m --relative-to="$(dirname "$tree/$file")" "$source")
        [ "$(readlink "$tree/$file" || true)" = "$link" ] || ln -sfn "$link" "$tree/$file"
    done
    rm -rf "$scratch"
    [ -z "${base_link:-}" ] || ln -sfn "$(realpath --relative-to="$tree" "$project")" "$tree/$base_link"
    series_files > "$tree/.git/egm-links"
    { series_files; echo "${base_untracked:-}"; echo "${base_link:-}"; } | sed 's,^.,/&,' > "$tree/.git/info/exclude"
    remember
}
