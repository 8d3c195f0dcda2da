# Shared by the shell scripts of this directory: paths, and the form of messages.
#
# SPDX-License-Identifier: GPL-2.0-or-later

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# -p DIRECTORY, first: the patches in that directory are for another project than
# QEMU. The directory has the same form, and scripts/DIRECTORY.conf describes the project.
project=$top project_name=qemu default_build=$top/build option_p=
if [ "${1:-}" = -p ]; then
    project=$top/$2 project_name=$2 default_build=$top/work/build-$2 option_p="-p $2 "
    shift 2
fi

cache=${EGM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/acpi-egm-memory}

say()  { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die MESSAGE [HINT...]: the first line names the problem, the others the remedy.
die_status=1
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit $die_status
}

# Debian strips firmware from QEMU's source; it comes from these packages:
# qemu-system-data and seabios (optional), ipxe-qemu.
firmware_options=(
    --disable-install-blobs
    --firmwarepath=share/qemu-firmware:/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu
)

# link_firmware: in a build tree QEMU looks for firmware below qemu-bundle/ only
link_firmware() {
    local dir
    for dir in /usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu; do
        if [ -d $dir ] && [ ! -e "qemu-bundle$dir" ]; then
            mkdir -p "qemu-bundle${dir%/*}"
            ln -sfn $dir "qemu-bundle$dir"
        fi
    done
}

# need_space DIR MIB WHAT: fail before an incomplete tree fills the disk.
need_space() {
    local free
    mkdir -p "$1" || die "cannot create $1"
    free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] ||
        die "$3 needs $2 MiB in $1, only $free MiB are free" \
            "free some space and run the same command again; it continues where it stopped"
}

# seal DIR / sealed DIR: a list of checksums, so that a cut-off or damaged copy
# is noticed and replaced. The unpacked tree is only read.
seal()   { (cd "$1" && find . -type f ! -name '.sealed*' -print0 | sort -z |
                xargs -0 sha256sum > .sealed.new && mv .sealed.new .sealed); }
sealed() { [ -e "$1/.sealed" ] && (cd "$1" && sha256sum --quiet -c .sealed) > /dev/null 2>&1; }

# cross_sysroot ARCH: set sysroot to the root directory that programs for that machine
# (Debian's name) are compiled with, and cross_cflags and cross_ldflags to what the
# compiler needs for it. sysroot is empty if this machine is of that kind
cross_sysroot() {
    sysroot= cross_cflags=() cross_ldflags=()
    [ "$1" = arm64 ] ||
        die "--cross=$1: there is no such machine" "the only one is arm64"
    [ "$(uname -m)" != aarch64 ] || return 0
    command -v aarch64-linux-gnu-gcc > /dev/null ||
        die "there is no compiler for arm64" "apt-get install gcc-aarch64-linux-gnu"
    sysroot=$("$top/scripts/fetch" ${option_p}sysroot)
    # Before the C library of the compiler's package, which can be newer
    cross_cflags=("--sysroot=$sysroot" -isystem "$sysroot/usr/include/aarch64-linux-gnu"
                  -isystem "$sysroot/usr/include")
    cross_ldflags=("--sysroot=$sysroot" "-L$sysroot/usr/lib/aarch64-linux-gnu"
                   "-L$sysroot/lib/aarch64-linux-gnu")
}

# cross_compile ARCH: set cross_prefix to the prefix of its tools' names, and
# cross_options to what QEMU's configure needs to build for that machine
cross_compile() {
    local sysroot cross_cflags cross_ldflags
    cross_sysroot "$1"
    [ -n "$sysroot" ] || return 0
    cross_prefix=aarch64-linux-gnu-
    cross_options=(
        --cross-prefix=$cross_prefix
        "--extra-cflags=${cross_cflags[*]}" "--extra-ldflags=${cross_ldflags[*]}"
    )
    # QEMU's configure reads this value only from the environment.
    export PKG_CONFIG=$sysroot/bin/pkg-config
}
