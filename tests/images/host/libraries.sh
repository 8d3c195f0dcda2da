# Shared by the scripts that make an initramfs for the hosts: libraries of programs.
#
# SPDX-License-Identifier: GPL-2.0-or-later

# add_libraries PROGRAM: into $root the libraries that it needs, and those that these
# need, of $sysroot, or of this machine if that is empty; $triplet is their machine's
add_libraries() {
    local name file
    for name in $("$triplet-readelf" -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        [ ! -e "$root/lib/$triplet/$name" ] || continue
        file=$sysroot/lib/$triplet/$name
        [ -e "$file" ] || file=$sysroot/usr/lib/$triplet/$name
        cp -L "$file" "$root/lib/$triplet/$name"
        add_libraries "$file"
    done
}
