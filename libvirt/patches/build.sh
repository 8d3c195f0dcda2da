# How libvirt is configured and tested: the build here, and those of the series.
#
# SPDX-License-Identifier: GPL-2.0-or-later

# The QEMU driver with its security drivers, the daemons and virsh. Without
# optimization and debug information the build takes half the time.
daemon_options=(
    -Doptimization=0 -Ddebug=false -Dauto_features=disabled
    -Ddriver_qemu=enabled -Ddriver_libvirtd=enabled -Ddriver_remote=enabled
    -Djson_c=enabled -Dlibnl=enabled -Dcapng=enabled -Dattr=enabled
    -Dselinux=enabled -Dsecdriver_selinux=enabled
    -Dapparmor=enabled -Dsecdriver_apparmor=enabled -Dapparmor_profiles=enabled
    -Dqemu_user=root -Dqemu_group=root
)
# The manual as well, and all tests but the slow ones
configure_options=(
    "${daemon_options[@]}" -Dtests=enabled -Dexpensive_tests=disabled -Ddocs=enabled
)

# configure_source SOURCE: in the current directory, if that is not done yet
configure_source() {
    [ ! -e build.ninja ] || return 0
    cp -rp "$tree/$base_untracked" "$1" &&
    PATH=/usr/bin:$PATH meson setup . "$1" "${configure_options[@]}"
}

# run_tests: build all, and run libvirt's own tests, ours among them, and its checks
# of style
run_tests() {
    nice ninja > "$log" 2>&1 || failed "does not build"
    meson test --timeout-multiplier 0 --quiet --print-errorlogs \
        > "$log" 2>&1 || failed "tests fail"
    what="tests: $(wc -l < meson-logs/testlog.json)"
}
